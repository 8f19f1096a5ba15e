"""How many seeds or images decide: minimum detectable difference = quantile(level) + quantile(2 · (1 − power)).

The variance components of a finished comparison predict the error of a larger one, those between seeds at their upper
limit (`Estimate.cautious`). Plans aim at fixed differences: the one that was seen is as uncertain as the verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt
from typing import NamedTuple

from scipy import special

from gapstone.console.formatting import count_noun
from gapstone.statistics.difference import (
    CAUTION,
    FEWEST_FOR_EQUIVALENCE,
    FEWEST_FOR_INTERVAL,
    FOR_EQUIVALENCE,
    Components,
    ErrorDistribution,
    Estimate,
)
from gapstone.statistics.unit import POINTS, Unit

POWER = 0.8
FEW_SEEDS = 30  # with more seeds, more images are the better use of the time
MANY_SEEDS = (5, 10, 20, 30, 50)  # with fewer the spread is too uncertain
MOST_IMAGES = 10_000_000


def minimum_detectable(
    components: Components, seeds: int, images: int, level: float = 0.05, power: float = POWER
) -> float:
    """The smallest true difference that a comparison of that size detects with probability `power`.

    >>> 100 * minimum_detectable(Components(seed=0, image=0.05, residual=0.05), seeds=5, images=500)
    3.4
    """
    return detectable(components.error(seeds, images), level, power)


def detectable(error: ErrorDistribution, level: float, power: float = POWER) -> float:
    """The same for a comparison with this error."""
    return error.quantile(level) + error.quantile(2 * (1 - power))


def provably_equal(error: ErrorDistribution, level: float, power: float = POWER) -> float:
    """The smallest margin within which equal heads are found equivalent with probability `power`.

    Both ends of the interval must lie within it, so that either may fail: its half width, and the distance that the
    difference exceeds in either direction with probability 1 − power.
    """
    return error.quantile(level) + error.quantile(1 - power)


class Need(NamedTuple):
    """What would show a true difference, or with `difference` 0 that there is none."""

    difference: float
    seeds: int | None
    """None, as `images`: more than one could afford."""
    images: int | None


def needs(
    estimate: Estimate,
    unit: Unit = POINTS,
    level: float = 0.05,
    tests: int = 1,
    folds: bool = False,
) -> list[Need]:
    """What each of the unit's aims needs that would not have shown already, the largest first; then equivalence.

    Args:
        estimate: of this comparison.
        unit: of the metric.
        level: of significance.
        tests: comparisons with the baseline; a difference must show at level / tests, as Holm's first step requires.
        folds: whether repeats are folds, whose number is kept.
    """
    now = detectable(estimate.error, level / tests)
    aims = [(aim, level / tests) for aim in unit.aims if aim < now]
    find = _images_of_folds if folds else _seeds_and_images
    if unit.margin is not None:
        aims.append((0.0, level))
    return [Need(aim, *find(estimate, aim or unit.margin or 0.0, at, equal=not aim)) for aim, at in aims]


def _shows(error: ErrorDistribution, target: float, level: float, equal: bool) -> bool:
    """Whether `detectable`, or `provably_equal`, is `target` or less, by one root instead of two."""
    rest = target - error.quantile(1 - POWER if equal else 2 * (1 - POWER))
    return rest > 0 and error.tail_probability(rest) <= level


def _seeds_and_images(
    estimate: Estimate, target: float, level: float, equal: bool
) -> tuple[int, int] | tuple[None, None]:
    """The fewest seeds on these images, else the fewest predictions (seeds × images) with more images."""
    components = estimate.cautious()

    def enough(seeds: int, images: int) -> bool:
        return _shows(components.error(seeds, images, FOR_EQUIVALENCE if equal else 1.0), target, level, equal)

    repeats, tested = estimate.error.repeats, estimate.error.images
    least = FEWEST_FOR_EQUIVALENCE if equal else FEWEST_FOR_INTERVAL
    fewest = max(repeats + 1, least)
    if fewest <= FEW_SEEDS and enough(FEW_SEEDS, tested):
        return _first(lambda seeds: enough(seeds, tested), fewest, FEW_SEEDS), tested
    best: tuple[int, int] | tuple[None, None] = (None, None)
    most = MOST_IMAGES * MANY_SEEDS[0]
    for seeds in sorted({max(repeats, MANY_SEEDS[0]), *MANY_SEEDS}):
        images = min(most // seeds, MOST_IMAGES)
        if seeds >= repeats and images >= tested and enough(seeds, images):
            best = seeds, _first(partial(enough, seeds), tested, images)
            most = best[0] * best[1] - 1
    return best


def _first(enough: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number from `low` to `high` that is enough; `high` is, and so is all above one that is."""
    if enough(low):
        return low
    while high - low > 1:
        middle = min(max(round(sqrt(low * high)), low + 1), high - 1)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _images_of_folds(
    estimate: Estimate, target: float, level: float, equal: bool
) -> tuple[int, int] | tuple[None, None]:
    """As many folds of more images, as the error falls with their square root."""
    repeats, tested = estimate.error.repeats, estimate.error.images
    doubt = (repeats - 1) / float(special.chdtri(repeats - 1, CAUTION))
    error = ErrorDistribution(estimate.error.by_repeat * doubt**0.5, repeats, estimate.error.by_image, tested)
    reached = provably_equal(error, level) if equal else detectable(error, level)
    images = tested * max(1.0, reached / target) ** 2
    return (None, None) if images > MOST_IMAGES else (repeats, round(images))


