"""Rows that a window keeps: those that its next one needs, and no others."""

from typing import Any

import torch
from torch import Tensor

State = dict[Any, Any]
"""Tensors, numbers and texts in dictionaries and lists: what `torch.load(weights_only=True)` takes."""


class RowBuffer:
    """Cuts rows that come in bands into blocks that hold whole windows.

    Along `axis`, `count` windows of `extent` rows begin every `stride` rows, the first `before` rows above the image.
    Above and below the image stand rows of `fill`.

    >>> buffer = RowBuffer(axis=0, extent=3, stride=1, before=1, count=4, fill=0.0)
    >>> buffer.take(torch.ones(2, 1), final=False)[:, 0], buffer.take(torch.ones(2, 1), final=True)[:, 0]
    (tensor([0., 1., 1.]), tensor([1., 1., 1., 1., 0.]))
    """

    def __init__(self, axis: int, extent: int, stride: int, before: int, count: int, fill: float) -> None:
        self.axis, self.extent, self.stride, self.before, self.count, self.fill = (
            axis, extent, stride, before, count, fill,
        )  # fmt: skip
        self.kept: Tensor | None = None
        self.first = 0
        """The number of the next window."""
        self.skip = max(0, -before)
        """Rows that come next and that no window needs: a negative padding, or a stride larger than the window."""
        self.begun = False

    def saved(self) -> State:
        """What a pass that was stopped goes on from; `restore` takes it."""
        return {"kept": self.kept, "first": self.first, "skip": self.skip, "begun": self.begun}

    def restore(self, state: State) -> None:
        self.kept, self.first = state["kept"], state["first"]
        self.skip, self.begun = state["skip"], state["begun"]

    def take(self, rows: Tensor | None, final: bool, like: Tensor | None = None) -> Tensor | None:
        """The rows of all windows that are complete now, from that of `first`; None where there is none.

        like: a tensor of the shape of rows, with none of them, where the last band may give nothing.
        """
        block = self._joined(rows)
        if final and block is None:
            assert like is not None
            block = like
        if block is None:
            return None
        have = block.shape[self.axis]
        windows = self.count - self.first
        if final:
            block = self._filled(block, (windows - 1) * self.stride + self.extent - have if windows > 0 else 0)
            have = block.shape[self.axis]
        else:
            windows = min(windows, (have - self.extent) // self.stride + 1 if have >= self.extent else 0)
        if windows <= 0:
            # a copy: a call in place may change what came
            self.kept = block if block is self.kept else block.clone()
            return None
        used = windows * self.stride
        whole = block.narrow(self.axis, 0, (windows - 1) * self.stride + self.extent)
        self.skip += max(0, used - have)
        self.kept = block.narrow(self.axis, used, have - used).clone() if used < have else None
        self.first += windows
        return whole

    def _joined(self, rows: Tensor | None) -> Tensor | None:
        if rows is None or not rows.shape[self.axis]:
            return self.kept
        if not self.begun:
            self.begun = True
            rows = self._filled(rows, self.before, above=True)
        if self.skip:
            over = min(self.skip, rows.shape[self.axis])
            rows = rows.narrow(self.axis, over, rows.shape[self.axis] - over)
            self.skip -= over
        return rows if self.kept is None else torch.cat([self.kept, rows], self.axis)

    def _filled(self, rows: Tensor, count: int, above: bool = False) -> Tensor:
        if count <= 0:
            return rows
        shape = list(rows.shape)
        shape[self.axis] = count
        fill = rows.new_full(shape, self.fill)
        return torch.cat([fill, rows] if above else [rows, fill], self.axis)


class RowQueue:
    """Where branches meet: rows wait until all branches have them."""

    def __init__(self, axes: dict[int, int]) -> None:
        self.axes = axes
        """By slot, the dimension of rows."""
        self.waiting: dict[int, Tensor] = {}

    def saved(self) -> State:
        """As `RowBuffer.saved`."""
        return dict(self.waiting)

    def restore(self, state: State) -> None:
        self.waiting = dict(state)

    def take(self, given: dict[int, Tensor | None]) -> dict[int, Tensor] | None:
        """Of each slot as many rows as all of them have; None where one has none."""
        for slot, axis in self.axes.items():
            rows = given.get(slot)
            if rows is not None and slot in self.waiting:
                rows = torch.cat([self.waiting[slot], rows], axis)
            if rows is not None:
                self.waiting[slot] = rows
        ready = min(self.waiting[slot].shape[axis] if slot in self.waiting else 0 for slot, axis in self.axes.items())
        taken: dict[int, Tensor] = {}
        for slot, axis in self.axes.items():
            rows = self.waiting.pop(slot, None)
            if rows is None:
                continue
            count = rows.shape[axis]
            if ready:
                taken[slot] = rows if count == ready else rows.narrow(axis, 0, ready)
            if count > ready:  # a copy: a call in place may change what came
                self.waiting[slot] = rows.narrow(axis, ready, count - ready).clone()
        return taken if ready else None
