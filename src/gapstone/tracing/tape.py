"""A tape: the calls of a forward pass that turn the last feature map into logits, ready to be played again."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gapstone.runtime.torch_internals import changed, snapshot
from gapstone.tracing.operations import Operation
from gapstone.tracing.torch_calls import SEQUENCES, name_of, read_call


class SplitError(ValueError):
    """The model's last feature map, and what follows it, could not be told."""


@dataclass(frozen=True)
class Slot:
    """In a tape: the tensor made by an earlier call; 0 is the map."""

    number: int
    shape: torch.Size = field(default=torch.Size(), compare=False)

    def dim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class TapeStart:
    """Where a tape begins in a forward pass."""

    number: int
    """Of its first call."""
    name: str
    which: int
    """Of that call's tensors is the map."""
    axes: tuple[int, ...]
    """Dimensions of the map that are positions."""


@dataclass(frozen=True, eq=False)  # a call is itself: what it holds are tensors, which compare number by number
class TapeCall:
    function: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slots: tuple[int, ...]
    """Of the tensors it gave."""

    @cached_property
    def input_slots(self) -> tuple[int, ...]:
        """Slots of the tensors that it was given."""
        return tuple(part.number for part in leaves((self.args, self.kwargs)) if isinstance(part, Slot))

    @cached_property
    def operation(self) -> Operation:
        """What it does; tensors of the tape are slots there."""
        return read_call(self.name, self.args, self.kwargs)


class Tape:
    """It holds the map and the shapes of what was made of it; the tensors are made anew by `replay`.

    axes: which dimensions of the map are positions. begin, which: the number of its first call in the forward pass, and
    which of that call's tensors is the map. copy: keep the map as it is now, whatever the model does to it in place;
    else `changed` says whether it did.
    """

    def __init__(self, x: Tensor, axes: tuple[int, ...], begin: int, which: int = 0, copy: bool = False) -> None:
        copy = copy or x.is_inference()  # of these nobody can say whether they were changed
        self.map = x.clone() if copy else x
        self.axes, self.begin, self.which = axes, begin, which
        self.calls: list[TapeCall] = []
        self.shapes: list[torch.Size] = []
        """By slot."""
        self.types: list[torch.dtype] = []
        """By slot."""
        self.foreign: str | None = None
        """A call that brings in something of the image which did not come through the map."""
        self._before = None if copy else snapshot(x)
        self._live: list[Tensor] = []  # kept alive: slots are known by identity
        self._versions: list[int | Tensor | None] = []
        self._slots: dict[int, int] = {}
        self._number(x)

    def __contains__(self, x: object) -> bool:
        return id(x) in self._slots

    @property
    def source(self) -> Tensor:
        """The map as the network has it: known by identity."""
        return self._live[0]

    def is_map(self, x: Tensor) -> bool:
        return x is self._live[0]

    @property
    def changed(self) -> bool:
        """Whether the map was changed in place after it was taken."""
        return changed(self.map, self._before)

    @torch.no_grad()
    def values(self) -> dict[int, Tensor]:
        """All tensors by slot, as the calls made them; anew where the model may have changed some of them in place."""
        made = list(zip(self._live[1:], self._versions[1:], strict=True))
        if any(before is None or changed(x, before) for x, before in made):
            return self._before_changes()
        return dict(enumerate([self.map, *self._live[1:]]))

    def _before_changes(self) -> dict[int, Tensor]:
        """All tensors anew, each as it was before a call changed it in place (`nn.ReLU(inplace=True)`)."""
        made = {0: self.map.clone()}
        for call in self.calls:
            given = {slot: made[slot].clone() for slot in call.input_slots}
            made |= self.replay(made[0], made, [call])
            made |= {slot: x for slot, x in given.items() if not torch.equal(x, made[slot])}
        return made

    @property
    def start(self) -> TapeStart:
        return TapeStart(self.begin, self.calls[0].name, self.which, self.axes)

    def slot(self, x: Tensor) -> int | None:
        return self._slots.get(id(x))

    def _number(self, x: Tensor) -> int:
        self._live.append(x)
        self._versions.append(snapshot(x))
        self.shapes.append(x.shape)
        self.types.append(x.dtype)
        self._slots[id(x)] = len(self._live) - 1
        return len(self._live) - 1

    def record(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """A call that takes tensors of the tape, and what it gave."""

        def slotted(part: Any) -> Any:
            number = self._slots.get(id(part))
            return part if number is None else Slot(number, self.shapes[number])

        given = replaced(args, slotted), replaced(kwargs, slotted)  # before an in-place call's answer is numbered anew
        self.calls.append(TapeCall(function, name_of(function), *given, tuple(self._number(out) for out in outs)))

    def replay(
        self,
        x: Tensor,
        given: dict[int, Tensor] | None = None,
        calls: Collection[TapeCall] | None = None,
        instead: Mapping[TapeCall, Callable[..., Any]] | None = None,
    ) -> dict[int, Tensor]:
        """All tensors by slot, with x for the map; `given` ones instead of the calls that made them; or these calls.

        instead: functions that stand in for those of some calls.
        """
        made = {0: x, **(given or {})}

        def filled(part: Any) -> Any:
            if isinstance(part, Slot):
                return made[part.number]
            # made in inference mode, as autograd cannot have it
            return part.clone() if isinstance(part, Tensor) and part.is_inference() else part

        for call in self.calls if calls is None else calls:
            if given and all(slot in given for slot in call.slots):
                continue
            function = instead.get(call, call.function) if instead else call.function
            out = function(*replaced(call.args, filled), **replaced(call.kwargs, filled))
            made |= zip(call.slots, tensors(out), strict=True)
        return made


def tensors(tree: object) -> list[Tensor]:
    """All tensors in tuples, lists and dictionaries within each other, in order."""
    collected: list[Tensor] = []
    _collect((tree,), collected)
    return collected


def _collect(parts: Iterable[object], into: list[Tensor]) -> None:
    for part in parts:
        if isinstance(part, SEQUENCES):
            _collect(part, into)
        elif isinstance(part, Tensor):
            into.append(part)
        elif isinstance(part, dict):
            _collect(part.values(), into)


def leaves(tree: object) -> Iterator[Any]:
    """Of tuples, lists and dictionaries within each other (three times faster here than torch's pytree)."""
    if isinstance(tree, tuple | list):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from leaves(part)
    else:
        yield tree


def replaced(tree: Any, by: Callable[[Any], Any]) -> Any:
    if isinstance(tree, torch.Size):
        return tree
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(replaced(part, by) for part in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(replaced(part, by) for part in tree)
    if isinstance(tree, dict):
        return {key: replaced(part, by) for key, part in tree.items()}
    return by(tree)
