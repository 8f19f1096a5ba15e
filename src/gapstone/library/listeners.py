"""How the user's callbacks and trackers are called while a comparison runs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.gather_results import settings_of
from gapstone.comparing.learning_curve import labelled
from gapstone.comparing.listener import trial_name
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.tested_values import mean_of, metrics_of
from gapstone.comparing.trials import EpochNumbers, Trial
from gapstone.console.formatting import display, first_line
from gapstone.trackers.tracker import (
    ComparisonEnded,
    ComparisonStarted,
    EpochEnded,
    Scalar,
    Tracker,
    TrialEnded,
    finite,
)

LONGEST = 600
"""Characters of what a tracker's package says of its error."""
MEASURED = {
    "train_accuracy": "train/accuracy",
    "peak_memory_mb": "train/peak_memory_mb",
    "ece": "test/ece",
    "parameters": "model/parameters",
    "head_parameters": "model/head_parameters",
    "macs": "model/macs",
}
"""Facts of a trial, by the names that they are told by: charts are grouped by what stands before the slash."""


class Callbacks:
    """Calls the user's functions and trackers.

    An error in a function of the user's ends the comparison, as it would in a loop of one's own; what is trained stays.
    A tracker is not what the comparison is for: one that raises is told nothing more, and a line says so.
    """

    def __init__(
        self,
        on_epoch: Callable[[EpochEnded], object] | None = None,
        on_trial: Callable[[TrialEnded], object] | None = None,
        trackers: Iterable[Tracker] = (),
    ) -> None:
        self.on_epoch, self.on_trial = on_epoch, on_trial
        self.trackers = list(trackers)
        self.log: Callable[[str], object] = print

    def comparison_started(
        self, plan: ComparisonPlan, missing: list[Trial], out: Path, log: Callable[[str], object]
    ) -> None:
        self.plan, self.log = plan, log
        parts = plan.prepared.splits[0]
        counts = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
        data = {"data": plan.prepared.source.given, "size": "x".join(map(str, plan.prepared.preprocessing.size))}
        settings = settings_of(plan) | {"metric": plan.metric[0].name} | data | counts
        self.begin(ComparisonStarted(out.resolve().name, out, settings, len(missing)))

    def begin(self, started: ComparisonStarted) -> None:
        """Tell the trackers. Raises ValueError if one of them cannot begin; the others are told that it ends."""
        for index, tracker in enumerate(self.trackers):
            try:
                tracker.comparison_started(started)
            except Exception as error:
                del self.trackers[index:]
                self.comparison_stopped(error)
                raise ValueError(
                    f"trackers: {_named(tracker)} cannot begin: {_reason(error)}. No trial was begun; mend that, or "
                    f"leave the tracker out."
                ) from error

    def epoch_ended(self, trial: Trial, epoch: int, epochs: int, numbers: EpochNumbers) -> None:
        ended = epoch_event(trial, epoch, epochs, numbers)
        if self.on_epoch is not None:
            self.on_epoch(ended)
        if not _chooses(trial):
            self._tell(lambda tracker: tracker.epoch_ended(ended))

    def trial_ended(self, trial: Trial, reason: str | None, out: Path) -> None:
        if self.on_trial is None and not self.trackers:
            return
        if reason is not None:
            ended = self._ended(trial, reason, None)
        else:
            finished = FinishedTrial.read(trial, out / "trials" / trial.id)
            if _chooses(trial):
                self._tell_history(trial, finished.facts["history"])
            ended = self._ended(trial, None, finished)
        if self.on_trial is not None:
            self.on_trial(ended)
        self._tell(lambda tracker: tracker.trial_ended(ended))

    def comparison_ended(self, results: dict[str, Any], page: Path) -> None:
        self._tell(lambda tracker: tracker.comparison_ended(ComparisonEnded(results, page)))

    def comparison_stopped(self, error: BaseException) -> None:
        why = first_line(error) if str(error) else type(error).__name__
        self._tell(lambda tracker: tracker.comparison_ended(ComparisonEnded(None, None, why)))

    def _tell(self, tell: Callable[[Tracker], object]) -> None:
        for tracker in list(self.trackers):
            try:
                tell(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                self.log(
                    f"{_named(tracker)} failed and is told nothing more: {_reason(error)}. The comparison goes on."
                )

    def _tell_history(self, trial: Trial, history: dict[str, Any]) -> None:
        """All epochs of the candidate that was chosen: while it was trained, nobody knew which."""
        accuracies, losses = history["validation_accuracy"], history["validation_loss"]
        for index, loss in enumerate(history["train_loss"]):
            found = (losses[index], accuracies[index]) if losses else (None, None)
            ended = epoch_event(trial, index + 1, len(history["train_loss"]), EpochNumbers(loss, *found))
            self._tell(lambda tracker, ended=ended: tracker.epoch_ended(ended))  # type: ignore[misc]

    def _ended(self, trial: Trial, reason: str | None, finished: FinishedTrial | None) -> TrialEnded:
        facts = {} if finished is None else finished.facts
        seconds = facts["history"]["seconds"] if facts else None
        about = trial.head, trial.seed, trial.id, reason, facts.get("test_accuracy"), seconds, trial.test_only
        measures = {} if finished is None or not self.trackers else self._measures(finished)
        return TrialEnded(*about, trial_name(trial), self._settings(trial, facts), measures)

    def _settings(self, trial: Trial, facts: dict[str, Any]) -> dict[str, Scalar]:
        settings = trial.settings
        keys = ("batch_size", "optimizer", "learning_rate", "weight_decay", "balance", "precision")
        chosen = facts.get("tuning") or {}
        return {
            "head": trial.head,
            "seed" if trial.fold is None else "fold": trial.seed,
            "backbone": trial.backbone,
            "frozen": trial.frozen,
            "labelled_images": labelled(trial),
            "most_epochs": settings.epochs,
            **{key: chosen.get(key, getattr(settings, key)) for key in keys},
        }

    def _measures(self, finished: FinishedTrial) -> dict[str, float]:
        facts, history = finished.facts, finished.facts["history"]
        tested = {f"test/{metric.name}": mean_of(self.plan, metric, finished) for metric in metrics_of(self.plan)}
        trained = {
            "train/epochs": len(history["train_loss"]),
            "train/best_epoch": history["best_epoch"],
            "train/seconds": history["seconds"],
        }
        return finite(tested | {name: facts.get(key) for key, name in MEASURED.items()} | trained)


def _chooses(trial: Trial) -> bool:
    """Whether it trains several candidates and keeps one."""
    return trial.tuning is not None


def epoch_event(trial: Trial, epoch: int, epochs: int, numbers: EpochNumbers) -> EpochEnded:
    """What callbacks hear after an epoch."""
    found = numbers.validation_accuracy, numbers.train_loss, numbers.validation_loss
    return EpochEnded(trial.head, trial.seed, epoch, epochs, *found, trial.id, trial_name(trial))


def _named(tracker: Tracker) -> str:
    return display(type(tracker).__name__)


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())  # in full: packages say at the end what to do
    return display(f"{type(error).__name__}: {said}", LONGEST).rstrip(".")
