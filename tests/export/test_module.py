"""The two-output module in torch: the model's own logits, `gapstone.maps.explain`'s maps, and nothing of gapstone's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gapstone as gs
from gapstone.export.export_module import LogitsAlone, logits_alone, logits_and_maps
from gapstone.export.torch_pools import (
    AttentionByProducts,
    GridMax,
    GridMean,
    HangingMax,
    HangingMean,
    whole,
    without_operators,
)
from gapstone.heads import RECIPES, parse
from gapstone.heads.attention_queries import AttentionQueries
from gapstone.heads.feature_norm import norm_of
from gapstone.maps.explain import explain
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.pooling import share
from gapstone.runtime.torch_internals import any_number_of_images

HEADS = [
    *("gap", "gap:8,6:dropout=0.5", "gap:dropout=0.5", "gmp", "gmp:8"),
    *("gem", "gem:p=0.5", "gem:p=40", "gem:p=learned", "gem:8"),
    *("lse", "lse:r=0.01", "lse:r=50", "lse:r=learned", "lse:8"),
    *("avgmax", "avgmax:8", "catavgmax", "catavgmax:8,6"),
    *("nin", "nin:8", "nin:dropout=0.5"),
    *("fc", "fc:8", "fc:8,6", "fc:grid=3", "fc:grid=9", "fc:8:grid=3"),
    *("attention", "attention:queries=3"),
    *("catavgmax:norm=batch", "gmp:8:norm=batch", "fc:grid=3:norm=batch"),
]


def test_every_head_is_here():
    of_maps = {name for name in RECIPES if parse(name).reads.maps_alone}
    assert {spec.partition(":")[0] for spec in HEADS} == of_maps


def test_attention_before_hidden_layers_has_no_maps_elsewhere(make):
    opened = make(head="attention:8")
    with pytest.raises(ValueError, match=r"maps of head 'attention:8' are not written.*--no-maps"):
        logits_and_maps(opened)
    images = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(logits_alone(opened)(images), opened.model(images))


@pytest.mark.parametrize("head", ["attention:queries=2:cls=1", "cls+gap"])
def test_heads_of_tokens_give_their_logits_alone(make, head):
    opened = make("timm:test_vit", head, size=(32, 32))
    with pytest.raises(ValueError, match=r"are not written for other runtimes.*--no-maps"):
        logits_and_maps(opened)
    images, alone = torch.randn(2, 3, 32, 32), logits_alone(opened)
    torch.testing.assert_close(alone(images), opened.model(images).detach())
    assert not any(isinstance(layer, gs.Pool | AttentionQueries) for layer in alone.modules())


def test_attention_takes_any_number_of_images_elsewhere():
    """An einsum over tokens, as torch.export sees it, never takes one."""
    attention = AttentionQueries(8, 2)
    tokens = torch.nn.Sequential(torch.nn.ZeroPad1d((1, 0)), AttentionByProducts(attention)).eval()
    with torch.no_grad(), any_number_of_images():
        program = torch.export.export(tokens, (torch.randn(2, 8, 9),), dynamic_shapes=({0: torch.export.Dim("n")},))
    one = torch.randn(1, 8, 9)
    expected = attention(torch.nn.functional.pad(one, (1, 0))).detach()
    torch.testing.assert_close(program.module()(one), expected)


@pytest.mark.parametrize("head", HEADS)
def test_logits_and_maps_are_the_models(make, head):
    opened = make(head=head)
    if norm := norm_of(opened.model.head.classifier):
        norm.fix(torch.rand(norm.num_features) - 0.5, 4 * torch.rand(norm.num_features) + 0.1)
    module = logits_and_maps(opened)
    sizes = [(28, 28)] if opened.model.head.size else [(28, 28), (33, 47), (5, 3)]
    for height, width in sizes:
        images = torch.randn(2, 3, height, width)
        explained = explain(opened.model, images)
        logits, maps = module(images)
        assert explained.maps.abs().max() > 1e-4
        torch.testing.assert_close(logits, explained.logits, rtol=1e-5, atol=1e-5 * float(explained.logits.abs().max()))
        torch.testing.assert_close(maps, explained.maps, rtol=1e-5, atol=1e-5 * float(explained.maps.abs().max()))
        assert torch.equal(LogitsAlone(module)(images), logits)


def test_the_model_given_is_not_touched(make):
    opened = make()
    before = {name: type(layer) for name, layer in opened.model.named_modules()}
    weights = {name: t.clone() for name, t in opened.model.state_dict().items()}
    module = logits_and_maps(opened)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert {name: type(layer) for name, layer in opened.model.named_modules()} == before
    assert all(torch.equal(t, weights[name]) for name, t in opened.model.state_dict().items())
    assert all(p.requires_grad for p in opened.model.parameters())


def test_no_pool_of_gapstones_is_left(make):
    for backbone in ("nin", "resnet18", "vgg11"):
        opened = make(backbone, size=(32, 32))
        assert any(isinstance(layer, gs.Pool) for layer in opened.model.features.modules())
        assert not any(isinstance(layer, gs.Pool) for layer in logits_and_maps(opened).modules())


def test_what_has_no_form_is_refused(make):
    with pytest.raises(ValueError, match=r"layer 0, Pool\('gem'.*no form"):
        without_operators(nn.Sequential(gs.Pool("gem", over=gs.Window(2))))
    with pytest.raises(ValueError, match="topk"):
        whole("topk", {"k": 3})


def foreign(name: str, tmp_path, classes: int = 5) -> ImageModel:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model(name, num_classes=classes).state_dict(), tmp_path / "w.safetensors")
    return open_model(f"timm:{name}", tmp_path / "w.safetensors")


def test_a_model_of_timm_is_watched(tmp_path):
    opened = foreign("test_resnet", tmp_path)
    module = logits_and_maps(opened)
    images = torch.rand(2, 3, 96, 160)
    logits, maps = module(images)
    explained = explain(opened.model, images)
    torch.testing.assert_close(logits, explained.logits)
    torch.testing.assert_close(maps, explained.maps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits_alone(opened)(images), explained.logits)


def test_maps_that_need_gradients_are_refused(tmp_path):
    opened = foreign("test_convnext", tmp_path)
    with pytest.raises(ValueError, match="--no-maps exports the logits"):
        logits_and_maps(opened)
    images = torch.rand(2, 3, 96, 160)
    torch.testing.assert_close(logits_alone(opened)(images), opened.model(images).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mean", "max", "gem", "logsumexp"])
def test_pools_and_their_parts(name):
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    parameters = {"gem": {"p": 2.5}, "logsumexp": {"r": 3.0}}.get(name, {})
    pooled, parts = whole(name, parameters)(x)
    torch.testing.assert_close(pooled, gs.pool(x, name, **parameters))
    torch.testing.assert_close(parts, x * share(x, name, **parameters))


def test_a_tie_goes_to_the_first():
    x = torch.ones(1, 1, 3, 3)
    x[..., 0, 0] = 0.5
    _, parts = whole("max", {})(x)
    assert parts[0, 0].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert torch.equal(parts, x * share(x, "max"))


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (5, 3), ((3, 2), (2, 1))])
def test_windows_that_hang_over_the_end(size, stride):
    for height in range(5, 14):
        x = torch.randn(2, 3, height, 9) - 3  # all negative at times: padding with zeros would win
        pooled = F.max_pool2d(x, size, stride, ceil_mode=True)
        mean = F.avg_pool2d(x, size, stride, ceil_mode=True)
        made = without_operators(nn.Sequential(nn.MaxPool2d(size, stride, ceil_mode=True)))
        assert isinstance(made[0], HangingMax)
        assert torch.equal(made(x), pooled)
        made = without_operators(nn.Sequential(nn.AvgPool2d(size, stride, ceil_mode=True, count_include_pad=False)))
        assert isinstance(made[0], HangingMean)
        torch.testing.assert_close(made(x), mean)


def test_hanging_with_padding_is_replaced_only_where_the_rule_is_the_same():
    x = torch.randn(1, 2, 11, 12) - 3
    made = without_operators(nn.Sequential(nn.MaxPool2d(5, 3, 2, ceil_mode=True)))
    assert isinstance(made[0], HangingMax)
    assert torch.equal(made(x), F.max_pool2d(x, 5, 3, 2, ceil_mode=True))
    for kept in (nn.MaxPool2d(3, 3, 1, ceil_mode=True), nn.MaxPool2d(3, 2, dilation=2, ceil_mode=True)):
        assert without_operators(nn.Sequential(kept))[0] is kept


@pytest.mark.parametrize("cells", [(3, 3), (7, 2), (5, 9)])
def test_grids_that_do_not_divide(cells):
    for size in ((7, 7), (8, 5), (3, 13), (1, 1)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(GridMean(cells)(x), F.adaptive_avg_pool2d(x, cells))
        assert torch.equal(GridMax(cells)(x), F.adaptive_max_pool2d(x, cells))
    adaptive = nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.AdaptiveMaxPool2d(cells), nn.AdaptiveAvgPool2d(1))
    assert [type(layer) for layer in without_operators(adaptive)] == [GridMean, GridMax, nn.AdaptiveAvgPool2d]


def test_windows_of_gapstones():
    x = torch.randn(1, 2, 11, 12) - 3
    for layer in (
        gs.Pool("max", over=gs.Window(3, 2, 1)),
        gs.Pool("max", over=gs.Window((3, 2), (2, 1), dilation=2)),
        gs.Pool("mean", over=gs.Window(3, 2, 1)),
        gs.Pool("mean", over=gs.Window(3, 2, 1, divisor="padded")),
        gs.Pool("max", over=gs.Window(3, 2, ceil_mode=True)),
        gs.Pool("mean", over=gs.Grid((3, 5))),
        gs.Pool("max", over=gs.Grid(4)),
    ):
        plain = without_operators(nn.Sequential(layer))
        assert not isinstance(plain[0], gs.Pool)
        torch.testing.assert_close(plain(x), layer(x))
