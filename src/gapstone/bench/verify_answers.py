"""No speed-up on a wrong answer: the tolerance of the contract tests, on the arrays that are timed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def wrong(found: Any, truth: Sequence[Tensor], plain: Any, dtype: torch.dtype) -> str | None:
    """None, or how far off: more than twice what torch in this dtype is off float64, and one unit in the last place;
    four for a parameter's gradient, whose logarithms nearly cancel.
    """
    for mine, right, theirs, units in zip(answers(found), truth, answers(plain), (1, 4), strict=False):
        if mine.shape != right.shape:
            return f"shape {tuple(mine.shape)} where {tuple(right.shape)} is right"
        allowed = 2 * _off(theirs, right) + units * _unit(dtype) * right.abs().max().item()
        if not (off := _off(mine, right)) <= allowed:
            return f"off by {off:.2g} where {allowed:.2g} is allowed"
    return None


def unlike(found: Any, truth: Sequence[Tensor], dtype: torch.dtype) -> str | None:
    """For other libraries, whose rounding is their own: None, or why it is not the same pool."""
    for theirs, right in zip(answers(found), truth, strict=False):  # not all give a parameter's gradient
        if theirs.shape != right.shape:
            return f"shape {tuple(theirs.shape)} where {tuple(right.shape)} is right"
        allowed = max(1e-4, 4 * _unit(dtype)) * right.abs().max().item()
        if not (off := _off(theirs, right)) <= allowed:
            return f"off by {off:.2g} where {allowed:.2g} is allowed"
    return None


def answers(found: Any) -> tuple[Tensor, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _off(found: Tensor, right: Tensor) -> float:
    """The largest difference; NaN counts as one, as the caller's comparison is false for it."""
    return float((found.double() - right).abs().max())


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
