"""Ridge regression from sums that add up:  W = (XᵀX − n x̄x̄ᵀ + n λ I)⁻¹ (XᵀY − n x̄ȳᵀ),  b = ȳ − x̄ W."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas, eigh

from gapstone.fitting.linear_map import Linear

Array = NDArray[np.float64]

PENALTIES = 10.0 ** np.arange(-6.0, 2.01, 0.5)
"""The values of λ, in units of the features' mean variance."""

ROWS = 4096  # converted to float64 at a time


@dataclass(frozen=True, eq=False)
class Ridge:
    """The sums over features (n, D) and targets (n, K) that ridge regression needs, in float64.

        >>> a, b = Ridge.of(features[:5000], targets[:5000]), Ridge.of(features[5000:], targets[5000:])
        >>> fitted = (a + b).solve()                  # λ by generalised cross-validation
        >>> fitted.weight.shape, fitted.penalty
        ((10, 2048), 0.0031)

    The sums of parts add up to those of the whole (to a relative 1e-12). They take D² numbers (34 MB for 2,048
    features), however many images there are.
    """

    xx: Array
    """(D, D) Σ x xᵀ"""
    xy: Array
    """(D, K) Σ x yᵀ"""
    x: Array
    """(D,) Σ x"""
    y: Array
    """(K,) Σ y; for one-hot targets, the number of images of each class."""
    yy: float
    """Σ |y|²"""
    count: int
    """Number of rows."""

    @classmethod
    def empty(cls, features: int, targets: int) -> "Ridge":
        """The sums over no rows."""
        d, k = features, targets
        return cls(np.zeros((d, d)), np.zeros((d, k)), np.zeros(d), np.zeros(k), 0.0, 0)

    @classmethod
    def of(cls, features: ArrayLike, targets: ArrayLike) -> "Ridge":
        """Sum up features (n, D) and targets (n, K), of any float type, on disk or in memory.

        Raises ValueError for shapes that do not fit, and for numbers that are not finite.
        """
        x, y = np.asarray(features), np.asarray(targets)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise ValueError(f"Ridge.of(features {x.shape}, targets {y.shape}): expected (n, D) and (n, K), n alike.")
        total = cls.empty(x.shape[1], y.shape[1])
        for first in range(0, len(x), ROWS):
            block = slice(first, first + ROWS)
            total = total + cls._of_block(x[block].astype(float), y[block].astype(float))
        return total

    @classmethod
    def _of_block(cls, x: Array, y: Array) -> "Ridge":
        for name, array in (("features", x), ("targets", y)):
            if not np.isfinite(array).all():
                raise ValueError(f"Ridge.of: {np.sum(~np.isfinite(array)):,} of the {name} are not finite numbers.")
        # one triangle is half the work of x.T @ x; x.T is x in Fortran order, without a copy
        lower = blas.dsyrk(1.0, x.T, lower=True)
        xx = np.tril(lower) + np.tril(lower, -1).T
        return cls(xx, x.T @ y, x.sum(0), y.sum(0), float((y * y).sum()), len(x))

    def __add__(self, other: "Ridge") -> "Ridge":
        if self.xy.shape != other.xy.shape:
            raise ValueError(f"Ridge + Ridge: {self.xy.shape} and {other.xy.shape} (features, targets) must be alike.")
        return Ridge(
            self.xx + other.xx,
            self.xy + other.xy,
            self.x + other.x,
            self.y + other.y,
            self.yy + other.yy,
            self.count + other.count,
        )

    def solve(self, penalty: float | None = None) -> Linear:
        """Solve for the weights, with `penalty` λ or the best one.

        The best λ of `PENALTIES` has the least generalised cross-validation error
        n RSS / (n − 1 − degrees of freedom)²  (Golub, Heath & Wahba 1979, 10.2307/1268518). λ is in units of the
        features' mean variance, so that it means the same for 64 features and 2,048. The bias is not penalised.

        Raises ValueError for fewer than two rows, or a penalty that is not positive.
        """
        if self.count < 2:
            raise ValueError(f"ridge regression: {self.count} rows; at least 2 are needed.")
        if penalty is not None and not 0 < penalty < np.inf:
            raise ValueError(f"Ridge.solve(penalty={penalty}): expected a number above 0.")
        n = self.count
        x, y = self.x / n, self.y / n
        covariance = self.xx / n - np.outer(x, x)
        unit = float(np.trace(covariance)) / len(x)
        if unit <= 0:
            raise ValueError("every feature is the same for all images: there is nothing to fit the head to.")
        values, vectors = eigh(covariance, driver="evd")  # LAPACK's fastest driver: 2,048 features in 2 s
        values = np.maximum(values, 0)  # rounding may leave small negative ones
        rotated = vectors.T @ (self.xy / n - np.outer(x, y))  # (D, K)
        if penalty is None:
            penalty = self._best_penalty(values, rotated, unit)
        weight = (vectors @ (rotated / (values + penalty * unit)[:, None])).T
        return Linear(weight, y - weight @ x, float(penalty))

    def _best_penalty(self, values: Array, rotated: Array, unit: float) -> float:
        n, y = self.count, self.y / self.count
        total = max(self.yy / n - float(y @ y), 0)
        energy = (rotated**2).sum(1)
        errors = []
        for penalty in PENALTIES:
            shrunk = values + penalty * unit
            # RSS / n of the solution: |y|² − 2 w·xy + w·xx·w, along each eigenvector
            rss = max(total - float((energy * (2 / shrunk - values / shrunk**2)).sum()), 0)
            freedom = n - 1 - float((values / shrunk).sum())
            errors.append(rss / (freedom / n) ** 2 if freedom > 0.5 else np.inf)
        return float(PENALTIES[int(np.argmin(errors))])
