"""What every pool obeys, over every region: three answers agree (float64 reference, the loop, itself cut in pieces)."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import gapstone as gs
from gapstone.loops import torch as loop
from gapstone.pooling import share
from gapstone.pools import POOLS
from gapstone.regions import REGIONS

# Written here from the formulas, not from the definitions they check.
REFERENCE = {
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(-1),
    "max": lambda x: x.max(-1).values,
    "gem": lambda x, p=3.0: x.clamp(min=1e-6).pow(p).mean(-1).pow(1 / p),
    "logsumexp": lambda x, r=5.0: (torch.logsumexp(r * x, -1) - math.log(x.shape[-1])) / r,
}
SPATIAL = [(1,), (63,), (1, 1), (7, 1), (9, 11), (1, 1000), (3, 4, 5)]
LAYOUTS = [(s, torch.contiguous_format) for s in SPATIAL] + [(s, torch.channels_last) for s in SPATIAL if len(s) == 2]
PER_REGION = {"Whole": gs.Whole(), "Window": gs.Window(2, 1), "Grid": gs.Grid(2)}
every_pool = pytest.mark.parametrize("name", POOLS)


def values(*shape, dtype=torch.float64, seed=0):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.abs().add(0.05).to(dtype)


def own(name):
    return tuple(POOLS[name].parameters.values())


def test_everyone_is_here():
    assert set(REFERENCE) == set(POOLS)
    assert set(PER_REGION) == {region.__name__ for region in REGIONS}


@every_pool
@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_whole_map_is_the_formula(name, sizes, layout):
    x = values(2, 3, *sizes).to(memory_format=layout)
    expected = REFERENCE[name](x.flatten(2))
    torch.testing.assert_close(gs.pool(x, name), expected, rtol=1e-12, atol=1e-12)
    derived = loop.over_boxes(name, x, None, len(sizes), own(name), derived=True)
    answer = loop.finish(name, derived, len(sizes), own(name)).flatten(1)
    torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)


@every_pool
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_at_most_twice_that_of_the_formula_in_torch(name, dtype):
    x = values(4, 8, 33, 31, dtype=dtype)
    right = REFERENCE[name](x.double().flatten(2))
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    plain = REFERENCE[name](x.to(wide).flatten(2)).to(dtype)
    ulp = torch.finfo(dtype).eps * right.abs().max()
    error, allowed = ((y.double() - right).abs().max() for y in (gs.pool(x, name), plain))
    assert gs.pool(x, name).dtype == dtype
    assert error <= 2 * allowed + ulp


@every_pool
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_windows_and_grids_are_the_formula_on_each_box(name, data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    if data.draw(st.booleans()):
        size = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
        stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
        padding = tuple(data.draw(st.integers(0, n - 1)) for n in size)
        region = gs.Window(size, stride, padding)
    else:
        region = gs.Grid((data.draw(st.integers(1, 10)), data.draw(st.integers(1, 10))))
    x = values(2, 2, height, width, seed=height * 10 + width)
    answer = gs.pool(x, name, region)
    rows, columns = region.axes((height, width))
    assert answer.shape == (2, 2, len(rows.starts), len(columns.starts))
    for i, (top, bottom) in enumerate(zip(rows.starts, rows.stops, strict=True)):
        for j, (left, right) in enumerate(zip(columns.starts, columns.stops, strict=True)):
            box = REFERENCE[name](x[:, :, top:bottom, left:right].flatten(2))
            torch.testing.assert_close(answer[:, :, i, j], box, rtol=1e-10, atol=1e-10)
    derived = loop.finish(name, loop.over_boxes(name, x, (rows, columns), 2, own(name)), 2, own(name))
    torch.testing.assert_close(answer, derived, rtol=1e-10, atol=1e-10)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_torch_agrees_on_random_shapes(data):
    spatial = data.draw(st.integers(1, 3))
    sizes = [data.draw(st.integers(3, 9)) for _ in range(spatial)]
    size, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    padding = data.draw(st.integers(0, size // 2))
    x = torch.randn(2, 3, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(sizes)))
    if spatial == 2 and data.draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    dim = f"{spatial}d"
    window, grid = gs.Window(size, stride, padding), gs.Grid(data.draw(st.integers(1, 5)))
    pairs = [
        (gs.pool(x, "max", window), getattr(F, f"max_pool{dim}")(x, size, stride, padding)),
        (gs.pool(x, "mean", window), getattr(F, f"avg_pool{dim}")(x, size, stride, padding, count_include_pad=False)),
        (gs.pool(x, "max", grid), getattr(F, f"adaptive_max_pool{dim}")(x, grid.size)),
        (gs.pool(x, "mean", grid), getattr(F, f"adaptive_avg_pool{dim}")(x, grid.size)),
    ]
    for name in ("max", "mean"):
        for region in (window, grid):
            axes = region.axes(tuple(sizes))
            pairs.append(
                (gs.pool(x, name, region), loop.finish(name, loop.over_boxes(name, x, axes, spatial), spatial))
            )
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@every_pool
def test_states_add_up_over_any_cut(name):
    x = values(2, 3, 9, 11)
    tiles = [tile for row in x.split((2, 5, 2), 2) for tile in row.split((1, 10), 3)]
    total = gs.partial(tiles[0], name)
    for tile in tiles[1:]:
        total = total + gs.partial(tile, name)
    torch.testing.assert_close(total.finish(), gs.pool(x, name), rtol=1e-12, atol=1e-12)
    other = gs.partial(tiles[-1], name)
    for tile in reversed(tiles[:-1]):
        other = gs.partial(tile, name) + other
    torch.testing.assert_close(other.finish(), total.finish(), rtol=1e-12, atol=1e-12)


@every_pool
def test_laws_with_the_empty_state(name):
    pool = loop.spoken(name, 2)
    empty = tuple(torch.tensor(float(part), dtype=torch.float64).reshape(1, 1, 1, 1) for part in pool.empty)
    parameters = own(name)
    state = loop.over_boxes(name, values(1, 1, 3, 3), None, 2, parameters)
    for left, right in ((state, empty), (empty, state)):
        for mine, part in zip(loop.combine(name, left, right, 2, parameters), state, strict=True):
            assert torch.equal(mine, part)
    # a log-sum-exp that passed every other law gave NaN here
    for mine, part in zip(loop.combine(name, empty, empty, 2, parameters), empty, strict=True):
        assert torch.equal(mine, part)


@every_pool
def test_share_is_the_gradient(name):
    x = values(2, 3, 5, 4).requires_grad_()
    gs.pool(x, name).sum().backward()
    torch.testing.assert_close(share(x.detach(), name), x.grad, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda t: gs.pool(t, name), values(2, 2, 3, 3).requires_grad_())
    for region in (gs.Window(2, 1), gs.Grid(2)):
        assert torch.autograd.gradcheck(lambda t, r=region: gs.pool(t, name, r), values(1, 2, 3, 4).requires_grad_())


@every_pool
def test_maps_add_up_exactly_where_claimed_and_not_where_not(name):
    x = values(2, 3, 9, 11)
    gap = ((x * share(x, name)).sum((2, 3)) - gs.pool(x, name)).abs().max()
    assert (gap < 1e-12) == POOLS[name].adds_up


def test_the_first_of_equals_takes_the_gradient_and_nan_wins():
    x = torch.tensor([[[1.0, 3.0, 3.0, 2.0]]], requires_grad=True)
    gs.pool(x, "max").backward()
    assert x.grad.tolist() == [[[0, 1, 0, 0]]]
    assert share(x.detach(), "max").tolist() == [[[0, 1, 0, 0]]]
    for derived in (False, True):
        state = loop.over_boxes("max", torch.tensor([[[1.0, math.nan, 5.0, math.nan]]]), None, 1, derived=derived)
        assert math.isnan(state[0].item())
        assert state[1].item() == 1


def test_infinities():
    for name in ("max", "logsumexp"):
        assert gs.pool(torch.tensor([[[1.0, math.inf]]]), name).item() == math.inf
        assert gs.pool(torch.tensor([[[-math.inf, -math.inf]]]), name).item() == -math.inf
    one = gs.pool(torch.tensor([[[2.0, -math.inf]]]), "logsumexp", r=1.0).item()
    assert one == pytest.approx(2 - math.log(2))


def test_half_precision_neither_overflows_nor_drifts():
    x = torch.full((1, 1, 256, 256), 60.0, dtype=torch.float16)
    assert gs.pool(x, "gem").item() == pytest.approx(60, rel=1e-3)
    assert gs.pool(x, "mean").item() == 60
    assert gs.pool(torch.full((1, 1, 64, 64), 700.0), "logsumexp").item() == pytest.approx(700)


def test_gem_keeps_its_head_at_large_p():
    x = torch.tensor([[[10.0, 2.0, 7.0]]])
    assert gs.pool(x, "gem", p=100.0).item() == pytest.approx(10 * (1 / 3) ** 0.01, rel=1e-5)
    assert gs.pool(torch.tensor([[[math.inf, 1.0]]]), "gem").item() == math.inf
    free = torch.rand(1, 2, 5, requires_grad=True)
    gs.pool(free, "gem", p=60.0).sum().backward()
    assert torch.isfinite(free.grad).all()


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_every_pool_over_every_region(spatial, dtype):
    x = values(2, 3, *(4,) * spatial, dtype=dtype)
    for name in POOLS:
        for region in PER_REGION.values():
            answer = gs.pool(x, name, region)
            assert answer.dtype == dtype
            torch.testing.assert_close(answer, gs.pool(x.double(), name, region).to(dtype))


def test_gem_of_zeros_has_a_gradient():
    for p in (1.0, 3.0, 10.0):
        x = torch.zeros(1, 2, 3, 3, requires_grad=True)
        gs.pool(x, "gem", p=p).sum().backward()
        assert torch.isfinite(x.grad).all()


def test_learned_parameters_learn():
    for name, key in (("gem", "p"), ("logsumexp", "r")):
        layer = gs.Pool(name, **{key: torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))})
        assert [k for k, _ in layer.named_parameters()] == [key]
        assert list(layer.state_dict()) == [key]
        assert torch.autograd.gradcheck(
            lambda v, n=name, k=key: gs.pool(values(2, 3, 4, 4), n, **{k: v}),
            torch.tensor(3.0, dtype=torch.float64, requires_grad=True),
        )
    per_channel = torch.tensor([1.0, 3.0, 8.0], dtype=torch.float64)
    x = values(2, 3, 4, 4)
    answer = gs.pool(x, "gem", p=per_channel)
    for channel, p in enumerate(per_channel):
        torch.testing.assert_close(answer[:, channel], gs.pool(x, "gem", p=p.item())[:, channel])


def test_known_answers():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    x *= 80 / x.sum()
    assert gs.pool(x, "mean").item() == pytest.approx(5)
    assert gs.pool(x.expand(1, 3, 4, 4), "mean").tolist() == [pytest.approx([5, 5, 5])]
    for shape, length in (((2048, 13, 13), 2048), ((1536, 8, 8), 1536), ((1792, 8, 8), 1792)):
        assert gs.pool(torch.rand(1, *shape), "mean").shape == (1, length)
    y = values(2, 3, 6, 7)
    torch.testing.assert_close(gs.pool(y, "sum"), gs.pool(y, "mean") * 42)
    assert gs.pool(torch.rand(2, 8, 28, 20), "max", gs.Window(2, 2)).shape == (2, 8, 14, 10)


def test_integers():
    x = torch.arange(12, dtype=torch.int32).reshape(1, 1, 3, 4)
    assert gs.pool(x, "max").tolist() == [[11]]
    assert gs.pool(x, "sum").tolist() == [[66]]
    assert gs.pool(x, "max", gs.Window(2)).tolist() == [[[[5, 7]]]]
    # beyond what float32 holds, with windows that overhang; and a sum that does not fit into its own type
    large = torch.full((1, 1, 4, 4), 2**24 + 1, dtype=torch.int64)
    assert gs.pool(large, "max", gs.Window(3, 2, 1)).unique().tolist() == [2**24 + 1]
    assert gs.pool(-large, "max", gs.Window(3, 2, 1)).unique().tolist() == [-(2**24) - 1]
    assert gs.pool(large, "sum", gs.Window(2)).unique().tolist() == [4 * (2**24 + 1)]
    ones = torch.ones(1, 1, 20, 20, dtype=torch.uint8)
    assert gs.pool(ones, "sum").item() == gs.partial(ones, "sum").finish().item() == 400
    assert gs.pool(ones, "max").dtype == torch.uint8
    with pytest.raises(TypeError, match=r"x\.float"):
        gs.pool(x, "mean")


def test_an_empty_batch_gives_an_empty_answer():
    for name in POOLS:
        assert gs.pool(torch.rand(0, 3, 4, 4), name).shape == (0, 3)
        assert gs.pool(torch.rand(0, 3, 4, 4), name, gs.Window(2)).shape == (0, 3, 2, 2)


def test_large_mean_windows_are_exact():
    x = torch.rand(1, 1, 1024, 1024, generator=torch.Generator().manual_seed(0))
    right = x.double().mean()
    assert (gs.pool(x, "mean", gs.Window(1024)).double() - right).abs() < 1e-6


@every_pool
def test_layer_is_the_function_and_its_repr_makes_it_again(name):
    x = values(2, 3, 6, 6)
    for region in PER_REGION.values():
        layer = gs.Pool(name, over=region)
        again = eval(repr(layer), {"Pool": gs.Pool, "Window": gs.Window, "Grid": gs.Grid, "Whole": gs.Whole})
        torch.testing.assert_close(again(x), gs.pool(x, name, region))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gs.pool(torch.rand(1, 2, 3), "avg"), "avg.*mean"),
        (lambda: gs.pool(torch.rand(2, 3), "mean"), r"\(N, C, \*spatial\)"),
        (lambda: gs.pool(torch.rand(1, 2, 0, 3), "max"), "no position"),
        (lambda: gs.pool(torch.rand(1, 2, 3), "gem", q=3), "takes p"),
        (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=-1), "positive"),
        (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window(5)), "does not fit"),
        (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window((2, 2, 2))), "spatial axes"),
        (lambda: gs.pool(torch.rand(1, 2, 3), "max", 3), "region"),
        (lambda: gs.Window(0), "at least 1"),
        (lambda: gs.Window(3, padding=3), "less than"),
        (lambda: gs.Window(2.5), "whole number"),
        (lambda: gs.Grid(()), "whole number"),
        (lambda: gs.Window((2, 2), (1, 1, 1)), "different numbers of axes"),
        (lambda: gs.partial(torch.rand(1, 2, 3), "gem", p=2) + gs.partial(torch.rand(1, 2, 3), "gem"), "add up"),
        (lambda: gs.partial(torch.rand(1, 2, 3), "max") + gs.partial(torch.rand(1, 3, 3), "max"), "add up"),
    ],
)
def test_errors_restate_the_call_and_the_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()
