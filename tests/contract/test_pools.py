"""The contract: every pool, over every region, in 1 to 3 dimensions, both layouts, every dtype, by every loop.

Three answers agree: the formula in float64 on each answer's positions, the loop, and the loop cut in pieces.
"""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gapstone as gs
from gapstone.loops import compiled
from gapstone.pooling import share
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY
from gapstone.regions import REGIONS
from gapstone.testing.pool_checks import check_answer, check_gradient, check_laws, layouts, made_map
from tests.contract.conftest import by
from tests.contract.truth import FORMULAS, boxes, grid, pooled, regions, windows
from tests.contract.truth import given as needed
from tests.loops_by_name import call_of_type
from tests.marks import slow_but

SIZES = [(1,), (63,), (1, 1), (7, 1), (9, 11), (2, 40), (3, 4, 5)]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
EVERY = [*POOLS, *WHOLE_ONLY]
KINDS = ["Whole", "Window", "Grid", "Pyramid", "Mask", "Segments"]
every_pool = pytest.mark.parametrize("name", EVERY)
merging = pytest.mark.parametrize("name", POOLS)


values = made_map


def served(name, dtype, region, shape):
    """Whether the compiled loop has this pool over this region."""
    place = region.place(shape)
    places = [part.place(shape) for part in place] if isinstance(place, tuple) else [place]
    return name in POOLS and all(compiled.refuses(call_of_type(name, dtype, each)) is None for each in places)


def test_everyone_is_here():
    assert set(FORMULAS) == set(EVERY)
    assert {*KINDS, "Boxes"} == {region.__name__ for region in REGIONS}
    assert set(regions((4, 4))) == set(KINDS)


@every_pool
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_answer_is_the_formula_on_its_positions(name, kind, loop, dtype, monkeypatch, tried):
    by(loop, monkeypatch)
    count = 0
    for sizes in SIZES:
        x = values(2, 5, *sizes, seed=sum(sizes)).to(dtype)
        for case in regions(sizes)[kind]:
            if loop != "compiled" or served(name, dtype, case.region, x.shape):
                right = pooled(name, x, case.answers, **needed(name, 5))
                count += check_answer(lambda m, over: gs.pool(m, name, over, **needed(name, 5)), right, x, case)
    tried["combinations of pool, region, sizes, layout, dtype and loop agree with the formula"] += count
    if loop == "compiled" and count == 0:
        pytest.skip(f"the compiled loop has no {name} over {kind}")


@merging
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_is_that_of_the_formula(name, kind, loop, dtype, monkeypatch, tried):
    """Against torch's differentiation of the formula, in float64: share, position by position."""
    by(loop, monkeypatch)
    count = 0

    def formula(x, answers):
        return pooled(name, x, answers, **needed(name, 5))

    for sizes in SIZES:
        x = values(2, 5, *sizes, seed=1 + sum(sizes)).to(dtype)
        for case in regions(sizes)[kind]:
            if loop != "compiled" or served(name, dtype, case.region, x.shape):
                count += check_gradient(lambda m, over: gs.pool(m, name, over, **needed(name, 5)), formula, x, case)
    tried["combinations have the formula's gradient"] += count
    if loop == "compiled" and count == 0:
        pytest.skip(f"the compiled loop has no {name} over {kind}")


@pytest.mark.parametrize("name", ["min", "max", "mean", "gem"])
@pytest.mark.parametrize("loop", ["reference", "compiled"])
def test_the_gradient_of_a_map_whose_axes_lie_in_any_order(name, loop, monkeypatch):
    by(loop, monkeypatch)
    for shape in ((2, 3, 17), (2, 3, 7, 9)):
        x = values(*shape, seed=1).float()
        for region in (gs.Window(3, 1, 1), gs.Window(3, 2, "same", dilation=3), gs.Whole(), gs.Grid(2)):
            out = gs.pool(x.requires_grad_(), name, region)
            g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
            (right,) = torch.autograd.grad(out, x, g)
            for order in permutations(range(x.dim())):
                back = [order.index(axis) for axis in range(x.dim())]
                strided = x.detach().permute(order).contiguous().permute(back).requires_grad_()
                again = gs.pool(strided, name, region)
                torch.testing.assert_close(again, out, msg=f"{region} {order}")
                (dx,) = torch.autograd.grad(again, strided, g)
                torch.testing.assert_close(dx, right, msg=f"{region} {order}")


