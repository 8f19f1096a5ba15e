"""How many rows go through the network at once, for a budget of memory, estimated before the work."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from gapstone.storage.paths import format_bytes
from gapstone.streaming.row_layout import Played, RowCall, SlotFacts, StreamError
from gapstone.streaming.row_recorder import RowRecording
from gapstone.streaming.row_steps import row_buffer

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
    kept, live, most = 0.0, {0: slot_bytes(recording.slots[0]) * share}, 0.0
    for call in recording.calls:
        made = {slot: _band_bytes(recording.slots[slot], share) for slot in call.slots}
        kept += _kept_rows(recording, call)
        live |= made
        # a block of rows is joined before a window goes over it, and torch lays it out anew
        working = sum(live.get(slot, 0.0) for slot in call.maps) if call.played is Played.WINDOW else 0.0
        most = max(most, sum(live.values()) + 2 * working)
        for slot in [*call.maps, *call.slots]:
            if last.get(slot, call.number) == call.number:
                live.pop(slot, None)
    return int(kept + most)


def _band_bytes(slot: SlotFacts, share: float) -> float:
    """Of a band's part of a slot: at least a row of it."""
    return slot_bytes(slot) * (min(1.0, max(share, 1 / max(1, slot.rows))) if slot.layout is not None else 1.0)


def _kept_rows(recording: RowRecording, call: RowCall) -> float:
    """Bytes that a call keeps from one band to the next."""
    total = 0.0
    for slot in call.maps:
        facts = recording.slots[slot]
        row = slot_bytes(facts) / max(1, facts.rows)
        if call.played is Played.WINDOW:
            total += row * (row_buffer(call, facts, recording.slots[call.slots[0]]).extent - 1)
        elif len(call.maps) > 1:
            total += row * QUEUED_ROWS
    return total


QUEUED_ROWS = 4
"""Rows that wait where branches meet, as estimated."""
