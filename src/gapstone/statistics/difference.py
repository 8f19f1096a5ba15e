"""The difference of two heads and its error.  Var(mean a − mean b) = seed / S + image / n + residual / (S n).

Two heads are trained with the same S seeds and tested on the same n images. Seeds and test images are both random
samples, and they are crossed. Diagnostic studies in which several readers judge the same cases (multi-reader
multi-case) have this design, and their variance is used here. Tests that account for one source alone (McNemar on one
seed, a bootstrap over images, a paired t over seeds) find differences that do not exist.

Sources: Dorfman, Berbaum & Metz 1992 (doi 10.1097/00004424-199209000-00015); Obuchowski & Rockette 1995
(10.1080/03610919508813243); Hillis 2007 (10.1002/sim.2532); Behrens–Fisher: Kim & Cohen 1998
(10.3102/10769986023004356).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from gapstone.statistics.by_group import by_group, evenness

AGREEMENT = 2.0
"""Images added to the variance: one that only a classifies correctly, and one that only b does. Of metrics in which
images weigh unequally, `metrics.agreement`."""
FOR_EQUIVALENCE = 2.0
"""So many times as many, z² ≈ 4, before heads are called equivalent: of few images, more agree than would of many."""
FEWEST_FOR_INTERVAL = 3
"""Seeds, or folds: of two, the spread is so uncertain that the interval is ±13 standard errors."""
FEWEST_FOR_EQUIVALENCE = 5
"""Seeds, or folds: of fewer, one in ten that collapses under one head only is too easily missed."""
CAUTION = 0.8
"""Plans take the mean square between seeds at this upper confidence limit."""


@dataclass(frozen=True)
class ErrorDistribution:
    """The distribution of an error with two sources:  by_repeat · t[repeats − 1]  +  by_image · t[images − 1].

    The spread over few seeds is poorly known, however many images there are, so each source has its own degrees of
    freedom (Behrens–Fisher). A single t with Satterthwaite's degrees of freedom does as well with 5 seeds (it calls 5.7
    % of equal heads different, at a nominal 5 %), but not with 3 (7.6 %) and 2 (12.6 %); this stays below 5.3 %.
    """

    by_repeat: float
    repeats: int
    by_image: float
    images: int
    """Or groups of them, where they are not independent."""
    evenness: float = 1.0
    """Of groups (`by_group.evenness`): unequal ones have fewer degrees of freedom."""

    @property
    def standard_error(self) -> float:
        """Standard error of both sources together."""
        return float(np.hypot(self.by_repeat, self.by_image))

    def tail_probability(self, distance: float) -> float:
        """The probability of a larger error than `distance`, in either direction."""
        if distance == 0:
            return 1.0
        point, weight = _chi_squared(self.repeats - 1)
        spread = np.sqrt(self.by_repeat**2 / point + self.by_image**2)
        freedom = max(self.images * self.evenness - 1, 1)
        # scipy.stats has the same in ten times the time, and takes half a second to import
        return min(1.0, float(weight @ (2 * special.stdtr(freedom, -abs(distance) / spread))))

    def quantile(self, level: float) -> float:
        """The distance that the error exceeds, in either direction, with probability `level`."""
        upper = self.standard_error
        while self.tail_probability(upper) > level:
            upper *= 2
        from scipy.optimize import brentq  # takes 0.4 s to import, and processes that train need no quantile

        return float(brentq(lambda distance: self.tail_probability(distance) - level, 0, upper, xtol=1e-9, rtol=1e-7))


@lru_cache
def _chi_squared(df: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quadrature points and weights of chi²[df] / df: trapezoids over its logarithm, exact to about 1e-10."""
    low, high = 2 * special.gammaincinv(df / 2, 1e-15), 2 * special.gammainccinv(df / 2, 1e-15)
    log = np.linspace(np.log(low), np.log(high), 300)
    exponent = df / 2 * log - np.exp(log) / 2  # of the density times chi², but for a factor
    weight = np.exp(exponent - exponent.max())
    return np.exp(log) / df, weight / weight.sum()


@dataclass(frozen=True)
class Components:
    """Variance components of the difference of two heads: between seeds, between images, residual."""

    seed: float
    image: float
    residual: float
    agreement: float = AGREEMENT
    evenness: float = 1.0

    def shares(self, seeds: int, images: int) -> dict[str, float]:
        """The contribution of each component to the variance of the mean difference."""
        return {
            "seed": self.seed / seeds,
            "image": self.image / images,
            "residual": self.residual / (seeds * images),
        }

    def error(self, seeds: int, images: int, times: float = 1.0) -> ErrorDistribution:
        """The error of a comparison with so many seeds and images; `times`: FOR_EQUIVALENCE, or 1."""
        by_seed = self.seed / seeds + self.residual / (seeds * images)
        by_image = _by_image(self.image, images, times * self.agreement)
        return ErrorDistribution(float(np.sqrt(by_seed)), seeds, by_image, images, self.evenness)


