"""The difference of two heads, and how sure it is.  Var(mean a − mean b) = seed / S + image / n + residual / (S n).

Two heads are trained with the same S seeds and tested on the same n images. Another seed would give other numbers, and
so would other test images: both are drawn by chance, and they are crossed. That is the design of diagnostic studies in
which several readers judge the same cases (multi-reader multi-case), and its variance is used here. Looking at one
source alone (McNemar on one seed, a bootstrap over images, a paired t over seeds) finds differences that are not there.

Sources: Dorfman, Berbaum & Metz 1992 (doi 10.1097/00004424-199209000-00015); Obuchowski & Rockette 1995
(10.1080/03610919508813243); Hillis 2007 (10.1002/sim.2532); Satterthwaite 1946 (10.2307/3002019).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Components:
    """Where the difference of two heads varies: between seeds, between images, and in what neither explains."""

    seed: float
    image: float
    residual: float

    def shares(self, seeds: int, images: int) -> dict[str, float]:
        """What each adds to the variance of the mean difference."""
        return {
            "seed": self.seed / seeds,
            "image": self.image / images,
            "residual": self.residual / (seeds * images),
        }

    def error(self, seeds: int, images: int) -> tuple[float, float]:
        """Standard error of the mean difference, and its Satterthwaite degrees of freedom, in a study of that size.

        df = (Σ ms)² / Σ (ms² / df), over the mean squares whose sum the variance is.
        """
        residual = max(self.residual, 1e-300)
        by_seed, by_image = residual + images * self.seed, residual + seeds * self.image
        rest = (seeds - 1) * (images - 1)
        both = by_seed + by_image - residual
        spread = by_seed**2 / (seeds - 1 if self.seed else rest)
        if self.image:
            spread += by_image**2 / (images - 1) + residual**2 / rest
        return float(np.sqrt(both / (seeds * images))), float(both**2 / spread)


@dataclass(frozen=True)
class Estimate:
    """A difference of two means (fractions), how sure it is, and in a crossed design where the doubt comes from."""

    difference: float
    error: float
    """Standard error."""
    df: float
    repeats: int
    """Seeds, or folds."""
    images: int
    components: Components | None = None

    @property
    def p(self) -> float:
        """Two-sided."""
        return float(2 * stats.t.sf(abs(self.difference) / self.error, self.df))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        half = float(stats.t.ppf((1 + confidence) / 2, self.df)) * self.error
        return max(-1.0, self.difference - half), min(1.0, self.difference + half)


def mean_squares(d: ArrayLike) -> tuple[float, float, float]:
    """Two-way analysis of variance without replication of d (S, n): mean squares of rows, of columns, of the rest.

    >>> mean_squares([[0, 1, 1], [0, 1, -1]])
    (0.666..., 0.666..., 0.666...)
    """
    d = np.asarray(d, np.float64)
    seeds, images = d.shape
    mean, by_seed, by_image = d.mean(), d.mean(1), d.mean(0)
    rest = d - by_seed[:, None] - by_image + mean
    return (
        float(images * ((by_seed - mean) ** 2).sum() / (seeds - 1)),
        float(seeds * ((by_image - mean) ** 2).sum() / (images - 1)),
        float((rest**2).sum() / ((seeds - 1) * (images - 1))),
    )


def crossed(a: ArrayLike, b: ArrayLike) -> Estimate:
    """Difference of two heads over S seeds and n images, for other seeds and other images of the same kind.

        >>> rng = np.random.default_rng(0)
        >>> estimate = crossed(rng.random((5, 500)) < 0.93, rng.random((5, 500)) < 0.90)
        >>> estimate.difference, estimate.interval(), estimate.p

    Args: a, b (S, n): right (1) or wrong (0), row s of both from the same seed, column i the same image. S ≥ 2.

    Two choices keep the rate of false findings at its nominal 5 % (tests/compare/test_statistics.py measures it):

    * A component is not negative. Where the seeds differ less than chance alone makes them (MS_seed < MS_residual), the
      residual takes their place. Without this, 2 seeds find 10 % false differences and 3 seeds 7.5 %.
    * Two images are added, one that only a gets right and one that only b does, for the variance and not for the
      difference (Agresti & Min 2005, 10.1002/sim.1781; Bonett & Price 2012, 10.3102/1076998611411915). Two heads that
      agree on all of 50 images have shown little: ±5.5 points, where the plain formula says ±0.

    Raises: ValueError for fewer than 2 seeds, whose spread then cannot be known, or arrays that do not fit together.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] < 1:
        raise ValueError(f"crossed(a, b): a {a.shape} and b {b.shape} must both be (seeds, images).")
    seeds, images = a.shape
    if seeds < 2:
        raise ValueError("crossed(a, b) with 1 seed: how far the seed matters shows only with 2 or more.")
    d = a - b
    ones = np.ones((seeds, 1))
    by_seed, by_image, residual = mean_squares(np.hstack([d, ones, -ones]))
    components = Components(
        max(by_seed - residual, 0) / (images + 2), max(by_image - residual, 0) / seeds, max(residual, 0)
    )
    error, df = components.error(seeds, images + 2)
    return Estimate(float(d.mean()), error, df, seeds, images, components)


def corrected_t(a: ArrayLike, b: ArrayLike, train: ArrayLike, test: ArrayLike, images: int | None = None) -> Estimate:
    """Difference of two heads over k folds:  t = mean d / sqrt((1/k + test/train) var d),  k − 1 degrees of freedom.

        >>> corrected_t([0.91, 0.93, 0.92], [0.90, 0.91, 0.92], train=200, test=100).p

    Folds share most of their training images, so that they vary less than independent trials would: the plain paired t
    over folds finds 2 to 4 times too many differences (Nadeau & Bengio 2003, doi 10.1023/A:1024068626366; Bouckaert &
    Frank 2004).

    Args: a, b (k,): accuracy on each fold. train, test: numbers of images, one for all folds or one per fold. images:
    test images of all folds together, k × test where not given. As in `crossed`, the error is at least that of heads
    that agree on all images but one each.

    Raises: ValueError for fewer than 2 folds, or arrays that do not fit together.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"corrected_t(a, b): a {a.shape} and b {b.shape} must be one accuracy per fold, 2 or more.")
    d, folds = a - b, len(a)
    test = np.broadcast_to(np.asarray(test, np.float64), d.shape)
    images = images or round(float(test.sum()))
    ratio = float(np.mean(test / np.asarray(train, np.float64)))
    variance = max((1 / folds + ratio) * float(d.var(ddof=1)), 2 / (images + 2) ** 2)
    return Estimate(float(d.mean()), float(np.sqrt(variance)), folds - 1, folds, images)
