"""Finished trials, as read from their folders."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing import trial_files
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.trials import Trial
from gapstone.statistics.labels import Labels, all_right, is_multi_label
from gapstone.statistics.metric_values import Values
from gapstone.statistics.metrics import Metric, find_metric, metric_names
from gapstone.statistics.multi_label_metrics import Columns
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed

MOST_COLUMNS = 2_000_000
"""Test images × classes whose average precision is kept by image and class, 8 MB of each trial."""


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial, as read from its folder."""

    trial: Trial
    facts: dict[str, Any]
    arrays: dict[str, Any]
    """All but the probabilities, which are large and read when they are needed."""
    folder: Path | None = None
    _values: dict[str, Values] = field(default_factory=dict, repr=False, compare=False)
    _means: dict[str, Values] = field(default_factory=dict, repr=False, compare=False)
    _columns: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _worths: dict[str, float | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, trial: Trial, folder: Path) -> "FinishedTrial":
        """Raises FileNotFoundError if it is not there, DamagedError for a damaged one."""
        facts, arrays = trial_files.read(folder)
        arrays.pop("log_probabilities", None)
        return cls(trial, facts, arrays, folder)

    def log_probabilities(self) -> NDArray[np.float32] | None:
        """Of each test image and class; None where they are too many to be stored."""
        if "log_probabilities" in self.arrays or self.folder is None:
            found = self.arrays.get("log_probabilities")
        else:
            with np.load(self.folder / "arrays.npz", allow_pickle=False) as arrays:
                found = arrays.get("log_probabilities")
        return None if found is None else np.asarray(found, np.float32)

    def values(self, metric: Metric, labels: Labels) -> Values:
        """What each test image counts for the metric; `labels` of all images."""
        if metric.name not in self._values:
            self._compute(metric, labels[self.arrays["test"]])
        return self._values[metric.name]

    def worth(self, metric: Metric, labels: Labels) -> float | None:
        """What a decision is worth for the metric, which has `Metric.worth`; None where these do not show it."""
        self.values(metric, labels)
        return self._worths[metric.name]

    def of_classes(self, metric: Metric, labels: Labels) -> Values:
        """The metric of each class (K,), which has `Metric.of_classes`; NaN of classes that do not count."""
        self.values(metric, labels)
        return self._means[metric.name]

    def columns(self, metric: Metric, labels: Labels) -> Columns | None:
        """What each test image counts for each class's average precision; None where they are too many to be kept."""
        self.values(metric, labels)
        return self._columns.get(metric.name)

    def _compute(self, metric: Metric, labels: Labels) -> None:
        if f"value_{metric.name}" in self.arrays:
            self._values[metric.name] = self.arrays[f"value_{metric.name}"]
            worth = float(self.arrays.get(f"worth_{metric.name}", np.nan))
            self._worths[metric.name] = None if np.isnan(worth) else worth
            self._means[metric.name] = self.arrays.get(f"classes_{metric.name}", np.empty(0))
            return
        stored = self.log_probabilities()
        if stored is None:
            raise ValueError(
                f"{metric.words} needs the probabilities of all classes, which are not stored of "
                f"{len(labels):,} test images × {len(self.trial.labels):,} classes."
            )
        probabilities = np.exp(stored.astype(np.float64))
        multi_label = is_multi_label(labels)
        names = metric_names(probabilities.shape[1], multi_label)
        # all of them are asked for, and reading the probabilities takes longest
        every = [find_metric(name, multi_label) for name in names] if metric.name in names else [metric]
        for one in every:
            self._values[one.name], columns, self._worths[one.name] = one.measured(labels, probabilities)
            if columns is not None:
                self._means[one.name] = columns.mean(0)
                if one.name == "average_precision" and columns.size <= MOST_COLUMNS:
                    self._columns[one.name] = columns.astype(np.float32)

    def correct(self, labels: Labels) -> NDArray[np.bool_]:
        """Whether each test image is classified correctly, with several labels in all of them."""
        return all_right(labels[self.arrays["test"]], self.arrays["answer"])


def missing(plan: ComparisonPlan, out: Path, log: Callable[[str], None]) -> list[Trial]:
    """The trials of the plan that are not finished, or whose files are damaged, which is logged."""
    absent, damaged = [], []
    for trial in plan.all_trials:
        try:
            trial_files.read(out / "trials" / trial.id)
        except FileNotFoundError:
            absent.append(trial)
        except DamagedError as error:
            absent.append(trial)
            damaged.append(error)
    if damaged:
        log(damage_note(damaged))
    return absent


def facts_of(trials_of: Iterable[Trial], out: Path) -> list[tuple[Trial, dict[str, Any]]]:
    """The trials that are finished, with what their trial.json says."""
    found = []
    for trial in trials_of:
        with suppress(FileNotFoundError, DamagedError):
            found.append((trial, read_sealed(out / "trials" / trial.id / "trial.json", trial.id)))
    return found


def read_finished(plan: ComparisonPlan, out: Path) -> dict[str, list[FinishedTrial]]:
    """Read the finished trials of the plan, by head, in its order. Raises DamagedError for a damaged one."""
    return by_head(plan.request.heads, plan.trials, out)


def by_head(heads: Sequence[str], trials_of: Iterable[Trial], out: Path) -> dict[str, list[FinishedTrial]]:
    """Read those of the trials that are finished. Raises DamagedError for a damaged one."""
    finished: dict[str, list[FinishedTrial]] = {head: [] for head in heads}
    for trial in trials_of:
        with suppress(FileNotFoundError):  # the trial failed
            finished[trial.head].append(FinishedTrial.read(trial, out / "trials" / trial.id))
    return finished
