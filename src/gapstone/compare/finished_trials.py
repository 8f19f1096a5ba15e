"""Finished trials, as read from their folders."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.compare import trials
from gapstone.compare.plan import ComparisonPlan
from gapstone.compare.trials import Trial
from gapstone.storage.sealed_json import DamagedError, damage_note


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial, as read from its folder."""

    trial: Trial
    facts: dict[str, Any]
    arrays: dict[str, Any]

    def correct(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each test image is classified correctly."""
        return np.asarray(self.arrays["answer"] == labels[self.arrays["test"]])


def missing(plan: ComparisonPlan, out: Path, log: Callable[[str], None]) -> list[Trial]:
    """The trials of the plan that are not finished, or whose files are damaged, which is logged."""
    absent, damaged = [], []
    for trial in plan.all_trials:
        try:
            trials.read(out / "trials" / trial.id)
        except FileNotFoundError:
            absent.append(trial)
        except DamagedError as error:
            absent.append(trial)
            damaged.append(error)
    if damaged:
        log(damage_note(damaged))
    return absent


def read_finished(plan: ComparisonPlan, out: Path) -> dict[str, list[FinishedTrial]]:
    """Read the finished trials of the plan, by head, in its order. Raises DamagedError for a damaged one."""
    return by_head(plan.request.heads, plan.trials, out)


def by_head(heads: Sequence[str], trials_of: Iterable[Trial], out: Path) -> dict[str, list[FinishedTrial]]:
    """Read those of the trials that are finished. Raises DamagedError for a damaged one."""
    finished: dict[str, list[FinishedTrial]] = {head: [] for head in heads}
    for trial in trials_of:
        with suppress(FileNotFoundError):  # the trial failed
            finished[trial.head].append(FinishedTrial(trial, *trials.read(out / "trials" / trial.id)))
    return finished
