"""Marks that several rooms' tests use."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """`parametrize("head", slow_but(HEADS, "gap", "fc"))`: these in `make test`, all of them in `make test-slow`."""
    values = list(values)
    assert set(quick) <= set(values), f"{set(quick) - set(values)} are not among {values}"
    return [pytest.param(value, marks=() if value in quick else pytest.mark.slow) for value in values]


def of_timm(name: str) -> None:
    """Skip the rest of a test where the installed timm does not have this model yet."""
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
