"""The front door: the layer, states that add up, errors that say what to do."""

import copy
import io
import math
import pickle
from typing import get_args

import numpy as np
import pytest
import torch

import gapstone as gs
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY, name_types
from tests.contract.test_pools import by, values
from tests.contract.truth import given as needed

LAYERS = {
    "Whole": gs.Whole(),
    "Window": gs.Window(3, (2, 1), "same", dilation=(1, 2)),
    "Grid": gs.Grid((2, 3)),
    "Pyramid": gs.Pyramid((1, 2)),
}
NAMES = {"torch": torch, **{name: getattr(gs, name) for name in ("Pool", "Whole", "Window", "Grid", "Pyramid")}}


@pytest.mark.parametrize("name", [*POOLS, *WHOLE_ONLY, *COMPOSITIONS, ("gem", "max")], ids=str)
def test_the_layer_is_the_function_and_its_repr_makes_it_again(name):
    x = values(2, 3, 6, 6, dtype=torch.float32)
    parameters = needed(name, 3, torch.float32)
    for region in LAYERS.values():
        layer = gs.Pool(name, over=region, **parameters)
        right = gs.pool(x, name, region, **parameters)
        again = eval(repr(layer), NAMES)
        for copied in (layer, again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(copied(x).nan_to_num(), right.nan_to_num())
        assert repr(again) == repr(layer)


def test_what_is_learned_is_saved_and_loaded():
    for name, key, start in (("gem", "p", 3.0), ("lp", "p", 2.0), ("logsumexp", "r", 5.0), ("softmax", "r", 1.0)):
        layer = gs.Pool(name, learn=True)
        assert [k for k, _ in layer.named_parameters()] == [key]
        assert layer.state_dict()[key].item() == start
        assert layer.state_dict()[key].shape == (1,)  # FSDP2 shards along an axis
        assert repr(layer) == f"Pool({name!r}, learn=True, {key}={start})"
        layer.load_state_dict({key: torch.tensor(4.0)})  # as it was saved once, without an axis
        assert getattr(layer, key).item() == 4.0
        wide = gs.Pool(name, learn=True, **{key: torch.full((3,), start)})
        assert getattr(wide, key).shape == (3,)
        file = io.BytesIO()
        with torch.no_grad():
            getattr(layer, key).fill_(4.0)
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = gs.Pool(name, learn=True)
        other.load_state_dict(torch.load(file))
        x = values(2, 3, 6, 6, dtype=torch.float32)
        assert torch.equal(other(x), gs.pool(x, name, **{key: 4.0}))
    query = gs.Pool("attention", query=torch.zeros(3), learn=True)
    assert [k for k, _ in query.named_parameters()] == ["query"]
    fixed = gs.Pool("attention", query=torch.ones(3))
    assert not list(fixed.parameters())
    assert list(fixed.state_dict()) == ["query"]


def test_a_learned_value_that_leaves_its_range_counts_as_its_end_and_comes_back():
    layer = gs.Pool("gem", p=0.5, learn=True)
    with torch.no_grad():
        layer.p.fill_(-2.0)
    x = values(2, 3, 6, 6, dtype=torch.float32)
    torch.testing.assert_close(layer(x), gs.pool(x, "gem", p=0.1))
    layer(x).sum().backward()
    assert layer.p.grad.item() != 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
    for _ in range(50):
        optimizer.zero_grad()
        (-layer(x).mean()).backward()  # a larger p is a larger answer
        optimizer.step()
    assert layer.p.item() > 0.1


def test_states_say_what_they_are_and_add_up():
    x = values(2, 3, 8, 8)
    a, b = gs.partial(x[..., :3], "gem", p=2.0), gs.partial(x[..., 3:], "gem", p=2.0)
    torch.testing.assert_close((a + b).finish(), gs.pool(x, "gem", p=2.0))
    assert repr(a) == "<partial 'gem', p=2.0 of shape (2, 3, 1, 1)>"
    ones = torch.ones(1, 1, 20, 20, dtype=torch.uint8)
    assert gs.partial(ones, "sum").finish().item() == 400
    halves = [gs.partial(part, "mean").finish() for part in x.half().split(4, 2)]
    assert halves[0].dtype == torch.float16


BOXES = [
    (
        lambda b=box, s=sampling, n=name: gs.pool(
            torch.rand(2, 2, 5, 5), n, gs.Boxes(torch.tensor([b]), 2, sampling=s)
        ),
        says,
    )
    for box, says in (
        ([-1.0, 0, 0, 2, 2], "of image -1"),
        ([2.0, 0, 0, 2, 2], "of image 2, and there are 2"),
        ([0.5, 0, 0, 2, 2], "of image 0.5"),
        ([math.nan, 0, 0, 2, 2], "of image nan"),
        ([math.inf, 0, 0, 2, 2], "of image inf"),
        ([0.0, math.nan, 0, 2, 2], "finite"),
        ([0.0, 0, 0, math.inf, 2], "finite"),
        ([0.0, 0, -math.inf, 2, 2], "finite"),
    )
    for sampling in (None, 2)
    for name in ("max", "median", "avgmax")
]
RAISES = [
    (lambda: gs.pool(torch.rand(1, 2, 3), "avg"), "avg.*Did you mean 'mean'"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "AdaptiveMaxPool2d"), "Did you mean 'max'"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "lse"), "Did you mean 'logsumexp'"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "stddev"), "Did you mean 'std'"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "maen"), "Did you mean 'mean'"),
    (lambda: gs.Head("avg", 4, 2), "Did you mean 'gap'"),
    (lambda: gs.Head("max", 4, 2), "Did you mean 'gmp'"),
    (lambda: gs.Head("linear", 4, 2), "Did you mean 'fc'"),
    (lambda: gs.pool(torch.rand(1, 2, 3), ("mean", "avgmax")), "composition itself"),
    (lambda: gs.pool(torch.rand(1, 2, 3), ()), "not known"),
    (lambda: gs.pool(torch.rand(2, 3), "mean"), r"\(N, C, \*spatial\)"),
    (lambda: gs.pool(torch.rand(1, 2, 0, 3), "max"), "no position"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", q=3), "takes p"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "mean", p=3), "takes no parameters"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=-1), "from 0.01 to inf"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=math.nan), "from 0.01 to inf"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p="3"), "must be a number"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "gem", p=torch.ones(3)), "one per channel"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk"), "needs k=…"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk", k=0), "from 1"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk", k=1.5), "whole number"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "topk", k=torch.tensor(2)), "one number"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "quantile", q=1.1), "from 0 to 1"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "attention"), "needs query=…"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "attention", query=torch.ones(3)), "per channel"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "attention", query=1.0), "per channel"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window(5)), "does not fit"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window((2, 2, 2))), "spatial axes"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Window(2, padding=((0, 1),))), "spatial axes"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", 3), "region"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", gs.Window), "region"),
    (lambda: gs.Window(0), "at least 1"),
    (lambda: gs.Window(3, padding=3), "less than"),
    (lambda: gs.Window(3, padding=((3, 0),)), "less than"),
    (lambda: gs.Window(3, padding="valid"), "same"),
    (lambda: gs.Window(3, padding=((1, 2, 3),)), "pair"),
    (lambda: gs.Window(3, padding=-1), "at least 0"),
    (lambda: gs.Window(3, dilation=0), "at least 1"),
    (lambda: gs.Window(2.5), "whole number"),
    (lambda: gs.Window(2, ceil_mode=1), "True or False"),
    (lambda: gs.Window(2, divisor="all"), "'positions', 'padded', 'window'"),
    (lambda: gs.Window(2, divisor=0), "other than 0"),
    (lambda: gs.Window((2, 2), (1, 1, 1)), "different numbers of axes"),
    (lambda: gs.Grid(()), "whole number"),
    (lambda: gs.Pyramid(3), "tuple"),
    (lambda: gs.Pyramid((0,)), "at least 1"),
    (lambda: gs.Mask([1, 0]), "tensor"),
    (lambda: gs.Mask(torch.ones(3, dtype=torch.int64)), r"mask\.bool"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "mean", gs.Mask(torch.ones(4, dtype=torch.bool))), "one value per position"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", gs.Mask(torch.ones(3))), "in part"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "median", gs.Mask(torch.ones(3))), "in part"),
    (lambda: gs.Segments(torch.rand(3)), "whole numbers"),
    (lambda: gs.Segments(torch.ones(3, dtype=torch.int64), 0), "at least 1"),
    (lambda: gs.pool(torch.rand(1, 2, 3), "max", gs.Segments(torch.tensor([0, 1, 2]), 2)), "a label is 2"),
    (lambda: gs.Boxes([], 2), "tensor"),
    (lambda: gs.Boxes(torch.zeros(1, 5), 2, scale=0), "positive"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Boxes(torch.zeros(1, 4), 2)), r"needs \(R, 5\)"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Boxes(torch.ones(1, 5), 2)), "there are 1 images"),
    *BOXES,
    (lambda: gs.pool(torch.rand(3, 8, 8), "max", gs.Window((2, 2))), r"read as \(N, C, L\).*x\[None\]"),
    (lambda: gs.pool(torch.rand(3, 8, 8), "max", gs.Grid((2, 2))), r"read as \(N, C, L\).*x\[None\]"),
    (lambda: gs.pool(torch.rand(3, 8, 8), "max", gs.Window(2, padding=((0, 1), (0, 1)))), r"read as \(N, C, L\)"),
    (lambda: gs.Window(2**40), "more than any map"),
    (lambda: gs.Grid(2**40), "more than any map"),
    (lambda: gs.Pyramid((1, 2**40)), "more than any map"),
    (lambda: gs.Boxes(torch.ones(1, 5), 2**40), "more than any map"),
    (lambda: gs.Segments(torch.ones(3, dtype=torch.int64), 2**40), "at most"),
    (lambda: gs.pool(torch.rand(1, 2, 8), "max", gs.Window(2**30, padding=2**29)), "places along an axis of 8"),
    (lambda: gs.pool(torch.rand(1, 2, 8), "max", gs.Window(2**30, ceil_mode=True)), "places along an axis of 8"),
    (lambda: gs.pool(torch.rand(1, 2, 8), "max", gs.Grid(2**30)), "cells along an axis of 8"),
    (lambda: gs.pool(torch.rand(1, 2, 3, 3), "max", gs.Boxes([torch.ones(1, 4)] * 2, 2)), "one per image"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "median"), "all positions at once"),
    (lambda: gs.partial(torch.rand(1, 2, 4), "mean", gs.Window(2, divisor=3)), "divisor='positions'"),
    (lambda: gs.partial(torch.rand(1, 2, 4), "mean", gs.Pyramid((1, 2))), "per cell"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "gem", p=2) + gs.partial(torch.rand(1, 2, 3), "gem"), "add up"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "max") + gs.partial(torch.rand(1, 3, 3), "max"), "add up"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "max") + gs.partial(torch.rand(1, 2, 3), "min"), "add up"),
    (lambda: gs.partial(torch.rand(1, 2, 3), "avgmax") + gs.partial(torch.rand(1, 2, 3), "catavgmax"), "add up"),
    (lambda: gs.Pool("mean", learn=True), "nothing to learn"),
    (lambda: gs.Pool("max", over=gs.Mask(torch.ones(3, dtype=torch.bool))), r"layer\(x, over=gs\.Mask"),
    (lambda: gs.Pool("gem", p=0), "from 0.01"),
]