def _by_image(component: float, images: int, added: float) -> float:
    return float(np.sqrt(max(component, 0) / images + added / (images + 2) ** 2))


@dataclass(frozen=True)
class Estimate:
    """A difference of two means (fractions), its error, and in a crossed design the variance components."""

    difference: float
    error: ErrorDistribution
    components: Components | None = None
    agreement: float = AGREEMENT
    reach: float = 1.0
    """The largest difference that there can be: intervals end there."""
    worth: float | None = None
    """Of groups: how many independent images their images are worth."""

    @property
    def p(self) -> float:
        """Two-sided p value."""
        return self.error.tail_probability(self.difference)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        return self._around(self.error, confidence)

    def equivalence_interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """The interval that must lie within the margin; None with fewer seeds than FEWEST_FOR_EQUIVALENCE.

        It is a little wider than `interval`, by the images that FOR_EQUIVALENCE adds.
        """
        if self.error.repeats < FEWEST_FOR_EQUIVALENCE:
            return None
        more = (FOR_EQUIVALENCE - 1) * self.agreement / (self.error.images + 2) ** 2
        return self._around(
            replace(self.error, by_image=float(np.hypot(self.error.by_image, np.sqrt(more)))), confidence
        )

    def _around(self, error: ErrorDistribution, confidence: float) -> tuple[float, float]:
        half = error.quantile(1 - confidence)
        return max(-self.reach, self.difference - half), min(self.reach, self.difference + half)

    def cautious(self) -> Components:
        """The variance components to plan with: those between seeds at the upper limit of their mean square.

        Few seeds often differ by less than they do in truth, down to a component of 0. Plans made of that kept their
        promise of a power of 80 % in 50 to 70 % of simulated comparisons; these keep it in 76 to 95 %.

        Raises:
            ValueError: an estimate from folds has no components.
        """
        if self.components is None:
            raise ValueError("an estimate from folds has no variance components")
        repeats, images = self.error.repeats, self.error.images
        square = self.error.by_repeat**2 * repeats * images
        upper = square * (repeats - 1) / float(special.chdtri(repeats - 1, CAUTION))
        return replace(self.components, seed=max(upper - self.components.residual, 0.0) / images)


def mean_squares(d: ArrayLike) -> tuple[float, float, float]:
    """Two-way analysis of variance without replication of d (S, n): mean squares of rows, of columns, residual.

    >>> mean_squares([[0, 1, 1], [0, 1, -1]])
    (0.666..., 0.666..., 0.666...)
    """
    d = np.asarray(d, np.float64)
    seeds, images = d.shape
    mean, by_seed, by_image = d.mean(), d.mean(1), d.mean(0)
    residual = d - by_seed[:, None] - by_image + mean
    return (
        float(images * ((by_seed - mean) ** 2).sum() / (seeds - 1)),
        float(seeds * ((by_image - mean) ** 2).sum() / (images - 1)),
        float((residual**2).sum() / ((seeds - 1) * (images - 1))),
    )


def tails(d: ArrayLike) -> float:
    """How many images of n equally weighing ones decide, as a share, by the kurtosis κ of their means: 2 / (κ − 1).

        >>> tails([[1.0, -1.0, 1.0, -1.0]]), tails([[0.0] * 39 + [1.0]])
        (1.0, 0.054...)

    The variance of few images that weigh much is known as poorly as that of few images (Satterthwaite): 1 of normal
    numbers, and no more.
    """
    means = np.asarray(d, np.float64).mean(0)
    away = (means - means.mean()) ** 2
    if not away.any():
        return 1.0
    kurtosis = float((away**2).mean() / away.mean() ** 2)
    return 1.0 if kurtosis <= 3 else 2 / (kurtosis - 1)


