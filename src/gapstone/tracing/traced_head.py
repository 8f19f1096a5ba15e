"""From a tape to contributions: map[k, position] = Σ over channels of d logit_k / d pooled · share · x at the position.

Where the tape is pools followed by linear calls, d logit / d pooled is a fixed matrix (one linear layer: its weight),
and the maps are exact. Elsewhere it is a vector-Jacobian product through the calls after the pools, on vectors; and
through the whole tape where its pools are not known. The backbone is never differentiated. Scales of norms and weights
of attention are held (`held_scales.py`), and a softmax at the end is left out: explained are the logits that it takes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from gapstone.heads.contributions import ATTENTION, in_place, of_classes, pooled
from gapstone.pools import POOLS
from gapstone.regions.places import Cells, Intervals
from gapstone.tracing import operations as ops
from gapstone.tracing.held_scales import HeldScales
from gapstone.tracing.jacobian import jacobian
from gapstone.tracing.linearity import MOVES, is_homogeneous, is_linear
from gapstone.tracing.tape import Slot, SplitError, Tape, TapeCall

ENDS = frozenset(["sigmoid", "log_sigmoid"])
"""Besides softmax and log-softmax, what a model may do to its logits at its end: there they are flat where sure."""
REDUCTIONS = {"mean": "mean", "sum": "mean", "amax": "max", "max": "max", "amin": "min", "min": "min"}
"""torch's functions, and the pools that they are."""


@dataclass(frozen=True)
class Pooling:
    """One pool of the map, as the tape has it."""

    slot: int
    """Of its answer."""
    name: str
    """A pool's; "flat": the positions themselves."""
    parameters: dict[str, Any] = field(default_factory=dict)
    grid: tuple[int, ...] | None = None
    """Mean over so many cells; None: the whole map."""
    scale: float = 1.0


