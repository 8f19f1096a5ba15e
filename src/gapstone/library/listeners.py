"""What `on_epoch` and `on_trial` are told, and how they are called while a comparison runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gapstone.comparing.trial_files import read
from gapstone.comparing.trials import Trial


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of a network that is trained whole, or the end of the training of a head on a frozen backbone."""

    head: str
    seed: int
    """Or the number of the fold."""
    epoch: int
    """From 1 on."""
    epochs: int
    validation_accuracy: float | None
    """A fraction; None without validation images."""


@dataclass(frozen=True)
class TrialEnded:
    """A trial that was trained and measured, or failed."""

    head: str
    seed: int
    """Or the number of the fold."""
    id: str
    """The name of its folder in `out/trials`."""
    failed: str | None
    """The reason; None: it is done."""
    test_accuracy: float | None
    """A fraction."""
    train_seconds: float | None
    test_only: bool = False
    """It is a point of a learning curve, of part of the labelled images."""


class Callbacks:
    """Calls the user's functions; an error in one of them ends the comparison, as it would in a loop of one's own."""

    def __init__(
        self, on_epoch: Callable[[EpochEnded], object] | None, on_trial: Callable[[TrialEnded], object] | None
    ) -> None:
        self.on_epoch, self.on_trial = on_epoch, on_trial

    def epoch_ended(self, trial: Trial, epoch: int, epochs: int, accuracy: float | None) -> None:
        if self.on_epoch is not None:
            self.on_epoch(EpochEnded(trial.head, trial.seed, epoch, epochs, accuracy))

    def trial_ended(self, trial: Trial, reason: str | None, out: Path) -> None:
        if self.on_trial is None:
            return
        accuracy = seconds = None
        if reason is None:
            facts, _ = read(out / "trials" / trial.id)
            accuracy, seconds = facts["test_accuracy"], facts["history"]["seconds"]
        self.on_trial(TrialEnded(trial.head, trial.seed, trial.id, reason, accuracy, seconds, trial.test_only))
