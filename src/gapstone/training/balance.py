"""Classes of unequal size, trained as if they were equal: `--balance loss` weighs images, `--balance sampler` draws."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.statistics.labels import Labels, is_multi_label

Balance = Literal["none", "loss", "sampler"]
"""Every image counts the same; each class counts the same in the loss; each class is drawn as often."""
Rows = NDArray[np.intp]


def class_weights(labels: Labels, classes: int) -> Tensor:
    """Weights (classes,) under which each class counts the same: N / (K · N_k), as scikit-learn's "balanced".

        >>> class_weights(np.array([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])

    For `torch.nn.functional.cross_entropy(weight=…)`, which divides by the weights of the batch. A class without images
    has 0. With several labels per image (2, classes): of each class the images without it, and with it, count the same.
    """
    if is_multi_label(labels):
        with_it = labels.sum(0)
        count = np.stack([len(labels) - with_it, with_it])
    else:
        count = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(count, axis=0) * np.maximum(count, 1.0))
    return torch.from_numpy(np.where(count > 0, weights, 0.0).astype(np.float32))


def drawn_evenly(rows: Rows, labels: NDArray[np.integer], random: np.random.Generator) -> Rows:
    """As many rows as are given, of each class as many, within one; `labels` are those of `rows`.

        >>> drawn_evenly(np.array([4, 5, 6, 7]), np.array([0, 0, 0, 1]), np.random.default_rng(0))
        array([7, 7, 6, 4])

    No image of a class is drawn twice more than another one. (Independent draws, as `WeightedRandomSampler` makes them,
    leave out a third of a class of usual size.)
    """
    order = random.permutation(len(rows))
    present = random.permutation(np.unique(labels))  # the classes that get one more
    parts = []
    for place, k in enumerate(present.tolist()):
        of_class = rows[order[labels[order] == k]]
        wanted = len(rows) // len(present) + (place < len(rows) % len(present))
        parts.append(np.resize(of_class, wanted))
    return np.concatenate(parts)


def check_balance(balance: Balance) -> None:
    """Raises ValueError for what cannot be done with several labels per image."""
    if balance == "sampler":
        raise ValueError(
            "--balance sampler draws each class as often, and an image of several labels is drawn for one of them and "
            "counts for all: take --balance loss, where images with a class and without it count the same."
        )


def balance_weights(balance: Balance, labels: Labels, classes: int) -> Tensor | None:
    """What images count for by their class where they choose, with the training `labels`; None: all the same."""
    return None if balance == "none" else class_weights(labels, classes)


def epoch_rows(
    rows: Rows,
    labels: NDArray[Any],
    balance: Balance,
    random: np.random.Generator,
    weights: NDArray[np.float64] | None = None,
) -> Rows:
    """The images of an epoch: all `rows`, or as many with classes drawn evenly, or by `weights`.

    `labels` and `weights` are those of all images.
    """
    if weights is not None:
        return drawn_by_weight(rows, weights[rows], random)
    return drawn_evenly(rows, labels[rows], random) if balance == "sampler" else rows


def drawn_by_weight(rows: Rows, weights: NDArray[np.float64], random: np.random.Generator) -> Rows:
    """As many rows as are given, each as often as its weight says; `weights` are those of `rows`.

        >>> drawn_by_weight(np.array([4, 5, 6, 7]), np.array([2.0, 0.0, 1.0, 1.0]), np.random.default_rng(0))
        array([4, 4, 6, 7])

    How often an image is drawn differs by less than one from its share: a fraction of one is drawn in so many epochs.
    (Independent draws leave out a third of the images of usual weight.)
    """
    order = random.permutation(len(rows))
    ends = np.cumsum(weights[order])
    places = (np.arange(len(rows)) + random.random()) * (ends[-1] / len(rows))
    places = np.minimum(places, np.nextafter(ends[-1], 0))  # rounding must not reach behind the last weight
    return np.sort(rows[order[np.searchsorted(ends, places, side="right")]])
