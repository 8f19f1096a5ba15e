"""A pool of one's own: registered by name, checked by one call, wrong definitions caught."""

from dataclasses import replace
from importlib import import_module
from itertools import product

import pytest
import torch

import gapstone as gs
from gapstone.comparing.compare_request import CompareRequest
from gapstone.explaining.explain_files import _identity
from gapstone.heads import RECIPES, parse
from gapstone.images.preprocessing import Preprocessing
from gapstone.loops import specialize, tensor_math, vector_math
from gapstone.loops.choose_loop import choose_loop
from gapstone.loops.pool_call import PoolCall
from gapstone.maps.open_model import ImageModel
from gapstone.pooling import pools_in
from gapstone.pools import POOLS, registration
from gapstone.pools.definition import MATHS
from gapstone.pools.digest import digest, identity
from gapstone.pools.registration import registered
from gapstone.regions.places import Intervals
from gapstone.testing import check_pool
from gapstone.training.training_data import TrainOptions
from tests.testing import own_pools
from tests.testing.own_pools import HARMONIC, POWER_MEAN, harmonic, power_mean

WRONG = {
    # what is wrong: the definition, its formula, what the error says
    "share": (replace(HARMONIC, share=own_pools.wrong_share), harmonic, "share is wrong"),
    "combine": (replace(HARMONIC, combine=own_pools.wrong_combine), harmonic, "combine\\(empty, s\\) is not s"),
    "combine depends on the order": (
        replace(HARMONIC, combine=own_pools.lopsided, empty=(0.0, 0.0)),
        harmonic,
        "combine\\(empty, s\\) is not s",
    ),
    "empty": (replace(HARMONIC, empty=(0.0, 1.0)), harmonic, "combine\\(empty, s\\) is not s"),
    "finish": (replace(HARMONIC, finish=own_pools.wrong_finish), harmonic, "the answer over .* is off by"),
    "the formula": (HARMONIC, lambda x: x.mean(-1), "the answer over .* is off by"),
    "NaN": (replace(HARMONIC, lift=own_pools.deaf_to_nan, weighted=False), harmonic, "of a map with one NaN"),
    "adds_up": (replace(HARMONIC, adds_up=False), harmonic, "adds_up=False"),
    "slope": (replace(POWER_MEAN, slope=own_pools.wrong_slope), power_mean, "slope is wrong"),
    "positional": (own_pools.SMALLEST_FIRST, lambda x: x[..., -1], "depends on the order of positions"),
}


def test_right_pools_pass():
    for definition, formula in ((HARMONIC, harmonic), (POWER_MEAN, power_mean)):
        report = check_pool(definition, formula, compile=False)
        assert {"laws", "answers", "gradient", "merging", "NaN", "nothing", "maps", "weights"} <= set(report.checked)
        assert any("integers" in line for line in report.cannot)
        assert definition.name not in POOLS


def compiled_calls(monkeypatch, answer):
    """What check_pool asks of the compiled loop, as (region, contiguous); `answer(pool_by_loop, x, …)` answers."""
    module, calls = import_module("gapstone.testing.check_pool"), []
    ask = module.pool_by_loop

    def pool_by_loop(x, name, region, loop, **values):
        if loop == "compiled":
            calls.append((type(region), x.is_contiguous()))
            return answer(ask, x, name, region, **values)
        return ask(x, name, region, loop, **values)

    monkeypatch.setattr(module, "pool_by_loop", pool_by_loop)
    return calls


@pytest.mark.parametrize("loop", ["compiled"])
def test_the_compiled_loop_is_checked(loop, monkeypatch):
    """By itself over a whole map alone: that takes two kernels, all regions take 16."""

    def answer(ask, x, name, region, **values):
        compiles = isinstance(region, gs.Whole) and x.is_contiguous()
        return ask(x, name, region, loop if compiles else "reference", **values)

    calls = compiled_calls(monkeypatch, answer)
    report = check_pool(HARMONIC, harmonic)
    assert "compiled loop" in report.checked
    assert not any("compiled" in line for line in report.cannot)
    assert set(calls) == set(product((gs.Whole, gs.Window, gs.Grid, gs.Mask), (True, False)))


