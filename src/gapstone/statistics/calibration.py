"""Calibration scores:  nll = −log p[true],  brier = Σ_k (p_k − [k = true])²,  ece = Σ_bin share |acc − conf|."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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

    Logits are (n, K), labels (n,). Raises ValueError for logits that are not finite, or no image.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(y):
        raise ValueError(f"calibration(logits {z.shape}, labels {y.shape}): (n, K) and (n,) with n ≥ 1 are needed.")
    if not np.isfinite(z).all():
        raise ValueError("calibration: the logits hold NaN or infinity.")
    z = z - z.max(1, keepdims=True)  # exp() never overflows
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    p = np.exp(log_p)
    rows = np.arange(len(y))
    confidence, correct = p.max(1), p.argmax(1) == y
    edges = np.linspace(0, 1, bins + 1)
    bin_index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    sum_confidence = np.bincount(bin_index, confidence, bins)
    sum_correct = np.bincount(bin_index, correct, bins)
    return {
        "nll": float(-log_p[rows, y].mean()),
        "brier": float(((p - np.eye(z.shape[1])[y]) ** 2).sum(1).mean()),
        "ece": float(np.abs(sum_correct - sum_confidence).sum() / len(y)),
        "bins": {
            "edges": edges.tolist(),
            "confidence": [float(s / n) if n else None for s, n in zip(sum_confidence, count, strict=True)],
            "accuracy": [float(s / n) if n else None for s, n in zip(sum_correct, count, strict=True)],
            "count": count.tolist(),
        },
    }
