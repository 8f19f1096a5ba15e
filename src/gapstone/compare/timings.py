"""What measured times allow to say: which head is slower, whether the rounds agree, whether the machine was busy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gapstone.compare.verdict import listed
from gapstone.shown import many

ALIKE = 0.02
"""Of the baseline's time: a smaller difference is none, however steady."""
UNSTEADY = 0.25
"""Between the quartiles, of the median: more, and the rounds say little."""
BUSY = 0.25
"""Cores kept busy by other programs, from which on the machine counts as loaded."""

Speed = Mapping[str, Any]
"""One head's `ms_per_image` of results.json."""
Heads = Sequence[Mapping[str, Any]]
"""`heads` of results.json."""


def pace(speed: Speed) -> str | None:
    """`faster` or `slower` than the baseline where three of four rounds say so, else `alike`; None without a baseline.

    >>> pace({"ratio": {"median": 1.6, "low": 1.5, "high": 1.7}, …}), pace({"ratio": {"low": 0.9, "high": 2, …}, …})
    ('slower', 'alike')
    """
    if speed["ratio"] is None:
        return None
    if speed["ratio"]["low"] > 1 + ALIKE:
        return "slower"
    return "faster" if speed["ratio"]["high"] < 1 - ALIKE else "alike"


def unsteady(speed: Speed) -> bool:
    """Do the rounds differ so much that their median says little?"""
    return bool(speed["high"] - speed["low"] > UNSTEADY * speed["median"])


def busy(speeds: Iterable[Speed]) -> bool:
    """Was the machine at other work meanwhile?"""
    return any((speed["others"] or 0) > BUSY or unsteady(speed) for speed in speeds)


def against(heads: Heads, baseline: str) -> str:
    """Who is faster and slower than the baseline; nothing where nothing was timed beside it.

    >>> against(heads, "gap")
    'Time per image against gap (median of 41 interleaved rounds): fc 1.62×; gmp does not differ beyond their spread.'
    """
    timed = {head["head"]: head["ms_per_image"] for head in heads if head["ms_per_image"]}
    compared = {head: speed for head, speed in timed.items() if pace(speed)}
    if not compared:
        return ""
    alike = [head for head, speed in compared.items() if pace(speed) == "alike"]
    parts = [f"{head} {speed['ratio']['median']:.2f}×" for head, speed in compared.items() if pace(speed) != "alike"]
    if alike:
        verb = "does" if len(alike) == 1 else "do"
        parts.append(f"{listed(alike)} {verb} not differ beyond the spread of the rounds")
    rounds = many(min(speed["rounds"] for speed in compared.values()), "interleaved round")
    return f"Time per image against {baseline} (median of {rounds}): {'; '.join(parts)}."


def caution(heads: Heads) -> str | None:
    """That the machine was busy, where it was."""
    timed = [head["ms_per_image"] for head in heads if head["ms_per_image"]]
    if not busy(timed):
        return None
    cores = max(speed["others"] or 0 for speed in timed)
    who = f"other programs kept {cores:.1f} of its cores busy" if cores > BUSY else "the rounds differ widely"
    return (
        f"The machine was busy while the heads were timed ({who}): ms are too long and uncertain. The same command "
        f"times them again."
    )
