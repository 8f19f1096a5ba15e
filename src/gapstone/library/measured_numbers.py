"""Numbers of results with their intervals and the values behind them, as objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from gapstone.comparing.report import number_text

Facts = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class MeasuredNumber:
    """A measured number with its interval.

    Examples:
        >>> accuracy = gs.Evaluation.open("runs/old-new").models[0].accuracy
        >>> accuracy  # 94.1 % (92.3 to 95.6)
        … %…
        >>> float(accuracy), accuracy.interval
        (0.…)
    """

    mean: float | None
    """A fraction, where it is an accuracy; None: not measured, or not defined."""
    interval: tuple[float, float] | None
    """With a confidence of 95 %; None where there is none, such as of fewer than three trials."""
    values: tuple[float, ...]
    """Of each trial, in the order of the seeds; of a model that is evaluated, the mean alone."""
    words: str
    """What it is: "accuracy"."""
    factor: float
    """What it is multiplied by to be shown."""
    digits: int
    """Behind the decimal point, where it is shown."""

    @classmethod
    def of(cls, stat: Mapping[str, Any] | None, words: str, factor: float, digits: int) -> Self:
        """From a Stat of results.json; None: not measured."""
        if stat is None:
            return cls(None, None, (), words, factor, digits)
        ends = stat["ci95"]
        interval = None if ends is None else (float(ends[0]), float(ends[1]))
        return cls(stat["mean"], interval, tuple(stat["values"]), words, factor, digits)

    def __float__(self) -> float:
        if self.mean is None:
            raise ValueError(f"{self.words}: there is no number: it was not measured, or is not defined.")
        return self.mean

    def __repr__(self) -> str:
        return self.short()

    def short(self) -> str:
        """The mean with its interval; of two trials, both of them."""
        if self.mean is None:
            return "not measured"
        unit = " %" if self.factor == 100 else ""
        around = ""
        if self.interval is not None:
            around = f" ({self._shown(self.interval[0])} to {self._shown(self.interval[1])})"
        elif len(self.values) == 2:  # as the report has them
            around = f" [{self._shown(min(self.values))}, {self._shown(max(self.values))}]"
        return f"{self._shown(self.mean)}{unit}{around}"

    def cells(self, name: str) -> dict[str, float | None]:
        """Its columns in a table: the mean, and the ends of the interval."""
        low, high = self.interval or (None, None)
        return {name: self.mean, f"{name}_low": low, f"{name}_high": high}

    def _shown(self, value: float) -> str:
        return number_text.plain(value * self.factor, self.digits)


@dataclass(frozen=True, repr=False)
class MeanOfTrials(MeasuredNumber):
    """A mean over trials, with its interval.

    Examples:
        >>> accuracy = result["gap"].accuracy
        >>> accuracy  # 94.1 % (92.3 to 95.6), of 5 trials
        … %…of … trials
        >>> float(accuracy), accuracy.interval, accuracy.values
        (0.…)
    """

    def __repr__(self) -> str:
        many = len(self.values)
        return f"{self.short()}, of {many} trial{'s' if many != 1 else ''}" if self.mean is not None else self.short()


Number = TypeVar("Number", bound=MeasuredNumber)


@dataclass(frozen=True, repr=False)
class MeasuredByMetrics(Generic[Number]):
    """A head or a model with all its metrics."""

    name: str
    """As it was given."""
    facts: Facts
    """Its entry in the results, whose keys docs/results.md and docs/evaluate.md describe."""
    about_metrics: Sequence[Facts]
    """The descriptions of all metrics in the results, the one that decides first."""

    number: ClassVar[type[Any]]
    """What its metrics are: a mean of trials, or of images alone."""

    @property
    def metrics(self) -> dict[str, Number]:
        """All metrics on the test images, by name; the one that decides comes first."""
        return {
            about["name"]: self.number.of(
                self.facts["metrics"][about["name"]], about["words"], about["factor"], about["digits"]
            )
            for about in self.about_metrics
        }

    @property
    def score(self) -> Number:
        """The metric that decides the verdicts."""
        return next(iter(self.metrics.values()))
