"""Temperature: softmax(logits / T) with the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599)."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from gapstone.statistics.labels import Labels, is_multi_label

LARGEST = 20.0
"""T lies between 1 / LARGEST and LARGEST: of answers that are all right, ever sharper ones are ever better."""


def best_temperature(logits: NDArray[np.floating], labels: Labels) -> tuple[float, float]:
    """(T, negative log-likelihood with it): T above 1 says that the probabilities are too confident.

        >>> best_temperature(np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]), np.array([0, 0, 1]))
        (5.77..., 0.636...)

    With several labels per image, labels (n, K) bool, of sigmoids: the mean over images and classes.
    """
    z = np.asarray(logits, np.float64)
    multi_label = is_multi_label(labels)
    true = np.where(labels, -z, z) if multi_label else z[np.arange(len(labels)), labels]

    def mean_nll(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        if multi_label:
            return float(np.logaddexp(0, scale * true).mean())
        return float((logsumexp(scale * z, axis=1) - scale * true).mean())

    bound = float(np.log(LARGEST))
    inside = float(minimize_scalar(mean_nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4}).x)
    found = min((0.0, inside, -bound, bound), key=mean_nll)
    return float(np.exp(found)), mean_nll(found)
