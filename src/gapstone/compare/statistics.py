"""Compare every head with the baseline: better, worse, equivalent or cannot tell, adjusted for the number of heads.

difference.py computes the difference of two heads, its error and its degrees of freedom; sample_size.py computes how
many seeds or images would decide where these data do not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gapstone.compare.difference import Estimate, corrected_t, crossed
from gapstone.compare.sample_size import advise, detectable, note
from gapstone.console.formatting import count_noun


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


def verdict(interval: tuple[float, float] | None, p_holm: float | None, margin: float, level: float = 0.05) -> str:
    """Decide between `better`, `worse`, `equivalent` and `cannot tell`.

    >>> verdict((0.02, 0.06), 0.001, margin=0.005), verdict((-0.004, 0.002), 0.6, margin=0.005)
    ('better', 'equivalent')

    * equivalent: the whole interval lies inside ±margin. This is the two one-sided tests procedure (Schuirmann 1987,
      doi 10.1007/BF01068419) at 2.5 % each. The 90 % interval would suffice for 5 %; the 95 % one is used so that
      verdict and figure show the same interval. It comes first: a difference that is significant but smaller than the
      margin counts as equivalent.
    * better, worse: p, adjusted for the number of heads compared, is below the level.
    * cannot tell: neither. This does not mean "equal".
    """
    if interval is None or p_holm is None:
        return "cannot tell"
    low, high = interval
    if -margin <= low and high <= margin:
        return "equivalent"
    if p_holm < level:
        return "better" if low + high > 0 else "worse"
    return "cannot tell"


def interval(
    values: Sequence[float], confidence: float = 0.95, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, tuple[float, float] | None]:
    """Mean and t interval over trials; the interval is None for fewer than two.

        >>> interval([0.90, 0.92, 0.91], within=(0, 1))
        (0.91, (0.885..., 0.934...))
        >>> interval([0.35, 0.65], within=(0, 1))     # ±1.9: two seeds do not tell where in 0…1 the mean lies
        (0.5, None)

    The interval covers the variation between seeds on these test images, not that between images. The range of the
    measure, `within`, clips it; an interval that covers the whole range is None.
    """
    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, None
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    low, high = max(within[0], mean - half), min(within[1], mean + half)
    return mean, None if (low, high) == within else (low, high)


Correct = Mapping[str, Mapping[int, NDArray[Any]]]
"""For each head and each finished seed (or fold): correct or wrong, per test image."""


def compare_pairs(
    correct: Correct,
    baseline: str,
    margin_pp: float = 0.5,
    confidence: float = 0.95,
    folds: Mapping[int, tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """Compare every head with the baseline: the `pairs` of results.json.

        >>> compare_pairs({"fc": {0: correct_0, 1: correct_1}, "gap": {0: ..., 1: ...}}, baseline="fc")
        [{"a": "gap", "b": "fc", "difference_pp": 1.2, "ci95": [-0.4, 2.8], "verdict": "cannot tell", "advice": …}]

    Two heads are compared on the seeds that finished for both. With seeds, `correct` holds vectors over the same test
    images in the same order; with folds, over the images of each, of which `folds` has the numbers of (training images,
    test images). Differences up to `margin_pp` percentage points count as equivalent.
    """
    pairs = []
    for head in correct:
        if head == baseline:
            continue
        both = sorted(correct[head].keys() & correct[baseline].keys())
        pairs.append((head, both, *_estimate(correct[head], correct[baseline], both, folds)))
    adjusted = iter(holm([estimate.p for *_, estimate in pairs if estimate is not None]))
    tests = sum(estimate is not None for *_, estimate in pairs)
    margin, level, entries = margin_pp / 100, 1 - confidence, []
    for head, both, difference, estimate in pairs:
        p_holm = next(adjusted) if estimate else None
        bounds = estimate.interval(confidence) if estimate else None
        if bounds == (-1.0, 1.0):  # it excludes no difference
            bounds = None
        power = detectable(estimate.error, level) if estimate else None
        word = verdict(bounds, p_holm, margin, level)
        entries.append(
            {
                "a": head,
                "b": baseline,
                "difference_pp": None if difference is None else 100 * difference,
                "ci95": None if bounds is None else [100 * bounds[0], 100 * bounds[1]],
                "p": estimate.p if estimate else None,
                "p_holm": p_holm,
                "verdict": word,
                "detectable_pp": None if power is None or power > 1 else 100 * power,
                "advice": advise(estimate, len(both), margin, level, tests, folds) if word == "cannot tell" else None,
                "note": note(word, bounds, estimate, tests, margin),
                "method": _method(estimate, len(both), folds is not None),
                "repeats": len(both),
                "variance_pp2": _variance(estimate),
            }
        )
    return entries


def _estimate(
    a: Mapping[int, NDArray[Any]],
    b: Mapping[int, NDArray[Any]],
    both: Sequence[int],
    folds: Mapping[int, tuple[int, int]] | None,
) -> tuple[float | None, Estimate | None]:
    """The difference, None without common trials; and its estimate, None with fewer than two trials or images."""
    if not both:
        return None, None
    if folds is None and len(both) > 1 and len(a[both[0]]) > 1:
        estimate = crossed(np.stack([a[seed] for seed in both]), np.stack([b[seed] for seed in both]))
        return estimate.difference, estimate
    mean_a, mean_b = ([float(np.mean(head[number])) for number in both] for head in (a, b))
    if folds is None or len(both) < 2:
        return float(np.mean(mean_a) - np.mean(mean_b)), None
    train, test = zip(*(folds[number] for number in both), strict=True)
    estimate = corrected_t(mean_a, mean_b, train, test)
    return estimate.difference, estimate


def _method(estimate: Estimate | None, repeats: int, folds: bool) -> str:
    kind = "fold" if folds else "seed"
    if estimate is None and repeats > 1:
        return "none: one test image was compared, two test images are needed"
    if estimate is None:
        return f"none: {count_noun(repeats, kind)} finished for both heads, two are needed"
    freedom = count_noun(repeats - 1, "degree of freedom", "degrees of freedom")
    if folds:
        return f"Nadeau–Bengio corrected t over {repeats} folds, {freedom}; Holm over heads"
    return (
        f"crossed seed × image variance, {repeats} seeds × {count_noun(estimate.error.images, 'image')}, "
        f"Behrens–Fisher with {freedom} between seeds; Holm over heads"
    )


def _variance(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None or estimate.components is None:
        return None
    shares = estimate.components.shares(estimate.error.repeats, estimate.error.images)
    return {source: 10_000 * share for source, share in shares.items()}