@pytest.mark.parametrize(("call", "says"), RAISES)
def test_errors_restate_the_call_and_the_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int32])
def test_types_without_a_meaning_are_refused(dtype):
    with pytest.raises(TypeError, match="convert"):
        gs.pool(torch.ones(1, 2, 3).to(dtype), "mean")
    with pytest.raises(TypeError, match="over a Mask of weights"):
        gs.pool(torch.ones(1, 2, 3, dtype=torch.int32), "sum", gs.Mask(torch.ones(3)))


def test_a_region_of_a_batch_goes_with_it():
    x = values(2, 3, 4, 4)
    mask = torch.rand(2, 4, 4) > 0.3
    torch.testing.assert_close(gs.Pool("mean")(x, over=gs.Mask(mask)), gs.pool(x, "mean", gs.Mask(mask)))


def test_the_names_that_mypy_knows_are_those_there_are():
    assert set(get_args(name_types.BuiltIn)) == set(POOLS)
    assert set(get_args(name_types.NeedsAll)) == set(WHOLE_ONLY)
    assert set(get_args(name_types.Composed)) == set(COMPOSITIONS)


def test_lists_and_numpys_numbers_are_taken():
    """YAML has no tuples, and configurations are computed."""
    two, half = np.int64(2), np.float32(0.5)
    assert gs.Window([3, 3], [two, two], [[0, 1], [0, 1]], [1, 1], np.bool_(True)) == gs.Window(
        (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), True
    )
    assert gs.Window(np.array([3, 3])) == gs.Window((3, 3))
    assert gs.Grid([2, np.int32(3)]) == gs.Grid((2, 3))
    assert gs.Pyramid([1, [2, 3]]) == gs.Pyramid((1, (2, 3)))
    assert {gs.Window([3, 3]): 1}[gs.Window((3, 3))] == 1
    x = values(2, 3, 6, 6)
    boxes = torch.tensor([[0.0, 1, 1, 8, 8]])
    assert torch.equal(
        gs.pool(x, "max", gs.Boxes(boxes, [two, two], half, np.int64(2))), gs.pool(x, "max", gs.Boxes(boxes, 2, 0.5, 2))
    )
    labels = torch.arange(36).reshape(6, 6) % 2
    assert torch.equal(gs.pool(x, "sum", gs.Segments(labels, two)), gs.pool(x, "sum", gs.Segments(labels, 2)))
    for name, key, value in (
        ("gem", "p", half),
        ("topk", "k", two),
        ("quantile", "q", half),
        ("std", "correction", two),
    ):
        assert torch.equal(gs.pool(x, name, **{key: value}), gs.pool(x, name, **{key: value.item()}))
        layer = gs.Pool(name, over=gs.Grid([2, 2]), **{key: value})
        assert torch.equal(layer(x), gs.pool(x, name, gs.Grid(2), **{key: value.item()}))
    assert torch.equal(gs.pool(x, ["mean", "std"]), gs.pool(x, ("mean", "std")))
    assert torch.equal(gs.Pool(["mean", "std"])(x), gs.pool(x, ("mean", "std")))
    assert torch.equal(gs.partial(x, ["mean", "std"]).finish(), gs.pool(x, ("mean", "std")))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32], ids=str)
