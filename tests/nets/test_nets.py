"""gapstone's own networks: parameter counts from the papers, shapes, memory format, torchvision's weights."""

import pytest
import torch
from torch import nn

from gapstone.nets import NAMES, NETS, Features, build, map_size
from gapstone.nets.nin import Nin, NinPaper
from tests.marks import slow_but

SMALL = ("nin", "nin:paper", "resnet18:small")


def on_meta(name: str, in_channels: int = 3) -> Features:
    with torch.device("meta"):
        return build(name, in_channels)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# From the papers and torchvision's published totals less their classifiers; nin counted by hand.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("nin", 29_296),
        ("nin:paper", 966_986 - (192 * 10 + 10)),
        ("vgg11", 132_863_336 - 123_642_856),
        ("vgg11_bn", 132_868_840 - 123_642_856),
        ("nin:imagenet", 7_595_176 - 1000 * 1025),
        ("vgg13", 133_047_848 - 123_642_856),
        ("vgg13_bn", 133_053_736 - 123_642_856),
        ("vgg16", 14_714_688),
        ("vgg16_bn", 138_365_992 - 123_642_856),
        ("vgg19", 143_667_240 - 123_642_856),
        ("vgg19_bn", 143_678_248 - 123_642_856),
        ("googlenet", 6_624_904 - 1_025_000),
        ("inception_v4", 42_679_816 - 1_537_000),
        ("inception_resnet_v1", 22_564_096),
        ("resnet18", 11_689_512 - 513_000),
        ("resnet18:small", 11_176_512 - 64 * 3 * (49 - 9)),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet50:small", 23_508_032 - 64 * 3 * (49 - 9)),
        ("resnet101", 44_549_160 - 2_049_000),
    ],
)
def test_as_many_parameters_as_published(name: str, parameters: int) -> None:
    assert count(on_meta(name)) == parameters


def test_everyone_is_here() -> None:
    assert set(NAMES) == set(NETS)
    assert all(says and "\n" not in says for says in NAMES.values())


def test_vgg16_with_its_paper_head() -> None:
    with torch.device("meta"):
        head = nn.Sequential(nn.Linear(512 * 49, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000))
    assert map_size(on_meta("vgg16"), 3, (224, 224)) == (7, 7)
    assert count(on_meta("vgg16")) + count(head) == 138_357_544


@pytest.mark.parametrize("in_channels", slow_but([1, 3, 5], 1))
@pytest.mark.parametrize("name", NAMES)
def test_every_net_keeps_its_word(name: str, in_channels: int) -> None:
    features = on_meta(name, in_channels)
    assert features.in_channels == in_channels
    side = 8 * features.stride
    maps = features(torch.empty(2, in_channels, side, 2 * side, device="meta"))
    cells = {"nin:imagenet": 7, "inception_v4": 6, "inception_resnet_v1": 6}.get(name, 8)  # unpadded convolutions
    assert maps.shape == (2, features.channels, cells, cells + 8)
    assert map_size(features, in_channels, (side, 2 * side)) == (cells, cells + 8)
    wider = map_size(features, in_channels, (side, side + 5 * features.stride))
    assert wider == (cells, cells + 5)


@pytest.mark.parametrize("name", NAMES)
def test_smallest_is_the_smallest(name: str) -> None:
    features = on_meta(name)
    h, w = map_size(features, 3, (features.smallest, features.smallest))
    assert min(h, w) == 1
    if features.smallest > 1:
        too_small = (features.smallest - 1, features.smallest + 40)
        with pytest.raises(ValueError, match=f"at least {features.smallest} px a side and got {too_small[0]}×"):
            map_size(features, 3, too_small)
        # The number is a fact about the layers, not only our own check's: without the check they refuse too.
        features.smallest = 1
        with pytest.raises((ValueError, RuntimeError), match=r"fit|too small|Kernel size can't be greater"):
            map_size(features, 3, too_small)


@pytest.mark.parametrize("name", NAMES)
def test_trains_at_its_smallest(name: str) -> None:
    """torchvision's Inception trains only from 299 px.

    Eight images: the last maps are 1×1, and batch norm over two values gives ±1 whatever they are, with a gradient
    that grows up to 300-fold where the two are nearly equal. Through the layers of resnet101 that is 1e30 to 1e42 in
    float64, on every processor; whether float32 holds it is a matter of rounding. With eight it is at most 1e6.
    """
    torch.manual_seed(0)
    features = build(name, in_channels=1)
    maps = features(torch.randn(8, 1, features.smallest, features.smallest))
    assert maps.shape == (8, features.channels, 1, 1)
    maps.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in features.parameters())
    assert not any("batches" in k and v != 1 for k, v in features.named_buffers())


