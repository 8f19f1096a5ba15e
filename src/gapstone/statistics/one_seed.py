"""Models as they are, each of one training:  Σd / (n + 2) ± t √(Σd² + a − (Σd)² / (n + 2)) / (n + 2).

d is the difference of what an image counts for the metric under two models, a the images that are added (two: one that
only the first has right, one that only the second has: `metrics.agreement`). Of right and wrong it is the interval of
Bonett & Price (2012, doi 10.3102/1076998611411915). What other trainings of the same two would do is not in it: only
`compare`, with several seeds, knows that.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gapstone.statistics.by_group import by_group, evenness
from gapstone.statistics.compare_pairs import holm, verdict
from gapstone.statistics.difference import AGREEMENT, FOR_EQUIVALENCE, tails
from gapstone.statistics.unit import Unit

Values = NDArray[np.float64]
Numbers = NDArray[np.integer]


def image_interval(
    values: Values,
    unit: Unit,
    agreement: float = AGREEMENT,
    confidence: float = 0.95,
    groups: Numbers | None = None,
    at_most: float | None = None,
    strata: Numbers | None = None,
) -> tuple[float, float] | None:
    """The interval of one model's metric for other images of the same kind; None for a single image.

        >>> image_interval(np.array([1.0] * 90 + [0.0] * 10), Unit())     # 90 of 100 are right
        (0.825..., 0.944...)

    Of shares in Wilson's form (1927, doi 10.1080/01621459.1927.10502953), of as many independent answers as have the
    error of the mean; where classes count the same, the images that are added to rare ones count, too. Of other metrics
    Student's t, within the metric's range.

    Args:
        values: what each image counts for the metric.
        unit: of the metric.
        agreement: of the metric (`metrics.agreement`).
        confidence: of the interval.
        groups: (n,) equal numbers for images that belong together: the interval is for other groups.
        at_most: independent answers, where classes with few images weigh most (`metrics.most_answers`).
        strata: images in each part by which decisions weigh (`Metric.strata`), of metrics in which few may weigh most:
            degrees of freedom by `difference.tails`, and the variance of small parts as of samples.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2 or (groups is not None and len(np.unique(groups)) < 2):
        return None
    square, freedom, most = _mean_square(values, groups, strata)
    student = float(special.stdtrit(freedom, (1 + confidence) / 2))
    if not unit.is_share:
        half = student * float(np.sqrt(square))
        return max(unit.low, mean - half), min(unit.high, mean + half)
    mean = min(max(mean, 0.0), 1.0)
    # Wilson's own form has the plain variance and a normal quantile
    plain = groups is None and strata is None
    square, critical = (square * (n - 1) / n, _normal(confidence)) if plain else (square, student)
    variance = square + (max(agreement - AGREEMENT, 0.0) / (n + 2) ** 2 if at_most is None else 0.0)
    answers = min(mean * (1 - mean) / variance, n) if variance > 1e-24 else most
    answers = max(1.0, answers if at_most is None else min(answers, at_most))
    z = critical**2 / answers
    centre = (mean + z / 2) / (1 + z)
    half = critical / (1 + z) * float(np.sqrt((mean * (1 - mean) + z / 4) / answers))
    return max(0.0, centre - half), min(1.0, centre + half)


def _normal(confidence: float) -> float:
    return float(special.ndtri((1 + confidence) / 2))


def _mean_square(values: Values, groups: Numbers | None, strata: Numbers | None = None) -> tuple[float, float, float]:
    """The square of the standard error of the mean, its degrees of freedom, and how many values there are."""
    if groups is None:
        freedom = len(values) - 1.0 if strata is None else max(len(values) * tails(values[None]) - 1, 1.0)
        return float(np.var(values, ddof=1)) / len(values) * _of_small(strata), freedom, float(len(values))
    of_groups = by_group(values[None], groups)[0]
    count, even = len(of_groups), evenness(groups)
    if strata is not None:
        even = min(even, tails(of_groups[None]))
    return float(np.var(of_groups, ddof=1)) / count * _of_small(strata), max(count * even - 1, 1.0), count * even


