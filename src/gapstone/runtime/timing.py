"""Times several calls in interleaved rounds and compares them: medians with quartiles.

Whatever slows a round, such as another program, slows all calls of it: so the ratio is taken within each round.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from gapstone.console.formatting import count_noun
from gapstone.runtime.environment import BackgroundLoad

ROUNDS, LEAST = 41, 5
LONGEST = 15.0  # seconds in all, after which no round begins if LEAST are done
ALIKE = 0.02
"""Relative difference of two times below which they count as equal, however steady they are."""
UNSTEADY = 0.25
"""Distance of the quartiles, relative to the median, above which the rounds differ too much."""
BUSY = 0.25
"""Number of cores busy with other programs above which the machine counts as busy."""

Spread = Mapping[str, Any]
"""{"median", "low", "high"}; low and high are the quartiles."""


@dataclass(frozen=True)
class Timed:
    """Measured times."""

    seconds: dict[str, list[float]]
    """By call, one time per round."""
    others: float | None
    """Number of cores that other programs kept busy meanwhile; None if unknown."""


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, least: int = LEAST, longest: float = LONGEST
) -> Timed:
    """Run each call once per round, in a new random order, because a call after a large one finds a cold cache.

    >>> take_turns({"file": run, "PyTorch": other}).seconds["file"]
    [0.0121, 0.0119, …]
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, begin = random.Random(0), time.perf_counter()
    with BackgroundLoad() as load:
        for turn in range(rounds + 1):
            for name in order.sample(list(calls), len(calls)):
                start = time.perf_counter()
                calls[name]()
                if turn:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
            if turn >= least and time.perf_counter() - begin > longest:
                break
    return Timed(seconds, load.cores)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    low, high = (values[0],) * 2 if len(values) == 1 else quantiles(values, n=4, method="inclusive")[::2]
    return {"median": median(values), "low": low, "high": high}


def ratio(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """The spread of the ratio of our time to theirs, taken round by round."""
    return spread([a / b for a, b in zip(ours, others, strict=True)])


def pace(ratio: Spread) -> str:
    """`faster` or `slower` if that holds in three of four rounds, else `alike`.

    >>> pace({"median": 1.6, "low": 1.5, "high": 1.7}), pace({"median": 1.2, "low": 0.9, "high": 2.0})
    ('slower', 'alike')
    """
    if ratio["low"] > 1 + ALIKE:
        return "slower"
    return "faster" if ratio["high"] < 1 - ALIKE else "alike"


def unsteady(times: Spread) -> bool:
    """Whether the rounds differ so much that their median says little."""
    return bool(times["high"] - times["low"] > UNSTEADY * times["median"])


def busy(others: float | None, times: Iterable[Spread]) -> str | None:
    """The sign that other programs used the machine meanwhile; None if there is none."""
    if (others or 0) > BUSY:
        return f"other programs kept {others:.1f} of its cores busy"
    return "the rounds differ widely" if any(map(unsteady, times)) else None


def side_by_side(timed: Timed) -> str:
    """A sentence that compares two calls; it claims no difference that lies within the spread of the rounds.

    >>> side_by_side(take_turns({"int8": run, "float": other}))
    'int8 4.1 ms (quartiles 4.0 to 4.2), float 6.0 ms (5.9 to 6.3), medians of 41 interleaved rounds.'
    """
    (name, ours), (other, theirs) = timed.seconds.items()
    times = [spread([1000 * duration for duration in seconds]) for seconds in (ours, theirs)]
    phrases = [f"{each['median']:.3g} ms ({word}{each['low']:.3g} to {each['high']:.3g})"
               for each, word in zip(times, ("quartiles ", ""), strict=True)]  # fmt: skip
    text = f"{name} {phrases[0]}, {other} {phrases[1]}, medians of {count_noun(len(ours), 'interleaved round')}"
    if pace(ratio(ours, theirs)) == "alike":
        text += "; they do not differ beyond the spread of the rounds"
    if sign := busy(timed.others, times):
        text += f". The machine was busy ({sign}): these times are too long and uncertain"
    return f"{text}."