def crossed(
    a: ArrayLike,
    b: ArrayLike,
    agreement: float = AGREEMENT,
    groups: ArrayLike | None = None,
    by_tails: bool = False,
) -> Estimate:
    """Estimate the difference of two heads from S seeds and n images, for other seeds and images of the same kind.

        >>> rng = np.random.default_rng(0)
        >>> estimate = crossed(rng.random((5, 500)) < 0.93, rng.random((5, 500)) < 0.90)
        >>> estimate.difference, estimate.interval(), estimate.p
        (0.0276, (-0.006, 0.061), 0.083)

    With d = a − b and its mean squares, by_repeat² = MS_seed / (S n) and by_image² = (MS_image − MS_residual) / (S n),
    where negative values count as 0. 2 / (n + 2)² is added to the second, as if there were two more images, one correct
    for a only and one for b only (Agresti & Min 2005, 10.1002/sim.1781; Bonett & Price 2012,
    10.3102/1076998611411915): for two heads that agree on all of 50 images the interval is ±5.5 points, where the plain
    formula gives ±0.

    Args:
        a: (S, n) correct (1) or wrong (0), or other values whose mean is a metric (`metrics`): row s is from seed s,
            column i is image i; S, n ≥ 2.
        b: the same of the other head, with the same seeds and images.
        agreement: the images that are added.
        groups: (n,) numbers or names, equal for images that belong together: the estimate is for other groups, and its
            `images` are groups (`by_group`).
        by_tails: of metrics in which a few images weigh most: degrees of freedom by `tails`.

    Raises:
        ValueError: fewer than 2 seeds or images, as the spread is then unknown; arrays that do not fit together.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"crossed(a, b): a {a.shape} and b {b.shape} must both be (seeds, images).")
    if groups is not None:
        return _crossed_groups(a - b, np.asarray(groups), agreement, by_tails)
    return _crossed(a - b, agreement, tails(a - b) if by_tails else 1.0)


def _crossed(d: NDArray[np.float64], agreement: float, evenness: float = 1.0) -> Estimate:
    seeds, images = d.shape
    if seeds < 2 or images < 2:
        raise ValueError(f"crossed(a, b) with {seeds} seeds, {images} images: how far either matters shows from 2 on.")
    by_seed, by_image, residual = mean_squares(d)
    components = Components(
        max(by_seed - residual, 0) / images, max(by_image - residual, 0) / seeds, residual, agreement, evenness
    )
    by_repeat = float(np.sqrt(by_seed / (seeds * images)))
    error = ErrorDistribution(by_repeat, seeds, _by_image(components.image, images, agreement), images, evenness)
    return Estimate(float(d.mean()), error, components, agreement)


def _crossed_groups(d: NDArray[np.float64], groups: NDArray[Any], agreement: float, by_tails: bool = False) -> Estimate:
    """By group; the images that are added are of as many independent ones as the groups are worth.

    That is n / (variance of the mean by group / by image): n where the images of a group are no more alike than others,
    and the number of groups where they are all alike, which is assumed where the heads agree on everything.
    """
    images = d.shape[1]
    if groups.shape != (images,):
        raise ValueError(f"crossed(…, groups): groups {groups.shape} must be one number for each of {images} images.")
    z, even = by_group(d, groups), evenness(groups)
    count = z.shape[1]
    if by_tails:
        even = min(even, tails(z))
    if count == images:
        return _crossed(d, agreement, even)
    plain = mean_squares(d)[1] / images if min(d.shape) > 1 else 0.0
    most = images / (count * even)
    ratio = mean_squares(z)[1] / count / plain if plain > 0 and count > 1 else most
    worth = images / min(max(ratio, 1.0), most)
    scaled = agreement * ((count + 2) / (worth + 2)) ** 2
    return replace(_crossed(z, scaled, even), worth=worth)


def corrected_t(
    a: ArrayLike,
    b: ArrayLike,
    train: ArrayLike,
    test: ArrayLike,
    images: int | None = None,
    agreement: float = AGREEMENT,
) -> Estimate:
    """Estimate the difference from k folds:  t = mean d / sqrt((1/k + test/train) var d),  k − 1 degrees of freedom.

        >>> corrected_t([0.91, 0.93, 0.92], [0.90, 0.91, 0.92], train=200, test=100).p
        0.43

    Folds share most of their training images, so they vary less than independent trials: the plain paired t over folds
    finds too many differences (Nadeau & Bengio 2003, doi 10.1023/A:1024068626366; Bouckaert & Frank 2004,
    10.1007/978-3-540-24775-3_3).

    Args:
        a: (k,) accuracy on each fold.
        b: the same of the other head.
        train: number of training images, one for all folds or one per fold.
        test: number of test images, likewise.
        images: test images of all folds together, if not the sum of `test`; 2 / (images + 2)² is added as in `crossed`.
        agreement: the images that are added.

    Raises:
        ValueError: fewer than 2 folds, or arrays that do not fit together.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"corrected_t(a, b): a {a.shape} and b {b.shape} must be one accuracy per fold, 2 or more.")
    d, folds = a - b, len(a)
    test = np.broadcast_to(np.asarray(test, np.float64), d.shape)
    images = images or round(float(test.sum()))
    ratio = float(np.mean(test / np.asarray(train, np.float64)))
    by_fold = float(np.sqrt((1 / folds + ratio) * d.var(ddof=1)))
    error = ErrorDistribution(by_fold, folds, _by_image(0, images, agreement), images)
    return Estimate(float(d.mean()), error, agreement=agreement)