@pytest.mark.parametrize("loop", ["reference", "compiled"])
@pytest.mark.parametrize("name", ["variance", "std"])
def test_what_is_infinite_has_no_variance(name, loop, monkeypatch):
    by(loop, monkeypatch)
    for infinite in ([math.inf, 1.0], [1.0, -math.inf], [math.inf, math.inf], [math.inf, -math.inf]):
        x = torch.tensor([[infinite]])
        assert torch.var(x, -1, correction=0).isnan()
        for region in (gs.Whole(), gs.Window(2), gs.Window(1), gs.Mask(torch.tensor([True, True]))):
            found = gs.pool(x, name, region)
            assert found.flatten()[x.isinf().flatten() if found.numel() == 2 else slice(None)].isnan().all(), region


@pytest.mark.parametrize("name", slow_but(POOLS, "gem", "topk", "attention"))
@pytest.mark.parametrize("loop", ["reference", None], ids=["reference", "chosen"])
@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_gradcheck_and_gradgradcheck(name, loop, dtype, monkeypatch):
    by(loop, monkeypatch)
    shape = (1, 2, 4, 3)
    for region in (gs.Whole(), gs.Window(2, 1), gs.Grid(2)):
        x = values(*shape, seed=3).to(dtype).requires_grad_()

        def ask(t, region=region):
            return gs.pool(t, name, region, **needed(name, 2))

        assert torch.autograd.gradcheck(ask, x)
        assert torch.autograd.gradgradcheck(ask, x)


