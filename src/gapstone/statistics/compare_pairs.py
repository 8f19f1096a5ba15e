"""Compare every head with the baseline: better, worse, equivalent or cannot tell, adjusted for the number of heads.

difference.py computes the difference of two heads, its error and its degrees of freedom; sample_size.py computes how
many seeds or images would decide where these data do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gapstone.console.formatting import count_noun
from gapstone.statistics.by_group import Groups
from gapstone.statistics.collapsed_seeds import Collapsed, collapsed_seeds
from gapstone.statistics.difference import AGREEMENT, FEWEST_FOR_INTERVAL, Estimate, corrected_t, crossed
from gapstone.statistics.sample_size import advise, detectable, note
from gapstone.statistics.unit import POINTS, Unit


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p values for their number: the probability of even one false positive stays below the level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65.
    """
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def look_level(look: int, level: float = 0.05) -> float:
    """The level of a test that is made for the first, second, … time, as seeds or heads are added: level / look².

        >>> look_level(1), look_level(2)
        (0.05, 0.0125)

    Who adds seeds until something is significant finds differences between equal heads in 7 to 12 of 100 comparisons
    after 5, 10 and 20 seeds, at 5 % each time; at level / look in 5 to 8, at level / look² in 4 to 6.
    """
    return level / look**2


def verdict(
    difference: float | None,
    p_holm: float | None,
    margin: float | None,
    level: float = 0.05,
    equivalence: tuple[float, float] | None = None,
) -> str:
    """Decide between `better`, `worse`, `equivalent` and `cannot tell`.

    >>> verdict(0.04, 0.001, margin=0.005), verdict(-0.001, 0.6, 0.005, equivalence=(-0.004, 0.003))
    ('better', 'equivalent')

    `difference` is positive where it is one for the better.

    * equivalent: the whole interval `equivalence` lies inside ±margin; either is None where it may not be said. This is
      the two one-sided tests procedure (Schuirmann 1987, doi 10.1007/BF01068419) at 2.5 % each. The 90 % interval would
      suffice for 5 %; the 95 % one is used so that verdict and figure agree. It comes first: a difference that is
      significant but smaller than the margin counts as equivalent.
    * better, worse: p, adjusted for the number of heads compared, is below the level.
    * cannot tell: neither. This does not mean "equal".
    """
    if equivalence is not None and margin is not None and max(map(abs, equivalence)) <= margin:
        return "equivalent"
    if difference is not None and p_holm is not None and p_holm < level:
        return "better" if difference > 0 else "worse"
    return "cannot tell"


def interval(
    values: Sequence[float], confidence: float = 0.95, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, tuple[float, float] | None]:
    """Mean and t interval over trials; the interval is None for fewer than three.

        >>> interval([0.90, 0.92, 0.91], within=(0, 1))
        (0.91, (0.885..., 0.934...))
        >>> interval([0.90, 0.92])     # two do not tell how far others lie: t would give 0.91 ± 0.13
        (0.91, None)

    The interval covers the variation between seeds on these test images, not that between images. The range of the
    measure, `within`, clips it; an interval that covers the whole range is None.
    """
    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if len(x) < FEWEST_FOR_INTERVAL:
        return mean, None
    half = float(special.stdtrit(len(x) - 1, (1 + confidence) / 2) * x.std(ddof=1) / np.sqrt(len(x)))
    low, high = max(within[0], mean - half), min(within[1], mean + half)
    return mean, None if (low, high) == within else (low, high)


