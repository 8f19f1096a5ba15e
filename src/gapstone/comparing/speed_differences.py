"""Sentences on the measured times: which heads are slower than the baseline, and whether the machine was busy."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gapstone.comparing.verdict import listed
from gapstone.console.formatting import count_noun
from gapstone.runtime.timing import busy, pace

Heads = Sequence[Mapping[str, Any]]
"""`heads` of results.json."""


def against(heads: Heads, baseline: str) -> str:
    """A sentence on the heads that are faster and slower than the baseline; "" if none was timed beside it.

    >>> against(heads, "gap")
    'Time per image against gap (median of 41 interleaved rounds): fc 1.62×; gmp does not differ beyond their spread.'
    """
    timed = {head["head"]: head["ms_per_image"] for head in heads if head["ms_per_image"]}
    compared = {head: speed for head, speed in timed.items() if speed["ratio"]}
    if not compared:
        return ""
    alike = [head for head, speed in compared.items() if pace(speed["ratio"]) == "alike"]
    parts = [f"{head} {speed['ratio']['median']:.2f}×" for head, speed in compared.items() if head not in alike]
    if alike:
        verb = "does" if len(alike) == 1 else "do"
        parts.append(f"{listed(alike)} {verb} not differ beyond the spread of the rounds")
    rounds = count_noun(min(speed["rounds"] for speed in compared.values()), "interleaved round")
    return f"Time per image against {baseline} (median of {rounds}): {'; '.join(parts)}."


def busy_sign(speeds: Collection[Mapping[str, Any]]) -> str | None:
    """The sign that the machine was busy while the heads were timed, or None; `speeds` are their `ms_per_image`."""
    return busy(max((speed["others"] or 0 for speed in speeds), default=0), speeds)


def caution(heads: Heads) -> str | None:
    """A warning if the machine was busy while the heads were timed, else None."""
    why = busy_sign([head["ms_per_image"] for head in heads if head["ms_per_image"]])
    if why is None:
        return None
    return (
        f"The machine was busy while the heads were timed ({why}): ms are too long and uncertain. The same command "
        f"times them again."
    )
