"""What multi-label images hold: how many labels each has, and which classes occur together."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display

_MOST_PAIRS = 10
_MOST_SHOWN = 5


@dataclass(frozen=True)
class SeveralLabels:
    """Counts of the labels of images."""

    images: int
    by_number: dict[int, int]
    """How many images have no label, one, two, …, in this order."""
    pairs: list[tuple[str, str, int]]
    """Two classes and the images that have both, the most frequent first."""

    @classmethod
    def of(cls, labels: NDArray[np.bool_], classes: tuple[str, ...]) -> "SeveralLabels":
        """>>> SeveralLabels.of(np.array([[True, True], [False, True]]), ("cat", "dog")).pairs
        [('cat', 'dog', 1)]
        """
        indicators = labels.astype(np.float32)  # counts are exact up to 2^24, and the product runs in BLAS
        together = np.triu(indicators.T @ indicators, 1).astype(np.int64)
        order = np.argsort(-together, axis=None, kind="stable")[:_MOST_PAIRS]
        pairs = [divmod(int(at), len(classes)) for at in order if together.flat[at]]
        return cls(
            len(labels),
            dict(sorted(Counter(labels.sum(axis=1).tolist()).items())),
            [(classes[a], classes[b], int(together[a, b])) for a, b in pairs],
        )

    @property
    def mean(self) -> float:
        """Labels per image."""
        return sum(number * images for number, images in self.by_number.items()) / max(1, self.images)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "images_by_number": {str(number): images for number, images in self.by_number.items()},
            "pairs": [{"classes": [a, b], "images": images} for a, b, images in self.pairs],
        }

    def lines(self) -> Iterator[str]:
        """Two lines of a report: labels per image, and the classes that occur together most."""
        counts = ", ".join(
            f"{'none' if number == 0 else number}: {images:,}" for number, images in self.by_number.items()
        )
        yield f"labels per image: {self.mean:.2f} on average ({counts})"
        if self.pairs:
            shown = "; ".join(
                f"{display(a)} and {display(b)} ({count_noun(n, 'image')})" for a, b, n in self.pairs[:_MOST_SHOWN]
            )
            yield f"most often together: {shown}"
        else:
            yield "no image has two labels"
