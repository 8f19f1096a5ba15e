"""Whether a network has learned anything, and whether the choice of its best epoch can be trusted."""

from collections.abc import Sequence

from gapstone.console.formatting import count_noun

SKILL = 0.1
"""Share of the way from the majority class to 100 % that a head must reach to count as having learned."""
FEW = 100
"""With fewer validation images, a single one can decide which epoch is best."""


def majority(counts: Sequence[int]) -> float:
    """The accuracy of always predicting the largest class."""
    return max(counts, default=0) / max(sum(counts), 1)


def learned(accuracy: float, majority: float) -> bool:
    """Whether the accuracy is clearly better than that of always predicting the majority class.

    >>> learned(0.58, majority=0.55), learned(0.15, majority=0.1), learned(0.7, majority=0.55)
    (False, False, True)
    """
    return accuracy - majority >= SKILL * (1 - majority)


def few_validation(images: int, tuned: bool = False) -> str | None:
    """A warning that the choice of the best epoch is noisy; None with enough validation images, or none at all.

    `tuned`: learning rate and weight decay are chosen on them, too.
    """
    if not 0 < images < FEW:
        return None
    what = "Learning rate, weight decay and epoch were" if tuned else "The best epoch was"
    best = "which are best" if tuned else "which epoch is best"
    return (
        f"{what} chosen on {count_noun(images, 'validation image')}, where one image is {100 / images:.1f} percentage "
        f"points: {best} is partly luck."
    )
