"""Calibration scores:  nll = −log p[true],  brier = Σ_k (p_k − [k = true])²,  ece = Σ_bin share |acc − conf|."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

BINS = 15


def calibration(logits: ArrayLike, labels: ArrayLike, bins: int = BINS) -> dict[str, Any]:
    """Score the probabilities softmax(logits) three ways, each 0 at best, and bin them for a reliability diagram.

        >>> calibration([[2.0, 0.0], [0.0, 1.0]], [0, 1])["nll"]
        0.220...

    * `nll`: mean negative log-likelihood, in nats.
    * `brier`: sum over classes of squared errors, 0 to 2 (Brier 1950; for two classes twice the one-sided form).
    * `ece`: expected calibration error, 0 to 1: how far the share of right answers lies from the confidence, over 15
      bins of equal width (Guo et al. 2017, arXiv 1706.04599). It is biased upwards on few images.
    * `bins`: `edges` (16 numbers), and for each bin `count`, mean `confidence` and `accuracy` (None where it is empty).
      A confidence on an edge belongs to the bin below.

    Logits are (n, K), labels (n,). With several labels per image, labels (n, K) bool, every image and class is a yes or
    no by itself: scores are means over both, and bins compare the probability of a class with how often it is there.
    Raises ValueError for logits that are not finite, or no image.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    multi_label = y.ndim == 2
    if z.ndim != 2 or y.shape != (z.shape if multi_label else z.shape[:1]) or not len(y):
        raise ValueError(
            f"calibration(logits {z.shape}, labels {y.shape}): (n, K) and (n,), or (n, K) bool, with n ≥ 1 are needed."
        )
    if not np.isfinite(z).all():
        raise ValueError("calibration: the logits hold NaN or infinity.")
    if multi_label:
        p, there = expit(z), y.astype(bool)
        losses = np.logaddexp(0, np.where(there, -z, z))  # precise in both tails
        return {
            "nll": float(losses.mean()),
            "brier": float(((p - there) ** 2).mean()),
            **_binned(p.ravel(), there.ravel(), bins),
        }
    y = y.astype(np.int64)
    z = z - z.max(1, keepdims=True)  # exp() never overflows
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    p = np.exp(log_p)
    rows = np.arange(len(y))
    return {
        "nll": float(-log_p[rows, y].mean()),
        "brier": float(((p - np.eye(z.shape[1])[y]) ** 2).sum(1).mean()),
        **_binned(p.max(1), p.argmax(1) == y, bins),
    }


def _binned(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int) -> dict[str, Any]:
    """ECE, and the bins that it is of."""
    edges = np.linspace(0, 1, bins + 1)
    bin_index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    sum_confidence = np.bincount(bin_index, confidence, bins)
    sum_correct = np.bincount(bin_index, correct, bins)
    return {
        "ece": float(np.abs(sum_correct - sum_confidence).sum() / len(correct)),
        "bins": {
            "edges": edges.tolist(),
            "confidence": [float(s / n) if n else None for s, n in zip(sum_confidence, count, strict=True)],
            "accuracy": [float(s / n) if n else None for s, n in zip(sum_correct, count, strict=True)],
            "count": count.tolist(),
        },
    }
