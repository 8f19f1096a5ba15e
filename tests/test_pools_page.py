"""docs/pools.md is what the definitions say now, and every line of its tables of other libraries' names is so."""

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gapstone as gs
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY

DOCS = Path(__file__).parents[1] / "docs"


def generator(name: str) -> ModuleType:
    """A file of docs/generate, which is no package: `make docs` runs it as a script."""
    sys.path.insert(0, str(DOCS / "generate"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "generate"))


pools, names = generator("pools"), generator("names")
ROWS = [row for table in names.TABLES.values() for row in table]
NOTHING = {"NaN": math.nan, "0": 0.0, "−∞": -math.inf, "+∞": math.inf}


def test_the_page_is_what_the_definitions_give():
    assert pools.page() == (DOCS / "pools.md").read_text("utf-8"), "run `make docs`"


@pytest.mark.parametrize("name", [*POOLS, *WHOLE_ONLY, *COMPOSITIONS])
def test_every_pool_has_its_picture(name):
    path = DOCS / "pictures" / "pools" / f"{name}.png"
    assert path.exists(), "run `make docs`"
    assert path.stat().st_size < 50_000
    assert f"(pictures/pools/{name}.png)" in pools.page()


def test_no_picture_is_left_over():
    drawn = {path.stem for path in (DOCS / "pictures" / "pools").iterdir()}
    assert drawn == {*POOLS, *WHOLE_ONLY, *COMPOSITIONS}
    assert sum(path.stat().st_size for path in (DOCS / "pictures" / "pools").iterdir()) < 600_000


def test_a_new_pool_that_is_not_on_the_page_is_noticed(monkeypatch):
    monkeypatch.setitem(POOLS, "newest", replace(POOLS["mean"], name="newest"))
    page = pools.page()
    assert "\n### newest\n" in page
    with pytest.raises(AssertionError, match="make docs"):
        test_the_page_is_what_the_definitions_give()
    with pytest.raises(AssertionError, match="make docs"):
        test_every_pool_has_its_picture("newest")


@pytest.mark.parametrize("name", [*POOLS, *WHOLE_ONLY])
def test_the_answer_over_nothing_is_the_one_on_the_page(name):
    nowhere = gs.Mask(torch.zeros(4, 5, dtype=torch.bool))
    expected = NOTHING[pools.nothing(name).partition(" ")[0]]
    answer = gs.pool(torch.rand(1, 2, 4, 5), name, over=nowhere, **pools.example(name))
    torch.testing.assert_close(answer, torch.full((1, 2), expected), equal_nan=True)


@pytest.mark.parametrize("name", [*POOLS, *WHOLE_ONLY, *COMPOSITIONS])
def test_the_call_on_the_page_runs(name):
    x = torch.rand(2, 2, 4, 5)
    assert eval(pools.call(name), {"gs": gs, "x": x, "query": torch.ones(2)}).isfinite().all()


LIMITS = [(name, *limit) for name in POOLS for limit in pools.limits(POOLS[name])]


@pytest.mark.parametrize(("name", "key", "value", "other"), LIMITS)
def test_limits_are_reached(name, key, value, other):
    x = torch.rand(2, 3, 14, 17, dtype=torch.float64)
    end = gs.pool(x, name, **{key: value})
    torch.testing.assert_close(end, gs.pool(x, other), rtol=1e-12, atol=1e-12)


def test_every_limit_was_found():
    assert {(name, key, other) for name, key, _, other in LIMITS} >= {
        ("gem", "p", "mean"),
        ("gem", "p", "max"),
        ("logsumexp", "r", "mean"),
        ("logsumexp", "r", "max"),
        ("softmax", "r", "mean"),
        ("softmax", "r", "max"),
        ("topk", "k", "max"),
    }


def known() -> dict[str, object]:
    """What the tables speak of. Doubles, so that both ways of adding up agree."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 14, 17, dtype=torch.float64, requires_grad=True)
    return {
        "x": x,
        "y": torch.rand(2, 3, 14, 16, dtype=torch.float64).add(0.05).requires_grad_(),
        "x1": torch.randn(2, 3, 17, dtype=torch.float64, requires_grad=True),
        "x3": torch.randn(2, 3, 5, 6, 7, dtype=torch.float64, requires_grad=True),
        "tokens": x.flatten(2).mT,
        "query": torch.randn(3, dtype=torch.float64),
        "p": torch.tensor(2.5, dtype=torch.float64, requires_grad=True),
        "mask": torch.rand(2, 14, 17) < 0.6,
        "valid": torch.arange(17) < torch.tensor([[17], [9]]),
        "labels": torch.arange(14 * 17).reshape(14, 17) % 5,
        "boxes": torch.tensor([[0, 2, 3, 25, 21], [1, 8, 1, 30, 14]], dtype=torch.float64),
        "F": F,
        "nn": nn,
        "gs": gs,
        "math": math,
        "torch": torch,
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.there)
def test_what_to_write_instead_gives_the_same(row):
    there, space = row.run or row.there, known()
    for library, module in (("torchvision", "torchvision.ops"), ("timm", "timm.layers.median_pool")):
        if there.startswith(library):
            space[library] = pytest.importorskip(library)
            importlib.import_module(module)
    expected, got = eval(there, space), eval(row.here, space)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    leaves = [space[key] for key in ("x", "y", "x1", "x3", "p")]
    weights = torch.randn_like(expected)
    slopes = [torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True) for out in (expected, got)]
    assert any(slope is not None for slope in slopes[0])
    for wanted, found in zip(*slopes, strict=True):
        assert (wanted is None) == (found is None)
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_every_row_is_on_the_page():
    page = (DOCS / "pools.md").read_text("utf-8")
    for row in ROWS:
        assert f"| `{row.there}` | `{row.here}` |" in page
