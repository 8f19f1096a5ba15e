"""Who is told of epochs and trials while a comparison runs: trackers, and callbacks of the user's own."""

from pathlib import Path
from typing import Protocol

from gapstone.comparing.trials import Trial


class Listener(Protocol):
    """What a comparison tells while it runs, in its own process and in the order that it hears of it."""

    def epoch_ended(self, trial: Trial, epoch: int, epochs: int, accuracy: float | None) -> None:
        """`accuracy` is that of the validation images; None without them."""
        ...

    def trial_ended(self, trial: Trial, reason: str | None, out: Path) -> None:
        """`reason`: why it failed; None: it is in `out / "trials" / trial.id`."""
        ...


class Nobody:
    """Hears nothing."""

    def epoch_ended(self, trial: Trial, epoch: int, epochs: int, accuracy: float | None) -> None: ...
    def trial_ended(self, trial: Trial, reason: str | None, out: Path) -> None: ...


NOBODY = Nobody()
