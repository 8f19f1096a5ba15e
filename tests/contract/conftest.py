"""Which of the compiled loop's kernels `make test` compiles, and by which worker."""

from pathlib import Path

import pytest
import torch

from gapstone.loops import compiled, kernels_ready
from gapstone.loops.choose_loop import Choice
from gapstone.pooling import pool_function
from gapstone.pools import POOLS
from gapstone.regions.places import Intervals
from tests.loops_by_name import call_of_type

DERIVED = {"max"}
"""The pool with which `make test` tries every template of the compiled loop: it has the longest state."""
FORMULAS = {"variance"}
"""Where `make test` compiles the gradient of other pools than DERIVED, over a Grid: one with the mean as its reference.
test_compiled_loop.py compiles gem's, which has the largest. Other types than float32: tests/tuned; in the reference
loop, one besides float64."""
ROUNDED = {"max", "gem"}
"""Pools that the reference tries in bfloat16 in `make test`."""
GRADIENT = "test_the_gradient_is_that_of_the_formula"
MERGING = {name for name in POOLS if compiled.refuses(call_of_type(name, torch.float32, Intervals(None))) is None}
"""Pools that have a compiled loop."""


def by(loop, monkeypatch):
    """From here on this loop serves every call; `None`: the one that is chosen."""
    if loop is not None:
        monkeypatch.setattr(pool_function, "choose_loop", lambda *_: Choice(loop, "the test says so"))
        monkeypatch.setattr(pool_function, "_remembered", {})  # calls that were chosen before
        monkeypatch.setattr(kernels_ready, "kernels_ready", lambda *_: True)


def of_the_matrix(test, loop, name, kind, dtype):
    """Whether this test belongs to the matrix that `make test-slow` tries."""
    if loop is None:  # test_functional.py and tests/tuned try what is chosen most
        return True
    if loop == "reference" or name not in MERGING:
        if test == "test_opcheck":
            return name in DERIVED  # the other loops' are tried
        few = name not in ROUNDED and dtype == torch.bfloat16
        return few or (loop == "reference" and kind is not None and dtype in (torch.float32, torch.float16))
    if dtype not in (None, torch.float32):
        return True
    return name not in DERIVED and not (test == GRADIENT and kind == "Grid" and name in FORMULAS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in (item for item in items if item.path.parent == Path(__file__).parent):
        asked = getattr(getattr(item, "callspec", None), "params", {})
        name = asked.get("name")
        if "loop" in asked and of_the_matrix(
            item.originalname, asked["loop"], name, asked.get("kind"), asked.get("dtype")
        ):
            item.add_marker(pytest.mark.slow)
        if name:  # one worker compiles all of a pool's kernels
            item.add_marker(pytest.mark.xdist_group(str(name)))
