"""One forward pass, watched: the last feature map, and the calls that turn it into logits, as a tape.

torch tells a mode of every call that a model makes, whatever the model is made of. So the split between features and
head is found in what the model *does*: no names of layers, no hooks, no second implementation to trace, and control
flow runs as it is written. The last map is the last tensor with positions of which something without them is made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.loops.places import decode
from gapstone.maps.geometry import RESHAPES, RULES, Field, kept, reshaped
from gapstone.regions.places import Boxes, Cells

REDUCERS = frozenset(
    [
        *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
        *("mean", "sum", "amax", "max", "logsumexp", "flatten", "reshape", "view", "pool"),
    ]
)
"""Calls that make a vector of a map even where the map is a single cell."""


PARTIAL = frozenset(["mean", "sum", "amax", "max", "logsumexp", *(f"adaptive_avg_pool{n}d" for n in (1, 2, 3))])
"""Calls that can be the first of several which together are the pool: a grid, or one axis after the other."""
POWERS = frozenset(["pow", "__pow__", "pow_", "square", "exp"])
"""Of a generalised mean or a log-sum-exp that the user wrote: the pool begins before them."""
CLAMPS = frozenset(["clamp", "clamp_", "clamp_min", "clip"])


class SplitError(ValueError):
    """The model's last feature map, and what follows it, could not be told."""


@dataclass(frozen=True)
class Slot:
    """In a tape: the tensor made by an earlier call; 0 is the map."""

    number: int


@dataclass(frozen=True)
class Call:
    function: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slots: tuple[int, ...]
    """Of the tensors it gave."""

    @property
    def takes(self) -> tuple[int, ...]:
        return tuple(part.number for part in leaves((self.args, self.kwargs)) if isinstance(part, Slot))


@dataclass
class Tape:
    """What happens from the map on. It holds the tensors it saw, so it is made anew for every forward pass."""

    map: Tensor
    axes: tuple[int, ...]
    """Which dimensions of the map are positions."""
    begin: int
    """The number of its first call in the forward pass."""
    calls: list[Call] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    """By slot."""
    foreign: str | None = None
    """A call that brings in something of the image which did not come through the map."""
    slots: dict[int, int] = field(default_factory=dict)
    """By the identity of a tensor, which `values` keeps alive."""

    def __post_init__(self) -> None:
        self._number(self.map)

    def __contains__(self, x: object) -> bool:
        return id(x) in self.slots

    def _number(self, x: Tensor) -> int:
        self.values.append(x)
        self.slots[id(x)] = len(self.values) - 1
        return len(self.values) - 1

    def record(self, function: Any, name: str, args: Any, kwargs: Any, outs: Sequence[Tensor]) -> None:
        def slotted(part: Any) -> Any:
            return Slot(self.slots[id(part)]) if id(part) in self.slots else part

        held = replaced(args, slotted), replaced(kwargs, slotted)  # before an in-place call's answer is numbered anew
        self.calls.append(Call(function, name, *held, tuple(self._number(out) for out in outs)))

    def replay(self, x: Tensor, skip: int = 0, given: dict[int, Tensor] | None = None) -> dict[int, Tensor]:
        """All tensors by slot, with x for the map (or `given` for the answers of the first `skip` calls)."""
        made = {0: x, **(given or {})}

        def filled(part: Any) -> Any:
            return made[part.number] if isinstance(part, Slot) else part

        for call in self.calls[skip:]:
            out = call.function(*replaced(call.args, filled), **replaced(call.kwargs, filled))
            made |= zip(call.slots, tensors(out), strict=True)
        return made


