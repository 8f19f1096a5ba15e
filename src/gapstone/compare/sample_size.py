"""What would decide?  minimum detectable difference = reach(level) + reach(2 · (1 − power)), against S and n.

The variance components of a finished comparison foretell the error of a larger one. The answer is rough: the components
are estimates themselves, and it takes the difference seen as the true one.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gapstone.compare.difference import Components, ErrorDistribution, Estimate
from gapstone.console.formatting import count_noun

POWER = 0.8
FEWEST = 3  # seeds or folds: two know their own spread so badly that an interval is 13 standard errors to either side
FEW_SEEDS = 30  # beyond, more images are the better use of the time
MOST_IMAGES = 10_000_000
MANY = 10**6  # as good as any number of seeds


def minimum_detectable(
    components: Components, seeds: int, images: int, level: float = 0.05, power: float = POWER
) -> float:
    """The true difference that a comparison of that size detects with that probability.

        >>> 100 * minimum_detectable(Components(seed=0, image=0.05, residual=0.05), seeds=5, images=500)
        3.4

    The same number is the distance from 0 at which heads must not differ for their interval to lie inside a margin.
    """
    return detectable(components.doubt(seeds, images), level, power)


def detectable(doubt: ErrorDistribution, level: float, power: float = POWER) -> float:
    """The same, of a comparison whose error is known."""
    return doubt.reach(level) + doubt.reach(2 * (1 - power))


def advise(
    estimate: Estimate | None,
    repeats: int,
    margin: float,
    level: float = 0.05,
    tests: int = 1,
    folds: Mapping[int, tuple[int, int]] | None = None,
) -> str:
    """One sentence for a "cannot tell": how many seeds, or test images, would decide it.

        >>> advise(crossed(gap, fc), repeats=5, margin=0.005)
        'If the difference of 1.5 percentage points is real, more seeds alone would take too many; about 2,900 test …'

    There are two ways out, and the nearer is named: that the difference shows (at the level that remains after Holm,
    level / tests), or that the interval comes to lie inside ±margin.
    """
    kind = "fold" if folds is not None else "seed"
    if repeats == 0:
        return f"No {kind} finished with both heads; repeat the trials that failed."
    if estimate is None and repeats > 1:
        return "One test image cannot show how far the result depends on the image: use at least 100, better 500."
    if estimate is None:
        return f"One {kind} cannot show how far the result depends on the {kind}: use at least {FEWEST}, better 5."
    if repeats < FEWEST and detectable(estimate.doubt, level) > 1:
        return (
            f"{repeats} {kind}s that differ as much as these cannot show any difference between heads, however large: "
            f"use at least {FEWEST}, better 5."
        )
    ways = [
        DecidingStep(target, at, aim)
        for target, at, aim in (
            (abs(estimate.difference), level / tests, _aim_at_difference(estimate)),
            (margin - abs(estimate.difference), level, _aim_at_equivalence(estimate, margin)),
        )
        if target > 0
    ]
    return _from_folds(estimate, ways) if estimate.components is None else _from_seeds(estimate, ways)


class DecidingStep(NamedTuple):
    """One way out: a difference of `target` must be detectable at `level`; `aim` opens and ends the sentence."""

    target: float
    level: float
    aim: tuple[str, str]


def _from_seeds(estimate: Estimate, ways: list[DecidingStep]) -> str:
    options = [(*_needed(estimate, way), way) for way in ways]
    options = [option for option in options if option[0]]
    if not options:
        return (
            f"The difference of {_points(abs(estimate.difference))} is too close to 0, and to the margin, for as many "
            "seeds and test images as one could afford."
        )
    # more seeds on these images before more images; then by the answers to be given in all
    seeds, images, way = min(options, key=lambda option: (option[1] > estimate.doubt.images, option[0] * option[1]))
    opening, ending = way.aim
    if images == estimate.doubt.images:
        return (
            f"{opening}, about {seeds} seeds (now {estimate.doubt.repeats}) on these "
            f"{count_noun(images, 'test image')} "
            f"{ending}."
        )
    assert estimate.components is not None
    if minimum_detectable(estimate.components, MANY, estimate.doubt.images, way.level) > way.target:
        why = "no number of seeds will do, because these test images alone leave too much doubt"
    else:
        why = "more seeds alone would take too many"
    now = "" if seeds == estimate.doubt.repeats else f" (now {estimate.doubt.repeats})"
    count = f"about {_round(images):,} test images (now {estimate.doubt.images:,})"
    return f"{opening}, {why}; {count} with {count_noun(seeds, 'seed')}{now} {ending}."


def _needed(estimate: Estimate, way: DecidingStep) -> tuple[int, int]:
    """The fewest seeds on these images, else the fewest images with these seeds or with more; (0, 0) where neither."""

    def enough(seeds: int, images: int) -> bool:
        assert estimate.components is not None
        return minimum_detectable(estimate.components, seeds, images, way.level) <= way.target

    for seeds in range(estimate.doubt.repeats + 1, FEW_SEEDS + 1):
        if enough(seeds, estimate.doubt.images):
            return seeds, estimate.doubt.images
    least = max(estimate.doubt.repeats, 5)  # fewer know their own spread too badly to build on
    for seeds in (least, *(more for more in (10, 20, 30, 50) if more > least)):
        if enough(seeds, MOST_IMAGES):
            low, high = estimate.doubt.images, MOST_IMAGES
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if enough(seeds, middle) else (middle, high)
            return seeds, high
    return 0, 0


def _from_folds(estimate: Estimate, ways: list[DecidingStep]) -> str:
    """Folds overlap, so that more of them add little; the error shrinks with the square root of the images."""

    def images(way: DecidingStep) -> float:
        return estimate.doubt.images * max(1.0, detectable(estimate.doubt, way.level) / way.target) ** 2

    way = min(ways, key=images)
    if images(way) > MOST_IMAGES:
        return "More folds add little, because they share their images; far more images would be needed."
    opening, ending = way.aim
    count = f"about {_round(images(way)):,} images (now {estimate.doubt.images:,})"
    return f"{opening}, {count} {ending}; more folds add little, because they share their images."


def _aim_at_difference(estimate: Estimate) -> tuple[str, str]:
    return f"If the difference of {_points(abs(estimate.difference))} is real", "would probably show it"


def _aim_at_equivalence(estimate: Estimate, margin: float) -> tuple[str, str]:
    seen = abs(estimate.difference)
    opening = f"If the heads differ by no more than the {_points(seen)} seen" if seen else "If the heads do not differ"
    return opening, f"would probably show them equivalent within {_points(margin)}"


def _points(fraction: float) -> str:
    """>>> _points(0.012), _points(0.0004)
    ('1.2 percentage points', '0.04 percentage points')
    """
    points = 100 * fraction
    return f"{points:.2g} percentage points" if points < 1 else f"{points:.1f} percentage points"


def _round(number: float) -> int:
    """Two digits: the third would be a pretence."""
    return int(float(f"{number:.2g}")) if number >= 100 else round(number)


def note(
    verdict: str, bounds: tuple[float, float] | None, estimate: Estimate | None, tests: int, margin: float
) -> str | None:
    """What a reader of verdict and interval may stumble over, or None."""
    if bounds is None or estimate is None or bounds[0] <= 0 <= bounds[1]:
        return None
    if verdict == "equivalent":
        return f"There is a difference, but at 95 % confidence it is smaller than the margin of {_points(margin)}."
    if verdict == "cannot tell":
        return (
            f"The interval leaves out 0, but {count_noun(tests, 'head')} were compared with the baseline, and one of "
            f"so many "
            "may do so by chance: the Holm-adjusted p is not below 0.05."
        )
    return None
