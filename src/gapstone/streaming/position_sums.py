"""What is computed over all positions, summed up over bands: states of pools that add up, in float64."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gapstone.pooling import partial
from gapstone.pooling.partial_state import Partial
from gapstone.streaming.row_buffer import State
from gapstone.streaming.row_layout import RowCall, RowLayout, StreamError
from gapstone.streaming.row_rules import TOTALS
from gapstone.tracing import operations as ops


class PoolSum:
    """The state of a pool over the rows that were seen."""

    def __init__(self, call: RowCall, layout: RowLayout, rank: int, parameters: dict[str, Any]) -> None:
        op = call.operation
        self.call, self.parameters = call, parameters
        if op.function == "logsumexp" and isinstance(op, ops.Reduce):
            self.parameters = {"r": 1.0}
        dims: tuple[int, ...] = layout.axes
        if isinstance(op, ops.Reduce | ops.Scale):
            dims = tuple(range(rank)) if op.dims is None else op.dims
        self.name = op.function if isinstance(op, ops.RegionPool) else NAMES[op.function]
        kept = [axis for axis in range(rank) if axis not in dims]
        self.order = (*kept, *dict.fromkeys(dims))
        self.kept = len(kept)
        self.state: Partial | None = None
        self.seen = 0

    def add(self, x: Tensor) -> None:
        x = x.permute(self.order)
        flat = x.reshape(1, x.shape[: self.kept].numel(), -1)
        flat = flat.double() if flat.is_floating_point() else flat
        try:
            piece = partial(flat, self.name, **self.parameters)  # type: ignore[call-overload]
        except ValueError as error:
            raise StreamError(f"{self.call.module} cannot be streamed: {error}") from None
        assert isinstance(piece, Partial)
        self.seen += flat.shape[2]
        self.state = piece if self.state is None else self.state + piece

    def saved(self) -> State:
        """What a pass that was stopped goes on from; `restore` takes it."""
        return {"seen": self.seen, **_saved(self.state)}

    def restore(self, state: State) -> None:
        self.seen = state["seen"]
        self.state = _restored(state, self.name, self.parameters)

    def answer(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The answer over all rows."""
        assert self.state is not None
        answer = self.state.finish()
        op = self.call.operation
        if op.function == "logsumexp" and isinstance(op, ops.Reduce):
            answer = answer + torch.tensor(float(self.seen), dtype=answer.dtype).log()
        return answer.reshape(shape).to(dtype)


NAMES = {**TOTALS, "avg": "mean"}
"""torch's names of reductions, and those of gapstone's pools; logsumexp is a sum there, and a mean here."""


class NormSum:
    """The mean and variance of each group of channels over the rows that were seen."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.state: Partial | None = None

    def add(self, x: Tensor) -> None:
        piece = partial(x.double().reshape(1, self.groups, -1), "variance")
        assert isinstance(piece, Partial)
        self.state = piece if self.state is None else self.state + piece

    def saved(self) -> State:
        """As `PoolSum.saved`."""
        return _saved(self.state)

    def restore(self, state: State) -> None:
        self.state = _restored(state, "variance", {})

    def moments(self) -> tuple[Tensor, Tensor]:
        """(mean, variance) of each group, float64."""
        assert self.state is not None
        near, moved, _, count = self.state.parts
        return (near + moved / count).flatten(), self.state.finish().flatten()


def _saved(state: Partial | None) -> State:
    if state is None:
        return {"parts": None}
    return {"parts": list(state.parts), "dtype": state.dtype, "channels": state.parts[0].shape[1]}


def _restored(saved: State, name: str, parameters: dict[str, Any]) -> Partial | None:
    if saved["parts"] is None:
        return None
    like = torch.zeros(1, saved["channels"], 1, dtype=saved["dtype"], device=saved["parts"][0].device)
    empty = partial(like, name, **parameters)  # type: ignore[call-overload]
    assert isinstance(empty, Partial)
    return replace(empty, parts=tuple(saved["parts"]))


def normalised(x: Tensor, moments: tuple[Tensor, Tensor], weight: Any, bias: Any, eps: float) -> Tensor:
    """What a group norm (an instance norm) makes of x (1, C, rows, columns)."""
    mean, variance = (part.repeat_interleave(x.shape[1] // len(part)).view(1, -1, 1, 1) for part in moments)
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double().view(1, -1, 1, 1)
    y = (x - mean.to(x.dtype)) * scale.to(x.dtype)
    return y if bias is None else y + bias.view(1, -1, 1, 1)
