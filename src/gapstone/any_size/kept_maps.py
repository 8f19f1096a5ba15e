"""What is kept of the last map to make maps of classes: itself, or only what it adds to the classes asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gapstone.any_size.recorded_head import RecordedHead
from gapstone.heads import Head
from gapstone.maps.explain import explain, explain_head
from gapstone.maps.explanation import Explanation
from gapstone.maps.targets import Classes, select_classes
from gapstone.streaming.row_buffer import State
from gapstone.streaming.row_recorder import RowRecording
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.placement import Placement
from gapstone.tracing.tape import SplitError

FEW = 64
"""Classes of which all are projected at once, where it is not known yet which are asked for."""


@dataclass(frozen=True)
class MapsAsked:
    """Which maps, and what their explanation says of the model."""

    classes: Classes | None = None
    top_k: int | None = None
    labels: tuple[str, ...] | None = None
    multi_label: bool = False


class KeptMap:
    """The last map, put together of its rows; explained as `gs.explain` would.

    head: of a gapstone model what turns the map into logits, where that is not played row by row.
    """

    later = False
    """Whether it hears its rows when the logits are known."""

    def __init__(self, recording: RowRecording, slot: int, device: torch.device, head: Head | None = None) -> None:
        self.recording, self.slot, self.device, self.head = recording, slot, device, head
        self.facts = recording.slots[slot]
        self.map: Tensor | None = None
        self.seen = 0

    @property
    def bytes(self) -> int:
        """With what explaining it takes."""
        return 2 * self.facts.shape.numel() * self.facts.dtype.itemsize

    def saved(self) -> State:
        """What a run that was stopped goes on from; `restore` takes it."""
        return {"rows": None if self.map is None else self.map[:, :, : self.seen]}

    def restore(self, state: State) -> None:
        if state["rows"] is not None:
            self.hear(state["rows"])

    def hear(self, rows: Tensor) -> None:
        if self.map is None:
            self.map = torch.empty(self.facts.shape, dtype=self.facts.dtype, device=self.device)
        self.map[:, :, self.seen : self.seen + rows.shape[2]] = rows
        self.seen += rows.shape[2]

    def explanation(self, logits: Tensor, asked: MapsAsked, placement: Placement) -> Explanation:
        """Raises SplitError where no one map explains the logits."""
        assert self.map is not None
        classes, top_k, labels = asked.classes, asked.top_k, asked.labels
        if self.head is not None:
            found = explain_head(self.head, self.map, classes, top_k=top_k, labels=labels)
            found = replace(found, multi_label=asked.multi_label)
        else:
            head = RecordedHead(self.recording, self.slot)
            found = explain(head, self.map, classes, top_k=top_k, labels=labels, multi_label=asked.multi_label)
        if found.maps.shape[2:] != self.map.shape[2:]:
            placement = Placement.even(found.maps.shape[2:], self.recording.slots[0].shape[2:])
        return replace(found, placement=placement, seen=None)


class ProjectedMap:
    """Maps of some classes, made of the last map's rows as they pass: where the logits are linear in its mean.

    What a position adds is then its features times fixed weights, divided by the number of positions. Which classes
    must be known before; where they are the most probable of many, the last pass is played once more.
    """

    def __init__(self, recording: RowRecording, slot: int, device: torch.device, asked: MapsAsked) -> None:
        self.recording, self.slot, self.device, self.asked = recording, slot, device, asked
        self.facts = recording.slots[slot]
        classes = recording.slots[recording.logits].shape[1]
        named = asked.classes is not None
        self.later = not named and classes > FEW
        count = min(classes, asked.top_k or classes) if self.later else classes
        if named:
            count = select(asked, torch.zeros(1, classes)).shape[1]
        self.cells = self.facts.shape[2:].numel()
        self.bytes = 2 * (count + 1) * self.cells * self.facts.dtype.itemsize
        self.selected = None if self.later else select(asked if named else MapsAsked(), torch.zeros(1, classes))
        self.weights: Tensor | None = None
        self.maps: list[Tensor] = []

    def saved(self) -> State:
        """As `KeptMap.saved`."""
        return {"maps": self.maps}

    def restore(self, state: State) -> None:
        self.maps = list(state["maps"])

    def choose(self, logits: Tensor) -> None:
        """Of the most probable classes, now that they are known."""
        self.selected = select(self.asked, logits)

    def hear(self, rows: Tensor) -> None:
        assert self.selected is not None
        if self.weights is None:
            self.weights = _weights(
                RecordedHead(self.recording, self.slot), self.facts.shape[1], self.selected[0], rows
            )
        self.maps.append(torch.einsum("kc,nchw->nkhw", self.weights, rows) / self.cells)

    def explanation(self, logits: Tensor, asked: MapsAsked, placement: Placement) -> Explanation:
        assert self.selected is not None
        maps = torch.cat(self.maps, 2)
        head = RecordedHead(self.recording, self.slot)
        with torch.no_grad():
            bias = head(maps.new_zeros(1, self.facts.shape[1], 1, 1))[0]
        selected = self.selected.to(logits.device)
        found = Explanation.made(maps, selected, bias, logits, True, placement, asked.labels)
        found = replace(found, multi_label=asked.multi_label)
        if asked.classes is None and not self.later:  # all were made, before it was known which
            chosen = select(asked, logits)
            found = replace(found, maps=found.maps[:, chosen[0]], classes=chosen)
        return found


def projected(recording: RowRecording, slot: int, device: torch.device, asked: MapsAsked) -> ProjectedMap | None:
    """None where the logits are not linear in the mean of this map."""
    facts = recording.slots[slot]
    small = torch.rand(1, facts.shape[1], 2, 3, dtype=facts.dtype, device=device)
    try:
        traced, location = locate_head(RecordedHead(recording, slot), small)
    except (SplitError, RuntimeError):  # calls that name the size of the map
        return None
    means = all(pool.name == "mean" and pool.grid is None for pool in traced.poolings)
    if not (traced.linear and traced.end is None and means and traced.poolings and location.cells == (2, 3)):
        return None
    return ProjectedMap(recording, slot, device, asked)


def select(asked: MapsAsked, logits: Tensor) -> Tensor:
    """(1, k). Raises ValueError for classes that there are not."""
    selected = select_classes(asked.classes, asked.top_k, logits, asked.labels)
    return torch.arange(logits.shape[1])[None] if selected is None else selected


@torch.enable_grad()
def _weights(head: Callable[[Tensor], Tensor], channels: int, classes: Tensor, like: Tensor) -> Tensor:
    """(k + 1, C): d logit / d mean of the map, of these classes and of the mean of all."""
    x = like.new_zeros(1, channels, 1, 1).requires_grad_()
    logits = head(x)[0]
    each = [torch.autograd.grad(logit, x, retain_graph=True)[0].flatten() for logit in logits[classes.to(x.device)]]
    return torch.stack([*each, torch.autograd.grad(logits.mean(), x)[0].flatten()])