def share_interval(
    right: Sequence[NDArray[Any]],
    confidence: float = 0.95,
    folds: Sequence[tuple[int, int]] | None = None,
    agreement: float = AGREEMENT,
    unit: Unit = POINTS,
    groups: NDArray[Any] | None = None,
    most: float | None = None,
    by_tails: bool = False,
) -> tuple[float, float] | None:
    """The interval of one head's metric, for other seeds and other test images of the same kind.

        >>> share_interval([correct_0, correct_1, correct_2])     # of 500 images 451, 470 and 460 are correct
        (0.859..., 0.956...)

    The crossed design's error of the mean. Of shares in Wilson's form, which stays between 0 and 1: as many independent
    answers are counted as would have that error, and no more than there are. None for fewer than three seeds, or two
    images, or where the metric is not defined.

    Args:
        right: of each seed, what each image counts: correct (1) or wrong (0), a share of several looks, or another
            value whose mean is a metric between 0 and 1; with seeds, the same images in the same order.
        confidence: of the interval.
        folds: numbers of (training images, test images), where `right` is of folds.
        agreement: of the metric (`metrics.agreement`).
        unit: of the metric.
        groups: of each image, with seeds (`crossed`).
        most: independent answers at most, where classes with few images weigh most (`metrics.most_answers`).
        by_tails: likewise (`crossed`).

    Source: Wilson 1927 (doi 10.1080/01621459.1927.10502953); effective sample size: Korn & Graubard 1998.
    """
    if len(right) < FEWEST_FOR_INTERVAL or min(len(values) for values in right) < 2:
        return None
    if not all(np.isfinite(values).all() for values in right):
        return None
    if folds is None:
        rows = np.stack(right).astype(np.float64)
        estimate = crossed(rows, np.zeros_like(rows), agreement, groups, by_tails)
    else:
        means = [float(np.mean(values)) for values in right]
        train, test = zip(*folds, strict=True)
        estimate = corrected_t(means, np.zeros(len(means)), train, test, agreement=agreement)
    if not unit.is_share:
        half = estimate.error.quantile(1 - confidence)
        return max(unit.low, estimate.difference - half), min(unit.high, estimate.difference + half)
    mean, added = min(max(estimate.difference, 0.0), 1.0), estimate.agreement / (estimate.error.images + 2) ** 2
    error = replace(estimate.error, by_image=float(np.sqrt(max(estimate.error.by_image**2 - added, 0.0))))
    answers = float(sum(len(values) for values in right))
    if estimate.worth is not None:  # several seeds do not make few groups more: by as many answers 84 % were covered
        answers /= len(right)
    if error.standard_error > 1e-7:  # more than what rounding leaves of 0
        critical = error.quantile(1 - confidence) / error.standard_error
        answers = min(mean * (1 - mean) / error.standard_error**2, answers)
    else:  # all right, or all wrong, with every seed: as many as there are images, by their weight
        critical = float(special.ndtri((1 + confidence) / 2))
        answers = (estimate.worth or estimate.error.images) * AGREEMENT / agreement
    answers = max(answers if most is None else min(answers, most), 1.0)
    z = critical**2 / answers
    centre = (mean + z / 2) / (1 + z)
    half = critical / (1 + z) * np.sqrt((mean * (1 - mean) + z / 4) / answers)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def share_stat(
    by_seed: Mapping[int, NDArray[Any]],
    confidence: float = 0.95,
    folds: Mapping[int, tuple[int, int]] | None = None,
    agreement: float = AGREEMENT,
    unit: Unit = POINTS,
    groups: Groups | None = None,
    most: float | None = None,
    by_tails: bool = False,
) -> dict[str, Any]:
    """A Stat of results.json whose interval allows for other seeds and other test images (`share_interval`)."""
    if not by_seed or not all(np.isfinite(values).all() for values in by_seed.values()):
        return {"mean": None, "ci95": None, "values": []}
    rows = [np.asarray(by_seed[seed], np.float64) for seed in sorted(by_seed)]
    parts = None if folds is None else [folds[number] for number in sorted(by_seed)]
    together = None if groups is None or parts is not None else groups.at(min(by_seed))
    known = groups is None or groups.refused is None
    bounds = share_interval(rows, confidence, parts, agreement, unit, together, most, by_tails) if known else None
    values = [float(row.mean()) for row in rows]
    return {"mean": float(np.mean(values)), "ci95": None if bounds is None else list(bounds), "values": values}


Correct = Mapping[str, Mapping[int, NDArray[Any]]]
"""For each head and each finished seed (or fold): correct or wrong, per test image."""


