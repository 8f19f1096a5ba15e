"""What export takes apart and what it refuses: of each pool, layer and head one that is right and one that is not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gapstone as gs
from gapstone.export.export_module import TracedMaps, foreign_features
from gapstone.export.torch_pools import GridMax, GridMean, HangingMax, HangingMean, WholePool, whole, without_operators
from gapstone.heads import RECIPES
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import ImageModel
from gapstone.pools import POOLS

# ---- pools over the whole map

WHOLE: dict[str, tuple[dict[str, float], Callable[[Tensor], Tensor]]] = {
    "mean": ({}, lambda x: x.mean((2, 3))),
    "max": ({}, lambda x: x.amax((2, 3))),
    "gem": ({"p": 2.5}, lambda x: x.clamp(min=1e-6).pow(2.5).mean((2, 3)).pow(1 / 2.5)),
    "logsumexp": ({"r": 3.0}, lambda x: (torch.logsumexp(3 * x, (2, 3)) - torch.tensor(35.0).log()) / 3),
}
"""Parameters, and the formula."""
NONE_YET = ["attention", "l2", "lp", "min", "softmax", "std", "sum", "topk", "variance"]


def test_every_pool_is_here():
    assert {*WHOLE, *NONE_YET} == POOLS.keys()
    # attention heads have products of their own (test_module.py)
    assert {str(name) for recipe in RECIPES.values() for name in recipe.pools} - {"attention"} <= WHOLE.keys()


@pytest.mark.parametrize("name", WHOLE)
def test_answers_and_parts_of_the_whole_map(name):
    parameters, formula = WHOLE[name]
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64).requires_grad_()
    pooled, parts = whole(name, parameters)(x)
    torch.testing.assert_close(pooled, formula(x))
    (gradient,) = torch.autograd.grad(formula(x).sum(), x)
    torch.testing.assert_close(parts, (x * gradient).detach(), check_dtype=False)


@pytest.mark.parametrize("name", NONE_YET)
def test_pools_without_a_form_are_refused(name):
    with pytest.raises(ValueError, match=f"the pool '{name}' has no form for other runtimes"):
        whole(name, {})


@pytest.mark.parametrize("r", [1e-4, 0.1, 3.0, 80.0])
def test_a_log_sum_exp_keeps_its_digits_near_zero(r):
    x = torch.randn(1, 2, 5, 7)
    exact = (torch.logsumexp(r * x.double(), (2, 3)) - torch.tensor(35.0).double().log()) / r
    torch.testing.assert_close(whole("logsumexp", {"r": r})(x)[0].double(), exact, rtol=2e-6, atol=2e-6)


# ---- layers


@dataclass
class Layer:
    """right: `plain` takes its place. stays: kept as it is, where another form would be another answer."""

    right: list[nn.Module]
    plain: type[nn.Module]
    stays: list[nn.Module]


LAYERS = {
    "max windows that hang over": Layer(
        [
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.MaxPool2d((3, 2), (1, 2), ceil_mode=True),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        ],
        HangingMax,
        [
            nn.MaxPool2d(3, 2),
            nn.MaxPool2d(3, 3, 1, ceil_mode=True),
            nn.MaxPool2d((3, 2), (2, 3), ceil_mode=True),
            nn.MaxPool2d(3, 2, dilation=2, ceil_mode=True),
            nn.MaxPool2d(3, 2, dilation=(1, 2), ceil_mode=True),
        ],
    ),
    "mean windows that hang over": Layer(
        [
            nn.AvgPool2d(3, 2, ceil_mode=True),
            nn.AvgPool2d((2, 3), ceil_mode=True),
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        ],
        HangingMean,
        [
            nn.AvgPool2d(3, 2, 1),
            nn.AvgPool2d(3, 2, 1, ceil_mode=True),
            nn.AvgPool2d(2, 3, ceil_mode=True),
            nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=4),
        ],
    ),
    "mean cells": Layer(
        [nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d((1, 3)), nn.AdaptiveAvgPool2d((9, 4))],
        GridMean,
        [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)), nn.AdaptiveAvgPool2d((None, 1))],
    ),
    "max cells": Layer(
        [nn.AdaptiveMaxPool2d(2), nn.AdaptiveMaxPool2d((3, 1)), nn.AdaptiveMaxPool2d((5, 9))],
        GridMax,
        [nn.AdaptiveMaxPool2d(1), nn.AdaptiveMaxPool2d((2, None))],
    ),
}


def sized(layer: nn.Module) -> list[tuple[int, int]]:
    return [(h, w) for h in range(4, 9) for w in (5, 8)]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_have_another_form(name):
    case = LAYERS[name]
    for layer in case.right:
        made = without_operators(nn.Sequential(layer))[0]
        assert type(made) is case.plain, layer
        for size in sized(layer):
            x = torch.randn(2, 3, *size) - 3  # all negative at times: a zero at the border would win
            torch.testing.assert_close(made(x), layer(x), rtol=1e-5, atol=1e-6)
    for layer in case.stays:
        assert without_operators(nn.Sequential(layer))[0] is layer


OURS: dict[str, tuple[gs.Pool, type[nn.Module]]] = {
    "max, window": (gs.Pool("max", over=gs.Window(3, 2, 1)), nn.MaxPool2d),
    "max, window without a stride": (gs.Pool("max", over=gs.Window(2)), nn.MaxPool2d),
    "max, window, ceil": (gs.Pool("max", over=gs.Window(3, 2, 1, ceil_mode=True)), HangingMax),
    "max, window, dilated": (gs.Pool("max", over=gs.Window(3, 1, 1, dilation=2)), nn.MaxPool2d),
    "max, half the window": (gs.Pool("max", over=gs.Window((4, 2), 1, 1)), nn.MaxPool2d),
    "mean, window": (gs.Pool("mean", over=gs.Window(3, 2, 1)), nn.AvgPool2d),
    "mean, window, padded": (gs.Pool("mean", over=gs.Window(3, 2, 1, divisor="padded")), nn.AvgPool2d),
    "mean, window, ceil": (gs.Pool("mean", over=gs.Window((3, 2), 2, ceil_mode=True)), HangingMean),
    "mean, cells": (gs.Pool("mean", over=gs.Grid((3, 2))), GridMean),
    "mean, one cell": (gs.Pool("mean", over=gs.Grid(1)), GridMean),
    "max, cells": (gs.Pool("max", over=gs.Grid(4)), GridMax),
    "max, the whole map": (gs.Pool("max"), WholePool),
    "gem, the whole map": (gs.Pool("gem", p=2.5), WholePool),
}
WITHOUT = [
    gs.Pool("gem", over=gs.Window(2)),
    gs.Pool("gem", over=gs.Grid(2)),
    gs.Pool("min", over=gs.Grid(2)),
    gs.Pool("max", over=gs.Window(3, 2, "same")),
    gs.Pool("mean", over=gs.Window(3, 2, divisor="window")),
    gs.Pool("mean", over=gs.Window(3, 2, divisor=4)),
    gs.Pool("mean", over=gs.Window(3, 1, 1, dilation=2)),
    gs.Pool("max", over=gs.Window(3, 2, 2)),  # torch takes padding of half a window at most
    gs.Pool("max", over=gs.Window((5, 3), 1, 2)),
    gs.Pool("variance"),
    gs.Pool("mean", over=gs.Pyramid((1, 2))),
]


@pytest.mark.parametrize("name", OURS)
def test_layers_of_gapstones_in_torchs_words(name):
    layer, plain = OURS[name]
    made = without_operators(nn.Sequential(layer))[0]
    assert type(made) is plain
    for size in sized(layer):
        x = torch.randn(2, 3, *size) - 3
        torch.testing.assert_close(made(x), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", WITHOUT, ids=str)
def test_layers_of_gapstones_without_a_form_are_named(layer):
    with pytest.raises(ValueError, match=r"the layer 1\.pool, Pool.*has no form for other runtimes"):
        without_operators(nn.Sequential(nn.ReLU(), nn.ModuleDict({"pool": layer})))


def test_a_layer_that_is_used_twice_stays_one():
    one = nn.AdaptiveAvgPool2d(2)
    made = without_operators(nn.Sequential(one, nn.ReLU(), one))
    assert made[0] is made[2]
    assert type(made[0]) is GridMean


# ---- heads of networks that are not gapstone's

CHANNELS, CLASSES = 6, 4


class Net(nn.Module):
    """A network that somebody wrote."""

    def __init__(self, head: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.fc = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), nn.Linear(CHANNELS, CLASSES)
        self.wide, self.last = nn.Linear(2 * CHANNELS, CLASSES), nn.Conv2d(CHANNELS, CLASSES, 1)
        self.norm, self.hidden = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.flat, self.cells = nn.Linear(CHANNELS * 64, CLASSES), nn.Linear(CHANNELS * 4, CLASSES)
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.conv(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self, self.features(images))


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


HEADS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "mean": lambda n, x: n.fc(mean(x)),
    "adaptive mean": lambda n, x: n.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)),
    "sum": lambda n, x: n.fc(x.sum((2, 3)) / 64),
    "amax": lambda n, x: n.fc(x.amax((2, 3))),
    "adaptive max": lambda n, x: n.fc(F.adaptive_max_pool2d(x, 1).flatten(1)),
    "window of the whole map": lambda n, x: n.fc(F.avg_pool2d(x, 8).flatten(1)),
    "two pools": lambda n, x: n.wide(torch.cat([mean(x), x.amax((2, 3))], 1)),
    "two pools, added": lambda n, x: n.fc(mean(x) + x.amax((2, 3))),
    "convolution, then mean": lambda n, x: mean(n.last(x)),
    "two layers without a bend": lambda n, x: n.fc(n.hidden(mean(x))),
    "dropout": lambda n, x: n.fc(F.dropout(mean(x), 0.5, training=n.training)),
}
REFUSED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "hidden layer": lambda n, x: n.fc(F.relu(n.hidden(mean(x)))),
    "norm after the pool": lambda n, x: n.fc(n.norm(mean(x))),
    "flattened": lambda n, x: n.flat(x.flatten(1)),
    "a grid of means": lambda n, x: n.cells(F.adaptive_avg_pool2d(x, 2).flatten(1)),
    "pool and positions": lambda n, x: n.fc(mean(x)) + n.flat(x.flatten(1)),
    "generalised mean": lambda n, x: n.fc(x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)),
    "softmax at the end": lambda n, x: n.fc(mean(x)).softmax(1),
}


def opened(head: Callable[[Net, Tensor], Tensor]) -> ImageModel:
    preprocessing = Preprocessing(3, (16, 16), (16, 16), (0.5,) * 3, (0.25,) * 3)
    return ImageModel("mine", Net(head).eval(), tuple("abcd"), preprocessing)


def expected(model: Net, images: Tensor) -> Tensor:
    """Gradient × activation of the last map."""
    x = model.features(images).detach().requires_grad_()
    if model.head is HEADS["convolution, then mean"]:
        x = model.last(x).detach().requires_grad_()
        logits = mean(x)
    else:
        logits = model.head(model, x)
    rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(CLASSES)]
    return torch.stack([(row * x.detach()).sum(1) for row in rows], 1)


@pytest.mark.parametrize("name", HEADS)
def test_maps_of_a_pool_and_linear_layers(name):
    one = opened(HEADS[name])
    module = TracedMaps(one).eval()
    for size in [(16, 16)] if name.startswith(("window", "sum")) else [(16, 16), (11, 20)]:
        images = torch.randn(3, 3, *size)
        with torch.no_grad():
            logits, maps = module(images)
        torch.testing.assert_close(logits, one.model(images).detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(maps, expected(one.model, images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_heads_whose_maps_need_gradients_are_refused(name):
    one = opened(REFUSED[name])
    with pytest.raises(ValueError, match=r"export mine: .*--no-maps exports the logits"):
        TracedMaps(one)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(foreign_features(one)(images), one.model(images))


def test_a_network_that_goes_another_way_says_so():
    class Fickle(Net):
        def forward(self, images: Tensor) -> Tensor:
            images = images + 1 if images.shape[2] > 16 else images
            return super().forward(images)

    one = opened(HEADS["mean"])
    fickle = ImageModel("mine", Fickle(HEADS["mean"]).eval(), one.labels, one.preprocessing)
    module = TracedMaps(fickle)
    module(torch.randn(1, 3, 16, 16))
    with pytest.raises(ValueError, match="took another way"):
        module(torch.randn(1, 3, 20, 20))


def test_the_network_given_is_left_as_it_was():
    one = opened(HEADS["mean"])
    before: dict[str, Any] = {name: value.clone() for name, value in one.model.state_dict().items()}
    module = TracedMaps(one)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert not one.model._forward_hooks
    assert not one.model.conv._forward_pre_hooks
