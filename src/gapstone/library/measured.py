"""Numbers of results with their intervals and the values behind them, as objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapstone.comparing.report import number_text


@dataclass(frozen=True)
class Measured:
    """A mean over trials, with its interval.

    >>> result["gap"].accuracy
    94.1 % (92.3 to 95.6), of 5 trials
    >>> float(result["gap"].accuracy), result["gap"].accuracy.interval
    (0.941, (0.923, 0.956))
    """

    mean: float | None
    """A fraction, where it is an accuracy; None: not measured, or not defined."""
    interval: tuple[float, float] | None
    """With a confidence of 95 %; None with fewer than three trials."""
    values: tuple[float, ...]
    """Of each trial, in the order of the seeds."""
    words: str = ""
    """What it is: "accuracy"."""
    factor: float = 1.0
    """What it is multiplied by to be shown."""
    digits: int = 3

    @classmethod
    def of(cls, stat: Mapping[str, Any], words: str, factor: float = 1.0, digits: int = 3) -> "Measured":
        """From a Stat of results.json."""
        ends = stat["ci95"]
        return cls(
            stat["mean"], None if ends is None else (ends[0], ends[1]), tuple(stat["values"]), words, factor, digits
        )

    def __float__(self) -> float:
        if self.mean is None:
            raise ValueError(f"{self.words}: there is no number: it was not measured, or is not defined.")
        return self.mean

    def __repr__(self) -> str:
        if self.mean is None:
            return "not measured"
        unit = " %" if self.factor == 100 else ""
        ends = f" ({self._shown(self.interval[0])} to {self._shown(self.interval[1])})" if self.interval else ""
        many = len(self.values)
        return f"{self._shown(self.mean)}{unit}{ends}, of {many} trial{'s' if many != 1 else ''}"

    def _shown(self, value: float) -> str:
        return number_text.plain(value * self.factor, self.digits)
