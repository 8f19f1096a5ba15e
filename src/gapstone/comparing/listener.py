"""Who is told of epochs and trials while a comparison runs: trackers, and callbacks of the user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gapstone.comparing.learning_curve import labelled
from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.trials import EpochNumbers, Trial
from gapstone.console.formatting import count_noun


class Listener(Protocol):
    """What a comparison tells while it runs, in its own process and in the order that it hears of it."""

    def comparison_started(
        self, plan: ComparisonPlan, missing: list[Trial], out: Path, log: Callable[[str], object]
    ) -> None:
        """Before the first trial of those that are `missing`; `log` prints a line among those of the comparison."""
        ...

    def epoch_ended(self, trial: Trial, epoch: int, epochs: int, numbers: EpochNumbers) -> None:
        """Of trials with candidates they are counted in all of their trainings."""
        ...

    def trial_ended(self, trial: Trial, reason: str | None, out: Path) -> None:
        """`reason`: why it failed; None: it is in `out / "trials" / trial.id`."""
        ...

    def comparison_ended(self, results: dict[str, Any], page: Path) -> None:
        """`results` as in results.json; `page` is the report."""
        ...

    def comparison_stopped(self, error: BaseException) -> None:
        """Instead of `comparison_ended`: an error, or Ctrl-C."""
        ...


class Nobody:
    """Hears nothing."""

    def comparison_started(
        self, plan: ComparisonPlan, missing: list[Trial], out: Path, log: Callable[[str], object]
    ) -> None: ...
    def epoch_ended(self, trial: Trial, epoch: int, epochs: int, numbers: EpochNumbers) -> None: ...
    def trial_ended(self, trial: Trial, reason: str | None, out: Path) -> None: ...
    def comparison_ended(self, results: dict[str, Any], page: Path) -> None: ...
    def comparison_stopped(self, error: BaseException) -> None: ...


NOBODY = Nobody()


def trial_name(trial: Trial) -> str:
    """`gap seed 0`, `gap fold 2`, `gap seed 0 (40 labelled images)`."""
    of = f" ({count_noun(labelled(trial), 'labelled image')})" if trial.test_only else ""
    return f"{trial.head} {'seed' if trial.fold is None else 'fold'} {trial.seed}{of}"
