"""Which kernels `make test` compiles, and by which worker."""

from pathlib import Path

import pytest
import torch

QUICK = {
    torch.float32: None,  # all pools
    torch.float64: {"variance"},
    torch.bfloat16: {"max"},
    torch.float16: {"mean"},
}
"""Pools whose compiled loop `make test` tries in each type: a kernel takes 2 s to compile. The rest: make test-slow."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in (item for item in items if item.path.parent == Path(__file__).parent):
        asked = getattr(getattr(item, "callspec", None), "params", {})
        name, dtype = asked.get("name"), asked.get("dtype")
        loop = asked.get("loop", "numba" if item.path.name == "test_numba_loop.py" else "torch")
        if loop != "torch" and QUICK.get(dtype) is not None and name not in QUICK[dtype]:
            item.add_marker(pytest.mark.slow)
        if name:  # one worker compiles all of a pool's kernels
            item.add_marker(pytest.mark.xdist_group(str(name)))
