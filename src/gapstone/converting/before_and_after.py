"""The accuracy of a model before and after its conversion, on the same images; `statistics.one_seed` says how sure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, signed
from gapstone.statistics.by_group import too_few
from gapstone.statistics.one_seed import compare_models
from gapstone.statistics.unit import POINTS

Correct = NDArray[np.bool_]
"""(n,) whether each image is classified correctly."""


@dataclass(frozen=True)
class ImageGroups:
    """Which test images belong together."""

    numbers: NDArray[np.int64]
    """(n,) equal for those that do."""
    by: str | None
    """The option that names them; None: they are copies of one picture."""


@dataclass(frozen=True)
class Paired:
    """The difference in accuracy between two models on the same images.

    >>> before, after = np.arange(300) % 10 > 0, np.arange(300) % 30 > 0
    >>> Paired.of(before, after).interval
    (0.036..., 0.095...)
    """

    images: int
    before: float
    """Accuracy."""
    after: float
    lost: int
    """Images classified correctly before, and not after."""
    won: int
    interval: tuple[float, float] | None
    """95 % confidence interval of after − before, for other test images (or groups) of the same kind."""
    groups: int | None = None
    """Of the test images; None: each is by itself, or the others are copies."""
    refused: str | None = None
    """Why there is no interval."""

    @classmethod
    def of(cls, before: Correct, after: Correct, groups: ImageGroups | None = None) -> "Paired":
        """Compare two arrays (n,). Raises ValueError if their shapes do not fit."""
        if before.shape != after.shape or before.ndim != 1 or len(before) == 0:
            raise ValueError(f"Paired.of: {before.shape} and {after.shape} must be alike, one entry per image.")
        named = groups is not None and groups.by is not None
        refused = too_few(groups.numbers) if groups is not None and named else None
        numbers = None if groups is None else groups.numbers
        different = len(before) if numbers is None else len(np.unique(numbers))
        if different < 2:
            refused = refused or "One test image does not show what others would do: add images."
        values = {"before": before.astype(np.float64), "after": after.astype(np.float64)}
        return cls(
            images=len(before),
            before=float(before.mean()),
            after=float(after.mean()),
            lost=int((before & ~after).sum()),
            won=int((after & ~before).sum()),
            interval=None if refused else compare_models(values, POINTS, groups=numbers)[0].interval,
            groups=different if named else None,
            refused=refused,
        )

    @property
    def worse(self) -> bool:
        """Less accurate after, beyond chance."""
        return self.interval is not None and self.interval[1] < 0

    def verdict(self, head: str) -> str:
        """One sentence: whether the model with that head is more or less accurate, with all the numbers."""
        about = f"{100 * self.before:.1f} % before, {100 * self.after:.1f} % after"
        of_groups = "" if self.groups is None else f" of {count_noun(self.groups, 'group')}"
        counts = f"on {count_noun(self.images, 'test image')}{of_groups} ({self.lost:,} lost, {self.won:,} won)"
        difference = f"{signed(100 * (self.after - self.before))} percentage points"
        if self.interval is None:
            return f"With {head}: {about}: {difference}, {counts}. {self.refused}"
        low, high = (signed(100 * end) for end in self.interval)
        numbers = f"{about}: {difference} (95 % CI {low} to {high}), {counts}"
        if self.worse:
            return f"With {head} the model is LESS ACCURATE: {numbers}."
        if self.interval[0] > 0:
            return f"With {head} the model is more accurate: {numbers}."
        return f"With {head} the accuracy does not differ detectably: {numbers}."

    def as_json(self) -> dict[str, Any]:
        facts = {key: getattr(self, key) for key in ("images", "before", "after", "lost", "won", "groups", "refused")}
        bounds = None if self.interval is None else list(self.interval)
        return {**facts, "difference": self.after - self.before, "interval95": bounds}
