"""The counter: torch's own formulas for multiply-adds, and by hand what torch counts as nothing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import gapstone as gs
from gapstone.inspecting.model_names import model_named
from gapstone.tracing.arithmetic import ArithmeticCounter


def counted(function, *arguments):
    with torch.no_grad(), ArithmeticCounter() as counter:
        function(*arguments)
    return counter


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:swin_t", "torchvision:vit_b_16", "resnet18"])
def test_multiply_adds_are_torchs(name):
    if ":" in name:
        pytest.importorskip("torchvision")
    model, images = model_named(name).eval(), torch.empty(1, 3, 224, 224, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model(images)
    assert counted(model, images).total.macs == flops.get_total_flops() // 2 > 10**9


def test_shapes_alone_cost_the_same_as_numbers():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), gs.Pool("max", over=gs.Window(3, 2, 1)), gs.Head("gap", 8, 4))
    real = counted(model.eval(), torch.rand(1, 3, 20, 20))
    dry = counted(model.to("meta"), torch.empty(1, 3, 20, 20, device="meta"))
    assert (real.total, real.peak) == (dry.total, dry.peak)


X = torch.zeros(2, 3, 12, 12)


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (lambda x: F.max_pool2d(x, 2), 6 * 36 * 4),
        (lambda x: F.max_pool2d(x, 3, 2, 1), 6 * 36 * 9),
        (lambda x: F.avg_pool2d(x, (2, 4)), 6 * 6 * 3 * 8),
        (lambda x: F.avg_pool1d(x[0], 3), 3 * 12 * 4 * 3),
        (lambda x: F.adaptive_avg_pool2d(x, 1), 6 * 144),
        (lambda x: F.adaptive_max_pool2d(x, 4), 6 * 144),
        (lambda x: F.adaptive_avg_pool2d(x, 5), 6 * 16**2),  # five cells of 3 or 4 on 12: neighbours share some
        (lambda x: x.mean((2, 3)), 6 * 144),
        (lambda x: gs.pool(x, "max"), 6 * 144),
        (lambda x: gs.pool(x, "mean", over=gs.Window(3, 2, 1)), 6 * 36 * 9),
        (lambda x: gs.pool(x, "max", over=gs.Grid(5)), 6 * 16**2),
        (lambda x: gs.pool(x, "gem", p=3, over=gs.Grid(5)), 6 * 16**2),  # no call of torch's
        (lambda x: gs.pool(x, "gem", p=3, over=gs.Window((3, 2), 2, (1, 0))), 6 * 36 * 6),
        (lambda x: gs.pool(x, "logsumexp"), 6 * 144),
    ],
)
def test_pools_by_hand(call, values):
    total = counted(call, X).total
    assert total.pooled == values
    assert total.macs == 0


def test_all_else_counts_its_answers():
    assert counted(lambda x: (x.relu() + x).sigmoid(), X).total.single == 3 * X.numel()
    assert counted(lambda x: x.view(-1)[None].permute(1, 0), X).total.single == 0
    assert counted(lambda x: torch.cat([x, x]).clone(), X).total.single == 0


def test_the_most_memory_in_use_at_once():
    bytes_ = X.numel() * 4
    assert counted(lambda x: x.relu().relu().relu(), X).peak == 2 * bytes_  # one made while one is there
    assert counted(lambda x: x.relu().relu_().relu_(), X).peak == bytes_
    assert counted(lambda x: x.view(-1).t(), X).peak == 0
    kept = []
    counter = counted(lambda x: kept.extend(x + n for n in range(5)), X)
    assert counter.live == counter.peak == 5 * bytes_
    kept.clear()
    assert counter.live == 0


def test_tallies_belong_to_who_is_asked():
    names = iter("aab")
    with torch.no_grad(), ArithmeticCounter(lambda: next(names)) as counter:
        X.relu(), X.relu(), X.sigmoid()
    assert {name: tally.single for name, tally in counter.tallies.items()} == {"a": 2 * X.numel(), "b": X.numel()}