class Watch(TorchFunctionMode):
    """Sees every call of a forward pass of `images`.

    begin, first: the number and name of the tape's first call, where they are known from an earlier pass: what comes
        before is let through.
    at: the module whose output is the map, where the user says so.
    """

    def __init__(
        self, images: Tensor, begin: int | None = None, at: nn.Module | None = None, first: str | None = None
    ) -> None:
        super().__init__()
        self.begin, self.at, self.first = begin, at, first
        self.count = 0
        self.tape: Tape | None = None
        self.pending: Tape | None = None
        """Calls that may turn out to be the beginning of a pool."""
        self.seen: list[str] = []
        """Calls that made a vector of a map: for the error message."""
        # everything that depends on the images, and where its positions lie in them
        self.places: Any = WeakTensorKeyDictionary()
        self.places[images] = Field.of_input(images)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.count += 1
        if self.begin is not None:
            if self.count < self.begin:
                return func(*args, **kwargs)
            return self._known(func, args, kwargs)
        inputs = [x for x in tensors((args, kwargs)) if x in self.places]
        if not inputs:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        fields = [(x, place) for x in inputs if (place := self.places[x]) is not None]
        shapes = [tuple(x.shape) for x in inputs]
        rule = RULES.get(name)
        moved = rule(fields[0][1], fields[0][0], args, kwargs) if rule and fields else None
        out = func(*args, **kwargs)
        outs = tensors(out)
        for y in outs:
            if name in RESHAPES and fields:
                moved = reshaped(fields[0][1], fields[0][0], y)
            self.places[y] = moved if rule or name in RESHAPES else kept(fields, y)
        if outs:
            self._follow(func, name, args, kwargs, inputs, shapes, outs)
        return out

    def starts(self, x: Tensor) -> Tensor:
        """The map that the user named: a copy, so that a later call in place leaves it as it is."""
        x = x.clone()
        place = self.places[x] = self.places.get(x)
        self.tape = Tape(x, place.axes if place else tuple(range(2, x.dim())), self.count + 1)
        return x

    def _known(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.count == self.begin:
            x = next(iter(tensors((args, kwargs))), None)
            name = getattr(func, "__name__", str(func))
            if x is not None and x.dim() >= 3 and name == self.first:
                self.tape = Tape(x, _axes(name, args, kwargs, x, None), self.count)
        if self.tape is None:
            return func(*args, **kwargs)
        touched = any(x in self.tape for x in tensors((args, kwargs)))
        out = func(*args, **kwargs)
        if touched and (outs := tensors(out)):
            self.tape.record(func, getattr(func, "__name__", str(func)), args, kwargs, outs)
        return out

    def _follow(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: Any,
        inputs: Sequence[Tensor],
        shapes: Sequence[tuple[int, ...]],
        outs: Sequence[Tensor],
    ) -> None:
        tape = self.tape
        if tape and any(x in tape for x in inputs):
            others = [x for x in inputs if x not in tape]
            on_map = any(x is tape.map for x in inputs)
            if self.at is None and (others or on_map) and _wide(outs[0]) and not _vector(tape, outs[0]):
                self.tape = None  # the map is a map again: what looked like a head was squeeze and excite
            else:
                if others:
                    tape.foreign = f"{name}({', '.join(str(shape) for shape in shapes)})"
                tape.record(func, name, args, kwargs, outs)
                return
        if self.at is not None:
            return
        x, y = inputs[0], outs[0]
        place: Field | None = self.places.get(x) if x is not y else None
        axes = _axes(name, args, kwargs, x, place)
        pending = self.pending if self.pending is not None and x in self.pending else None
        if _collapses(name, axes, shapes[0], y):
            self.seen.append(f"{name} of {shapes[0]} into {tuple(y.shape)}")
            if pending is not None and any(call.name not in CLAMPS for call in pending.calls):
                self.tape = pending
            else:
                self.tape = Tape(x, axes, self.count)
            self.tape.record(func, name, args, kwargs, outs)
            self.pending = None
        elif name in PARTIAL or name in POWERS or name in CLAMPS or (name == "pool" and _is_grid(args)):
            if pending is None:
                self.pending = pending = Tape(x, axes, self.count)
            pending.record(func, name, args, kwargs, outs)


def _is_grid(args: Any) -> bool:
    """Whether a call of gapstone's pool cuts the map into a fixed number of cells, whatever its size."""
    place = decode(args[3], args[4])
    return isinstance(place, Boxes) and place.axes is not None and all(isinstance(a, Cells) for a in place.axes)


def _collapses(name: str, axes: tuple[int, ...], shape: tuple[int, ...], y: Tensor) -> bool:
    if (
        len(shape) < 3
        or not axes
        or 0 in axes
        or not y.dim()
        or y.shape[0] != shape[0]
        or name in ("__getitem__", "select")
    ):
        return False
    flat = y.dim() <= 2 or (y.dim() == len(shape) and all(y.shape[axis] == 1 for axis in axes))
    return flat and (prod(shape[axis] for axis in axes) > 1 or name in REDUCERS)


def _vector(tape: Tape, y: Tensor) -> bool:
    return y.dim() <= 2 or (y.dim() == tape.map.dim() and all(y.shape[axis] == 1 for axis in tape.axes))


def _wide(y: Tensor) -> bool:
    return y.dim() >= 3


def _axes(name: str, args: Any, kwargs: Any, x: Tensor, place: Field | None) -> tuple[int, ...]:
    """Which dimensions of x are positions: as they were followed from the input, else as the call itself says."""
    if place is not None and len(place.axes) == x.dim() - 2:
        return place.axes
    if name in ("mean", "sum", "amax", "max", "logsumexp"):
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        dims = dims if isinstance(dims, Sequence) else (dims,)
        return tuple(sorted(d % x.dim() for d in dims if isinstance(d, int)))
    return tuple(range(2, x.dim()))


def tensors(tree: Any) -> list[Tensor]:
    return [part for part in leaves(tree) if isinstance(part, Tensor)]


def leaves(tree: Any) -> Iterator[Any]:
    """Of tuples, lists and dictionaries within each other (three times faster here than torch's pytree)."""
    if isinstance(tree, tuple | list):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from leaves(part)
    else:
        yield tree


def replaced(tree: Any, by: Any) -> Any:
    if isinstance(tree, torch.Size):
        return tree
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(replaced(part, by) for part in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(replaced(part, by) for part in tree)
    if isinstance(tree, dict):
        return {key: replaced(part, by) for key, part in tree.items()}
    return by(tree)