@pytest.mark.parametrize(("side", "cells"), [(32, 8), (28, 7), (16, 4)])
def test_nin_on_small_images(side: int, cells: int) -> None:
    assert map_size(on_meta("nin"), 3, (side, side)) == (cells, cells)


@pytest.mark.parametrize("name", ["nin", "nin:paper", "resnet18", "googlenet"])
def test_forward_and_backward_in_both_memory_formats(name: str) -> None:
    torch.manual_seed(0)
    # In float64: in float32 a ReLU may open at a rounding error, in one format alone.
    features = build(name, in_channels=1).double().eval()  # dropout off, so that both runs are the same function
    x = torch.randn(2, 1, 33, 47).double()
    got = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        features.to(memory_format=memory_format).zero_grad()
        maps = features(x.to(memory_format=memory_format))
        assert maps.is_contiguous(memory_format=memory_format)
        maps.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in features.parameters())
        got.append((maps.detach(), next(features.parameters()).grad))
    assert got[0][0].std() > 0
    torch.testing.assert_close(got[0], got[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_map_size_touches_nothing(name: str) -> None:
    features = build(name)
    before = {k: v.clone() for k, v in features.state_dict().items()}
    assert map_size(features, 3, (4000, 8000)) == (4000 // features.stride, 8000 // features.stride)
    assert all(torch.equal(before[k], v) for k, v in features.state_dict().items())
    assert features.training


def test_signal_neither_dies_nor_explodes_without_batch_norm() -> None:
    """What the initialisation is for: sixteen layers of random weights keep the size of what passes through."""
    torch.manual_seed(0)
    for name in ("nin:paper", "nin:imagenet", "vgg16", "vgg19"):
        maps = build(name).eval()(torch.randn(2, 3, 64, 64))
        assert 0.02 < maps.std() < 50, name
    for name in ("googlenet", "inception_v4", "inception_resnet_v1"):
        maps = build(name).train()(torch.randn(4, 3, 107, 107))
        assert 0.02 < maps.std() < 50, name


def test_pools_are_gapstones_and_equal_torchs() -> None:
    """Identical output and gradient, so nothing is lost by the network's pools being gapstone's own."""
    features = build("nin")
    assert isinstance(features, Nin)
    for side in (1, 7, 16, 33):
        x = torch.randn(2, 4, side, side + 1).relu()  # ties at 0 included
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        a, b = features.pool1(ours), nn.functional.max_pool2d(theirs, 3, 2, 1)
        assert torch.equal(a, b)
        gradient = torch.randn_like(a)
        torch.autograd.backward([a, b], [gradient, gradient])
        torch.testing.assert_close(ours.grad, theirs.grad)  # positions met twice are added in another order


def test_paper_nin_averages_only_what_is_inside() -> None:
    features = build("nin:paper")
    assert isinstance(features, NinPaper)
    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(features.pool2(ones), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("name", ["nin", "nin:paper", "vgg11", "googlenet"])
def test_drawn_from_torchs_generator(name: str) -> None:
    torch.manual_seed(3)
    a = build(name).state_dict()
    torch.manual_seed(3)
    b = build(name).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


# The sum of the absolute weights that seed 0 draws, in float64: comparisons kept from before repeat only if these stay.
@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("nin", 2280.635152001073),
        ("nin:paper", 34341.53378464959),
        ("vgg11", 160616.7160230528),
        ("vgg16_bn", 263763.23582895077),
        ("resnet18", 224548.6068603595),
        ("resnet18:small", 224423.99346407308),
        ("resnet50", 741953.3165009895),
    ],
)
def test_a_seed_draws_the_weights_it_always_drew(name: str, drawn: float) -> None:
    torch.manual_seed(0)
    total = sum(float(p.detach().double().abs().sum()) for p in build(name).parameters())
    assert total == pytest.approx(drawn, rel=1e-9)


def test_small_stem_sees_small_images() -> None:
    assert map_size(on_meta("resnet18"), 3, (32, 32)) == (1, 1)
    assert map_size(on_meta("resnet18:small"), 3, (32, 32)) == (4, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"there is no network 'resnet81'; did you mean resnet18"),
        ("vgg", "did you mean vgg19 or vgg16"),
        ("ResNet18", "did you mean resnet18"),
        ("", "there are nin, nin:paper"),
    ],
)
def test_an_unknown_name_gets_close_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name)


def test_own_networks_have_no_weights_to_download() -> None:
    with pytest.raises(ValueError, match=r"random weights; timm:resnet50 has weights"):
        build("resnet50:small", pretrained=True)
    with pytest.raises(ValueError, match="at least one"):
        build("nin", in_channels=0)


def test_wrong_images_are_refused_in_words() -> None:
    features = build("nin", in_channels=3)
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\) and got \(2, 1, 8, 8\)"):
        features(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\)"):
        features(torch.rand(3, 8, 8))
