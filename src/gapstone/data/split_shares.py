"""Shares of the images to train on, to validate and to test, as `--split` names them."""

import math
from typing import NamedTuple, TypedDict

from gapstone.console.formatting import display
from gapstone.data.sources import Source


class Shares(NamedTuple):
    """They add up to 1."""

    train: float
    validation: float
    test: float


def parse_shares(text: str) -> Shares:
    """The shares that a text names, also as percentages.

    >>> parse_shares("70/15/15")
    Shares(train=0.7, validation=0.15, test=0.15)

    Raises:
        ValueError: they are no three shares above 0 that add up to 1, or to 100.
    """
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    total = 100 if sum(numbers) > 2 else 1
    if len(numbers) != 3 or not all(number > 0 for number in numbers) or not math.isclose(sum(numbers), total):
        raise ValueError(
            f"--split {display(text)}: expected the shares of training, validation and test images, which add up to 1 "
            f"(or 100), such as 0.7/0.15/0.15."
        )
    return Shares(*(number / total for number in numbers))


class SplitArguments(TypedDict, total=False):
    """Of `split`; without them it takes its own."""

    test_share: float
    validation_share: float


def shares_for(text: str | None, source: Source, folds: int | None) -> SplitArguments:
    """What `split` takes for these images: `validation_share` is one of what is not tested.

    Raises:
        ValueError: other things say which images are tested.
    """
    if text is None:
        return {}
    shares = parse_shares(text)
    if folds:
        raise ValueError(
            f"--split {display(text)} and --folds {folds}: folds test every image once, 1/{folds} at a time. Take one "
            f"of the two."
        )
    if set(source.splits) & {"val", "test"}:
        raise ValueError(
            f"--split {display(text)}: DATA says itself which images are {' and '.join(source.splits)}. Leave --split "
            f"out, or give the images without."
        )
    return {"test_share": shares.test, "validation_share": shares.validation / (shares.train + shares.validation)}
