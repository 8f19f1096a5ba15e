"""Plays a recorded pass on bands of rows: as many times over the image as calls over all positions ask for."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gapstone.streaming.position_sums import NormSum, PoolSum, normalised
from gapstone.streaming.row_buffer import RowBuffer, RowQueue, State
from gapstone.streaming.row_layout import Played, RowCall, StreamError
from gapstone.streaming.row_recorder import RowRecording
from gapstone.streaming.row_steps import groups_of, play_once, play_rows, play_windows, row_buffer
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import Slot, replaced, tensors

Heard = Callable[[Tensor], None]
"""Takes rows of a slot as they are made, from top to bottom."""


class RowStream:
    """What is known of one image: constants, and the answers over all positions that passes have given."""

    def __init__(self, recording: RowRecording, device: torch.device) -> None:
        self.recording, self.device = recording, device
        self.known: dict[int, Tensor] = dict(recording.constants)
        self.pools: set[int] = set()
        """Calls, of passes that have ended."""
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}
        self.done: set[int] = set()
        self.level = 0
        """Passes that have ended."""

    @torch.no_grad()
    def once(self) -> None:
        """Play the calls without rows whose inputs are known."""
        for call in self.recording.calls:
            if call.played is Played.ONCE and call.number not in self.done and self.known.keys() >= set(call.inputs):
                out = play_once(call, self.filled(self.known), self.device)
                self.known |= zip(call.slots, tensors(out), strict=True)
                self.done.add(call.number)

    @property
    def logits(self) -> Tensor | None:
        """(1, K), when all passes have ended."""
        return self.known.get(self.recording.logits)

    def begin(self, listeners: dict[int, Heard] | None = None) -> "RowPass":
        """The next pass; listeners: by slot, who takes its rows."""
        self.once()
        return RowPass(self, listeners or {})

    def end(self, ended: "RowPass") -> None:
        """Keep what a pass has found."""
        facts = self.recording.slots
        for call in ended.totals:
            if call.played is Played.POOL:
                self.pools.add(call.number)
                slot = facts[call.slots[0]]
                self.known[call.slots[0]] = ended.pools[call.number].answer(slot.shape, slot.dtype)
            else:
                self.moments[call.number] = ended.norms[call.number].moments()
        self.level += 1
        self.once()

    def saved(self) -> State:
        """What passes have found, for a run that is stopped; `restore` takes it."""
        found = {slot: value for slot, value in self.known.items() if slot not in self.recording.constants}
        moments = {call: list(pair) for call, pair in self.moments.items()}
        calls = {"pools": sorted(self.pools), "done": sorted(self.done)}
        return {"known": found, "moments": moments, "level": self.level, **calls}

    def restore(self, state: State) -> None:
        self.known |= state["known"]
        self.pools, self.done, self.level = set(state["pools"]), set(state["done"]), state["level"]
        self.moments = {call: (mean, variance) for call, (mean, variance) in state["moments"].items()}

    @staticmethod
    def filled(values: dict[int, Tensor], more: dict[int, Tensor] | None = None) -> Callable[[Any], Any]:
        def fill(part: Any) -> Any:
            if not isinstance(part, Slot):
                return part
            return more[part.number] if more is not None and part.number in more else values[part.number]

        return fill


class RowPass:
    """One pass over the image: only the calls that what it looks for comes from."""

    def __init__(self, stream: RowStream, listeners: dict[int, Heard]) -> None:
        self.stream, self.listeners = stream, listeners
        recording = stream.recording
        self.totals = [
            call
            for call in recording.totals
            if recording.input_level(call) == stream.level and call.number not in {*stream.pools, *stream.moments}
        ]
        wanted = {slot for call in self.totals for slot in call.maps} | set(listeners)
        ends = {call.number for call in self.totals}
        calls = [c for c in recording.needed(wanted, set(stream.known)) if c.number not in ends]
        self.calls = sorted([*calls, *self.totals], key=lambda call: call.number)
        self.last = {slot: call.number for call in self.calls for slot in call.maps}
        self.pools: dict[int, PoolSum] = {}
        self.norms: dict[int, NormSum] = {}
        self.buffers: dict[int, RowBuffer] = {}
        self.queues: dict[int, RowQueue] = {}
        self.values: dict[int, Tensor] = {}
        """Rows of this band, by slot."""
        for call in self.calls:
            self._prepare(call)

    def _prepare(self, call: RowCall) -> None:
        facts, source = self.stream.recording.slots, call.maps[0]
        if len(call.maps) > 1:
            axes = {slot: layout.rows for slot in call.maps if (layout := facts[slot].layout) is not None}
            self.queues[call.number] = RowQueue(axes)
        layout = facts[source].layout
        assert layout is not None
        if call.played is Played.WINDOW:
            self.buffers[call.number] = row_buffer(call, facts[source], facts[call.slots[0]])
        elif call.played is Played.POOL:
            op = call.operation
            parameters = dict(op.parameters) if isinstance(op, ops.RegionPool) else {}
            filled = replaced(parameters, RowStream.filled(self.stream.known))
            self.pools[call.number] = PoolSum(call, layout, len(facts[source].shape), filled)
        elif call.played is Played.NORM and call.number not in self.stream.moments:
            self.norms[call.number] = NormSum(groups_of(call, facts[source].shape[1]))

    def saved(self) -> State:
        """What it keeps between two bands, for a run that is stopped; `restore` takes it."""
        return {
            "buffers": {call: buffer.saved() for call, buffer in self.buffers.items()},
            "queues": {call: queue.saved() for call, queue in self.queues.items()},
            "pools": {call: pool.saved() for call, pool in self.pools.items()},
            "norms": {call: norm.saved() for call, norm in self.norms.items()},
        }

    def restore(self, state: State) -> None:
        parts: dict[str, Mapping[int, Any]] = {
            "buffers": self.buffers, "queues": self.queues, "pools": self.pools, "norms": self.norms
        }  # fmt: skip
        for name, objects in parts.items():
            for call, one in objects.items():
                one.restore(state[name][call])

    @torch.no_grad()
    def band(self, rows: Tensor, final: bool) -> None:
        """Play a band of rows (1, C, rows, W) of the image; `final`: there are no more."""
        self.values = {0: rows}
        self._heard(0)
        for call in self.calls:
            made = self._step(call, final)
            self.values |= zip(call.slots, made, strict=True) if made else ()
            for slot in call.maps:
                if self.last[slot] == call.number:
                    self.values.pop(slot, None)
            for slot in call.slots:
                self._heard(slot)
        self.values = {}

    def _heard(self, slot: int) -> None:
        if slot in self.listeners and slot in self.values:
            self.listeners[slot](self.values[slot])
        if slot not in self.last:
            self.values.pop(slot, None)

    def _step(self, call: RowCall, final: bool) -> list[Tensor]:
        """The rows that a call gives of this band; none yet, by an empty list."""
        facts, known, source = self.stream.recording.slots, self.stream.known, call.maps[0]
        given = {slot: self.values[slot] for slot in call.maps if slot in self.values}
        if call.number in self.buffers:
            return self._windows(call, given.get(source), final)
        if call.number in self.queues:
            ready = self.queues[call.number].take({**given})
            if ready is None:
                return []
            given = ready
        if not given:
            return []
        if call.number in self.pools:
            self.pools[call.number].add(given[source])
            return []
        if call.number in self.norms:
            self.norms[call.number].add(given[source])
            return []
        if call.played is Played.NORM:
            op = call.operation
            assert isinstance(op, ops.GroupNorm | ops.InstanceNorm)
            weight, bias = replaced((op.weight, op.bias), RowStream.filled(known))
            return [normalised(given[source], self.stream.moments[call.number], weight, bias, op.eps)]
        answers = tuple(facts[slot] for slot in call.slots)
        return tensors(play_rows(call, facts[source], answers, RowStream.filled(known, given)))

    def _windows(self, call: RowCall, rows: Tensor | None, final: bool) -> list[Tensor]:
        buffer, source = self.buffers[call.number], self.stream.recording.slots[call.maps[0]]
        first, like = buffer.first, None
        if final and rows is None and buffer.kept is None:
            shape = list(source.shape)
            shape[buffer.axis] = 0
            like = torch.empty(shape, dtype=source.dtype, device=self.stream.device)
        block = buffer.take(rows, final, like)
        if block is None:
            return []
        some = dict.fromkeys(call.maps, block)
        return [play_windows(call, source, block, first, RowStream.filled(self.stream.known, some))]


def play_bands(
    stream: RowStream,
    bands: Iterable[Tensor],
    listeners: dict[int, Heard] | None = None,
    begun: tuple[int, State] | None = None,
    after: Callable[[int, RowPass], None] | None = None,
) -> None:
    """One pass over all bands of the image, each (1, C, rows, W), from top to bottom.

    `after` is told of each band but the last, with the rows so far; a pass that was stopped goes on from what it was
    told: `begun` has the number of rows, and `RowPass.saved`; the bands are those that follow.

    Raises StreamError for bands that are not those of the image that was recorded; the pass then counts for nothing.
    """
    image = stream.recording.slots[0]
    played, seen = stream.begin(listeners), 0
    if begun is not None:
        seen, state = begun
        played.restore(state)
    for rows in bands:
        if rows.dim() != 4 or (*rows.shape[:2], rows.shape[3]) != (*image.shape[:2], image.shape[3]):
            raise StreamError(
                f"a band {tuple(rows.shape)} of an image {tuple(image.shape)}: expected (1, {image.shape[1]}, rows, "
                f"{image.shape[3]})"
            )
        if rows.dtype != image.dtype:
            raise StreamError(f"a band of {rows.dtype}: the network was recorded for {image.dtype}")
        seen += rows.shape[2]
        if seen > image.rows:
            break
        played.band(rows, seen == image.rows)
        if after is not None and seen < image.rows:
            after(seen, played)
    if seen != image.rows:
        raise StreamError(f"the bands hold {'more' if seen > image.rows else seen} rows: the image has {image.rows}")
    stream.end(played)
