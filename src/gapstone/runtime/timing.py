"""Several calls timed side by side, and what their times allow to say: medians of interleaved rounds, with quartiles.

What slows a round, such as another program, slows all calls of it: they are told apart by their ratios within a round.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from gapstone.console.formatting import count_noun
from gapstone.runtime.environment import Others

ROUNDS, LEAST = 41, 5
LONGEST = 15.0  # seconds in all: then the round is the last, if LEAST are done
ALIKE = 0.02
"""Of the other's time: a smaller difference is none, however steady."""
UNSTEADY = 0.25
"""Between the quartiles, of the median: more, and the rounds say little."""
BUSY = 0.25
"""Cores kept busy by other programs, from which on the machine counts as loaded."""

Spread = Mapping[str, Any]
"""{"median", "low", "high"}: the last two are quartiles."""


@dataclass(frozen=True)
class Timed:
    """What was measured."""

    seconds: dict[str, list[float]]
    """Of each call, round by round."""
    others: float | None
    """Cores that other programs kept busy meanwhile."""


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, least: int = LEAST, longest: float = LONGEST
) -> Timed:
    """Every round runs each call once, in an order of its own: who comes after a large one finds a cold cache.

    >>> take_turns({"file": run, "PyTorch": other}).seconds["file"]
    [0.0121, 0.0119, …]
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, began = random.Random(0), time.perf_counter()
    with Others() as others:
        for turn in range(rounds + 1):
            for name in order.sample(list(calls), len(calls)):
                start = time.perf_counter()
                calls[name]()
                if turn:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
            if turn >= least and time.perf_counter() - began > longest:
                break
    return Timed(seconds, others.cores)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    low, high = (values[0],) * 2 if len(values) == 1 else quantiles(values, n=4, method="inclusive")[::2]
    return {"median": median(values), "low": low, "high": high}


def ratio(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Of our time over theirs, round by round."""
    return spread([a / b for a, b in zip(ours, others, strict=True)])


def pace(ratio: Spread) -> str:
    """`faster` or `slower` where three of four rounds say so, else `alike`.

    >>> pace({"median": 1.6, "low": 1.5, "high": 1.7}), pace({"median": 1.2, "low": 0.9, "high": 2.0})
    ('slower', 'alike')
    """
    if ratio["low"] > 1 + ALIKE:
        return "slower"
    return "faster" if ratio["high"] < 1 - ALIKE else "alike"


def unsteady(times: Spread) -> bool:
    """Do the rounds differ so much that their median says little?"""
    return bool(times["high"] - times["low"] > UNSTEADY * times["median"])


def busy(others: float | None, times: Iterable[Spread]) -> str | None:
    """By what it shows that the machine was at other work meanwhile; None where it does not."""
    if (others or 0) > BUSY:
        return f"other programs kept {others:.1f} of its cores busy"
    return "the rounds differ widely" if any(map(unsteady, times)) else None


def side_by_side(timed: Timed) -> str:
    """Two calls in a sentence: no difference is claimed that lies within the spread of the rounds.

    >>> side_by_side(take_turns({"int8": run, "float": other}))
    'int8 4.1 ms (quartiles 4.0 to 4.2), float 6.0 ms (5.9 to 6.3), medians of 41 interleaved rounds.'
    """
    (name, ours), (other, theirs) = timed.seconds.items()
    times = [spread([1000 * one for one in seconds]) for seconds in (ours, theirs)]
    said = [f"{one['median']:.3g} ms ({word}{one['low']:.3g} to {one['high']:.3g})"
            for one, word in zip(times, ("quartiles ", ""), strict=True)]  # fmt: skip
    text = f"{name} {said[0]}, {other} {said[1]}, medians of {count_noun(len(ours), 'interleaved round')}"
    if pace(ratio(ours, theirs)) == "alike":
        text += "; they do not differ beyond the spread of the rounds"
    if why := busy(timed.others, times):
        text += f". The machine was busy ({why}): these times are too long and uncertain"
    return f"{text}."
