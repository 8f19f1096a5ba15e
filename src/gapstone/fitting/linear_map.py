"""The linear layer x ↦ x @ weight.T + bias that every fit returns, and checks of the data it is fitted to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer, its weight and bias as in `nn.Linear`, and the penalty it was fitted with."""

    weight: NDArray[np.float64]
    """(K, D)"""
    bias: NDArray[np.float64]
    """(K,)"""
    penalty: float
    """λ"""

    def __call__(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """(n, D) → (n, K)"""
        logits: NDArray[np.float64] = features @ self.weight.T + self.bias
        return logits


def check_labels(labels: NDArray[Any], names: tuple[str, ...], every: bool = True) -> None:
    """Raises ValueError for labels that no classifier can be fitted to; `every`: each class must have images."""
    if labels.ndim == 2 and labels.dtype == bool:
        _check_several(labels, names, every)
        return
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}; expected (n,) whole numbers, the class of each image, or "
            f"(n, K) of 0 and 1, whether each image is of each class."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= len(names)):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(
            f"label {wrong} stands for no class: there are {len(names)}, numbered from 0. "
            f"For data with other classes give labels=, the names of all of them."
        )
    if not every:
        return
    counts = np.bincount(labels, minlength=len(names))
    if (counts > 0).sum() < 2:
        only = names[int(counts.argmax())]
        raise ValueError(f"all {len(labels):,} images are of one class, {only!r}: there is nothing to tell apart.")
    if len(empty := np.flatnonzero(counts == 0)):
        listed = ", ".join(repr(names[k]) for k in empty[:5])
        raise ValueError(
            f"no images of {listed}{', …' if len(empty) > 5 else ''} ({len(empty)} of {len(names)} classes): their "
            f"logits cannot be learned. Add images, or give labels= without them."
        )


def _check_several(labels: NDArray[np.bool_], names: tuple[str, ...], every: bool) -> None:
    """With several labels per image: each class must have images with it and without it."""
    if labels.shape[1] != len(names):
        raise ValueError(
            f"labels are {labels.shape}, a column for each class, and there are {len(names)} classes. For data with "
            f"other classes give labels=, the names of all of them."
        )
    counts = labels.sum(0)
    if every and len(wrong := np.flatnonzero((counts == 0) | (counts == len(labels)))):
        listed = ", ".join(f"{names[k]!r} ({'none' if counts[k] == 0 else 'all'})" for k in wrong[:5])
        raise ValueError(
            f"{listed}{', …' if len(wrong) > 5 else ''}: these classes are of none, or of all, of the {len(labels):,} "
            f"images, so there is nothing to tell apart. Add images, or give labels without them."
        )


def check_features(features: NDArray[Any]) -> None:
    """Raises ValueError for NaN or infinity."""
    bad = [
        first + int(row)
        for first in range(0, len(features), 4096)
        for row in np.flatnonzero(~np.isfinite(features[first : first + 4096]).all(1))
    ]
    if bad:
        raise ValueError(
            f"the features of {len(bad):,} of {len(features):,} images are not finite (the image at {bad[0]} for one): "
            f"the model's weights or the images hold NaN or infinity."
        )