def compare_pairs(
    correct: Correct,
    baseline: str,
    unit: Unit = POINTS,
    confidence: float = 0.95,
    folds: Mapping[int, tuple[int, int]] | None = None,
    look: int = 1,
    agreement: float = AGREEMENT,
    groups: Groups | None = None,
    by_tails: bool = False,
) -> list[dict[str, Any]]:
    """Compare every head with the baseline: the `pairs` of results.json.

        >>> compare_pairs({"fc": {0: correct_0, 1: correct_1}, "gap": {0: ..., 1: ...}}, baseline="fc")
        [{"a": "gap", "b": "fc", "difference": 1.2, "ci95": [-0.4, 2.8], "verdict": "cannot tell", "advice": …}]

    Two heads are compared on the seeds that finished for both. With seeds, `correct` holds vectors over the same test
    images in the same order; with folds, over the images of each, of which `folds` has the numbers of (training images,
    test images). `look`: 1 where these test images are compared for the first time; the level is that of `look_level`.
    Instead of correct or wrong, `correct` may hold other values whose mean is a metric, with its `unit` and its
    `agreement` (`metrics`). `groups`: which test images belong together; verdicts are then for other groups.
    `by_tails`: as in `crossed`.
    """
    pairs = []
    for head in correct:
        if head == baseline:
            continue
        both = sorted(correct[head].keys() & correct[baseline].keys())
        estimated = _estimate(correct[head], correct[baseline], both, folds, agreement, unit, groups, by_tails)
        pairs.append(HeadPair(head, both, *estimated))
    adjusted = iter(holm([pair.estimate.p for pair in pairs if pair.estimate is not None]))
    family = Family(
        unit=unit,
        confidence=confidence,
        level=look_level(look, 1 - confidence),
        next_level=look_level(look + 1, 1 - confidence),
        tests=sum(pair.estimate is not None for pair in pairs),
        folds=folds,
        groups=groups,
        collapsed=collapsed_seeds({head: _means(seeds) for head, seeds in correct.items()}, unit),
    )
    return [
        {"a": pair.head, "b": baseline}
        | _compared(pair, correct, baseline, next(adjusted) if pair.estimate else None, family)
        for pair in pairs
    ]


class HeadPair(NamedTuple):
    """A head beside the baseline, on the seeds (or folds) that both have."""

    head: str
    both: list[int]
    difference: float | None
    estimate: Estimate | None


class Family(NamedTuple):
    """What all comparisons with the baseline have in common."""

    unit: Unit
    confidence: float
    level: float
    next_level: float
    """Of the look that follows advice."""
    tests: int
    folds: Mapping[int, tuple[int, int]] | None
    groups: Groups | None
    collapsed: Collapsed


def _means(by_seed: Mapping[int, NDArray[Any]]) -> dict[int, float]:
    return {seed: float(np.mean(values)) for seed, values in by_seed.items()}


def _compared(pair: HeadPair, correct: Correct, baseline: str, p_holm: float | None, family: Family) -> dict[str, Any]:
    estimate, level, unit = pair.estimate, family.level, family.unit
    told = estimate if len(pair.both) >= FEWEST_FOR_INTERVAL else None
    bounds = told.interval(family.confidence) if told else None
    together = told.interval(1 - level / family.tests) if told else None
    if bounds == (-unit.reach, unit.reach):  # it excludes no difference
        bounds = together = None
    collapsed = [head for head in (pair.head, baseline) if set(family.collapsed.get(head, ())) & set(pair.both)]
    equivalence = None if estimate is None or collapsed else estimate.equivalence_interval(1 - level)
    gain = None if pair.difference is None else unit.gain(pair.difference)
    word = verdict(gain, p_holm, unit.margin, level, equivalence)
    power = detectable(told.error, level / family.tests) if told else None
    by_seed = [_means(correct[pair.head])[seed] - _means(correct[baseline])[seed] for seed in pair.both]
    tell = word == "cannot tell"
    return {
        "unit": unit.name,
        "lower_is_better": unit.lower_is_better,
        "digits": unit.digits,
        "margin": None if unit.margin is None else unit.factor * unit.margin,
        "difference": None if pair.difference is None else unit.factor * pair.difference,
        "range": [unit.factor * min(by_seed), unit.factor * max(by_seed)] if by_seed else None,
        "ci95": _shown(bounds, unit),
        "ci95_together": _shown(_decided(together, word, unit), unit),
        "p": estimate.p if estimate else None,
        "p_holm": p_holm,
        "verdict": word,
        "collapsed": collapsed,
        "detectable": None if power is None or power > unit.reach else unit.factor * power,
        "advice": _advice(pair, family) if tell else None,
        "note": note(word, bounds, estimate, family.tests, unit, collapsed, level),
        "method": _method(estimate, pair, family),
        "repeats": len(pair.both),
        "variance": _variance(estimate, unit),
    }


