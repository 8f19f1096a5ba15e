"""Finished trials, as read from their folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.compare import trials
from gapstone.compare.plan import Plan
from gapstone.compare.trials import Trial


@dataclass(frozen=True)
class Done:
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


def all_done(plan: Plan, out: Path) -> dict[str, list[Done]]:
    """Those of the plan, by head, in its order."""
    done: dict[str, list[Done]] = {head: [] for head in plan.request.heads}
    for trial in plan.trials:
        folder = out / "trials" / trial.id
        if folder.exists():
            done[trial.head].append(Done(trial, *trials.read(folder)))
    return done