def test_unsigned_integers(dtype):
    most = torch.iinfo(dtype).max
    numbers = torch.tensor([[[[3, most, 0, 7], [most - 1, 5, 1, 2], [9, 8, 7, 6], [1, 1, 1, 1]]]])
    x = numbers.to(dtype)
    for region in (
        gs.Whole(),
        gs.Window(2),
        gs.Grid(3),
        gs.Pyramid((1, 2)),
        gs.Segments(torch.arange(16).reshape(4, 4) % 3, 4),
    ):
        for name in ("max", "min", "sum"):
            out = gs.pool(x, name, region)
            assert out.dtype == (torch.int64 if name == "sum" else dtype)
            right = gs.pool(numbers, name, region)
            there = torch.ones_like(right, dtype=torch.bool)
            if isinstance(region, gs.Segments):
                there[..., 3] = False
                nothing = {"max": 0, "min": most, "sum": 0}[name]
                assert out.long()[..., 3].item() == nothing
            assert torch.equal(out.long()[there], right[there])
    assert gs.partial(x, "max").finish().long().item() == most


def test_uint64_is_refused_in_a_sentence():
    for name in ("max", "min", "sum"):
        with pytest.raises(TypeError, match=r"x\.long\(\)"):
            gs.pool(torch.ones(1, 1, 2, 2, dtype=torch.uint64), name)


