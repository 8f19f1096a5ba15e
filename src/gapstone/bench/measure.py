"""Times several calls in interleaved samples, and summarises the samples."""

import random
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gapstone.runtime import timing

FEWEST = 5  # least number of rounds; with fewer undisturbed samples, all samples count
LEAST = 5e-4  # least seconds of a sample: shorter calls are repeated in it


@dataclass(frozen=True)
class Sample:
    seconds: float
    disturbed: bool
    """Whether the system preempted the process: in wall time, all threads then wait for one."""


@dataclass(frozen=True)
class TimeSpread:
    median: float
    low: float
    high: float
    samples: int
    disturbed: bool = False
    """Whether too few samples were undisturbed, so that all of them count."""


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, seconds: float, threads: int
) -> dict[str, list[Sample]]:
    """Time every call once per round, in random order: a call after a copy finds the cache full of the copy.

    One thread is timed in CPU time, on which other processes have the least effect; more threads in wall time. Ends
    after `seconds`, but not before five rounds.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    names = list(runs)
    repeats = {name: _repeats(runs[name]) for name in names}
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    end = time.perf_counter() + seconds
    order = random.Random(0)
    for turn in range(rounds):
        if turn >= FEWEST and time.perf_counter() > end:
            break
        for name in order.sample(names, len(names)):
            samples[name].append(_sample(runs[name], repeats[name], clock, threads))
    return samples


def _repeats(run: Callable[[], object]) -> int:
    run()
    began = time.perf_counter()
    run()
    return max(1, min(1000, round(LEAST / max(time.perf_counter() - began, 1e-7))))


def _sample(run: Callable[[], object], repeats: int, clock: Callable[[], float], threads: int) -> Sample:
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    began = clock()
    for _ in range(repeats):
        run()
    seconds = (clock() - began) / repeats
    switched = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw != switches
    return Sample(seconds, threads > 1 and switched)


def spread(samples: list[Sample]) -> TimeSpread:
    return _spread([(sample.seconds, sample.disturbed) for sample in samples])


def ratio(others: list[Sample], ours: list[Sample]) -> TimeSpread:
    """Return the ratio of times per round, in which disturbances affect both."""
    pairs = zip(others, ours, strict=True)
    return _spread([(a.seconds / b.seconds, a.disturbed or b.disturbed) for a, b in pairs])


def _spread(values: list[tuple[float, bool]]) -> TimeSpread:
    """Of the undisturbed values, or of all if those are too few."""
    clean = [value for value, disturbed in values if not disturbed]
    few = len(clean) < min(FEWEST, len(values))
    chosen = [value for value, _ in values] if few else clean
    return TimeSpread(**timing.spread(chosen), samples=len(chosen), disturbed=few)
