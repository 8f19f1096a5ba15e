"""What a recorded pass does after its last map, as a network of its own: `gs.explain` watches it run."""

from typing import Any

import torch
from torch import Tensor, nn

from gapstone.nets.on_meta import shapes_alone, state_shapes
from gapstone.runtime.eval_mode import eval_mode
from gapstone.streaming.row_layout import Played, RowCall
from gapstone.streaming.row_pass import RowStream
from gapstone.streaming.row_recorder import RowRecording
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.placement import Placement
from gapstone.tracing.tape import SplitError, replaced, tensors
from gapstone.tracing.torch_calls import name_of
from gapstone.tracing.trace import CLAMPS, POWERS


class RecordedHead(nn.Module):
    """The calls from the rows of one slot, whole, to the logits."""

    def __init__(self, recording: RowRecording, slot: int) -> None:
        super().__init__()
        self.recording, self.slot = recording, slot
        self.calls = recording.needed({recording.logits}, {slot})

    def forward(self, x: Tensor) -> Tensor:
        values = {**self.recording.constants, self.slot: x}
        for call in self.calls:
            fill = RowStream.filled(values)
            made: Any = call.function(*replaced(call.args, fill), **replaced(call.kwargs, fill))
            values |= zip(call.slots, tensors(made), strict=False)  # of a maximum, its value alone
        return values[self.recording.logits]


def last_map(recording: RowRecording) -> int | None:
    """The slot of the map (1, C, h, w) that the logits are pooled from; None where there is no one such."""
    last = [call for call in recording.totals if recording.input_level(call) == recording.passes - 1]
    made_by = {slot: call for call in recording.calls for slot in call.slots}
    maps = {_before_the_pool(recording, made_by, call.maps[0]) for call in last}
    if len(maps) != 1 or any(call.played is not Played.POOL for call in last):
        return None
    slot = maps.pop()
    layout = recording.slots[slot].layout
    if layout is None or layout.folded or not layout.are_last(4) or len(recording.slots[slot].shape) != 4:
        return None
    head = RecordedHead(recording, slot)
    return slot if all(0 not in call.inputs for call in head.calls) else None


def _before_the_pool(recording: RowRecording, made_by: dict[int, RowCall], slot: int) -> int:
    """A pool may begin with positions put into one dimension, or with a power: a generalised mean of the user's own."""
    while (call := made_by.get(slot)) is not None and len(call.maps) == 1:
        layout = recording.slots[slot].layout
        if name_of(call.function) not in POWERS | CLAMPS and (layout is None or not layout.folded):
            break
        slot = call.maps[0]
    return slot


class _OnShapes(nn.Module):
    """A network that is run on shapes alone; it keeps its own values."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._given = (network, state_shapes(network))  # in a tuple: no part of this module

    def forward(self, x: Tensor) -> Tensor:
        network, shapes = self._given
        with eval_mode(network):
            return torch.func.functional_call(network, shapes, (x,))  # type: ignore[no-any-return]


def placement_of(network: nn.Module, recording: RowRecording, cells: tuple[int, ...]) -> Placement:
    """Where the cells of the last map lie in the image: by the geometry of every layer, else in equal parts."""
    image = recording.slots[0]
    size = tuple(image.shape[2:])
    try:
        with shapes_alone():  # outside: what looks for the map must see each call itself
            _, location = locate_head(_OnShapes(network), torch.empty(image.shape, dtype=image.dtype, device="meta"))
    except SplitError:
        return Placement.even(cells, size)
    found = Placement.of(location)
    return found if (location.grid or location.cells) == cells else Placement.even(cells, size)
