"""The contract has teeth: broken copies of two pools are caught. And a new pool is one file and one line."""

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import gapstone as gs
from gapstone import pools
from gapstone.pools import POOLS
from tests.contract import test_pools, truth
from tests.marks import slow_but

BROKEN = {
    # what is broken: the pool, what stands in its file, what is put there
    "the last of equals wins": ("max", "(tie & (i2 < i))", "(tie & (i2 > i))"),
    "NaN is passed over": ("max", "| (nan2 & (v == v))", "| (nan & (v2 == v2))"),
    "the position of the smaller": ("max", "(v2 > v)", "(v2 < v)"),
    "share is spread": ("max", "m.where(i == winner, 1.0, 0.0)", "m.where(i == winner, 1.0, 1e-3)"),
    "empty + empty is NaN": ("logsumexp", "z = r * m.below(top, new)", "z = r * (top - new)"),
    "blocks are not merged by their reference": ("logsumexp", "s * m.exp(z) + s2", "s + s2"),
    "the sum is not divided": ("logsumexp", "m.log(s / n)", "m.log(s)"),
    "small r loses its digits": ("logsumexp", "small = s > 0.5 * n", "small = s > 2.0 * n"),
    "share forgets the sum": ("logsumexp", "m.exp(r * m.below(x, top)) / s", "m.exp(r * m.below(x, top))"),
    "terms are not those of lift": ("logsumexp", "return m.exp(z), m.expm1", "return m.exp(z) + 1e-9, m.expm1"),
}  # fmt: skip


@pytest.fixture
def put(monkeypatch, tmp_path):
    """Put a pool's file in the place of the one that is there, or beside it."""

    def put(name, source):
        path = tmp_path / f"{name}.py"
        path.write_text(source, "utf-8")
        file = ModuleType(f"gapstone.pools.{name}")
        file.__file__ = str(path)
        monkeypatch.setitem(sys.modules, file.__name__, file)  # where inspect finds the source
        exec(compile(source, str(path), "exec"), vars(file))
        monkeypatch.setitem(POOLS, name, pools.define(file))

    return put


def contract(name, monkeypatch, loop, kinds=("Whole", "Window", "Segments")):
    """What every pool passes, without the sizes."""
    test_pools.laws(name)
    with monkeypatch.context() as patch:
        patch.setattr(test_pools, "SIZES", [(9, 11)])
        dtype = test_pools.torch.float32 if loop == "compiled" else test_pools.torch.float64
        for kind in kinds:
            test_pools.test_the_answer_is_the_formula_on_its_positions(name, kind, loop, dtype, patch, Counter())
            test_pools.test_the_gradient_is_that_of_the_formula(name, kind, loop, dtype, patch, Counter())
    if name == "max":
        of_equals = test_pools.test_the_first_of_equals_takes_the_gradient_and_nan_wins
        of_equals("reference", test_pools.torch.float32, name, test_pools.EQUALS[name], monkeypatch)
    if name == "logsumexp":
        from tests.contract import test_limits

        limits = test_limits.test_limits_of_p_and_r
        limits("reference", test_pools.torch.float32, lambda loop: test_pools.by(loop, monkeypatch))


@pytest.mark.parametrize("name", ["max", "logsumexp"])
def test_the_whole_pools_pass(name, monkeypatch):
    contract(name, monkeypatch, "reference")


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_copy_is_caught(what, put, monkeypatch):
    name, there, instead = BROKEN[what]
    source = Path(str(sys.modules[f"gapstone.pools.{name}"].__file__)).read_text("utf-8")
    assert there in source
    put(name, source.replace(there, instead))
    with pytest.raises(AssertionError):
        contract(name, monkeypatch, "reference")


HARMONIC = '''"""harmonic: n / sum(1 / x), the harmonic mean; the smallest x counts most."""

from typing import Any

m: Any = None

empty = 0.0, 0.0
state = "sum of 1 / x", "how many"
nothing = "NaN"
adds_up = True
source = "Pythagoras"


def lift(x: Any) -> Any:
    return 1.0 / x, 1.0


def combine(s: Any, n: Any, s2: Any, n2: Any) -> Any:
    return s + s2, n + n2


def finish(s: Any, n: Any) -> Any:
    return n / s


def share(x: Any, out: Any, _s: Any, n: Any) -> Any:
    return out * out / (x * x * n)
'''


@pytest.mark.parametrize("loop", slow_but(["reference", "compiled"], "reference"))
def test_a_new_pool_is_one_file_and_one_line(loop, put, monkeypatch):
    """Its answers, over every region, by both loops, its gradient, its states and its maps."""
    put("harmonic", HARMONIC)
    monkeypatch.setitem(truth.FORMULAS, "harmonic", lambda x: x.shape[-1] / (1 / x).sum(-1))
    contract("harmonic", monkeypatch, loop)
    test_pools.test_maps_add_up_exactly_where_claimed_and_not_where_not("harmonic")
    x = test_pools.values(2, 3, 8, 8)
    parts = gs.partial(x[..., :3], "harmonic") + gs.partial(x[..., 3:], "harmonic")
    test_pools.torch.testing.assert_close(parts.finish(), gs.pool(x, "harmonic"))