def _advice(pair: HeadPair, family: Family) -> str:
    if family.groups is not None and family.groups.refused is not None and pair.both:
        return family.groups.refused
    noun = family.groups.noun if family.groups is not None and family.folds is None else "test image"
    return advise(pair.estimate, len(pair.both), family.unit, family.next_level, family.tests, family.folds, noun)


def _decided(bounds: tuple[float, float] | None, word: str, unit: Unit) -> tuple[float, float] | None:
    """Bounds for all heads together end at 0 where Holm's adjustment, which is stronger than Bonferroni's, decided.

    Source: Guilbaud 2008 (doi 10.1002/bimj.200710449), Strassburger & Bretz 2008 (10.1002/sim.3338).
    """
    if bounds is None or word not in ("better", "worse"):
        return bounds
    low, high = bounds
    above = unit.gain(1.0 if word == "better" else -1.0) > 0
    return (max(low, 0.0), high) if above else (low, min(high, 0.0))


def _shown(bounds: tuple[float, float] | None, unit: Unit) -> list[float] | None:
    return None if bounds is None else [unit.factor * bounds[0], unit.factor * bounds[1]]


def _estimate(
    a: Mapping[int, NDArray[Any]],
    b: Mapping[int, NDArray[Any]],
    both: Sequence[int],
    folds: Mapping[int, tuple[int, int]] | None,
    agreement: float,
    unit: Unit,
    groups: Groups | None,
    by_tails: bool,
) -> tuple[float | None, Estimate | None]:
    """The difference and its estimate.

    Both are None without common trials, or where the metric is not defined; the estimate also with too few trials,
    images or groups.
    """
    if not both or not all(np.isfinite(head[number]).all() for head in (a, b) for number in both):
        return None, None
    refused = groups is not None and groups.refused is not None
    if folds is None and len(both) > 1 and len(a[both[0]]) > 1 and not refused:
        together = None if groups is None else groups.at(both[0])
        rows_a, rows_b = (np.stack([head[seed] for seed in both]) for head in (a, b))
        estimate = crossed(rows_a, rows_b, agreement, together, by_tails)
        return estimate.difference, replace(estimate, reach=unit.reach)
    mean_a, mean_b = ([float(np.mean(head[number])) for number in both] for head in (a, b))
    if folds is None or len(both) < 2 or refused:
        return float(np.mean(mean_a) - np.mean(mean_b)), None
    train, test = zip(*(folds[number] for number in both), strict=True)
    estimate = corrected_t(mean_a, mean_b, train, test, agreement=agreement)
    return estimate.difference, replace(estimate, reach=unit.reach)


def _method(estimate: Estimate | None, pair: HeadPair, family: Family) -> str:
    repeats, kind = len(pair.both), "fold" if family.folds is not None else "seed"
    if estimate is None and repeats and family.groups is not None and family.groups.refused is not None:
        return f"none: {family.groups.refused}"
    if estimate is None and repeats > 1:
        return "none: one test image was compared, two test images are needed"
    if estimate is None:
        return f"none: {count_noun(repeats, kind)} finished for both heads, two are needed"
    freedom = count_noun(repeats - 1, "degree of freedom", "degrees of freedom")
    if family.folds is not None:
        whole = "" if family.groups is None else " of whole groups"
        return f"Nadeau–Bengio corrected t over {repeats} folds{whole}, {freedom}; Holm over heads"
    if family.groups is None or estimate.worth is None:
        return (
            f"crossed seed × image variance, {repeats} seeds × {count_noun(estimate.error.images, 'image')}, "
            f"Behrens–Fisher with {freedom} between seeds; Holm over heads"
        )
    images = len(family.groups.of[pair.both[0]])
    return (
        f"crossed seed × group variance, {repeats} seeds × {count_noun(estimate.error.images, family.groups.noun)} of "
        f"{count_noun(images, family.groups.member)}, Behrens–Fisher with {freedom} between seeds; Holm over heads"
    )


def _variance(estimate: Estimate | None, unit: Unit) -> dict[str, float] | None:
    if estimate is None or estimate.components is None:
        return None
    shares = estimate.components.shares(estimate.error.repeats, estimate.error.images)
    return {source: unit.factor**2 * share for source, share in shares.items()}
