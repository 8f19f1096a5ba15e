"""Streams one image through a network: plan, check, passes, maps."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gapstone.any_size.given_image import GivenImage
from gapstone.any_size.kept_maps import KeptMap, MapsAsked, ProjectedMap, projected, select
from gapstone.any_size.plan_bands import BandPlan, plan_bands
from gapstone.any_size.recorded_head import last_map, placement_of
from gapstone.any_size.self_check import self_check
from gapstone.any_size.stream_checkpoint import StreamCheckpoint, file_image, identity_of
from gapstone.any_size.streamed import Streamed
from gapstone.heads import Head
from gapstone.models.classifier import Classifier
from gapstone.runtime.eval_mode import eval_mode
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_pass import Heard, RowStream, play_bands
from gapstone.streaming.row_recorder import RowRecording, record_rows
from gapstone.tracing.tape import SplitError

Progress = Callable[[int, int], None]
"""Told of rows that are done, of how many."""
ENDS = frozenset(["softmax", "log_softmax", "sigmoid", "log_sigmoid"])
UNKNOWN_STRIDE = 64
"""Taken for the self-check where the stride is not known: the strides of most networks divide it."""


@dataclass(frozen=True)
class StreamOptions:
    """As `gs.stream` takes them."""

    asked: MapsAsked
    memory: int
    maps: bool = True
    check: bool = True
    checkpoint: Path | None = None
    anew: bool = False
    """A checkpoint of another run is no error."""


def stream_image(
    network: nn.Module, image: GivenImage, options: StreamOptions, announce: Callable[[str], Progress]
) -> Streamed:
    """The logits and maps of one image. Raises: StreamError; what reading it raises."""
    start, device, asked = time.perf_counter(), _device(network), options.asked
    whole = network
    network, recording, head = _recorded(network, image)
    slot = last_map(recording) if options.maps or head is not None else None
    no_maps = "its logits come from no one map" if options.maps and slot is None else None
    if slot is not None and head is None:  # before the work, not after it
        select(asked, torch.zeros(1, recording.slots[recording.logits].shape[1]))
    kept, plan = _planned(recording, image, slot, head, options, device)
    placement = None if slot is None else placement_of(network, recording, tuple(recording.slots[slot].shape[2:]))
    error = None
    if options.check:
        exact = placement is not None and placement.exact
        stride = max(map(round, placement.stride)) if placement is not None and exact else UNKNOWN_STRIDE
        error = self_check(network, image.channels, image.size, stride, device)
    stream, passes = RowStream(recording, device), recording.passes + (kept is not None and kept.later)
    checkpoint = None
    if options.checkpoint is not None:
        file = file_image(image)
        identity = identity_of(whole, recording, file, asked, options.maps, plan.rows)
        checkpoint = StreamCheckpoint(options.checkpoint, identity, file, stream, kept)
    report = announce(f"Streaming {image.size[0]:,}×{image.size[1]:,} px")
    with eval_mode(network):
        _play(stream, image, plan.rows, passes, kept, checkpoint, options.anew, report)
    logits, explanation = stream.logits, None
    assert logits is not None
    if kept is not None and placement is not None:
        try:
            explanation = kept.explanation(logits, asked, placement)
        except SplitError as reason:
            no_maps = str(reason)
    if head is not None:
        assert explanation is not None
        logits, explanation = explanation.logits, explanation if options.maps else None
    seconds, small = time.perf_counter() - start, image.thumbnail
    return Streamed(
        logits, explanation, image.size, asked.labels, asked.multi_label, _end(recording), no_maps, passes, plan.rows,
        error, seconds, image.notes, None if small is None else small.pixels,
    )  # fmt: skip


def _play(
    stream: RowStream,
    image: GivenImage,
    rows: int,
    passes: int,
    kept: KeptMap | ProjectedMap | None,
    checkpoint: StreamCheckpoint | None,
    anew: bool,
    report: Progress,
) -> None:
    """All passes, or those that a checkpoint leaves."""
    first, begun = (0, None) if checkpoint is None else checkpoint.begun(anew)
    for number in range(first, passes):
        if isinstance(kept, ProjectedMap) and kept.later and stream.logits is not None:
            kept.choose(stream.logits)
        bands = _told(image, rows, stream, (number, passes), report, begun[0] if begun else 0)
        heard: dict[int, Heard] = {kept.slot: kept.hear} if kept is not None and number == passes - 1 else {}
        after = None if checkpoint is None else checkpoint.after_band(number)
        play_bands(stream, bands, heard, begun, after)
        begun = None
    if checkpoint is not None:
        checkpoint.end()


def _end(recording: RowRecording) -> str | None:
    """What makes the network's answer of its logits, where something does."""
    last = next((call for call in recording.calls if recording.logits in call.slots), None)
    function = None if last is None else last.operation.function
    return function if function in ENDS else None


class PooledFeatures(nn.Module):
    """The backbone of a gapstone model, whose head takes the whole map at once: attention, or a grid."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.features(x)
        return maps.mean((2, 3))


def _recorded(network: nn.Module, image: GivenImage) -> tuple[nn.Module, RowRecording, Head | None]:
    """What is played row by row, and the head that comes after it: None, where it is the whole network."""
    try:
        return network, record_rows(network, image.channels, image.size), None
    except StreamError:
        if not isinstance(network, Classifier) or not network.head.reads.maps_alone:
            raise
        features = PooledFeatures(network.features)
        return features, record_rows(features, image.channels, image.size), network.head


def _planned(
    recording: RowRecording,
    image: GivenImage,
    slot: int | None,
    head: Head | None,
    options: StreamOptions,
    device: torch.device,
) -> tuple[KeptMap | ProjectedMap | None, BandPlan]:
    """The map is kept where it fits, what it adds to some classes where that does."""

    def plan(kept: int, always: int = 0) -> BandPlan:
        def held(rows: int) -> int:
            return always + (image.held(rows) if device.type == "cpu" else 0)

        return plan_bands(recording, options.memory, held, kept)

    if slot is None:
        return None, plan(0)
    whole = KeptMap(recording, slot, device, head)
    if head is not None:
        return whole, plan(0, whole.bytes)
    try:
        return whole, plan(whole.bytes)
    except StreamError:
        rows = projected(recording, slot, device, options.asked)
        if rows is None:
            raise
        return rows, plan(rows.bytes)


def _told(
    image: GivenImage, rows: int, stream: RowStream, at: tuple[int, int], report: Progress, start: int
) -> Iterator[Tensor]:
    """Bands of one pass from the row `start` on; `at`: its number, of how many."""
    height, dtype = image.size[0], stream.recording.slots[0].dtype
    done = at[0] * height + start
    for band in image.bands(rows, start):
        yield band.to(stream.device, dtype)
        done += band.shape[2]
        report(done, height * at[1])


def _device(network: nn.Module) -> torch.device:
    first = next(iter([*network.parameters(), *network.buffers()]), None)
    return torch.device("cpu") if first is None else first.device
