"""How many rows go through the network at once, for a budget of memory, estimated before the work."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from gapstone.storage.paths import format_bytes
from gapstone.streaming.row_layout import Played, RowCall, SlotFacts, StreamError
from gapstone.streaming.row_recorder import RowRecording
from gapstone.streaming.row_steps import row_buffer

MEMORY = "2GB"
"""That an image may take, unless told otherwise."""
MOST_ROWS, LEAST_ROWS = 1024, 4
PIXELS = 1 << 19
"""Of a band, where memory allows more: larger ones leave the processor's caches, and are slower."""
SPARE = 64 << 20
"""Bytes that torch and the allocator take besides."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class BandPlan:
    """What a run will take."""

    rows: int
    """Of a band."""
    bytes: int
    """At most in memory, as estimated, besides what was given."""
    kept: int
    """Of these, what is kept to make maps of classes."""


def parse_bytes(memory: int | str) -> int:
    """A number of bytes, from "2GB", "500 MB" or a number.

    >>> parse_bytes("1.5 GB"), parse_bytes(1000)
    (1500000000, 1000)
    """
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?[bB]?)\s*", memory) if isinstance(memory, str) else None
    unit = UNITS.get(match[2].upper() if match[2].upper() in UNITS else match[2].upper() + "B") if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise ValueError(f"memory={memory!r}: expected a number of bytes, or a size such as '2GB' or '500MB'")
    return int(float(match[1]) * unit)


def plan_bands(recording: RowRecording, memory: int, held: Callable[[int], int], kept: int = 0) -> BandPlan:
    """The most rows that fit; `held`: bytes that the reader takes for so many rows; `kept`: for maps.

    Raises StreamError where the least do not fit; says what would.
    """
    image = recording.slots[0]

    def needed(rows: int) -> int:
        return SPARE + kept + played_bytes(recording, rows) + held(rows)

    fits = max(LEAST_ROWS, min(MOST_ROWS, PIXELS // image.shape[3]))
    rows = 1 << (min(fits, image.rows) - 1).bit_length()
    while rows > LEAST_ROWS and needed(rows) > memory:
        rows //= 2
    if (least := needed(rows)) > memory:
        without = f", or maps=False, for which {format_bytes(least - kept)} will do" if kept else ""
        raise StreamError(
            f"memory: {format_bytes(memory)} are too little for an image of {image.rows}×{image.shape[3]} px on this "
            f"network, which takes about {format_bytes(least)} row by row: give as much{without}"
        )
    return BandPlan(rows, least, kept)


def slot_bytes(slot: SlotFacts) -> int:
    return slot.shape.numel() * slot.dtype.itemsize


def played_bytes(recording: RowRecording, rows: int) -> int:
    """What calls hold at most, with bands of so many rows of the image."""
    share = rows / recording.slots[0].rows
    last = {slot: call.number for call in recording.calls for slot in call.maps}
    late = _delays(recording)
    kept, live, most = 0.0, {0: _band_bytes(recording.slots[0], share)}, 0.0
    for call in recording.calls:
        live |= {slot: _band_bytes(recording.slots[slot], share) for slot in call.slots}
        kept += _kept_bytes(recording, call, late)
        # a block of rows is joined before a window goes over it, and torch lays it out anew
        working = sum(live.get(slot, 0.0) for slot in call.maps) if call.played is Played.WINDOW else 0.0
        most = max(most, sum(live.values()) + 2 * working)
        for slot in [*call.maps, *call.slots]:
            if last.get(slot, call.number) == call.number:
                live.pop(slot, None)
    return int(kept + SCATTERED * most)


def _band_bytes(slot: SlotFacts, share: float) -> float:
    """Of a band's part of a slot: at least a row of it."""
    return slot_bytes(slot) * (min(1.0, max(share, 1 / max(1, slot.rows))) if slot.layout is not None else 1.0)


def _row_bytes(slot: SlotFacts) -> float:
    return slot_bytes(slot) / max(1, slot.rows)


def _delays(recording: RowRecording) -> dict[int, float]:
    """By slot, how many rows of the image behind the band its rows are made."""
    height, late = recording.slots[0].rows, {0: 0.0}
    for call in recording.calls:
        behind = max((late.get(slot, 0.0) for slot in call.maps), default=0.0)
        if call.played is Played.WINDOW:
            facts = recording.slots[call.maps[0]]
            buffer = row_buffer(call, facts, recording.slots[call.slots[0]])
            behind += (buffer.extent - 1 - buffer.before) * height / max(1, facts.rows)
        late |= dict.fromkeys(call.slots, behind)
    return late


def _kept_bytes(recording: RowRecording, call: RowCall, late: dict[int, float]) -> float:
    """What a call keeps from one band to the next: rows of windows, and of branches that wait for the slowest."""
    facts = [recording.slots[slot] for slot in call.maps]
    if call.played is Played.WINDOW:
        return _row_bytes(facts[0]) * (row_buffer(call, facts[0], recording.slots[call.slots[0]]).extent - 1)
    if len(facts) < 2:
        return 0.0
    slowest, height = max(late[slot] for slot in call.maps), recording.slots[0].rows
    waiting = [(slowest - late[slot]) * one.rows / height + 1 for slot, one in zip(call.maps, facts, strict=True)]
    return sum(rows * _row_bytes(one) for rows, one in zip(waiting, facts, strict=True))


SCATTERED = 2.0
"""Memory between tensors that is free and not given back: of nine networks at most that."""
