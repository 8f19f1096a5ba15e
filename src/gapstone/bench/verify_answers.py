"""Checks the outputs of the timed calls, with the tolerance of the contract tests."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def wrong(output: Any, truth: Sequence[Tensor], plain: Any, dtype: torch.dtype) -> str | None:
    """Return None, or how wrong an output is.

    Allowed are twice the error of torch in this dtype against float64, and one epsilon of the largest value (four for
    the gradient of a parameter, whose logarithms nearly cancel).
    """
    for actual, expected, other, units in zip(answers(output), truth, answers(plain), (1, 4), strict=False):
        allowed = 2 * _error(other, expected) + units * _epsilon(dtype) * expected.abs().max().item()
        if reason := _why_wrong(actual, expected, allowed):
            return reason
    return None


def unlike(output: Any, truth: Sequence[Tensor], dtype: torch.dtype) -> str | None:
    """Return None, or why the output of another library, which may round differently, is not that of the pool."""
    for other, expected in zip(answers(output), truth, strict=False):  # some return no gradient of the parameter
        if reason := _why_wrong(other, expected, max(1e-4, 4 * _epsilon(dtype)) * expected.abs().max().item()):
            return reason
    return None


def _why_wrong(actual: Tensor, expected: Tensor, allowed: float) -> str | None:
    if actual.shape != expected.shape:
        return f"shape {tuple(actual.shape)} where {tuple(expected.shape)} is right"
    if not (error := _error(actual, expected)) <= allowed:
        return f"off by {error:.2g} where {allowed:.2g} is allowed"
    return None


def answers(output: Any) -> tuple[Tensor, ...]:
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def _error(output: Tensor, expected: Tensor) -> float:
    """Return the largest difference; NaN if there is one, for which the caller's comparison is false."""
    return float((output.double() - expected).abs().max())


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
