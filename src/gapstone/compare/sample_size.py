"""How many seeds or images decide: minimum detectable difference = quantile(level) + quantile(2 · (1 − power)).

The variance components of a finished comparison predict the error of a larger one. The prediction is rough: the
components are estimates, and the observed difference is taken as the true one.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gapstone.compare.difference import Components, ErrorDistribution, Estimate
from gapstone.console.formatting import count_noun

POWER = 0.8
FEWEST = 3  # seeds or folds: with two, the spread is so uncertain that the interval is ±13 standard errors
FEW_SEEDS = 30  # with more seeds, more images are the better use of the time
MOST_IMAGES = 10_000_000
MANY = 10**6  # stands for infinitely many seeds


def minimum_detectable(
    components: Components, seeds: int, images: int, level: float = 0.05, power: float = POWER
) -> float:
    """The smallest true difference that a comparison of that size detects with probability `power`.

        >>> 100 * minimum_detectable(Components(seed=0, image=0.05, residual=0.05), seeds=5, images=500)
        3.4

    It is also how far inside the margin the true difference must lie for the interval to lie inside it, too.
    """
    return detectable(components.error(seeds, images), level, power)


def detectable(error: ErrorDistribution, level: float, power: float = POWER) -> float:
    """The same for a comparison with this error."""
    return error.quantile(level) + error.quantile(2 * (1 - power))


def advise(
    estimate: Estimate | None,
    repeats: int,
    margin: float,
    level: float = 0.05,
    tests: int = 1,
    folds: Mapping[int, tuple[int, int]] | None = None,
) -> str:
    """One sentence for the verdict "cannot tell": how many seeds or test images would decide it.

        >>> advise(crossed(gap, fc), repeats=5, margin=0.005)
        'If the difference of 1.5 percentage points is real, more seeds alone would take too many; about 2,900 test …'

    A larger comparison can decide in two ways, and the sentence names the cheaper: the difference becomes significant
    (at level / tests, as Holm requires), or the interval comes to lie inside ±margin.
    """
    kind = "fold" if folds is not None else "seed"
    if repeats == 0:
        return f"No {kind} finished with both heads; repeat the trials that failed."
    if estimate is None and repeats > 1:
        return "One test image cannot show how far the result depends on the image: use at least 100, better 500."
    if estimate is None:
        return f"One {kind} cannot show how far the result depends on the {kind}: use at least {FEWEST}, better 5."
    if repeats < FEWEST and detectable(estimate.error, level) > 1:
        return (
            f"{repeats} {kind}s that differ as much as these cannot show any difference between heads, however large: "
            f"use at least {FEWEST}, better 5."
        )
    steps = [
        DecidingStep(target, step_level, aim)
        for target, step_level, aim in (
            (abs(estimate.difference), level / tests, _aim_at_difference(estimate)),
            (margin - abs(estimate.difference), level, _aim_at_equivalence(estimate, margin)),
        )
        if target > 0
    ]
    return _from_folds(estimate, steps) if estimate.components is None else _from_seeds(estimate, steps)


class DecidingStep(NamedTuple):
    """One way to decide: a difference of `target` must be detectable at `level`; `aim` opens and ends the sentence."""

    target: float
    level: float
    aim: tuple[str, str]


def _from_seeds(estimate: Estimate, steps: list[DecidingStep]) -> str:
    options = [(*_needed(estimate, step), step) for step in steps]
    options = [option for option in options if option[0]]
    if not options:
        return (
            f"The difference of {_points(abs(estimate.difference))} is too close to 0, and to the margin, for as many "
            "seeds and test images as one could afford."
        )
    # prefer more seeds on these images to more images; then the fewest predictions in all
    error = estimate.error
    seeds, images, step = min(options, key=lambda option: (option[1] > error.images, option[0] * option[1]))
    opening, ending = step.aim
    if images == error.images:
        return (
            f"{opening}, about {seeds} seeds (now {error.repeats}) on these {count_noun(images, 'test image')} "
            f"{ending}."
        )
    assert estimate.components is not None
    if minimum_detectable(estimate.components, MANY, error.images, step.level) > step.target:
        why = "no number of seeds will do, because these test images alone leave too much doubt"
    else:
        why = "more seeds alone would take too many"
    now = "" if seeds == error.repeats else f" (now {error.repeats})"
    count = f"about {_round(images):,} test images (now {error.images:,})"
    return f"{opening}, {why}; {count} with {count_noun(seeds, 'seed')}{now} {ending}."


def _needed(estimate: Estimate, step: DecidingStep) -> tuple[int, int]:
    """(seeds, images): the fewest seeds on these images, else the fewest images with more seeds; else (0, 0)."""

    def enough(seeds: int, images: int) -> bool:
        assert estimate.components is not None
        return minimum_detectable(estimate.components, seeds, images, step.level) <= step.target

    for seeds in range(estimate.error.repeats + 1, FEW_SEEDS + 1):
        if enough(seeds, estimate.error.images):
            return seeds, estimate.error.images
    least = max(estimate.error.repeats, 5)  # with fewer seeds the spread is too uncertain
    for seeds in (least, *(more for more in (10, 20, 30, 50) if more > least)):
        if enough(seeds, MOST_IMAGES):
            low, high = estimate.error.images, MOST_IMAGES
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if enough(seeds, middle) else (middle, high)
            return seeds, high
    return 0, 0


def _from_folds(estimate: Estimate, steps: list[DecidingStep]) -> str:
    """Advise more images, as the error falls with their square root; more folds add little, as they overlap."""

    def images(step: DecidingStep) -> float:
        return estimate.error.images * max(1.0, detectable(estimate.error, step.level) / step.target) ** 2

    step = min(steps, key=images)
    if images(step) > MOST_IMAGES:
        return "More folds add little, because they share their images; far more images would be needed."
    opening, ending = step.aim
    count = f"about {_round(images(step)):,} images (now {estimate.error.images:,})"
    return f"{opening}, {count} {ending}; more folds add little, because they share their images."


def _aim_at_difference(estimate: Estimate) -> tuple[str, str]:
    return f"If the difference of {_points(abs(estimate.difference))} is real", "would probably show it"


def _aim_at_equivalence(estimate: Estimate, margin: float) -> tuple[str, str]:
    observed = abs(estimate.difference)
    opening = (
        f"If the heads differ by no more than the {_points(observed)} seen"
        if observed
        else "If the heads do not differ"
    )
    return opening, f"would probably show them equivalent within {_points(margin)}"


def _points(fraction: float) -> str:
    """>>> _points(0.012), _points(0.0004)
    ('1.2 percentage points', '0.04 percentage points')
    """
    points = 100 * fraction
    return f"{points:.2g} percentage points" if points < 1 else f"{points:.1f} percentage points"


def _round(number: float) -> int:
    """Round to two significant digits: the estimate is no more precise."""
    return int(float(f"{number:.2g}")) if number >= 100 else round(number)


def note(
    verdict: str, bounds: tuple[float, float] | None, estimate: Estimate | None, tests: int, margin: float
) -> str | None:
    """An explanation if verdict and interval seem to contradict each other, or None."""
    if bounds is None or estimate is None or bounds[0] <= 0 <= bounds[1]:
        return None
    if verdict == "equivalent":
        return f"There is a difference, but at 95 % confidence it is smaller than the margin of {_points(margin)}."
    if verdict == "cannot tell":
        return (
            f"The interval leaves out 0, but {count_noun(tests, 'head')} were compared with the baseline, and one of "
            f"so many may do so by chance: the Holm-adjusted p is not below 0.05."
        )
    return None