def advise(
    estimate: Estimate | None,
    repeats: int,
    unit: Unit = POINTS,
    level: float = 0.05,
    tests: int = 1,
    folds: Mapping[int, tuple[int, int]] | None = None,
    noun: str = "test image",
) -> str:
    """At most two short sentences for the verdict "cannot tell": what would decide it.

    >>> advise(crossed(gap, fc), repeats=5)
    'To show a true difference of 1 percentage point (power 80 %): about 21 seeds (now 5) on these 842 test images; …'
    """
    kind = "fold" if folds is not None else "seed"
    if repeats == 0:
        return f"No {kind} finished with both heads; repeat the trials that failed."
    if estimate is None and repeats > 1:
        return "One test image cannot show how far the result depends on the image: use at least 100, better 500."
    if repeats < FEWEST_FOR_INTERVAL or estimate is None:
        few = f"One {kind}" if repeats == 1 else f"Two {kind}s"
        return f"{few} cannot show how far the result depends on the {kind}: take 5."
    if unit.margin is None:
        return f"More {kind}s, or more test images, narrow the interval."
    *aims, equal = needs(estimate, unit, level, tests, folds is not None)
    found = [need for need in aims if need.images is not None][:2]
    sentences = []
    if found:
        what = f"To show a true difference of {unit.amount(found[0].difference)} (power 80 %)"
        first = f"{what}: {_said(found[0], estimate, noun)}"
        more = [f"of {unit.factor * need.difference:g}: {_said(need, estimate, noun)}" for need in found[1:]]
        sentences.append("; ".join([first, *more]) + ".")
    elif aims:
        sentences.append(
            f"No number of {kind}s and {noun}s that one could afford would show a true difference of "
            f"{unit.amount(aims[0].difference)}."
        )
    if equal.images is not None:
        none = f"To show that there is none beyond ±{unit.factor * unit.margin:g}"
        sentences.append(f"{none}: {_said(equal, estimate, noun)}.")
    elif not aims:
        sentences.append(
            f"To show that there is none beyond ±{unit.factor * unit.margin:g} would take more than one could afford."
        )
    return " ".join(sentences)


def _said(need: Need, estimate: Estimate, noun: str = "test image") -> str:
    """>>> _said(Need(0.01, 12, 842), estimate)
    'about 12 seeds (now 5) on these 842 test images'
    """
    assert need.seeds is not None
    assert need.images is not None
    now = estimate.error
    if estimate.components is None:
        return f"about {_round(need.images):,} images (now {now.images:,}), in as many folds"
    if need.images == now.images:
        return f"about {need.seeds} seeds (now {now.repeats}) on these {count_noun(now.images, noun)}"
    more = "" if need.seeds == now.repeats else f" (now {now.repeats})"
    return f"about {_round(need.images):,} {noun}s (now {now.images:,}) with {count_noun(need.seeds, 'seed')}{more}"


def _round(number: float) -> int:
    """Round to two significant digits: the estimate is no more precise."""
    return int(float(f"{number:.2g}")) if number >= 100 else round(number)


def note(
    verdict: str,
    bounds: tuple[float, float] | None,
    estimate: Estimate | None,
    tests: int,
    unit: Unit = POINTS,
    collapsed: Sequence[str] = (),
    level: float = 0.05,
) -> str | None:
    """An explanation if verdict and interval seem to contradict each other, or None.

    `collapsed`: those of the two heads a seed of which collapsed. `level`: of significance.
    """
    if bounds is None or estimate is None:
        return None
    if verdict == "cannot tell" and unit.margin is not None and max(map(abs, bounds)) <= unit.margin:
        if collapsed:
            return f"Not called equivalent, as a seed of {' and of '.join(collapsed)} collapsed."
        if estimate.error.repeats < FEWEST_FOR_EQUIVALENCE:
            return f"Not called equivalent: that takes {FEWEST_FOR_EQUIVALENCE} seeds or more."
        return "Not called equivalent: heads that agree on so few test images may look more alike than they are."
    if bounds[0] <= 0 <= bounds[1]:
        return None
    if verdict == "equivalent":
        margin = unit.amount(unit.margin or 0.0)
        return f"There is a difference, but at 95 % confidence it is smaller than the margin of {margin}."
    if verdict == "cannot tell":
        return f"The interval leaves out 0, but the Holm-adjusted p is not below {level:.3g}: " + (
            f"one of {tests} heads may do so by chance." if tests > 1 else "looking again may do so by chance."
        )
    return None