class TracedHead:
    """Everything after the last map of one forward pass: logits, and what each position has in them.

    tape, logits: of that pass. held: what is held, where it is more than norms' scales.
    """

    def __init__(self, tape: Tape, logits: Tensor, held: HeldScales | None = None) -> None:
        out = tape.slot(logits)
        if out is None:
            raise SplitError("the logits do not come from the map")
        if any(isinstance(call.operation, ops.Dropout) and call.operation.training for call in tape.calls):
            raise SplitError(
                "the head drops units at random in eval mode, too, so no map explains it: "
                "F.dropout(x, p, training=self.training)"
            )
        self.tape, self.held = tape, HeldScales(tape) if held is None else held
        self.out, self.end = self._end(out)
        """The slot of the logits, and the function that the model applies to them at its end."""
        self.logits = logits.detach() if self.end is None else self._again()[self.out]
        x = tape.map
        self.order = (0, *(d for d in range(1, x.dim()) if d not in tape.axes), *tape.axes)
        self.map = x.permute(self.order).detach()
        """(N, C, *cells)"""
        self._flat = self._flattened()
        self.poolings = self._poolings()
        self.live = live = self._live()
        """The calls that the logits vary with."""
        self._holds = self.held.descriptions(live)
        if not self.poolings:
            self.linear = False
            self.additive = all(self._is_linear(call) or self._is_homogeneous(call) for call in live)
        else:
            rest = [call for call in self._rest() if call in live]
            self.additive = all(self._is_linear(call) for call in rest)
            self.linear = self.additive and not self._holds
            """d logit / d pooled is the same for all images."""
            self.additive &= all(p.name == "flat" or POOLS[p.name].adds_up for p in self.poolings)

    @property
    def holds(self) -> tuple[str, ...]:
        """What is held, in words."""
        attention = any(p.name == "attention" for p in self.poolings)
        return tuple(dict.fromkeys((*([ATTENTION] if attention else []), *self._holds)))

    # ---- what the tape says

    def _end(self, out: int) -> tuple[int, str | None]:
        """The slot of the logits, and the name of what the model makes of them."""
        made_by = {slot: call for call in self.tape.calls for slot in call.slots}
        end: str | None = None
        shape = self.tape.shapes[out]
        while (call := made_by.get(out)) is not None and len(call.input_slots) == 1:
            source = call.input_slots[0]
            op, before = call.operation, made_by.get(source)
            last = _is_end(op) and not (isinstance(op, ops.Softmax) and op.dim not in (1, -1, None))
            log = op.function == "log" and before is not None and _is_end(before.operation)
            if not (last or log) or source == 0 or self.tape.shapes[source] != shape or len(shape) != 2:
                break
            out, end = source, end or (f"log of {before.operation.function}" if log and before else op.function)
        return out, end

    @torch.no_grad()
    def _again(self, instead: bool = False) -> dict[int, Tensor]:
        """All tensors of the tape anew: the model may have changed its own in place."""
        return self.tape.replay(self.tape.map.clone(), instead=self.held.functions if instead else None)

    def _live(self) -> list[TapeCall]:
        """The calls that the logits vary with."""
        needed, live = {self.out}, []
        for call in reversed(self.tape.calls):
            if needed & set(call.slots):
                live.append(call)
                needed |= set(self.held.varies(call))
        return live[::-1]

    def _flattened(self) -> dict[int, TapeCall]:
        """By slot, calls that only put the map's positions into one axis: x.flatten(2)."""
        n, channels, cells = self.map.shape[0], self.map.shape[1], prod(self.map.shape[2:])
        return {
            call.slots[0]: call
            for call in self.tape.calls
            if isinstance(call.operation, ops.Reshape)
            and call.input_slots == (0,)
            and self.order == tuple(range(self.map.dim()))
            and tuple(self.tape.shapes[call.slots[0]]) == (n, channels, cells)
            and cells > 1
            and self.map.dim() > 3
        }

    def _poolings(self) -> list[Pooling]:
        """The pools that take the map; none where it goes into something else, too."""
        maps = {0, *self._flat}
        takers = [c for c in self.tape.calls if maps & set(c.input_slots) and c.slots[0] not in self._flat]
        poolings = [pooling for call in takers if (pooling := self._pooling(call)) is not None]
        return poolings if len(poolings) == len(takers) else []

    def _pooling(self, call: TapeCall) -> Pooling | None:
        op, slot = call.operation, call.slots[0]
        if len(call.input_slots) != 1 or not (call.args and call.args[0] == Slot(call.input_slots[0])):
            return None
        flat = call.input_slots[0] != 0
        axes = (2,) if flat else self.tape.axes
        shape, y = self.tape.shapes[call.input_slots[0]], self.tape.shapes[slot]
        sizes = tuple(shape[axis] for axis in axes)
        whole = len(y) <= 2 or (len(y) == len(shape) and all(y[axis] == 1 for axis in axes))
        if isinstance(op, ops.Reduce):
            several = op.function not in ("max", "min") or len(axes) == 1
            if op.function not in REDUCTIONS or not several or set(op.dims or ()) != set(axes):
                return None
            return Pooling(slot, REDUCTIONS[op.function], scale=float(prod(sizes)) if op.function == "sum" else 1.0)
        if axes != tuple(range(2, len(shape))) or (flat and not whole):
            return None
        if isinstance(op, ops.AdaptivePool) and op.function == "avg":
            return Pooling(slot, "mean", grid=None if whole else tuple(y[2:]))
        if isinstance(op, ops.AdaptivePool) and whole:
            return Pooling(slot, "max")
        if isinstance(op, ops.WindowPool) and whole:
            fits = op.kernel_size == sizes and not any(op.padding) and op.divisor_override is None
            return Pooling(slot, "mean" if op.function == "avg" else "max") if fits else None
        if isinstance(op, ops.RegionPool) and not flat:
            return _region_pooling(op, slot)
        if isinstance(op, ops.Reshape) and len(y) == 2 and y[1] == prod(shape[1:]):
            return Pooling(slot, "flat")
        return None

    def _rest(self) -> list[TapeCall]:
        pools = {p.slot for p in self.poolings} | set(self._flat)
        return [call for call in self.tape.calls if call.slots[0] not in pools]

    def _is_linear(self, call: TapeCall) -> bool:
        return self.held.is_linear(call) or is_linear(call, self.tape)

    def _is_homogeneous(self, call: TapeCall) -> bool:
        return is_homogeneous(call.operation, 1 if call in self.held.functions else len(call.input_slots))

    # ---- what follows from it

    @torch.no_grad()
    def bias(self) -> Tensor:
        """(C,): the logits of empty maps; 0 where the head has no answer to them (it divides by their norm).

        (N, C) where a norm that is held takes more than the map gives: then each image has its own.
        """
        plain = self._of_nothing(held=False)[0]
        if not (self.additive and self._holds):
            return plain
        self._again(instead=True)  # the scales are those of the images
        each = self._of_nothing(held=True)
        near = 1e-5 * max(1.0, float(self.logits.abs().max()))
        return plain if torch.allclose(each, plain.expand_as(each), rtol=0, atol=near) else each

    def _of_nothing(self, held: bool) -> Tensor:
        instead = self.held.functions if held else None
        if not self.poolings:
            made = self.tape.replay(self._nothing(), instead=instead)
        else:
            empty = {
                p.slot: torch.zeros(self.tape.shapes[p.slot], dtype=self.map.dtype, device=self.map.device)
                for p in self.poolings
            }
            made = self.tape.replay(self.tape.map, empty, self._rest(), instead)
        return made[self.out].float().nan_to_num(0.0, 0.0, 0.0)

    def _nothing(self) -> Tensor:
        """An empty map."""
        return torch.zeros_like(self.tape.map)

    def maps(self, classes: Tensor | None) -> Tensor:
        """(N, K, *cells), of the classes (N, K), `MEAN` among them, or of all."""
        if self.linear:
            return self._parts(self.weights(classes))
        grads = self._through_everything(classes) if not self.poolings else self._through_pools(classes)
        return torch.cat(list(grads), 1)

    def _parts(self, weights: Sequence[Tensor]) -> Tensor:
        parts = [self._part(pooling, weight) for pooling, weight in zip(self.poolings, weights, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def _part(self, pooling: Pooling, weight: Tensor) -> Tensor:
        x = self.map.float() if self.map.dtype in (torch.float16, torch.bfloat16) else self.map
        weight = weight.to(x.dtype)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            if pooling.name == "flat" or pooling.grid is not None:
                cells = pooling.grid or tuple(x.shape[2:])
                return in_place(x, weight.view(*weight.shape[:-1], x.shape[1], *cells), pooling.grid is not None)
            part = pooled(x, weight, pooling.name, **pooling.parameters)
            return part if pooling.scale == 1 else part * pooling.scale

    def weights(self, classes: Tensor | None) -> list[Tensor]:
        """d logit / d pooled, the same for all images: per pool (C, P), or (N, K, P) of the classes asked for."""
        rows = self._linear_layer()
        if rows is None:
            every = torch.arange(self.logits.shape[1], device=self.logits.device)[None]
            pieces = list(self._gradients(every, images=1))
            rows = [torch.cat([piece[i][0] for piece in pieces]) for i in range(len(self.poolings))]
        return rows if classes is None else [of_classes(weight, classes) for weight in rows]

    def _linear_layer(self) -> list[Tensor] | None:
        """The weight of the one linear layer, its columns in the order of the pooled numbers; None for other forms."""
        rest = [call for call in self._rest() if call in self.live]
        layers = [call for call in rest if not isinstance(call.operation, MOVES)]
        if len(layers) > 1 or (layers and (layers[0] is not rest[-1] or layers[0].operation.function != "linear")):
            return None
        # numbers instead of values: where each comes out is where it went
        ids, count = {}, 0
        for pooling in self.poolings:
            shape = self.tape.shapes[pooling.slot]
            numbers = torch.arange(count, count + prod(shape[1:]), dtype=torch.float64, device=self.map.device)
            ids[pooling.slot] = numbers.view(shape[1:]).expand(shape).contiguous()
            count += prod(shape[1:])
        with torch.no_grad():
            made = self.tape.replay(self.tape.map, ids, rest[:-1] if layers else rest)
        if layers:
            layer = rest[-1].operation
            assert isinstance(layer, ops.LinearLayer)
            weight, source = layer.weight, made[rest[-1].input_slots[0]]
        else:
            weight, source = None, made[self.out]
        if source.dim() != 2 or not isinstance(weight, Tensor | None):
            return None
        place = source[0].long()
        if weight is None:  # the pooled numbers are the logits (squeezenet, nin)
            weight = torch.eye(len(place), dtype=torch.float32, device=place.device)
        if len(place) == count and bool((place == torch.arange(count, device=place.device)).all()):
            ordered = weight.detach()
        else:
            ordered = weight.new_zeros(weight.shape[0], count).index_add_(1, place, weight.detach())
        return list(torch.split(ordered, [prod(self.tape.shapes[p.slot][1:]) for p in self.poolings], 1))

    def _through_pools(self, classes: Tensor | None) -> Iterator[Tensor]:
        for gradients in self._gradients(classes):
            yield self._parts(gradients)

    def _gradients(self, classes: Tensor | None, images: int | None = None) -> Iterator[list[Tensor]]:
        """d logit / d pooled by a vector-Jacobian product through what follows the pools: per pool (N, k, P), for so
        many classes at a time.
        """
        rest = self._rest()
        with torch.inference_mode(False), torch.enable_grad():
            x = self.tape.map.detach().clone()
            pools = [call for call in self.tape.calls if call not in rest]
            made = self.tape.replay(x, calls=pools)  # anew: the model may have changed its own in place
            given = {p.slot: made[p.slot].detach().clone().requires_grad_() for p in self.poolings}
            inner = {k: v * 1 for k, v in given.items()}
            logits = self.tape.replay(x, inner, rest, self.held.functions)[self.out]
        for grads in jacobian(logits, list(given.values()), classes, images):
            yield [g.flatten(2) for g in grads]

    def _through_everything(self, classes: Tensor | None) -> Iterator[Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            x = self.tape.map.detach().clone().requires_grad_()
            logits = self.tape.replay(x * 1, instead=self.held.functions)[self.out]
        shape = (0, 1, *(d + 1 for d in self.order[1:]))
        for (g,) in jacobian(logits, [x], classes, None):
            yield (g.permute(shape).float() * self.map[:, None]).sum(2)


def _is_end(op: ops.Operation) -> bool:
    return isinstance(op, ops.Softmax) or (isinstance(op, ops.Elementwise) and op.function in ENDS)


def _region_pooling(op: ops.RegionPool, slot: int) -> Pooling | None:
    if op.function not in POOLS or not isinstance(op.place, Intervals):
        return None
    axes = op.place.axes
    if axes is None:
        return Pooling(slot, op.function, dict(op.parameters)) if POOLS[op.function].adds_up else None
    cells = tuple(axis.cells for axis in axes if isinstance(axis, Cells))
    return Pooling(slot, "mean", grid=cells) if op.function == "mean" and len(cells) == len(axes) else None