def test_arrays_are_refused_in_a_sentence():
    with pytest.raises(TypeError, match="as_tensor"):
        gs.pool(np.ones((1, 2, 3), np.float32), "mean")


def test_a_list_is_no_longer_than_what_there_is():
    x = values(2, 3, 4, 4)
    assert torch.equal(gs.pool(x, "topk", k=2**40), gs.pool(x, "topk", k=16))


def test_under_the_meta_device_and_back():
    with torch.device("meta"):
        layer = gs.Pool("gem", p=2.0, learn=True)
        head = gs.Head("lse:r=learned", 4, 2)
    assert repr(layer) == "Pool('gem', learn=True, p=torch.empty((1,), device='meta'))"
    assert "meta" in repr(head)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer.p.item() == 2.0


def test_many_trained_numbers_are_shown_in_short():
    layer = gs.Pool("gem", p=torch.linspace(2, 3, 512), learn=True)
    assert repr(layer) == "Pool('gem', learn=True, p=<512 numbers from 2 to 3>)"


def spread(loop, x, name, region, monkeypatch):
    by(loop, monkeypatch)
    x = x.clone().requires_grad_()
    out = gs.pool(x, name, region)
    (dx,) = torch.autograd.grad(out.sum(), x)
    return out.detach(), dx


@pytest.mark.parametrize("loop", ["reference", None], ids=["reference", "chosen"])
@pytest.mark.parametrize("name", ["variance", "std"])
def test_the_spread_of_equal_numbers_is_0_and_so_is_its_gradient(name, loop, monkeypatch):
    for number in (0.1, 1000.7, 3e30):
        for region in (gs.Whole(), gs.Window(3, 2, 1)):
            out, dx = spread(loop, torch.full((2, 5, 9, 11), number), name, region, monkeypatch)
            assert not out.any()
            assert not dx.any()
    functional = torch.func.grad(lambda x: gs.pool(x, name).sum())(torch.full((1, 2, 7, 7), 0.1))
    assert not functional.any()


@pytest.mark.parametrize("loop", ["reference", None], ids=["reference", "chosen"])
def test_the_spread_of_large_numbers_that_hardly_differ(loop, monkeypatch):
    x = (1000 + torch.arange(99.0) / 99 * 0.001).reshape(1, 1, 9, 11).expand(2, 5, 9, 11).contiguous()
    mean = x.double().mean((2, 3), keepdim=True)
    right = (x.double() - mean).square().mean((2, 3))
    out, dx = spread(loop, x, "variance", gs.Whole(), monkeypatch)
    torch.testing.assert_close(out.double(), right, rtol=1e-5, atol=0)
    torch.testing.assert_close(dx.double(), 2 * (x.double() - mean) / 99, rtol=1e-4, atol=1e-11)
    out, dx = spread(loop, x, "std", gs.Whole(), monkeypatch)
    torch.testing.assert_close(out.double(), right.sqrt(), rtol=1e-5, atol=0)
    pieces = gs.partial(x[..., :4], "variance") + gs.partial(x[..., 4:], "variance")
    torch.testing.assert_close(pieces.finish().double(), right, rtol=1e-5, atol=0)