@pytest.mark.parametrize("region", [gs.Whole, gs.Window, gs.Grid, gs.Mask])
@pytest.mark.parametrize("what", ["answer", "gradient"])
def test_a_wrong_compiled_loop_is_caught(region, what, monkeypatch):
    def answer(ask, x, name, over, **values):
        out = ask(x, name, over, "reference", **values)
        wrong = out * 1.001 if what == "answer" else 2 * out - out.detach()
        return wrong if isinstance(over, region) else out

    compiled_calls(monkeypatch, answer)
    with registered(HARMONIC), pytest.raises(AssertionError, match=f"loop's {what} over {region.__name__}"):
        import_module("gapstone.testing.check_pool")._check_compiled("harmonic", {}, False)


@pytest.mark.slow  # 16 kernels; their templates: tests/contract/test_compiled_loop.py
@pytest.mark.kernels
def test_the_compiled_loop_is_right_over_every_region():
    assert "compiled loop" in check_pool(HARMONIC, harmonic).checked


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_caught(what):
    definition, formula, says = WRONG[what]
    with pytest.raises(AssertionError, match=says):
        check_pool(definition, formula, compile=False)
    assert definition.name not in POOLS


def test_a_lie_about_weights_is_caught():
    """A maximum is no sum: no weight can multiply it."""
    largest = own_pools.LARGEST
    check_pool(largest, lambda x: x.max(-1).values, compile=False)
    with pytest.raises(AssertionError, match=r"a block .* is not its positions one by one"):
        check_pool(replace(largest, weighted=True), lambda x: x.max(-1).values, compile=False)


def test_terms_that_are_not_those_of_lift_are_caught():
    wrong = replace(POOLS["logsumexp"], name="lse2", terms=own_pools.wrong_terms)
    with pytest.raises(AssertionError, match=r"a block|terms are not"):
        check_pool(wrong, lambda x, r=5.0: torch.logsumexp(r * x, -1) / r, compile=False)


@pytest.fixture
def mine():
    with registered(HARMONIC):
        yield "harmonic"


def test_the_name_works_wherever_a_pools_name_does(mine):
    x = torch.rand(2, 8, 6, 7) + 0.1
    right = harmonic(x.double().flatten(2)).float()
    torch.testing.assert_close(gs.pool(x, mine), right)
    torch.testing.assert_close(gs.Pool(mine)(x), right)
    assert repr(gs.Pool(mine)) == "Pool('harmonic')"
    assert gs.pool(x, (mine, "max"), gs.Window(2)).shape == (2, 16, 3, 3)
    merged = gs.partial(x[..., :3], mine) + gs.partial(x[..., 3:], mine)
    torch.testing.assert_close(merged.finish(), right)
    torch.testing.assert_close((gs.share(x, mine) * x).sum((2, 3)), right)
    assert torch.autograd.gradcheck(lambda t: gs.pool(t, mine, gs.Grid(2)), x[:1, :2].double().requires_grad_())


def test_it_is_a_head(mine):
    head = gs.Head(f"{mine}:dropout=0.5", channels=8, classes=3).eval()
    x = torch.rand(2, 8, 5, 5) + 0.1
    parts = head.contributions(x)
    torch.testing.assert_close(parts.maps.sum((2, 3)) + parts.bias, head(x), rtol=1e-4, atol=1e-5)
    with registered(POWER_MEAN):
        assert gs.Head("power_mean:p=learned", channels=8, classes=3)(x).shape == (2, 3)
        with pytest.raises(ValueError, match=r"p=20 must be a number from 0.5 to 10 or 'learned'"):
            gs.Head("power_mean:p=20", channels=8, classes=3)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Softplus(), head)
    explained = gs.explain(net, torch.rand(1, 3, 9, 9))
    assert explained.maps.shape[-2:] == (7, 7)


def test_a_trial_depends_on_what_the_pool_is(mine):
    """`compare` names a trial by it: another definition of the same name is another trial."""
    assert parse(f"{mine}:8").own_pools == {"harmonic": identity(HARMONIC)}
    assert parse("gem:8").own_pools == {}


