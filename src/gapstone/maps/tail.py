"""From a tape to contributions: map[k, position] = Σ over channels of d logit_k / d pooled · share · x at the position.

Where the tape is pools followed by linear calls, d logit / d pooled is a fixed matrix (one linear layer: its weight),
and the maps are exact. Elsewhere it is a vector-Jacobian product through the calls after the pools, on vectors; and
through the whole tape where its pools are not known. The backbone is never differentiated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, prod
from typing import Any

import torch
from torch import Tensor

from gapstone.heads.parts import in_place, pooled
from gapstone.loops.places import decode
from gapstone.maps.watch import Call, Slot, SplitError, Tape
from gapstone.pools import POOLS
from gapstone.regions.places import Boxes, Cells

MOVES = frozenset(
    ["flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "permute", "transpose", "movedim", "contiguous",
     "cat", "concat", "concatenate", "stack", "chunk", "split", "__getitem__", "clone", "alias", "detach"]
)  # fmt: skip
"""Calls that move numbers, and change none."""
DROPOUTS = frozenset(["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"])
SUMS = frozenset(
    ["add", "__add__", "__radd__", "add_", "__iadd__", "sub", "__sub__", "sub_", "__isub__", "__rsub__", "rsub", "neg",
     "__neg__", "mean", "sum", "to", "float", "double", "type_as", "expand"]
)  # fmt: skip
PRODUCTS = frozenset(
    ["mul", "__mul__", "__rmul__", "mul_", "__imul__", "div", "__truediv__", "div_", "__itruediv__", "matmul",
     "__matmul__", "mm"]
)  # fmt: skip
LAYERS = frozenset(["linear", "conv1d", "conv2d", "conv3d"])

CHUNK = 64
"""Classes whose gradients are taken at a time."""


@dataclass(frozen=True)
class Pooling:
    """One pool of the map, as the tape has it."""

    slot: int
    """Of its answer."""
    after: int
    """How many of the tape's calls it took."""
    name: str
    """A pool's; "flat": the positions themselves."""
    parameters: dict[str, Any]
    grid: tuple[int, ...] | None = None
    """Mean over so many cells; None: the whole map."""
    scale: float = 1.0


