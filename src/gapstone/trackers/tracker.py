"""What a comparison tells while it runs, and `Tracker`, which hears it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapstone.console.formatting import display

Scalar = bool | int | float | str


@dataclass(frozen=True)
class ComparisonStarted:
    """All is planned; the first trial has not begun."""

    name: str
    """Of the folder of results."""
    out: Path
    settings: dict[str, Any]
    """As `settings` in results.json, and `data`, `size`, `train`, `validation`, `test`."""
    trials: int
    """That are trained now; those that were finished before are not told again."""


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
    train_loss: float = math.nan
    validation_loss: float | None = None
    id: str = ""
    """The name of the trial's folder in `out/trials`."""
    name: str = ""
    """The trial in words: `gap seed 0`."""

    def numbers(self) -> dict[str, float]:
        """By the names that trackers show them with: `train/loss`, `validation/loss`, `validation/accuracy`."""
        found = {
            "train/loss": self.train_loss,
            "validation/loss": self.validation_loss,
            "validation/accuracy": self.validation_accuracy,
        }
        return finite(found)


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
    name: str = ""
    """The trial in words: `gap seed 0`."""
    settings: dict[str, Scalar] = field(default_factory=dict)
    """How it was trained: head, seed, backbone, epochs, learning rate, …; those that were chosen in it, too."""
    measures: dict[str, float] = field(default_factory=dict)
    """What was measured: `test/accuracy` and all other metrics of the test images, `model/macs`, …"""


@dataclass(frozen=True)
class ComparisonEnded:
    """The comparison is done, or was stopped."""

    results: dict[str, Any] | None
    """As results.json; None: it was stopped."""
    report: Path | None
    """The HTML page; results.json and results.csv lie beside it."""
    stopped: str | None = None
    """Why: an error, or Ctrl-C."""


class Tracker:
    """Hears what happens in a comparison. Subclass it and override what you need.

    Examples:
        >>> class Printer(gs.trackers.Tracker):
        ...     def trial_ended(self, trial):
        ...         print(trial.name, trial.measures["test/accuracy"])
        >>> gs.compare("flowers/", trackers=[Printer()])

    All methods are called in the process of `gs.compare`, in the order of what happened. Several trials may run at a
    time: `id` tells them apart. An error in `comparison_started` ends the comparison before its first trial; after
    that, a tracker that raises is told nothing more, a line says so, and the comparison goes on.
    """

    def comparison_started(self, started: ComparisonStarted) -> None:
        """Before the first trial."""

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """After each epoch; of trials that choose among candidates, all epochs of the chosen one at their end."""

    def trial_ended(self, trial: TrialEnded) -> None:
        """After each trial that was trained now."""

    def comparison_ended(self, ended: ComparisonEnded) -> None:
        """After the report is written, or when the comparison was stopped."""


def finite(numbers: dict[str, Any]) -> dict[str, float]:
    """The numbers that are there and finite: others are refused by trackers, or break their charts."""
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}


def as_scalar(value: Any) -> Scalar:
    """`value`, or what it says as text.

    >>> as_scalar(0.1), as_scalar(None), as_scalar([0, 1])
    (0.1, 'None', '[0, 1]')
    """
    return value if isinstance(value, bool | int | float | str) else str(value)


def in_markdown(results: dict[str, Any]) -> str:
    """The verdict and a table of the heads, by the metric that decides."""
    metric = results["metrics"][0]
    factor, digits = metric["factor"], metric["digits"]
    rows = []
    for head in results["heads"]:
        found = head["metrics"][metric["name"]]
        interval = "" if found["ci95"] is None else " to ".join(f"{factor * end:.{digits}f}" for end in found["ci95"])
        mean = "" if found["mean"] is None else f"{factor * found['mean']:.{digits}f}"
        rows.append(f"| {display(head['head'])} | {mean} | {interval} | {head['parameters'] or 0:,} |")
    lines = [
        f"**{display(results['verdict'])}**",
        "",
        f"| head | {display(metric['words'])} | 95 % interval | parameters |",
        "|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines)
