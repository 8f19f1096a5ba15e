"""One forward pass, traced: the last feature map, and the calls that turn it into logits, as a tape.

torch tells a mode of every call that a model makes, whatever the model is made of. So the boundary between features and
head is found in what the model *does*: no names of layers, no hooks, no second implementation to trace, and control
flow runs as it is written. The last map is the last tensor with positions of which something without them is made.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from threading import get_ident
from typing import Any
from weakref import ReferenceType, ref

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.regions.places import Cells, Intervals
from gapstone.runtime.torch_internals import function_modes
from gapstone.tracing import geometry
from gapstone.tracing import operations as ops
from gapstone.tracing.geometry import Geometry
from gapstone.tracing.position_axes import PositionAxes, channel_axis, position_axes
from gapstone.tracing.tape import Tape, TapeStart, tensors
from gapstone.tracing.torch_calls import name_of, read_call

Function = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]

PARTIAL = (ops.Reduce, ops.AdaptivePool)
"""Calls that can be the first of several which together are the pool: a grid, or one axis after the other."""
REDUCERS = (*PARTIAL, ops.RegionPool)
"""Calls that make a vector of a map even where the map is a single cell."""
POWERS = frozenset(["pow", "square", "exp"])
"""Of a generalised mean or a log-sum-exp that the user wrote: the pool begins before them."""
CLAMPS = frozenset(["clamp", "clamp_min"])


@dataclass(frozen=True)
class ModuleEntry:
    """Where a module was called in a forward pass."""

    module: ReferenceType[nn.Module]
    time: int
    """Its first, second, … call."""
    count: int
    """How many torch calls were made before."""


class Tracer(TorchFunctionMode):
    """Runs every torch call made inside it through `call`."""

    def __torch_function__(
        self, func: Function, types: object, args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        raise NotImplementedError

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Trace, and see each module's input and output by torch's hooks for all modules: none is put on the model.

        What other threads call meanwhile is not seen.
        """
        thread = get_ident()

        def begins(module: nn.Module, args: object) -> None:
            if get_ident() == thread:
                self.module_begins(module, args)

        def ends(module: nn.Module, args: object, out: object) -> None:
            if get_ident() == thread:
                self.module_ends(module, args, out)

        hooks = [register_module_forward_pre_hook(begins), register_module_forward_hook(ends)]
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def module_begins(self, module: nn.Module, args: object) -> None:
        """Told of each module that is called within `followed`."""

    def module_ends(self, module: nn.Module, args: object, out: object) -> None:
        """Told of each module's output."""