class Tail:
    """Everything after the last map of one forward pass: logits, and what each position has in them.

    tape, logits: of that pass.
    """

    def __init__(self, tape: Tape, logits: Tensor) -> None:
        if id(logits) not in tape.slots:
            raise SplitError("the logits do not come from the map")
        self.tape, self.logits = tape, logits.detach()
        self.out = tape.slots[id(logits)]
        x = tape.map
        self.order = (0, *(d for d in range(1, x.dim()) if d not in tape.axes), *tape.axes)
        self.map = x.permute(self.order).detach()
        """(N, C, *cells)"""
        self.poolings = self._poolings()
        self.linear = self.poolings is not None and all(self._is_linear(call) for call in self._rest())
        self.additive = self.linear and all(p.name == "flat" or POOLS[p.name].adds_up for p in self.poolings or ())

    # ---- what the tape says

    def _poolings(self) -> list[Pooling] | None:
        """The pools that the tape begins with; None where the map goes into something else."""
        found: list[Pooling] = []
        takers = [call for call in self.tape.calls if 0 in call.takes]
        for number, call in enumerate(takers):
            if self.tape.calls[number] is not call:
                return None  # a pool that comes after something else: not at the beginning of the tape
            pooling = self._pooling(call)
            if pooling is None:
                return None
            found.append(pooling)
        return found or None

    def _pooling(self, call: Call) -> Pooling | None:
        x, name, axes = self.tape.map, call.name, self.tape.axes
        if len(call.takes) != 1 or not (call.args and call.args[0] == Slot(0)):
            return None
        slot, sizes = call.slots[0], [x.shape[axis] for axis in axes]
        y = self.tape.values[slot]

        def pooling(pool: str, **more: Any) -> Pooling:
            return Pooling(slot, self.tape.calls.index(call) + 1, pool, more.pop("parameters", {}), **more)

        def get(place: int, key: str, otherwise: Any = None) -> Any:
            return call.args[place] if len(call.args) > place else call.kwargs.get(key, otherwise)

        whole = y.dim() <= 2 or all(y.shape[axis] == 1 for axis in axes)
        if name in ("mean", "amax", "sum"):
            dims = get(1, "dim")
            dims = dims if isinstance(dims, Sequence) else (dims,)
            if None in dims or {d % x.dim() for d in dims} != set(axes):
                return None
            kind = {"mean": "mean", "amax": "max", "sum": "mean"}[name]
            return pooling(kind, scale=float(prod(sizes)) if name == "sum" else 1.0)
        if axes != tuple(range(2, x.dim())):
            return None
        if name.startswith("adaptive_avg_pool"):
            cells = tuple(y.shape[2:])
            return pooling("mean", grid=None if whole else cells)
        if name.startswith("adaptive_max_pool") and whole:
            return pooling("max")
        if name.startswith(("avg_pool", "max_pool")) and whole:
            padding = get(3, "padding", 0)
            size = get(1, "kernel_size")
            size = [size] * len(sizes) if isinstance(size, int) else list(size)
            fits = size == sizes and not any(padding if isinstance(padding, Sequence) else [padding])
            divided = name.startswith("max") or get(6, "divisor_override") is None
            return pooling("mean" if name.startswith("avg") else "max") if fits and divided else None
        if name == "pool":
            return self._ours(call, pooling)
        if name in ("flatten", "reshape", "view") and y.dim() == 2 and y.shape[1] == x[0].numel():
            return pooling("flat")
        return None

    def _ours(self, call: Call, pooling: Callable[..., Pooling]) -> Pooling | None:
        _, name, _, numbers, places, constants, given = call.args[:7]
        place = decode(numbers, places)
        if name not in POOLS or not isinstance(place, Boxes):
            return None
        values = iter(given)
        parameters = {
            key: next(values) if isnan(value) else value
            for key, value in zip(POOLS[name].parameters, constants, strict=True)
        }
        if place.axes is None:
            return pooling(name, parameters=parameters) if POOLS[name].adds_up else None
        if name == "mean" and all(isinstance(axis, Cells) for axis in place.axes):
            return pooling("mean", grid=tuple(axis.cells for axis in place.axes))
        return None

    def _rest(self) -> list[Call]:
        assert self.poolings is not None
        return self.tape.calls[len(self.poolings) :]

    def _is_linear(self, call: Call) -> bool:
        """In the tensors of the tape that it takes."""
        name, once = call.name, len(call.takes) == 1
        if name in MOVES or name in SUMS:
            return True
        if name in DROPOUTS:  # F.dropout(x, p, training): by default it drops, also in eval mode
            return call.kwargs.get("training", call.args[2] if len(call.args) > 2 else True) is False
        if name in PRODUCTS:
            return once and (not name.endswith(("div", "div_", "truediv__")) or call.args[0] == Slot(call.takes[0]))
        if name == "batch_norm":
            training = call.kwargs.get("training", call.args[5] if len(call.args) > 5 else False)
            return once and training in (False, 0)
        return name in LAYERS and once and call.args[0] == Slot(call.takes[0])

    # ---- what follows from it

    @torch.no_grad()
    def bias(self) -> Tensor:
        """(C,): the logits of empty maps."""
        if self.poolings is None:
            return self.tape.replay(torch.zeros_like(self.tape.map))[self.out][0].float()
        nothing = {p.slot: torch.zeros_like(self.tape.values[p.slot]) for p in self.poolings}
        return self.tape.replay(self.tape.map, len(self.poolings), nothing)[self.out][0].float()

    def maps(self, classes: Tensor | None) -> Tensor:
        """(N, K, *cells), of the classes (N, K), or of all."""
        if self.poolings is None:
            return self._through_everything(classes)
        weights = self.weights(classes) if self.linear else self._gradients(classes)
        total: Tensor | None = None
        for pooling, weight in zip(self.poolings, weights, strict=True):
            part = self._part(pooling, weight)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _part(self, pooling: Pooling, weight: Tensor) -> Tensor:
        x = self.map.float() if self.map.dtype in (torch.float16, torch.bfloat16) else self.map
        weight = weight.to(x.dtype)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            if pooling.name == "flat" or pooling.grid is not None:
                cells = pooling.grid or tuple(x.shape[2:])
                return in_place(x, weight.view(*weight.shape[:-1], x.shape[1], *cells), pooling.grid is not None)
            return pooled(x, weight * pooling.scale, pooling.name, **pooling.parameters)

    def weights(self, classes: Tensor | None) -> list[Tensor]:
        """d logit / d pooled, the same for all images: per pool (C, P), or (N, K, P) of the classes asked for."""
        assert self.poolings is not None
        rows = self._linear_layer()
        if rows is None:
            every = torch.arange(self.logits.shape[1], device=self.logits.device)[None]
            rows = [one[0] for one in self._gradients(every, images=1)]
        return rows if classes is None else [weight[classes] for weight in rows]

    def _linear_layer(self) -> list[Tensor] | None:
        """The weight of the one linear layer, its columns in the order of the pooled numbers; None for other forms."""
        assert self.poolings is not None
        rest = self._rest()
        layers = [call for call in rest if call.name not in MOVES and call.name not in DROPOUTS]
        last = rest[-1] if rest else None
        if len(layers) > 1 or (layers and (layers[0] is not last or last.name != "linear")):
            return None
        # numbers instead of values: where each comes out is where it went
        ids, count = {}, 0
        for pooling in self.poolings:
            like = self.tape.values[pooling.slot]
            one = torch.arange(count, count + like[0].numel(), dtype=torch.float64, device=like.device)
            ids[pooling.slot] = one.view(like.shape[1:]).expand(like.shape).contiguous()
            count += like[0].numel()
        before = Tape(self.tape.map, self.tape.axes, self.tape.begin)
        before.calls = self.tape.calls[:-1] if layers else self.tape.calls
        with torch.no_grad():
            made = before.replay(self.tape.map, len(self.poolings), ids)
        if layers:
            call = rest[-1]
            weight = call.args[1] if len(call.args) > 1 else call.kwargs["weight"]
            source = made[call.takes[0]]
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
        return list(torch.split(ordered, [self.tape.values[p.slot][0].numel() for p in self.poolings], 1))

    def _gradients(self, classes: Tensor | None, images: int | None = None) -> list[Tensor]:
        """d logit / d pooled by a vector-Jacobian product through what follows the pools: per pool (N, K, P)."""
        assert self.poolings is not None
        with torch.enable_grad():
            given = {p.slot: self.tape.values[p.slot].detach().clone().requires_grad_() for p in self.poolings}
            made = self.tape.replay(self.tape.map.detach(), len(self.poolings), {k: v * 1 for k, v in given.items()})
            logits = made[self.out]
        parts = _jacobian(logits, list(given.values()), classes, images)
        return [torch.cat([g[i].flatten(2) for g in parts], 1) for i in range(len(given))]

    def _through_everything(self, classes: Tensor | None) -> Tensor:
        with torch.enable_grad():
            x = self.tape.map.detach().clone().requires_grad_()
            logits = self.tape.replay(x * 1)[self.out]
        shape = (0, 1, *(d + 1 for d in self.order[1:]))
        found = [
            (g.permute(shape).float() * self.map[:, None]).sum(2) for (g,) in _jacobian(logits, [x], classes, None)
        ]
        return torch.cat(found, 1)


