"""Finished trials, as read from their folders."""

from collections.abc import Callable
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
    """One finished trial, as read from its folder."""

    trial: Trial
    facts: dict[str, Any]
    arrays: dict[str, Any]

    def correct(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Right or wrong, per test image."""
        return np.asarray(self.arrays["answer"] == labels[self.arrays["test"]])

    @property
    def shifted(self) -> NDArray[np.float32]:
        """The share of its moves answered right, per image of the robustness tests."""
        return np.asarray(self.arrays["shifted"])


def missing(plan: ComparisonPlan, out: Path, say: Callable[[str], None]) -> list[Trial]:
    """Those of the plan that are not there as they were written; `say` is told of those that were damaged."""
    absent, damaged = [], []
    for trial in plan.trials:
        try:
            trials.read(out / "trials" / trial.id)
        except FileNotFoundError:
            absent.append(trial)
        except DamagedError as error:
            absent.append(trial)
            damaged.append(error)
    if damaged:
        say(damage_note(damaged))
    return absent


def all_done(plan: ComparisonPlan, out: Path) -> dict[str, list[FinishedTrial]]:
    """Those of the plan, by head, in its order. Raises: DamagedError for one that was damaged while it was at work."""
    done: dict[str, list[FinishedTrial]] = {head: [] for head in plan.request.heads}
    for trial in plan.trials:
        with suppress(FileNotFoundError):  # it failed
            done[trial.head].append(FinishedTrial(trial, *trials.read(out / "trials" / trial.id)))
    return done