def _of_small(strata: Numbers | None) -> float:
    """What the variance is multiplied by: n / (n − 1) of each part, on average by its share 1 / n of the variance.

    What an image counts is measured from the mean of its part, which of two images lies halfway between them.
    """
    if strata is None or not (some := strata[strata > 0]).size:
        return 1.0
    least = np.maximum(some, 2)
    return float((least / (least - 1) / some).sum() / (1 / some).sum())


@dataclass(frozen=True)
class ModelPair:
    """A model minus the first one, on the same images; differences and ends in the metric's own numbers."""

    name: str
    difference: float
    interval: tuple[float, float]
    together: tuple[float, float]
    """Of all models at once (Bonferroni)."""
    p: float
    p_holm: float
    verdict: str
    """better, worse, equivalent or cannot tell."""
    identical: bool
    """All images count the same under both."""


def compare_models(
    values: Mapping[str, Values],
    unit: Unit,
    agreement: float = AGREEMENT,
    confidence: float = 0.95,
    groups: Numbers | None = None,
    strata: Numbers | None = None,
) -> list[ModelPair]:
    """Compare every model with the first, image by image; p is adjusted for their number (Holm).

        >>> a, b = np.arange(300) % 10 > 0, np.arange(300) % 30 > 0     # right and wrong, image by image
        >>> (pair,) = compare_models({"a": a.astype(float), "b": b.astype(float)}, Unit())
        >>> pair.verdict, pair.difference
        ('better', 0.0666...)

    They are equivalent where an interval with twice the added images lies within the unit's margin on both sides.
    `groups`, `strata`: as in `image_interval`; with groups n is then the number of independent images that they are
    worth.

    Raises:
        ValueError: values of unequal numbers of images, or fewer than two.
    """
    first, *others = values
    reference = values[first]
    if any(len(values[name]) != len(reference) for name in others) or len(reference) < 2:
        raise ValueError(
            f"compare_models: {[len(of) for of in values.values()]} values; expected as many of each, ≥ 2."
        )
    differences = {name: np.asarray(values[name] - reference, np.float64) for name in others}
    errors = {name: _error(d, agreement, groups, strata) for name, d in differences.items()}
    freedom = {
        name: _mean_square(reference if strata is None else d, groups, strata)[1] for name, d in differences.items()
    }
    ps = [float(2 * special.stdtr(freedom[name], -abs(centre) / spread)) for name, (centre, spread) in errors.items()]

    def around(name: str, level: float) -> tuple[float, float]:
        centre, spread = errors[name]
        half = float(special.stdtrit(freedom[name], 1 - level / 2)) * spread
        return max(-unit.reach, centre - half), min(unit.reach, centre + half)

    pairs = []
    for name, p, p_holm in zip(others, ps, holm(ps), strict=True):
        d, level = differences[name], 1 - confidence
        centre, spread = _error(d, FOR_EQUIVALENCE * agreement, groups, strata)
        half = float(special.stdtrit(freedom[name], 1 - level / 2)) * spread
        same = None if unit.margin is None else (centre - half, centre + half)
        word = verdict(unit.gain(float(d.mean())), p_holm, unit.margin or 0.0, level, same)
        bounds = around(name, level), around(name, level / len(others))
        pairs.append(ModelPair(name, float(d.mean()), *bounds, p, p_holm, word, bool((d == 0).all())))
    return pairs


def _error(
    d: Values, agreement: float, groups: Numbers | None = None, strata: Numbers | None = None
) -> tuple[float, float]:
    """Centre and standard error of the interval of the mean difference."""
    n, mean = float(len(d)), float(d.mean())
    square, worth = float(np.var(d)) / n * _of_small(strata), n
    if groups is not None:
        plain = square
        square, _, least = _mean_square(d, groups, strata)
        # as in difference.crossed: all images where those of a group are no more alike than others, else fewer
        worth = min(max(n * plain / square, least), n) if square > 0 and plain > 0 else least
    spread = np.sqrt(worth**2 * square + 2 * worth * mean**2 / (worth + 2) + agreement)
    return mean * worth / (worth + 2), float(spread) / (worth + 2)