def _jacobian(logits: Tensor, of: list[Tensor], classes: Tensor | None, images: int | None) -> list[list[Tensor]]:
    """Gradients of each class's logit, (n, k, …) for every tensor in `of`, in pieces of k ≤ CHUNK classes."""
    n, count = logits.shape
    if classes is None:
        classes = torch.arange(count, device=logits.device)[None]
    classes = classes.expand(n, -1)
    pieces: list[list[Tensor]] = []
    for chunk in torch.split(classes, CHUNK, 1):
        chosen = torch.zeros(chunk.shape[1], n, count, dtype=logits.dtype, device=logits.device)
        chosen.scatter_(2, chunk.t()[:, :, None], 1.0)
        grads = _vjp(logits, of, chosen)
        pieces.append([g.transpose(0, 1)[:images].detach() for g in grads])
    return pieces


def _vjp(logits: Tensor, of: list[Tensor], chosen: Tensor) -> list[Tensor]:
    try:
        found = torch.autograd.grad(
            logits, of, chosen, retain_graph=True, is_grads_batched=True, materialize_grads=True
        )
    except RuntimeError:  # an operator that vmap does not know: one class at a time
        rows = [torch.autograd.grad(logits, of, one, retain_graph=True, materialize_grads=True) for one in chosen]
        found = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return list(found)