@pytest.mark.parametrize(
    ("name", "key", "at"),
    [
        ("gem", "p", 3.0),
        pytest.param("lp", "p", 2.5, marks=pytest.mark.slow),
        pytest.param("logsumexp", "r", 2.0, marks=pytest.mark.slow),
        pytest.param("softmax", "r", 1.5, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
def test_learned_parameters_have_their_gradient(name, key, at, loop, monkeypatch):
    by(loop, monkeypatch)
    x = values(2, 3, 4, 5)
    for shape in ((), (3,), (2, 3), (1, 3)):
        for region in (gs.Whole(), gs.Window(2, 1), gs.Grid(3)):
            if loop == "compiled" and not served(name, x.dtype, region, (2, 3, 4, 5)):
                continue
            p = torch.full(shape, at, dtype=torch.float64) + torch.arange(math.prod(shape)).reshape(shape) * 0.3
            assert torch.autograd.gradcheck(lambda v, r=region: gs.pool(x, name, r, **{key: v}), p.requires_grad_())


def test_the_learned_query_has_its_gradient():
    x = values(2, 3, 4, 5)
    for query in (torch.rand(3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)):
        for region in (gs.Whole(), gs.Window(2, 1), gs.Mask(x[0, 0] > 0.4)):
            assert torch.autograd.gradcheck(
                lambda a, q, r=region: gs.pool(a, "attention", r, query=q), (x.requires_grad_(), query.requires_grad_())
            )


@pytest.mark.parametrize("name", ["mean", "sum", "gem", "l2", "lp", "logsumexp", "softmax", "variance", "std"])
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_weights_count_as_often_as_they_say(name, loop, dtype, monkeypatch):
    """Weight 3 is the position three times; 0 is not looked at, whatever stands there."""
    by(loop, monkeypatch)
    times = torch.tensor([[2, 0, 1, 3], [1, 1, 4, 0]])
    x = values(2, 3, 4)
    region = gs.Mask(times.to(dtype))
    if loop == "compiled" and not served(name, dtype, region, (2, 3, 4)):
        pytest.skip(f"the compiled loop has no {name} of {dtype}")
    right = torch.stack([FORMULAS[name](x[i].repeat_interleave(times[i], 1)) for i in range(2)])
    spoilt = torch.where(times[:, None] == 0, math.nan, x).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(gs.pool(spoilt, name, region).double(), right, rtol=tolerance, atol=tolerance)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda t: gs.pool(t, name, region), x.clone().requires_grad_())
        soft = torch.rand(2, 4, dtype=dtype).add(0.1).requires_grad_()
        assert torch.autograd.gradcheck(lambda w: gs.pool(x, name, gs.Mask(w)), soft)


@merging
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_tiling_of_any_region_equals_the_whole(name, data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    x = values(2, 3, height, width, seed=height * 13 + width)
    score = {"query": torch.rand(3, dtype=torch.float64)} if name == "attention" else needed(name, 3)
    rows = sorted(data.draw(st.sets(st.integers(1, height))) | {height})
    tiles = []
    top = 0
    for bottom in rows:
        left = 0
        for right in sorted(data.draw(st.sets(st.integers(1, width))) | {width}):
            tiles.append((slice(top, bottom), slice(left, right)))
            left = right
        top = bottom
    order = data.draw(st.permutations(tiles))
    masks = data.draw(st.booleans())
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(width)) > 0.3
    labels = torch.randint(-1, 4, (height, width), generator=torch.Generator().manual_seed(height))

    def over(tile):
        if not masks:
            return gs.Whole()
        return gs.Segments(labels[tile], 4) if height % 2 else gs.Mask(mask[tile])

    total = None
    for tile in order:
        piece = gs.partial(x[(..., *tile)], name, over(tile), **score)
        total = piece if total is None else total + piece
    whole = gs.pool(x, name, over((slice(None), slice(None))), **score)
    torch.testing.assert_close(total.finish(), whole, rtol=1e-11, atol=1e-11, equal_nan=True)


@merging
def test_laws(name):
    """The empty state changes nothing, order and grouping change nothing, blocks are their positions one by one."""
    laws(name)


def laws(name):
    check_laws(POOLS[name], (torch.zeros(1, 1, 6, dtype=torch.float64),) if name == "attention" else own(name))


def own(name):
    return tuple(NEED if knob.default is None else knob.default for knob in POOLS[name].parameters.values())


NEED = 3  # topk's k


@merging
def test_maps_add_up_exactly_where_claimed_and_not_where_not(name):
    x = values(2, 3, 9, 11)
    parts = x * share(x, name, **needed(name, 3))
    gap = (parts.sum((2, 3)) - gs.pool(x, name, **needed(name, 3))).abs().max()
    assert (gap < 1e-12) == POOLS[name].adds_up


@every_pool
def test_the_order_of_positions_does_not_matter(name):
    x = values(2, 3, 40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    a, b = (gs.pool(t, name, **needed(name, 3)) for t in (x, x[..., order]))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@every_pool
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
def test_the_answer_over_nothing(name, loop, monkeypatch):
    """Documented: 0 for sums, the end of the scale for max and min, NaN for what divides by how many."""
    by(loop, monkeypatch)
    nothing = {"sum": 0.0, "l2": 0.0, "lp": 0.0, "max": -math.inf, "min": math.inf}.get(name, math.nan)
    x = values(2, 3, 4, 4, dtype=torch.float32)
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[1] = False

    cases = [
        (gs.Mask(mask), lambda out: out[1]),
        (gs.Segments(torch.zeros(4, 4, dtype=torch.int64), 3), lambda out: out[..., 1:]),
        (gs.Boxes(torch.tensor([[0.0, 50, 50, 60, 60]]), 2), lambda out: out),
    ]
    for region, empty in cases:
        if loop == "compiled" and not served(name, x.dtype, region, x.shape):
            continue
        mine = x.clone().requires_grad_()
        out = gs.pool(mine, name, region, **needed(name, 3))
        expected = torch.full_like(empty(out), nothing)
        torch.testing.assert_close(empty(out), expected, equal_nan=True)
        (dx,) = torch.autograd.grad(empty(out).sum(), mine)
        assert torch.equal(dx, torch.zeros_like(dx))


EQUALS = {"max": [1.0, 3.0, 3.0, 2.0], "min": [4.0, 2.0, 2.0, 2.0]}


@pytest.mark.parametrize(("name", "row"), EQUALS.items())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
def test_the_first_of_equals_takes_the_gradient_and_nan_wins(loop, dtype, name, row, monkeypatch):
    by(loop, monkeypatch)
    for region in (gs.Whole(), gs.Window(4), gs.Grid(1), gs.Mask(torch.ones(4, dtype=torch.bool))):
        x = torch.tensor([[row]], dtype=dtype, requires_grad=True)
        gs.pool(x, name, region).sum().backward()
        assert x.grad.tolist() == [[[0, 1, 0, 0]]], (name, region, dtype)
        x = torch.tensor([[[1.0, math.nan, 5.0, math.nan]]], dtype=dtype, requires_grad=True)
        out = gs.pool(x, name, region)
        assert out.isnan().all(), (name, region, dtype)
        out.sum().backward()
        assert x.grad.tolist() == [[[0, 1, 0, 0]]], (name, region, dtype)


def test_the_first_of_equals_is_among_the_largest():
    x = torch.tensor([[[2.0, 7.0, 7.0, 7.0, 1.0]]], requires_grad=True)
    gs.pool(x, "topk", k=2).backward()
    assert x.grad.tolist() == [[[0, 0.5, 0.5, 0, 0]]]


@merging
@pytest.mark.parametrize("loop", ["reference", "compiled", None], ids=["reference", "compiled", "chosen"])
def test_nan_reaches_the_answer_and_only_its_own(name, loop, monkeypatch):
    by(loop, monkeypatch)
    x = values(1, 2, 6, 6, dtype=torch.float32)
    x[0, 0, 1, 1] = math.nan
    for region in (gs.Whole(), gs.Window(2), gs.Grid(3)):
        for laid in layouts(x):
            if loop == "compiled" and not served(name, x.dtype, region, x.shape):
                continue
            if name == "attention":
                continue  # the score of a position is made of all channels
            out = gs.pool(laid, name, region, **needed(name, 2))
            spoilt = out.isnan().reshape(1, 2, -1)
            assert spoilt[0, 0].sum() == 1, (region, out)
            assert not spoilt[0, 1].any()


@pytest.mark.parametrize(
    "loop",
    ["reference", pytest.param("compiled", marks=pytest.mark.slow), None],
    ids=["reference", "compiled", "chosen"],
)
def test_infinities(loop, monkeypatch):
    by(loop, monkeypatch)
    for region in (gs.Whole(), gs.Window(2), gs.Grid(1)):
        for name in ("max", "logsumexp", "softmax", "gem", "lp", "l2"):
            assert gs.pool(torch.tensor([[[1.0, math.inf]]]), name, region).item() == math.inf, (name, region)
        for name in ("max", "logsumexp", "softmax", "min"):
            assert gs.pool(torch.tensor([[[-math.inf, -math.inf]]]), name, region).item() == -math.inf, (name, region)
        one = gs.pool(torch.tensor([[[2.0, -math.inf]]]), "logsumexp", region, r=1.0).item()
        assert one == pytest.approx(2 - math.log(2))
        assert gs.pool(torch.tensor([[[2.0, -math.inf]]]), "softmax", region).item() == 2


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_windows_and_grids_as_they_are_written_down(data):
    """Random regions against their positions counted by hand, for a pool of each kind."""
    axes = data.draw(st.integers(1, 3))
    sizes, parts, size, stride, padding, step = [], [], [], [], [], []
    ceil = data.draw(st.booleans())
    for _ in range(axes):
        length = data.draw(st.integers(1, 12 if axes < 3 else 6))
        k, d = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
        span = (k - 1) * d + 1
        sides = data.draw(st.tuples(st.integers(0, span - 1), st.integers(0, span - 1)))
        s = data.draw(st.integers(1, 5))
        sizes.append(length)
        parts.append(windows(length, k, s, *sides, d, ceil))
        size.append(k), stride.append(s), padding.append(sides), step.append(d)
    if not all(parts):
        with pytest.raises(ValueError, match="does not fit"):
            gs.pool(
                values(1, 2, *sizes), "mean", gs.Window(tuple(size), tuple(stride), tuple(padding), tuple(step), ceil)
            )
        return
    region = gs.Window(tuple(size), tuple(stride), tuple(padding), tuple(step), ceil)
    x = values(1, 2, *sizes, seed=sum(sizes))
    answers = boxes(parts, sizes)
    for name in ("mean", "max", "logsumexp"):
        right = pooled(name, x, answers)
        out = gs.pool(x, name, region)
        assert out.shape[2:] == tuple(map(len, parts))
        there = torch.tensor([bool(at) for at in answers])
        torch.testing.assert_close(out.flatten(2)[..., there], right[..., there], rtol=1e-11, atol=1e-11)
        if name == "max":
            assert (out.flatten(2)[..., ~there] == -math.inf).all()
    cells = [data.draw(st.integers(1, 9)) for _ in sizes]
    answers = boxes([grid(s, c) for s, c in zip(sizes, cells, strict=True)], sizes)
    out = gs.pool(x, "max", gs.Grid(tuple(cells)))
    torch.testing.assert_close(out.flatten(2), pooled("max", x, answers))


@pytest.mark.parametrize("ceil", [False, True])
def test_a_window_longer_than_the_map_in_three_dimensions(ceil):
    """torch's avg_pool3d refuses it, though its padding makes room; its max_pool3d and avg_pool2d do not."""
    x = values(1, 2, 1, 1, 1)
    for name in ("mean", "max"):
        out = gs.pool(x, name, gs.Window((1, 2, 1), 1, (0, 1, 0), ceil_mode=ceil))
        torch.testing.assert_close(out, x.expand(1, 2, 1, 2, 1))


def test_divisors():
    x = torch.ones(1, 1, 5)
    asked = {"positions": [1, 1, 1], "padded": [2 / 3, 1, 1], "window": [2 / 3, 1, 2 / 3], 2: [1, 1.5, 1]}
    for divisor, expected in asked.items():
        region = gs.Window(3, 2, ((1, 0),), ceil_mode=True, divisor=divisor)
        assert gs.pool(x, "mean", region).tolist() == [[pytest.approx([expected[0], expected[1], expected[2]])]], (
            divisor
        )
    with pytest.raises(ValueError, match="only a mean divides"):
        gs.pool(x, "gem", gs.Window(2, divisor="window"))


def test_compositions():
    x = values(2, 3, 6, 7)
    mean, top = gs.pool(x, "mean"), gs.pool(x, "max")
    torch.testing.assert_close(gs.pool(x, "avgmax"), (mean + top) / 2)
    torch.testing.assert_close(gs.pool(x, "catavgmax"), torch.cat([mean, top], 1))
    three = gs.pool(x, ("gem", "std", "quantile"), gs.Grid(2), p=2.0, q=0.1)
    assert three.shape == (2, 9, 2, 2)
    torch.testing.assert_close(three[:, 6:], gs.pool(x, "quantile", gs.Grid(2), q=0.1))
    for name in COMPOSITIONS:
        parts = gs.partial(x[..., :3], name) + gs.partial(x[..., 3:], name)
        torch.testing.assert_close(parts.finish(), gs.pool(x, name))


def test_integers():
    x = torch.arange(12, dtype=torch.int32).reshape(1, 1, 3, 4)
    assert gs.pool(x, "max").tolist() == [[11]]
    assert gs.pool(x, "min").tolist() == [[0]]
    assert gs.pool(x, "sum").tolist() == [[66]]
    assert gs.pool(x, "max", gs.Window(2)).tolist() == [[[[5, 7]]]]
    # beyond what float32 holds, with windows that overhang; and a sum that does not fit into its own type
    large = torch.full((1, 1, 4, 4), 2**53 + 1, dtype=torch.int64)
    for region in (gs.Whole(), gs.Window(3, 2, 1), gs.Grid(3), gs.Mask(torch.eye(4, dtype=torch.bool))):
        assert gs.pool(large, "max", region).unique().tolist() == [2**53 + 1]
        assert gs.pool(-large, "max", region).unique().tolist() == [-(2**53) - 1]
        assert gs.pool(-large, "min", region).unique().tolist() == [-(2**53) - 1]
    assert gs.pool(large, "sum", gs.Window(2)).unique().tolist() == [4 * (2**53 + 1)]
    ones = torch.ones(1, 1, 20, 20, dtype=torch.uint8)
    assert gs.pool(ones, "sum").item() == gs.partial(ones, "sum").finish().item() == 400
    # a window without a position
    empty = gs.pool(x, "max", gs.Mask(torch.zeros(3, 4, dtype=torch.bool)))
    assert empty.item() == torch.iinfo(torch.int32).min
    with pytest.raises(TypeError, match=r"x\.float"):
        gs.pool(x, "mean")


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        *(pytest.param(t, marks=pytest.mark.slow) for t in (torch.int8, torch.int16, torch.int32, torch.int64)),
    ],
    ids=str,
)
def test_integers_of_each_width(dtype):
    y = torch.randint(0, 100, (2, 3, 7, 9), dtype=dtype)
    for laid in layouts(y):
        for name in ("max", "min"):
            for region in (gs.Whole(), gs.Window(3, 2, 1), gs.Grid(2)):
                out = gs.pool(laid, name, region)
                assert out.dtype == dtype
                torch.testing.assert_close(out.double(), gs.pool(y.double(), name, region))


@every_pool
def test_an_empty_batch_gives_an_empty_answer(name):
    nowhere = torch.zeros(0, 4, 4, dtype=torch.bool)
    for region, shape in (
        (gs.Whole(), ()),
        (gs.Window(2), (2, 2)),
        (gs.Window(2, ceil_mode=True), (2, 2)),
        (gs.Window((1, 2)), (4, 2)),
        (gs.Window((1, 2), ceil_mode=True), (4, 2)),
        (gs.Grid(3), (3, 3)),
        (gs.Pyramid((1, 2)), (5,)),
        (gs.Mask(nowhere), ()),
        (gs.Mask(nowhere.float()), ()),
        (gs.Segments(nowhere.long(), 3), (3,)),
    ):
        weighted = isinstance(region, gs.Mask) and region.mask.is_floating_point()
        if weighted and (name not in POOLS or not POOLS[name].weighted):
            continue
        for laid in layouts(torch.rand(0, 3, 4, 4)):
            for dtype in (torch.float32, torch.bfloat16):
                x = laid.detach().to(dtype).requires_grad_()
                out = gs.pool(x, name, region, **needed(name, 3, dtype))
                assert out.shape == (0, 3, *shape), region
                out.sum().backward()
                assert x.grad.shape == x.shape
                with torch.no_grad():
                    assert gs.pool(x, name, region, **needed(name, 3, dtype)).shape == out.shape
    no_boxes = gs.Boxes(torch.zeros(0, 5), 2)
    assert gs.pool(torch.rand(2, 3, 4, 4), name, no_boxes, **needed(name, 3)).shape == (0, 3, 2, 2)


def test_known_answers():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    x *= 80 / x.sum()
    assert gs.pool(x, "mean").item() == pytest.approx(5)
    for shape, length in (((2048, 13, 13), 2048), ((1536, 8, 8), 1536), ((1792, 8, 8), 1792)):
        assert gs.pool(torch.rand(1, *shape), "mean").shape == (1, length)
    y = values(2, 3, 6, 7)
    torch.testing.assert_close(gs.pool(y, "sum"), gs.pool(y, "mean") * 42)