def test_compile_and_export(mine):
    x = torch.rand(2, 4, 6, 6) + 0.1
    step = torch.compile(lambda t: gs.pool(t, mine, gs.Window(2)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(x), gs.pool(x, mine, gs.Window(2)))
    program = torch.export.export(gs.Pool(mine, over=gs.Grid(2)), (x,))
    torch.testing.assert_close(program.module()(x), gs.pool(x, mine, gs.Grid(2)))


@pytest.mark.parametrize("name", ["mean", "median", "avgmax", "fc", "gap", "average", "Mine!", "a b", ""])
def test_names_that_are_taken_or_no_names_are_refused(name):
    taken = name in {"mean", "median", "avgmax", "fc", "gap"}
    with pytest.raises(ValueError, match="taken" if taken else "letters, digits|call yours something else"):
        gs.register_pool(replace(HARMONIC, name=name))


def test_a_name_is_taken_once(mine):
    with pytest.raises(ValueError, match="the name is taken"):
        gs.register_pool(replace(HARMONIC, weighted=False))


def made_in_a_function(power):
    def lift(x):
        return x**power, 1.0

    return lift


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lift": lambda x, i: (x, 1.0)}, "lift takes 2 arguments, and must take 1"),
        ({"finish": lambda *s: s[0]}, "finish takes 0 arguments"),
        ({"lift": made_in_a_function(2)}, "lift uses power of the function it was made in"),
        ({"lift": lambda x: (exp(x), 1.0)}, "lift uses exp, which is not defined: write m.exp"),  # noqa: F821
        ({"lift": lambda x: (m.sin(x), 1.0)}, "lift uses m.sin; m has"),  # noqa: F821
        ({"lift": torch.exp}, "write a plain Python function"),
        ({"share": lambda y, out, s, n: out}, "are called x and out"),
        ({"terms": lambda x, top: (1.0,)}, "reference and terms come together"),
        ({"count": 2}, "count=2 is no part of a state of 2"),
        ({"slope": lambda x, out, s, n: out}, "slope is of one parameter"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        gs.register_pool(replace(HARMONIC, **changes))
    assert "harmonic" not in POOLS


def test_every_function_of_the_maths_is_there():
    assert {name for name in MATHS if hasattr(tensor_math.TensorMath(1), name)} == MATHS
    vectors = {name for name in MATHS if hasattr(vector_math, name)}
    assert {"exp", "log", "pow", "where", "maximum", "ratio", "below", "sqrt", "abs", "log1p", "expm1"} == vectors


def test_heads_names_are_kept_from_pools():
    others = {name for name in RECIPES if name not in POOLS and name not in ("avgmax", "catavgmax")}
    assert others == set(registration.HEADS)


# ---- kernels of two pools with one name


def kind_of(definition):
    return specialize.KernelKind("places_forward", definition, "f32", "f32", "i32")


def test_pools_of_one_name_never_share_a_kernel(monkeypatch):
    names = {specialize._described(kind_of(HARMONIC)).name}
    names.add(specialize._described(kind_of(replace(HARMONIC, lift=own_pools.deaf_to_nan))).name)
    names.add(specialize._described(kind_of(replace(HARMONIC, empty=(1.0, 0.0)))).name)
    assert len(names) == 3
    # the same source, another number in it
    before = digest(own_pools.SCALED)
    monkeypatch.setattr(own_pools, "POWER", 3.0)
    assert digest(replace(own_pools.SCALED)) != before
    assert digest(replace(HARMONIC)) == digest(HARMONIC)


TYPED_IN = """
import gapstone as gs
def lift(x): return 1.0 / x, 1.0
def combine(s, n, s2, n2): return s + s2, n + n2
def finish(s, n): return n / s
def share(x, out, _s, n): return out * out / (x * x * n)
typed = gs.Definition("typed", (0.0, 0.0), lift, combine, finish, share, adds_up=True)
"""


def test_a_default_is_a_part_of_what_a_pool_is():
    """A head that does not say p has the default's numbers."""
    other = replace(POWER_MEAN, parameters={"p": replace(POWER_MEAN.parameters["p"], default=3.25)})
    assert digest(other) != digest(POWER_MEAN)


def test_the_pool_of_a_session_is_known_by_its_code():
    """Its source cannot be read; an edited one is another, and one that cannot be told is refused."""

    def typed(text):
        space = {"THING": object()}
        exec(text, space)
        return space["typed"]

    assert identity(typed(TYPED_IN)) == identity(typed("\n# a comment\n" + TYPED_IN))
    assert identity(typed(TYPED_IN)) != identity(typed(TYPED_IN.replace("return n / s", "return 2.0 * n / s")))
    unknown = typed(TYPED_IN.replace("return n / s", "return THING and n / s"))
    with registered(unknown), pytest.raises(ValueError, match=r"'typed': results on disk .* functions use a value of"):
        CompareRequest(TrainOptions("digits"), ("gap", "typed")).checked()


def test_what_is_kept_of_a_model_depends_on_what_its_pool_is():
    """`explain` keeps maps and answers of a model with one's own pool: another definition has others."""
    assert pools_in(gs.Pool(("mean", "max"))) == ["mean", "max"]
    preprocessing = Preprocessing(3, (16, 16), (16, 16), (0.5,) * 3, (0.25,) * 3)
    kept = []
    for definition in (HARMONIC, HARMONIC, replace(HARMONIC, finish=own_pools.wrong_finish)):
        with registered(definition):
            torch.manual_seed(0)
            model = gs.Classifier("nin", "harmonic", ("a", "b"), preprocessing).eval()
            assert pools_in(model.head) == ["harmonic"]
            kept.append(_identity(ImageModel("m", model, ("a", "b"), preprocessing)))
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.kernels
def test_a_pool_whose_source_cannot_be_read_has_no_kernels_on_disk(monkeypatch):
    space = {}
    exec(TYPED_IN, space)
    typed = space["typed"]
    assert digest(typed) is None
    assert not specialize._described(kind_of(typed)).on_disk
    monkeypatch.setattr("gapstone.loops.kernel_cache.write", lambda *_: pytest.fail("written to disk"))
    with registered(typed):
        x = torch.rand(2, 3, 6, 6, dtype=torch.float32) + 0.1
        call = PoolCall.of(typed, x, Intervals(None))
        assert choose_loop(call).loop == "compiled"
        from gapstone.pooling.pool_function import pool_by_loop

        found = pool_by_loop(x, "typed", gs.Whole(), "compiled")
        torch.testing.assert_close(found, harmonic(x.flatten(2)))


def not_for_numba(x):
    return x.abs(), 1.0


@pytest.mark.kernels
def test_where_numba_cannot_compile_the_reference_answers(monkeypatch):
    monkeypatch.setenv("GAPSTONE_WAIT_FOR_KERNELS", "1")
    odd = gs.Definition(
        "odd", (0.0, 0.0), not_for_numba, own_pools.combine, own_pools.mean_finish, own_pools.scaled_share
    )
    x = torch.rand(2, 3, 6, 6)
    with registered(odd):
        with pytest.warns(RuntimeWarning, match="pool 'odd' has no compiled loop"):
            torch.testing.assert_close(gs.pool(x, "odd"), x.mean((2, 3)))
        torch.testing.assert_close(gs.pool(x, "odd"), x.mean((2, 3)))
        assert choose_loop(PoolCall.of(odd, x, Intervals(None))).why == "Numba cannot compile odd"


# ---- pools of installed packages


def test_an_installed_package_names_its_pools(monkeypatch, tmp_path):
    """As commands and their processes find them: `--heads typed`."""
    (tmp_path / "their_pools.py").write_text(TYPED_IN, "utf-8")
    about = tmp_path / "their_pools-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-pools\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text("[gapstone.pools]\ntyped = their_pools:typed\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    registration.load_installed.cache_clear()
    try:
        assert gs.Head("typed", channels=3, classes=2)(torch.rand(1, 3, 4, 4) + 0.1).shape == (1, 2)
        assert digest(POOLS["typed"])
    finally:
        POOLS.pop("typed", None)
        registration.load_installed.cache_clear()
