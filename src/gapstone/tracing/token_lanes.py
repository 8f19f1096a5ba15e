"""The parts of all tokens in all logits by one product: a tape of tokens, run in two lanes.

After the tokens x (N, P + J, C), of which the first P are of no position, the calls are linear with what is held
(`held_tokens.py`), and the logits come from the first tokens alone. So each tensor is cut in two:

    patches   each position by itself, in its own row: run once, for all positions at once
    first     the P first tokens, and what is made of them

Where the first tokens hear of the patches, Σ_j a_j v_j, position j adds a_j v_j: a vector. All J of them go on through
the calls of the first lane together, as one batch of J small rows, to the logits. A backward pass for each class would
take K of these instead, and a replay of the whole block for each of J positions is J times its price.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.heads.contributions import MEAN
from gapstone.tracing import operations as ops
from gapstone.tracing.held_scales import NORMS, wide
from gapstone.tracing.held_tokens import THROUGH_ZERO, HeldTokens, gate_of
from gapstone.tracing.jacobian import jacobian
from gapstone.tracing.linearity import MOVES as MOVED
from gapstone.tracing.mixing import mixing_of
from gapstone.tracing.tape import Slot, Tape, TapeCall, replaced, tensors
from gapstone.tracing.token_rows import NotInRowsError, Rows, full_index, token_rows

FIRST, PATCHES, SILENT = "first", "patches", "a silent patch"
"""The two lanes; and that of patches in a single row, where they all would be alike."""
MEMORY = 1 << 24
"""Numbers at most of what a call makes for a chunk of positions."""

Lane = str
Made = dict[int, Tensor]


@dataclass(frozen=True)
class Step:
    """A call in one of the lanes."""

    call: TapeCall
    lane: Lane
    mixes: bool = False
    """The first tokens hear of the patches."""


@dataclass(frozen=True)
class KnownMixing:
    """A call in which the first tokens hear of the patches, with the weights of this pass."""

    value: Slot
    of_first: Tensor
    """(…, R, P): how much each of the first tokens is heard."""
    of_patches: Tensor
    """(…, R, J)"""
    heads: Callable[[Tensor, bool], Tensor]
    finish: Callable[[Tensor, bool], Tensor]


class TokenLanes:
    """A tape of tokens in two lanes; `parts` and `rest` add up to the logits.

    prefix: the first tokens, of no position. out: the slot of the logits. also: of later tokens, whose patches are
    heard as they are, beside those of the tape's start. Raises NotInRowsError for a tape in which the
    patches are mixed more than once on their way to the logits, or go through a call of which the rows are not known.
    """

    def __init__(
        self, tape: Tape, held: HeldTokens, live: Sequence[TapeCall], out: int, prefix: int, also: int | None = None
    ) -> None:
        self.tape, self.held, self.out, self.prefix = tape, held, out, prefix
        self.rows = token_rows(tape, prefix)
        self.sources = {0} if also is None else {0, also}
        """Slots of which the patches are what is explained."""
        self.axis = tape.axes[0]
        self.positions = tape.map.shape[self.axis] - prefix
        self.steps = self._plan(live)
        self.values = tape.values()
        self.mixing = {step.call: self._mixing(step.call) for step in self.steps if step.mixes}
        """By call, in the order of the pass."""

    # ---- which calls in which lane

    def _plan(self, live: Sequence[TapeCall]) -> list[Step]:
        needed: set[tuple[int, Lane]] = {(self.out, FIRST)}
        steps: list[Step] = []
        for call in reversed(live):
            for lane in (FIRST, PATCHES):
                given = self.sources if lane == PATCHES else ()
                if any((slot, lane) in needed and slot not in given for slot in call.slots):
                    step = Step(call, lane, self._mixes(call))
                    if step.mixes and lane == PATCHES:
                        raise NotInRowsError(f"{call.name} among patches")
                    steps.append(step)
                    needed.update(self._needs(step))
        if not any(step.mixes for step in steps):
            raise NotInRowsError("no patch is heard")
        for step in steps:
            for slot in step.call.slots:
                self._rows(slot)  # known, or this is not the form
        return steps[::-1]

    def _needs(self, step: Step) -> Iterator[tuple[int, Lane]]:
        if self._joins(step.call) and step.lane == PATCHES:
            yield step.call.input_slots[-1], PATCHES  # what is put before them is none
            return
        for slot in self.held.varies(step.call):
            if step.mixes:
                yield slot, PATCHES
            if step.lane == PATCHES and not self._rows(slot):
                raise NotInRowsError(f"{step.call.name} adds the same to all patches")
            if self._has(slot, step.lane):
                yield slot, step.lane

    def _joins(self, call: TapeCall) -> bool:
        """Whether a call puts tokens before others."""
        op = call.operation
        return isinstance(op, ops.Concat) and op.dim % len(self.tape.shapes[call.slots[0]]) in self._rows(call.slots[0])

    def _rows(self, slot: int) -> Rows:
        if slot not in self.rows:
            raise NotInRowsError(f"the rows of a tensor of shape {tuple(self.tape.shapes[slot])}")
        return self.rows[slot]

    def _has(self, slot: int, lane: Lane) -> bool:
        """Whether there is anything of it in a lane."""
        rows = self._rows(slot)
        return bool(rows) if lane == PATCHES else all(before > 0 for before in rows.values())

    def _mixes(self, call: TapeCall) -> bool:
        mixing, varies = mixing_of(call), self.held.varies(call)
        if mixing is not None and mixing.value.number in varies:
            return mixing.axis % mixing.value.dim() in self._rows(mixing.value.number)
        if isinstance(call.operation, ops.MatrixProduct):
            for part, back in zip(call.args[:2], (1, 2), strict=False):
                if isinstance(part, Slot) and part.number in varies and part.dim() - back in self._rows(part.number):
                    raise NotInRowsError(f"{call.name} over the patches")  # from the left, or by a parameter
        if isinstance(call.operation, ops.BatchNorm | ops.Convolution):
            raise NotInRowsError(call.name)  # they bring constants of their own
        if call.name.startswith("__i") or (call.name.endswith("_") and not call.name.startswith("__")):
            raise NotInRowsError(f"{call.name} works in place")
        return False

    def _mixing(self, call: TapeCall) -> "KnownMixing":
        """The weights with which the first tokens hear, of this pass."""
        mixing = mixing_of(call)
        assert mixing is not None
        rows = self._rows(call.slots[0])
        hearers = next(iter(rows.values())) if rows else None
        weights = mixing.weights(self.values, hearers)
        before = self._rows(mixing.value.number)[mixing.axis % mixing.value.dim()]
        return KnownMixing(mixing.value, weights[..., :before], weights[..., before:], mixing.heads, mixing.finish)

    # ---- what they make

    @torch.no_grad()
    def rest(self) -> Tensor:
        """(N, C): the logits without what the patches add."""
        heard = {}
        for call, mixing in self.mixing.items():
            slot = mixing.value.number
            silent = self._value(slot, PATCHES) - self._own_values[slot]
            heard[call] = mixing.of_patches @ mixing.heads(silent, False)
        return self._run({0: self._lane(self.tape.map, 0, FIRST)}, heard)[self.out]

    def parts(self, classes: Tensor | None) -> Tensor:
        """(N, K, J): of the classes (N, K), `MEAN` among them, or of all."""
        # autograd cannot have what was made in inference mode
        few = classes is not None and classes.shape[1] < self.positions and not self.tape.map.is_inference()
        return torch.cat(list(self._backward(classes) if few else self._forward(classes)), 1 if few else 2)

    def _backward(self, classes: Tensor | None) -> Iterator[Tensor]:
        """Of few classes: how much each of their logits changes with what is heard, times what each patch says."""
        with torch.inference_mode(False), torch.enable_grad():
            heard = [torch.zeros_like(w[0] * v[0][..., None, :]).requires_grad_() for w, v in self._spoken]
            logits = self._of_heard(*(x * 1 for x in heard))
        for gradients in jacobian(logits, heard, classes, None):
            parts = [_said(*spoken, wide(g)) for spoken, g in zip(self._spoken, gradients, strict=True)]
            yield parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    @torch.no_grad()
    def _forward(self, classes: Tensor | None) -> Iterator[Tensor]:
        """Of all classes: what each patch says, through the first lane, in one batch of small rows."""
        chunk = self._chunk()
        for begin in range(0, self.positions, chunk):
            heard = [w[begin : begin + chunk] * v[begin : begin + chunk][..., None, :] for w, v in self._spoken]
            yield _chosen(wide(torch.vmap(self._of_heard)(*heard)), classes).permute(1, 2, 0)

    def _of_heard(self, *heard: Tensor) -> Tensor:
        """What the first tokens hear, without constants, becomes in the logits."""
        nothing = {0: torch.zeros_like(self._lane(self.tape.map, 0, FIRST))}
        return self._run(nothing, dict(zip(self.mixing, heard, strict=True)), FIRST, True)[self.out]

    @cached_property
    def _spoken(self) -> list[tuple[Tensor, Tensor]]:
        """By mixing, with which weights each patch is heard, (J, …, R, 1), and what it says, (J, …, D)."""
        spoken = []
        for mixing in self.mixing.values():
            says = mixing.heads(self._own_values[mixing.value.number], True).movedim(-2, 0)
            spoken.append((mixing.of_patches.movedim(-1, 0)[..., None], says))
        return spoken

    @cached_property
    @torch.no_grad()
    def _own_values(self) -> Made:
        """By slot that is heard, what each patch itself brings: without constants."""
        slots = [mixing.value.number for mixing in self.mixing.values()]
        if self._is_uniform():  # a hundredth of a pass less
            silent = self._run({0: torch.zeros_like(self._lane(self.tape.map, 0, SILENT))}, {}, SILENT)
            return {slot: self._value(slot, PATCHES) - silent[slot] for slot in slots}
        return self._run({slot: self._value(slot, PATCHES) for slot in self.sources}, {}, PATCHES, True)

    def _is_uniform(self) -> bool:
        """Whether patches that are 0 bring the same constants, all of them: held scales then have nothing to scale."""
        if len(self.sources) > 1:
            return False
        silent = {0}
        for step in self.steps:
            op, slots = step.call.operation, self.held.varies(step.call)
            if step.lane == PATCHES and step.call in self.held.norms and set(slots) <= silent:
                continue
            if step.lane == PATCHES and isinstance(op, MOVED) and not isinstance(op, ops.Concat):
                silent |= set(step.call.slots) if set(slots) <= silent else set()
            elif step.lane == PATCHES and not isinstance(op, ops.LinearLayer):
                return False
        return True

    def _chunk(self) -> int:
        widest = 1
        for step in self.steps:
            for slot in step.call.slots if step.lane == FIRST else ():
                widest = max(widest, prod(self._shape(slot, FIRST)))
        return max(1, MEMORY // widest)

    # ---- a call in a lane

    def _run(self, given: Made, heard: Mapping[TapeCall, Tensor], lane: Lane = FIRST, linear: bool = False) -> Made:
        """All tensors of a lane. linear: without constants, so that nothing is lost in differences."""
        made = dict(given)
        for step in self.steps:
            if step.lane == (FIRST if lane == FIRST else PATCHES):
                if step.mixes:
                    out: Any = self._hear(step.call, made, heard[step.call], linear)
                else:
                    out = self._call(step.call, lane, made, linear)
                made |= zip(step.call.slots, tensors(out), strict=True)
        return made

    def _hear(self, call: TapeCall, made: Made, heard: Tensor, linear: bool) -> Tensor:
        mixing = self.mixing[call]
        slot = mixing.value.number
        if self._has(slot, FIRST):
            heard = heard + mixing.of_first @ mixing.heads(made[slot], linear)
        return mixing.finish(heard, linear)

    def _call(self, call: TapeCall, lane: Lane, made: Made, linear: bool) -> Any:
        op, varies = call.operation, self.held.varies(call)
        if linear and not varies:  # made of learned numbers alone, such as an attention pool's query
            return torch.zeros_like(self._value(call.slots[0], lane))
        silent = linear and (isinstance(op, ops.Concat) or op.function in ("add", "sub"))

        def filled(part: Any) -> Any:
            if isinstance(part, Slot) and part.number in varies:
                return made[part.number]
            value = self._value(part.number, lane) if isinstance(part, Slot) else part
            if isinstance(value, Tensor) and isinstance(op, ops.Elementwise):
                value = self._own(value, call.slots[0], lane)
            return torch.zeros_like(value) if silent and isinstance(value, Tensor) else value

        if isinstance(op, ops.Concat) and self._joins(call):
            return self._join(op, lane, filled)
        args, kwargs = replaced(call.args, filled), replaced(call.kwargs, filled)
        if call in self.held.norms:
            norm = NORMS[type(op)](_without_bias(op) if linear else op)
            assert norm is not None
            return norm.of(args[0], self._value(varies[0], lane))
        if isinstance(op, ops.Glu) or (op.function in THROUGH_ZERO and isinstance(op, ops.Elementwise)):
            return gate_of(call, self._value(varies[0], lane), args, kwargs)
        if isinstance(op, ops.Reshape | ops.Squeeze):
            return args[0].reshape(self._shape(call.slots[0], lane))
        if isinstance(op, ops.Slice) and op.function == "__getitem__" and lane != FIRST:
            return args[0][self._index(op, varies[0])]
        if linear and isinstance(op, ops.LinearLayer):
            return F.linear(made[varies[0]], op.weight)
        if linear and op.function in ("add", "sub"):
            args = tuple(0 if isinstance(part, int | float) else part for part in args)
        return call.function(*args, **kwargs)

    def _value(self, slot: int, lane: Lane) -> Tensor:
        return self._lane(self.values[slot], slot, lane)

    def _lane(self, x: Tensor, slot: int, lane: Lane) -> Tensor:
        """The rows of a lane."""
        for axis, before in self._rows(slot).items():
            x = x.narrow(axis, *self._range(before, lane))
        return x

    def _range(self, before: int, lane: Lane) -> tuple[int, int]:
        """Where the rows of a lane begin, and how many they are."""
        return (0, before) if lane == FIRST else (before, 1 if lane == SILENT else self.positions)

    def _own(self, part: Any, out: int, lane: Lane) -> Any:
        """Of a constant with a number for each token, those of a lane."""
        if isinstance(part, Tensor):
            for axis, before in self._rows(out).items():
                place = axis - len(self.tape.shapes[out])
                if part.dim() >= -place and part.shape[place] == before + self.positions > 1:
                    part = part.narrow(place, *self._range(before, lane))
        return part

    def _shape(self, slot: int, lane: Lane) -> list[int]:
        shape = list(self.tape.shapes[slot])
        for axis, before in self._rows(slot).items():
            shape[axis] = self._range(before, lane)[1]
        return shape

    def _index(self, op: ops.Slice, slot: int) -> tuple[Any, ...]:
        """All patches, whichever of the first tokens are left out."""
        parts, axis = full_index(op, self.tape.shapes[slot]), 0
        for place, part in enumerate(parts):
            if axis in self._rows(slot) and part is not None:
                parts[place] = slice(None)
            axis += part is not None
        return tuple(parts)

    def _join(self, op: ops.Concat, lane: Lane, filled: Callable[[Any], Any]) -> Tensor:
        if lane != FIRST:
            made: Tensor = filled(op.tensors[-1])
            return made
        there = [part for part in op.tensors if not isinstance(part, Slot) or self._has(part.number, FIRST)]
        return torch.cat([filled(part) for part in there], op.dim)


def _without_bias(op: Any) -> Any:
    return op if isinstance(op, ops.Normalize) else replace(op, bias=None)


def _said(weights: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
    """(N, k, J): weights (J, N, …, R, 1) times values (J, N, …, D) times gradients (N, k, …, R, D)."""
    n, k, r, d = *gradient.shape[:2], *gradient.shape[-2:]
    weights = weights.expand(len(weights), n, *gradient.shape[2:-1], 1).reshape(len(weights), n, -1, r)
    values = values.reshape(len(values), n, -1, d).permute(1, 2, 0, 3)
    by = gradient.reshape(n, k, -1, r, d).permute(0, 2, 4, 1, 3).flatten(3)
    each = (wide(values) @ by).view(n, by.shape[1], len(weights), k, r) * weights.permute(1, 2, 0, 3)[:, :, :, None]
    parts: Tensor = each.sum((1, 4))
    return parts.transpose(1, 2)


def _chosen(made: Tensor, classes: Tensor | None) -> Tensor:
    """Of the logits (j, N, C) those of the classes (N, K)."""
    if classes is None:
        return made
    mean = made.mean(2, keepdim=True)
    picked = made.gather(2, classes.clamp(min=0).expand(len(made), -1, -1))
    return torch.where(classes == MEAN, mean, picked)
