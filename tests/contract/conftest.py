"""Which kernels `make test` compiles, and by which worker."""

from pathlib import Path

import pytest
import torch

from gapstone.loops import numba
from gapstone.pools import POOLS
from gapstone.regions.places import Boxes

TEMPLATES = {"max", "mean", "gem", "variance"}
"""Pools with which `make test` tries every template of the compiled loop: one that keeps a position, a counted sum, one
with a parameter and the largest as its reference, one with the mean as its reference."""
QUICK = {
    torch.float32: None,
    torch.float64: {"variance"},
    torch.bfloat16: {"max"},
    torch.float16: {"mean"},
}
"""Pools whose compiled loop `make test` tries in each type. A kernel takes 1 to 2 s to compile: a pool's formula is
tried in one template (lists of positions), a template with four pools, a type with one. The matrix: make test-slow."""
TUNED = {"max", "mean", "gem", "logsumexp", "softmax"}
"""Pools that have tuned kernels, one for each window and layout: tests/tuned tries those that networks run."""
MERGING = {name for name in POOLS if numba.serves(name, torch.float32, Boxes(None)) is None}
"""Pools that have a compiled loop."""
PLACES = {"Whole", "Grid", "Pyramid", "Mask", "Segments"}
"""Regions that become lists of positions."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in (item for item in items if item.path.parent == Path(__file__).parent):
        asked = getattr(getattr(item, "callspec", None), "params", {})
        name, dtype = asked.get("name"), asked.get("dtype")
        loop = asked.get("loop", "numba" if item.path.name == "test_numba_loop.py" else "torch")
        kind = asked.get("kind")
        if loop != "torch" and (
            (QUICK.get(dtype) is not None and name not in QUICK[dtype])
            or (name in MERGING - TEMPLATES and kind is not None and kind not in PLACES)
            or (loop is None and kind in PLACES | {"Window"} and name in TUNED - {"gem"})
            or (dtype == torch.float16 and kind is not None and kind != "Grid")
        ):
            item.add_marker(pytest.mark.slow)
        if name:  # one worker compiles all of a pool's kernels
            item.add_marker(pytest.mark.xdist_group(str(name)))
