"""Streams one image through a network: plan, check, passes, maps."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.any_size.given_image import GivenImage
from gapstone.any_size.plan_bands import BandPlan, plan_bands
from gapstone.any_size.recorded_head import RecordedHead, last_map, placement_of
from gapstone.any_size.self_check import self_check
from gapstone.any_size.streamed import Streamed
from gapstone.maps.explain import explain
from gapstone.maps.explanation import Explanation
from gapstone.maps.targets import Classes
from gapstone.runtime.eval_mode import eval_mode
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_pass import RowStream, play_bands
from gapstone.streaming.row_recorder import RowRecording, record_rows
from gapstone.tracing.placement import Placement
from gapstone.tracing.tape import SplitError

Progress = Callable[[int, int], None]
"""Told of rows that are done, of how many."""
UNKNOWN_STRIDE = 64
"""Taken for the self-check where the stride is not known: no network's is larger but by a power of two."""


@dataclass(frozen=True)
class StreamOptions:
    """As `gs.stream` takes them."""

    classes: Classes | None = None
    top_k: int | None = None
    labels: tuple[str, ...] | None = None
    multi_label: bool = False
    maps: bool = True
    memory: int = 2 * 10**9
    check: bool = True


def stream_image(
    network: nn.Module, image: GivenImage, options: StreamOptions, announce: Callable[[str], Progress]
) -> Streamed:
    """The logits and maps of one image. Raises: StreamError; what reading it raises."""
    start, device = time.perf_counter(), _device(network)
    recording = record_rows(network, image.channels, image.size)
    slot = last_map(recording) if options.maps else None
    no_maps = "its logits come from no one map" if options.maps and slot is None else None
    plan = plan_bands(recording, options.memory, image.held, slot, device.type != "cpu")
    placement = None if slot is None else placement_of(network, recording, tuple(recording.slots[slot].shape[2:]))
    error = None
    if options.check:
        exact = placement is not None and placement.exact
        stride = max(map(round, placement.stride)) if placement is not None and exact else UNKNOWN_STRIDE
        error = self_check(network, image.channels, image.size, stride, device)
    kept = _KeptMap(recording, slot, device) if slot is not None else None
    stream = RowStream(recording, device)
    report = announce(f"Streaming {image.size[0]:,}×{image.size[1]:,} px")
    with eval_mode(network):
        for number in range(recording.passes):
            last = number == recording.passes - 1
            bands = _told(image, plan, recording, device, number, report)
            play_bands(stream, bands, {kept.slot: kept.hear} if kept is not None and last else None)
    assert stream.logits is not None
    explanation = None
    if kept is not None and placement is not None:
        try:
            explanation = _explained(recording, kept, placement, options)
        except SplitError as reason:
            no_maps = str(reason)
    return Streamed(
        stream.logits, explanation, image.size, options.labels, options.multi_label, no_maps, recording.passes,
        plan.rows, error, time.perf_counter() - start, image.notes,
        image.thumbnail.pixels if image.thumbnail is not None else None,
    )  # fmt: skip


class _KeptMap:
    """Rows of a slot, as they are made, put together."""

    def __init__(self, recording: RowRecording, slot: int, device: torch.device) -> None:
        self.slot, facts = slot, recording.slots[slot]
        self.map = torch.empty(facts.shape, dtype=facts.dtype, device=device)
        self.seen = 0

    def hear(self, rows: Tensor) -> None:
        self.map[:, :, self.seen : self.seen + rows.shape[2]] = rows
        self.seen += rows.shape[2]


def _told(
    image: GivenImage, plan: BandPlan, recording: RowRecording, device: torch.device, number: int, report: Progress
) -> Iterator[Tensor]:
    rows, dtype = image.size[0], recording.slots[0].dtype
    done = number * rows
    for band in image.bands(plan.rows):
        yield band.to(device, dtype)
        done += band.shape[2]
        report(done, rows * recording.passes)


def _explained(recording: RowRecording, kept: _KeptMap, placement: Placement, options: StreamOptions) -> Explanation:
    names: dict[str, Any] = {"labels": options.labels, "multi_label": options.multi_label}
    head = RecordedHead(recording, kept.slot)
    found = explain(head, kept.map, options.classes, top_k=options.top_k, **names)
    same = found.maps.shape[2:] == kept.map.shape[2:]
    even = Placement.even(found.maps.shape[2:], recording.slots[0].shape[2:])
    return replace(found, placement=placement if same else even, seen=None)


def _device(network: nn.Module) -> torch.device:
    first = next(iter([*network.parameters(), *network.buffers()]), None)
    return torch.device("cpu") if first is None else first.device


__all__ = ["StreamError", "StreamOptions", "stream_image"]
