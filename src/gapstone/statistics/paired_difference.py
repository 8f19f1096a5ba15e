"""Two models on the same images:  (won − lost) / (n + 2) ± z √(won + lost − (won − lost)²/(n + 2)) / (n + 2).

One image is added to each of the two discordant counts (Bonett & Price 2012, 10.3102/1076998611411915). The interval
then has its nominal coverage for few images too, where the plain formula claims certainty: for two models that agree on
all of 50 images it is ±5.5 percentage points, not ±0.
"""

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, signed

Z = 1.959963984540054
"""95 % of a standard normal distribution lie within ±Z."""

Correct = NDArray[np.bool_]
"""(n,) whether each image is classified correctly."""


@dataclass(frozen=True)
class Paired:
    """The difference in accuracy between two models on the same images.

    >>> Paired(images=300, before=0.92, after=0.90, lost=9, won=3).interval
    (-0.045, 0.005)
    """

    images: int
    before: float
    """Accuracy."""
    after: float
    lost: int
    """Images classified correctly before, and not after."""
    won: int

    @classmethod
    def of(cls, before: Correct, after: Correct) -> "Paired":
        """Count the differences between two arrays (n,). Raises ValueError if their shapes do not fit."""
        if before.shape != after.shape or before.ndim != 1 or len(before) == 0:
            raise ValueError(f"Paired.of: {before.shape} and {after.shape} must be alike, one entry per image.")
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        return cls(len(before), float(before.mean()), float(after.mean()), lost, won)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of after − before, for other test images of the same kind."""
        n, lost, won = self.images + 2, self.lost + 1, self.won + 1
        difference = (won - lost) / n
        half = Z * sqrt(won + lost - (won - lost) ** 2 / n) / n
        return max(difference - half, -1.0), min(difference + half, 1.0)

    @property
    def points(self) -> str:
        """The difference as text: `−7.0 percentage points (95 % CI −8.9 to −5.1)`."""
        low, high = (signed(100 * end) for end in self.interval)
        return f"{signed(100 * (self.after - self.before))} percentage points (95 % CI {low} to {high})"

    def verdict(self, head: str) -> str:
        """One sentence: whether the model with that head is more or less accurate, with all the numbers."""
        low, high = self.interval
        numbers = (
            f"{100 * self.before:.1f} % before, {100 * self.after:.1f} % after: {self.points}, on "
            f"{count_noun(self.images, 'test image')} ({self.lost:,} lost, {self.won:,} won)"
        )
        if high < 0:
            return f"With {head} the model is LESS ACCURATE: {numbers}."
        if low > 0:
            return f"With {head} the model is more accurate: {numbers}."
        return f"With {head} the accuracy does not differ detectably: {numbers}."

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.after - self.before, "interval95": list(self.interval)}
