"""Cut before its last stage and run from there, every network gives the maps it gives whole."""

import pytest
import torch
from torch import nn

from gapstone.nets import NAMES, build
from gapstone.nets.last_stage import last_stage

OWN = {
    "nin": "block3",
    "nin:paper": "block3",
    "nin:imagenet": "block4",
    "vgg11": "features.16",
    "vgg11_bn": "features.22",
    "vgg13": "features.20",
    "vgg13_bn": "features.28",
    "vgg16": "features.24",
    "vgg16_bn": "features.34",
    "vgg19": "features.28",
    "vgg19_bn": "features.40",
    "googlenet": "inception5a",
    "inception_v4": "features.18",
    "inception_resnet_v1": "mixed_7a",
    **{name: "layer4" for name in NAMES if name.startswith("resnet")},
}


def watched(features: nn.Module, path: str, x: torch.Tensor) -> torch.Tensor:
    """What the module at `path` is given, seen from outside."""
    seen = []
    handle = features.get_submodule(path).register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    features(x)
    handle.remove()
    assert len(seen) == 1
    return seen[0]


def check(features: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        maps = features(x)
        between = features.before_last(x)
        torch.testing.assert_close(between, watched(features, features.last_block, x), rtol=0, atol=0)
        kept = between.clone()
        size = (x.shape[2], x.shape[3])
        assert torch.equal(features.last(between, size), maps)
        assert torch.equal(between, kept), "what was kept is changed by what runs on it"
        # What comes out is due to what went in, not to something remembered.
        assert not torch.equal(features.last(between[:1].flip(-1), size), maps[:1])
        assert torch.equal(features.last(between[:1], size)[0], features.last(between, size)[0]) or len(maps) == 1


def test_everyone_is_here() -> None:
    assert set(OWN) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_from_before_the_last_stage_on(name: str) -> None:
    torch.manual_seed(0)
    features = build(name, in_channels=1).eval()
    assert features.last_block == OWN[name] == features.last_stage[0]
    side = max(features.smallest, 2 * min(features.stride, 16))
    check(features, torch.randn(1, 1, side + 32, side + 39))


@pytest.mark.parametrize("name", NAMES)
def test_the_last_stage_is_a_part(name: str) -> None:
    """It holds weights, fewer than the network; a gradient that ends at `before_last` reaches these and no others."""
    with torch.device("meta"):
        features = build(name)
    mine = {id(p) for module in features.last_modules() for p in module.parameters()}
    everything = list(features.parameters())
    assert 0 < len(mine) < len(everything)
    side = features.smallest + 64
    with torch.no_grad():
        between = features.before_last(torch.empty(2, 3, side, side, device="meta"))
    features.last(between).sum().backward()
    assert {id(p) for p in everything if p.grad is not None} == mine


def test_nothing_runs_after_the_cut_and_no_hook_stays() -> None:
    features = build("resnet18").eval()
    ran = []
    features.layer4.register_forward_hook(lambda *_: ran.append("layer4"))
    between = features.before_last(torch.randn(1, 3, 64, 64))
    assert between.shape == (1, 256, 4, 4)
    assert ran == []
    assert len(features.layer4._forward_pre_hooks) == 0
    features(torch.randn(1, 3, 64, 64))
    assert ran == ["layer4"]


def test_what_a_network_refuses_is_refused_here_too() -> None:
    with pytest.raises(ValueError, match="at least 32 px a side"):
        build("vgg11").before_last(torch.randn(1, 3, 31, 64))


def test_gradients_pass_through_the_cut() -> None:
    torch.manual_seed(0)
    features = build("nin").eval()
    x = torch.randn(2, 3, 16, 16)
    features.last(features.before_last(x)).sum().backward()
    cut = [p.grad.clone() for p in features.parameters()]
    features.zero_grad()
    features(x).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(cut, features.parameters(), strict=True))


# name → last stage
TIMM = {
    "resnet18": ("layer4",),
    "convnext_atto": ("stages.3", "norm_pre"),
    "efficientnet_b0": ("blocks.5", "blocks.6", "conv_head", "bn2"),
    "densenet121": ("features.transition3", "features.denseblock4", "features.norm5"),
    "vgg11": ("features.16", "features.17", "features.18", "features.19", "features.20"),
    "regnety_002": ("s4", "final_conv"),
    "vit_tiny_patch16_224": ("blocks.11", "norm"),  # tokens
    "swin_tiny_patch4_window7_224": ("layers.3", "norm"),  # channels last
    "mambaout_femto": ("stages.3",),
    "inception_v3": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    "dla34": ("level5",),
}


@pytest.mark.parametrize("name", TIMM)
def test_of_timms_networks(name: str) -> None:
    pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")
    torch.manual_seed(0)
    features = build(f"timm:{name}").eval()
    assert features.last_stage == (*(f"net.{path}" for path in TIMM[name]), "as_map")
    h, w = features.fixed or (max(64, features.smallest), max(96, features.smallest))
    check(features, torch.randn(1, 3, h, w))


def test_a_network_that_cannot_be_cut_says_so() -> None:
    pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")
    with torch.device("meta"):
        features = build("timm:hrnet_w18_small")  # four resolutions side by side until the end
    assert features.last_stage == ()
    for ask in (lambda: features.last_block, features.last_modules, lambda: features.last(torch.rand(1))):
        with pytest.raises(ValueError, match=r"no last stage that starts from a single tensor.*head alone"):
            ask()


class Chain(nn.Module):
    """a → b → c, with something between b and c that is no module."""

    def __init__(self, between) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(2, 2, 1) for _ in range(4))
        self.pool, self.between = nn.MaxPool2d(2), between

    def forward(self, x):
        first = self.a(x)
        return self.d(self.c(self.pool(self.between(self.b(first), first))))


@pytest.mark.parametrize(
    ("between", "levels", "found"),
    [
        (lambda y, _: y, ["a", "d"], ("b", "pool", "c", "d")),
        (lambda y, _: y, ["b", "d"], ("c", "d")),  # the pool has no weight: cut after it
        (lambda y, _: y, [], ("d",)),
        (lambda y, _: y.relu(), ["a", "d"], ("d",)),  # not modules alone
        (lambda y, first: y + first, ["a", "d"], ("d",)),  # more than one tensor passes
        (lambda y, _: y, ["a", "nowhere", "d"], ("b", "pool", "c", "d")),
    ],
)
def test_where_a_chain_is_cut(between, levels, found) -> None:
    net = Chain(between)
    assert last_stage(net, lambda: net(torch.rand(1, 2, 4, 4)), levels) == found


def test_no_end_of_modules_alone() -> None:
    net = Chain(lambda y, _: y)
    assert last_stage(net, lambda: net(torch.rand(1, 2, 4, 4)).relu(), ["a"]) == ()
