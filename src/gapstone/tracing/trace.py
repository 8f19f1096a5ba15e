"""One forward pass, watched: the last feature map, and the calls that turn it into logits, as a tape.

torch tells a mode of every call that a model makes, whatever the model is made of. So the split between features and
head is found in what the model *does*: no names of layers, no hooks, no second implementation to trace, and control
flow runs as it is written. The last map is the last tensor with positions of which something without them is made.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.loops.places import decode
from gapstone.regions.places import Boxes, Cells
from gapstone.tracing.geometry import RESHAPES, RULES, Field, kept, reshaped
from gapstone.tracing.position_axes import Layout, channel_axis, layout
from gapstone.tracing.tape import SplitError, Tape, tensors

ADAPTIVE = frozenset(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3))
OVER_AXES = frozenset(["mean", "sum", "amax", "max", "amin", "min", "logsumexp"])
"""Calls that are told which axes to reduce."""
REDUCERS = ADAPTIVE | OVER_AXES | RESHAPES | {"pool"}
"""Calls that make a vector of a map even where the map is a single cell."""
PARTIAL = OVER_AXES | ADAPTIVE
"""Calls that can be the first of several which together are the pool: a grid, or one axis after the other."""
POWERS = frozenset(["pow", "__pow__", "pow_", "square", "exp"])
"""Of a generalised mean or a log-sum-exp that the user wrote: the pool begins before them."""
CLAMPS = frozenset(["clamp", "clamp_", "clamp_min", "clip"])


class Watch(TorchFunctionMode):
    """Sees every call of a forward pass of `images`. Where the split is known from an earlier pass, see `Known`."""

    def __init__(self, images: Tensor, named: bool = False) -> None:
        super().__init__()
        self.named = named
        """The user says which module gives the map: `starts` is called with it."""
        self.count = 0
        self.tape: Tape | None = None
        self.pending: Tape | None = None
        """Calls that may turn out to be the beginning of a pool."""
        self.seen: list[str] = []
        """Calls that made a vector of a map: for the error message."""
        self.dims, self.size = images.dim(), tuple(images.shape[2:])
        self.grids: dict[int, tuple[int, ...]] = {}
        """Maps of a grid whose positions were put into one axis of so many: tokens."""
        self.rows: dict[int, tuple[int, ...]] = {}
        """Tokens in a row that stood in a grid before, or do after."""
        # everything that depends on the images, and where its positions lie in them
        self.places: Any = WeakTensorKeyDictionary()
        self.places[images] = Field.of_input(images)
        self.channels: Any = WeakTensorKeyDictionary()
        """Which dimension holds channels, where that is known."""
        self.channels[images] = 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.count += 1
        inputs = [x for x in tensors((args, kwargs)) if x in self.places]
        if not inputs:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        fields = [(x, place) for x in inputs if (place := self.places[x]) is not None]
        # of the first input, before a call in place changes it
        shape, place = inputs[0].shape, self.places[inputs[0]]
        rule = RULES.get(name)
        moved = rule(fields[0][1], fields[0][0], args, kwargs) if rule and fields else None
        out = func(*args, **kwargs)
        outs = tensors(out)
        for y in outs:
            if name in RESHAPES and fields:
                moved = reshaped(fields[0][1], fields[0][0], y)
                self._flattens(fields[0][0], fields[0][1], y)
            self.places[y] = moved if rule or name in RESHAPES else kept(fields, y)
            self.channels[y] = channel_axis(func, name, args, kwargs, inputs, self.channels, y)
        if name in RESHAPES and len(inputs) == 1:
            self._stands(shape, outs[0].shape)
        if outs and not self._goes_on(func, name, args, kwargs, inputs, outs) and not self.named:
            axes = _axes(name, args, kwargs, shape, place)
            self._begins(func, name, args, kwargs, shape, axes, place is not None, inputs[0], outs)
        return out

    def _flattens(self, x: Tensor, place: Field, y: Tensor) -> None:
        sizes = place.sizes(x)
        if len(sizes) > 1 and y.dim() == 3 and prod(sizes) in y.shape[1:]:
            self.grids[prod(sizes)] = sizes

    def _stands(self, a: Sequence[int], b: Sequence[int]) -> None:
        """(N, h·w, C) become (N, h, w, C), or (N, C, h·w) (N, C, h, w), or the other way round: tokens are a grid."""
        row, grid = sorted((a, b), key=len)
        if not len(row) == 3 < len(grid) == 4 == self.dims:
            return
        for axis in (1, 2):
            cells = tuple(grid[axis : axis + 2])
            alike = [*grid[:axis], row[axis], *grid[axis + 2 :]] == list(row)
            # in the picture's proportions: else it may be the heads of an attention
            if alike and row[axis] == cells[0] * cells[1] and cells[0] * self.size[1] == cells[1] * self.size[0]:
                self.rows[row[axis]] = cells

    def layout(self, x: Tensor) -> Layout | None:
        """Which dimensions of a tensor of this pass are positions."""
        return layout(x, self.places.get(x), self.channels.get(x), self.size, self.grids, self.rows)

    def starts(self, x: Tensor) -> None:
        """The map that the user named; its axes are told by `layout` when the pass has ended."""
        self.tape = Tape(x, tuple(range(2, x.dim())), self.count + 1, copy=True)

    def _goes_on(
        self, func: Any, name: str, args: Any, kwargs: Any, inputs: Sequence[Tensor], outs: Sequence[Tensor]
    ) -> bool:
        """Whether the call belongs to the tape, which then has it."""
        tape = self.tape
        if tape is None or not any(x in tape for x in inputs):
            return False
        others = [x for x in inputs if x not in tape]
        if not self.named and self._is_a_map_again(tape, name, args, inputs, bool(others), outs[0]):
            self.tape = None
            return False
        if others:
            tape.foreign = f"{name}({', '.join(str(tuple(x.shape)) for x in inputs)})"
        tape.record(func, name, args, kwargs, outs)
        return True

    def _is_a_map_again(
        self, tape: Tape, name: str, args: Any, inputs: Sequence[Tensor], others: bool, y: Tensor
    ) -> bool:
        """What looked like a head was not: squeeze and excite, or a max pool that happened to leave a single cell."""
        if name.startswith("conv") and tape.calls[0].name.startswith("max_pool"):
            return True
        pools = name in PARTIAL or name in RESHAPES or (name == "pool" and _is_grid(args))
        on_map = any(tape.is_map(x) for x in inputs)
        if on_map and not pools and y.shape == tape.map.shape:
            return True  # excited, also where the map is a single cell
        if y.dim() < 3 or (y.dim() == tape.map.dim() and all(y.shape[axis] == 1 for axis in tape.axes)):
            return False
        if pools and not others:
            return False  # one level of a pyramid
        return others or on_map

    def _begins(
        self, func: Any, name: str, args: Any, kwargs: Any, shape: Sequence[int], axes: tuple[int, ...], located: bool,
        x: Tensor, outs: Sequence[Tensor],
    ) -> None:  # fmt: skip
        pending = self.pending if self.pending is not None and x in self.pending else None
        if _collapses(name, args, kwargs, shape, axes, located or pending is not None, outs[0]):
            self.seen.append(f"{name} of {tuple(shape)} into {tuple(outs[0].shape)}")
            if pending is not None and any(call.name not in CLAMPS for call in pending.calls):
                self.tape = pending
            else:
                self.tape = Tape(x, axes, self.count, _which(x, args, kwargs))
            self.tape.record(func, name, args, kwargs, outs)
            self.pending = None
        elif _may_begin(name, args, located, self.places[outs[0]] is not None):
            if pending is None:
                self.pending = pending = Tape(x, axes, self.count, _which(x, args, kwargs))
            pending.record(func, name, args, kwargs, outs)


class Known(TorchFunctionMode):
    """The same where the split is known: everything before its first call is let through, in under a microsecond each.

    begin, first: the number and name of that call; which: of its tensors is the map; axes: the map's. `tape` stays None
    if it is another call.
    """

    def __init__(self, begin: int, first: str, which: int, axes: tuple[int, ...], copy: bool = False) -> None:
        super().__init__()
        self.begin, self.first, self.which, self.axes, self.copy = begin, first, which, axes, copy
        self.count = 0
        self.tape: Tape | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.count += 1
        if self.count < self.begin:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if self.count == self.begin:
            given = tensors((args, kwargs))
            if name == self.first and len(given) > self.which and given[self.which].dim() > max(self.axes):
                self.tape = Tape(given[self.which], self.axes, self.count, self.which, self.copy)
        tape = self.tape
        touched = tape is not None and any(x in tape for x in tensors((args, kwargs)))
        out = func(*args, **kwargs)
        if tape is not None and touched and (outs := tensors(out)):
            tape.record(func, name, args, kwargs, outs)
        return out


def _collapses(
    name: str, args: Any, kwargs: Any, shape: Sequence[int], axes: tuple[int, ...], located: bool, y: Tensor
) -> bool:
    """Whether a call made something without positions of a map."""
    if len(shape) < 3 or not axes or 0 in axes or not y.dim() or y.shape[0] != shape[0]:
        return False
    if not (y.dim() <= 2 or (y.dim() == len(shape) and all(y.shape[axis] == 1 for axis in axes))):
        return False
    sizes = [shape[axis] for axis in axes]
    if name in ("__getitem__", "select"):
        return False  # a class token
    if name.startswith(("conv", "max_pool", "avg_pool")):
        # a window of the map's own size; a smaller one, padded, may leave a single cell on its way, too
        return prod(sizes) > 1 and _covers(name, args, kwargs, sizes)
    # of what has lost its places (tokens), only what says itself which axes they are
    return (prod(sizes) > 1 and located) or (name in REDUCERS and (located or name not in RESHAPES))


def _which(x: Tensor, args: Any, kwargs: Any) -> int:
    return next(i for i, one in enumerate(tensors((args, kwargs))) if one is x)


def _covers(name: str, args: Any, kwargs: Any, sizes: Sequence[int]) -> bool:
    place = 4 if name.startswith("conv") else 3
    padding = args[place] if len(args) > place else kwargs.get("padding", 0)
    if isinstance(padding, str):
        padding = 0 if padding == "valid" else 1
    if any(padding if isinstance(padding, Sequence) else [padding]):
        return False
    if name.startswith("conv"):
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        return isinstance(weight, Tensor) and list(weight.shape[2:]) == list(sizes)
    size = args[1] if len(args) > 1 else kwargs.get("kernel_size")
    return [size] * len(sizes) == list(sizes) if isinstance(size, int) else list(size or ()) == list(sizes)


def _may_begin(name: str, args: Any, located: bool, still: bool) -> bool:
    if name in PARTIAL or name in POWERS or name in CLAMPS:
        return True
    if name in RESHAPES:
        return located and not still  # x.flatten(2).mean(2)
    return name == "pool" and _is_grid(args)


def _is_grid(args: Any) -> bool:
    """Whether a call of gapstone's pool cuts the map into a fixed number of cells, whatever its size."""
    place = decode(args[3], args[4])
    return isinstance(place, Boxes) and place.axes is not None and all(isinstance(a, Cells) for a in place.axes)


def _axes(name: str, args: Any, kwargs: Any, shape: Sequence[int], place: Field | None) -> tuple[int, ...]:
    """Which dimensions are positions: as they were followed from the input, else as the call itself says."""
    if place is not None and len(place.axes) == len(shape) - 2:
        return place.axes
    if name in OVER_AXES:
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        dims = dims if isinstance(dims, Sequence) else (dims,)
        return tuple(sorted(d % len(shape) for d in dims if isinstance(d, int)))
    return tuple(range(2, len(shape)))


__all__ = ["Known", "SplitError", "Watch"]