class HeadTracer(Tracer):
    """Looks for the last map in a forward pass of `images`, and records the calls from there on.

    into, out_of: the module whose input, or output, is the map (of several calls, the last); by default the map is
    located. Where the map is known from an earlier pass, see `TapeRecorder`.
    """

    def __init__(self, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None) -> None:
        super().__init__()
        self.into, self.out_of = into, out_of
        self.named = into is not None or out_of is not None
        self.count = 0
        self.entries: list[ModuleEntry] = []
        """The modules that were called where no other mode was active, in their order."""
        self._modes: int | None = None
        self._times: Counter[nn.Module] = Counter()
        self.tape: Tape | None = None
        self.pending: Tape | None = None
        """Calls that may turn out to be the beginning of a pool."""
        self.reductions: list[str] = []
        """Calls that made a vector of a map: for the error message."""
        self.dims, self.size = images.dim(), tuple(images.shape[2:])
        self.grids: dict[int, tuple[int, ...]] = {}
        """Maps of a grid whose positions were put into one axis of so many: tokens."""
        self.rows: dict[int, tuple[int, ...]] = {}
        """Tokens in a row that stood in a grid before, or do after."""
        # everything that depends on the images, and where its positions lie in them
        self.geometries: Any = WeakTensorKeyDictionary()
        self.geometries[images] = Geometry.of_input(images)
        self.channels: Any = WeakTensorKeyDictionary()
        """Which dimension holds channels, where that is known."""
        self.channels[images] = 1

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        self.count += 1
        inputs = [x for x in tensors((args, kwargs)) if x in self.geometries]
        if not inputs:
            return func(*args, **kwargs)
        op = read_call(name_of(func), args, kwargs)
        located = [(x, place) for x in inputs if (place := self.geometries[x]) is not None]
        # of the first input, before a call in place changes it
        shape, place = inputs[0].shape, self.geometries[inputs[0]]
        rule = geometry.RULES.get(type(op))
        moved = rule(op, *located[0]) if rule and located else None
        out = func(*args, **kwargs)
        outs = tensors(out)
        for y in outs:
            if isinstance(op, ops.Reshape) and located:
                self._flattens(*located[0], y)
                moved = geometry.reshaped(*located[0], y)
            self.geometries[y] = moved if rule or isinstance(op, ops.Reshape) else geometry.same_positions(located, y)
            self.channels[y] = channel_axis(op, inputs, self.channels, y)
        if isinstance(op, ops.Reshape) and len(inputs) == 1:
            self._stands(shape, outs[0].shape)
        if len(inputs) == 1 and isinstance(op, ops.Reshape | ops.Rearrange) and len(outs) == 1:
            self._cut_into_patches(op, shape, outs[0].shape)
        if outs and not self._goes_on(op, func, args, kwargs, inputs, outs) and not self.named:
            self._begins(op, func, args, kwargs, shape, place, inputs[0], outs)
        return out

    def _flattens(self, x: Tensor, place: Geometry, y: Tensor) -> None:
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

    def _cut_into_patches(self, op: ops.Operation, a: Sequence[int], b: Sequence[int]) -> None:
        """(N, C, H, W) become (N, C, h, p, w, p), or by `unfold` (N, C·p·p, h·w): tokens that are patches of a map."""
        if not len(a) == self.dims == 4:
            return
        if isinstance(op, ops.Reshape) and len(b) == 6 and (b[2] * b[3], b[4] * b[5]) == tuple(a[2:]):
            self.rows[b[2] * b[4]] = (b[2], b[4])
        elif op.function == "unfold" and len(b) == 3:
            h = round((b[2] * a[2] / a[3]) ** 0.5)
            if h and b[2] % h == 0 and h * a[3] == b[2] // h * a[2]:  # as many as fit the map's proportions
                self.rows[b[2]] = (h, b[2] // h)

    def position_axes(self, x: Tensor) -> PositionAxes | None:
        """Which dimensions of a tensor of this pass are positions."""
        return position_axes(x, self.geometries.get(x), self.channels.get(x), self.size, self.grids, self.rows)

    def entry(self, number: int) -> ModuleEntry | None:
        """The last module that was called before the call of that number."""
        return next((entry for entry in reversed(self.entries) if entry.count < number), None)

    def module_begins(self, module: nn.Module, args: object) -> None:
        self._times[module] += 1
        modes = function_modes()
        self._modes = self._modes or modes  # at the first module: those around the pass, and this one
        if modes is not None and modes == self._modes:
            self.entries.append(ModuleEntry(ref(module), self._times[module], self.count))
        if module is self.into and isinstance(args, tuple) and args and isinstance(args[0], Tensor):
            self.starts(args[0])

    def module_ends(self, module: nn.Module, args: object, out: object) -> None:
        if module is self.out_of and isinstance(out, Tensor):
            self.starts(out)

    def starts(self, x: Tensor) -> None:
        """The tape starts with a named map; `position_axes` tells its axes when the pass has ended."""
        self.tape = Tape(x, tuple(range(2, x.dim())), self.count + 1, copy=True)

    def _goes_on(self, op: ops.Operation, func: Function, args: Arguments, kwargs: Keywords,
                 inputs: Sequence[Tensor], outs: Sequence[Tensor]) -> bool:  # fmt: skip
        """Whether the call belongs to the tape, which then has it."""
        tape = self.tape
        if tape is None or not any(x in tape for x in inputs):
            return False
        others = [x for x in inputs if x not in tape]
        if not self.named and _is_a_map_again(tape, op, inputs, bool(others), outs[0]):
            self.tape = None
            return False
        if others:
            tape.foreign = f"{name_of(func)}({', '.join(str(tuple(x.shape)) for x in inputs)})"
        tape.record(func, args, kwargs, outs)
        return True

    def _begins(self, op: ops.Operation, func: Function, args: Arguments, kwargs: Keywords, shape: Sequence[int],
                place: Geometry | None, x: Tensor, outs: Sequence[Tensor]) -> None:  # fmt: skip
        axes, located = _axes(op, shape, place), place is not None
        pending = self.pending if self.pending is not None and x in self.pending else None
        if _collapses(op, shape, axes, located or pending is not None, outs[0]):
            self.reductions.append(f"{name_of(func)} of {tuple(shape)} into {tuple(outs[0].shape)}")
            if pending is not None and not all(_is_elementwise(call.operation, CLAMPS) for call in pending.calls):
                self.tape = pending
            else:
                self.tape = Tape(x, axes, self.count, _which(x, args, kwargs))
            self.tape.record(func, args, kwargs, outs)
            self.pending = None
        elif _may_begin(op, located, self.geometries[outs[0]] is not None):
            if pending is None:
                self.pending = pending = Tape(x, axes, self.count, _which(x, args, kwargs))
            pending.record(func, args, kwargs, outs)


class TapeRecorder(Tracer):
    """Records the tape of a pass whose map is known: calls before its start are let through, in under a µs each.

    `tape` stays None if another call than the start's comes at its number. Within `begun_at` not even that is done:
    where a mode is active, torch's Python takes a longer way to each function: 8 to 13 % of EfficientNet-Lite0's pass.
    """

    def __init__(self, start: TapeStart, copy: bool = False) -> None:
        super().__init__()
        self.start, self.copy = start, copy
        self.count = 0
        self.tape: Tape | None = None

    @contextmanager
    def begun_at(self, entry: ModuleEntry | None) -> Iterator[None]:
        """Trace from a module's call on, or all that is called within; `tape` stays None where that call never comes.

        The module has a hook meanwhile, which does nothing in other threads.
        """
        module = None if entry is None else entry.module()
        if entry is None or module is None:
            with self:
                yield
            return
        thread, around, begun, time = get_ident(), function_modes(), False, 0

        def begins(module: nn.Module, args: object) -> None:
            nonlocal begun, time
            if begun or get_ident() != thread:
                return
            time += 1
            # a mode that began within the pass would end the wrong one
            if time == entry.time and function_modes() == around:
                self.count, begun = entry.count, True
                tracing.enter_context(self)

        hook = module.register_forward_pre_hook(begins, prepend=True)
        try:
            with ExitStack() as tracing:
                yield
        finally:
            hook.remove()

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        self.count += 1
        start = self.start
        if self.count < start.number:
            return func(*args, **kwargs)
        if self.count == start.number:
            given = tensors((args, kwargs))
            if name_of(func) == start.name and len(given) > start.which and given[start.which].dim() > max(start.axes):
                self.tape = Tape(given[start.which], start.axes, self.count, start.which, self.copy)
        tape = self.tape
        touched = tape is not None and any(x in tape for x in tensors((args, kwargs)))
        out = func(*args, **kwargs)
        if tape is not None and touched and (outs := tensors(out)):
            tape.record(func, args, kwargs, outs)
        return out


def _is_a_map_again(tape: Tape, op: ops.Operation, inputs: Sequence[Tensor], others: bool, y: Tensor) -> bool:
    """What looked like a head was not: squeeze and excite, or a max pool that happened to leave a single cell."""
    first = tape.calls[0].operation
    if isinstance(op, ops.Convolution) and isinstance(first, ops.WindowPool) and first.function == "max":
        return True
    pools = isinstance(op, (*PARTIAL, ops.Reshape)) or _is_grid(op)
    on_map = any(tape.is_map(x) for x in inputs)
    if on_map and not pools and y.shape == tape.map.shape:
        return True  # excited, also where the map is a single cell
    if y.dim() < 3 or (y.dim() == tape.map.dim() and all(y.shape[axis] == 1 for axis in tape.axes)):
        return False
    if pools and not others:
        return False  # one level of a pyramid
    return others or on_map


def _collapses(op: ops.Operation, shape: Sequence[int], axes: tuple[int, ...], located: bool, y: Tensor) -> bool:
    """Whether a call made something without positions of a map."""
    if len(shape) < 3 or not axes or 0 in axes or not y.dim() or y.shape[0] != shape[0]:
        return False
    if not (y.dim() <= 2 or (y.dim() == len(shape) and all(y.shape[axis] == 1 for axis in axes))):
        return False
    sizes = tuple(shape[axis] for axis in axes)
    if isinstance(op, ops.Slice):
        return False  # a class token
    if isinstance(op, ops.Convolution | ops.WindowPool):
        # a window of the map's own size; a smaller one, padded, may leave a single cell on its way, too
        pads = [p for pair in op.padding for p in pair] if isinstance(op, ops.Convolution) else op.padding
        return prod(sizes) > 1 and op.kernel_size == sizes and not any(pads)
    # of what has lost its places (tokens), only what says itself which axes they are
    if isinstance(op, ops.Reshape):
        return located
    return (prod(sizes) > 1 and located) or isinstance(op, REDUCERS)


def _which(x: Tensor, args: Arguments, kwargs: Keywords) -> int:
    return next(i for i, given in enumerate(tensors((args, kwargs))) if given is x)


def _is_elementwise(op: ops.Operation, functions: frozenset[str]) -> bool:
    return isinstance(op, ops.Elementwise) and op.function in functions


def _may_begin(op: ops.Operation, located: bool, still: bool) -> bool:
    if isinstance(op, ops.Reshape):
        return located and not still  # x.flatten(2).mean(2)
    return isinstance(op, PARTIAL) or _is_elementwise(op, POWERS | CLAMPS) or _is_grid(op)


def _is_grid(op: ops.Operation) -> bool:
    """Whether a call of gapstone's pool cuts the map into a fixed number of cells, whatever its size."""
    if not isinstance(op, ops.RegionPool) or not isinstance(op.place, Intervals) or op.place.axes is None:
        return False
    return all(isinstance(axis, Cells) for axis in op.place.axes)


def _axes(op: ops.Operation, shape: Sequence[int], place: Geometry | None) -> tuple[int, ...]:
    """Which dimensions are positions: as they were followed from the input, else as the call itself says."""
    if place is not None and len(place.axes) == len(shape) - 2:
        return place.axes
    if isinstance(op, ops.Reduce):
        return tuple(sorted(op.dims or ()))
    return tuple(range(2, len(shape)))
