"""The same numbers as torchvision's and timm's networks, with the same weights: in eval, in training, and gradients."""

import pytest
import torch
from torch import nn

from gapstone.nets import build
from gapstone.nets.googlenet import Auxiliary, GoogLeNet
from tests.nets.filled import error, filled

VGG = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
RESNET = [f"resnet{depth}" for depth in (18, 34, 50, 101)]
HEADS = ("fc.", "classifier.", "last_linear.", "aux1.", "aux2.")


def of_torchvision(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models", reason="needs torchvision: pip install 'gapstone[zoo]'")
    given = {"init_weights": False} if name.startswith(("vgg", "google")) else {}
    with torch.device("meta"):
        model = getattr(models, name)(**given)
    if name.startswith("vgg"):
        model.classifier = nn.Identity()  # 120 million numbers that are not looked at
    return filled(model)


def trunk(model: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    if name.startswith("vgg"):
        return model.features(x)
    seen = []
    last = model.layer4 if name.startswith("resnet") else model.inception5b
    handle = last.register_forward_hook(lambda _m, _a, maps: seen.append(maps))
    model(x)
    handle.remove()
    return seen[0]


def with_weights_of(model: nn.Module, name: str) -> nn.Module:
    with torch.device("meta"):
        ours = build(name)
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith(HEADS)}
    assert set(ours.state_dict()) == set(state)
    ours.load_state_dict(state, assign=True)
    return ours.eval()


@pytest.mark.parametrize("name", [*VGG, *RESNET, "googlenet"])
def test_features_are_torchvisions(name: str) -> None:
    theirs = of_torchvision(name)
    ours = with_weights_of(theirs, name)
    # Of GoogLeNet: windows of all four pools between the blocks hang over the edge, along one axis or the other.
    size = (81, 88) if name == "googlenet" else (41, 64)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = trunk(theirs, name, x)
        assert expected.std() > 0.01
        assert error(ours(x), expected) < 1e-5


@pytest.mark.parametrize("name", ["vgg13_bn", "resnet34", "googlenet"])
def test_training_is_torchvisions(name: str) -> None:
    """The maps with a batch's own statistics, the statistics kept from it, and every gradient."""
    theirs = of_torchvision(name).train()
    ours = with_weights_of(theirs, name).train()
    x = torch.randn(4, 3, 64, 72, generator=torch.Generator().manual_seed(1))
    if name == "googlenet":
        theirs.aux1 = theirs.aux2 = None
    maps = [ours(x), trunk(theirs, name, x)]
    assert error(maps[0], maps[1]) < 1e-5
    weights = torch.randn(maps[0].shape, generator=torch.Generator().manual_seed(2))
    for one in maps:
        (one * weights).sum().backward()
    named = dict(theirs.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in named.values() if p.grad is not None)
    for key, parameter in ours.named_parameters():
        assert float((parameter.grad - named[key].grad).abs().max()) < 1e-4 * largest, key
    for key, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, theirs.state_dict()[key], rtol=1e-5, atol=1e-6)


def test_auxiliary_heads_are_torchvisions() -> None:
    theirs = of_torchvision("googlenet")
    ours = with_weights_of(theirs, "googlenet")
    assert isinstance(ours, GoogLeNet)
    x = torch.randn(2, 3, 96, 130)
    early, late, _ = ours.on_the_way(x)
    for name, maps in (("aux1", early), ("aux2", late)):
        module = getattr(theirs, name)
        twin = Auxiliary(maps.shape[1], classes=1000)
        twin.load_state_dict(module.state_dict())
        assert error(twin.eval()(maps), module(maps)) < 1e-5


def test_googlenet_trains_with_its_auxiliary_heads() -> None:
    """As the page says: one pass, three losses; each of them reaches what lies before it."""
    torch.manual_seed(0)
    features = GoogLeNet()
    heads = nn.ModuleList([Auxiliary(512, 10), Auxiliary(528, 10)])
    early, late, maps = features.on_the_way(torch.randn(2, 3, 64, 64))
    y = torch.tensor([3, 7])
    loss = sum(nn.functional.cross_entropy(head(m), y) for head, m in zip(heads, (early, late), strict=True))
    loss.backward()
    assert all(p.grad is not None for p in heads.parameters())
    assert features.inception4d.branch1.conv.weight.grad.abs().max() > 0
    assert features.inception4e.branch1.conv.weight.grad is None  # beyond both
    assert maps.shape == (2, 1024, 2, 2)
    assert not any(isinstance(module, Auxiliary) for module in features.modules())


def test_inception_v4_is_timms() -> None:
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")
    with torch.device("meta"):
        theirs = timm.create_model("inception_v4")
    theirs = filled(theirs)
    ours = with_weights_of(theirs, "inception_v4")
    x = torch.randn(2, 3, 79, 107, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.forward_features(x)
        assert expected.std() > 0.01
        assert error(ours(x), expected) < 1e-5


def test_inception_resnet_v1_has_the_names_and_the_size_of_its_checkpoints() -> None:
    """facenet-pytorch (MIT) says 27,910,327 parameters with its 8,631 faces; and how its modules are called."""
    with torch.device("meta"):
        features = build("inception_resnet_v1")
    embedding = 1792 * 512 + 2 * 512 + 512 * 8631 + 8631
    assert sum(p.numel() for p in features.parameters()) + embedding == 27_910_327
    names = set(features.state_dict())
    for name in (
        "conv2d_4b.bn.running_var",
        "repeat_1.4.branch2.2.conv.weight",
        "repeat_1.0.conv2d.bias",
        "mixed_6a.branch1.2.bn.weight",
        "repeat_2.9.branch1.2.conv.weight",
        "mixed_7a.branch0.1.conv.weight",
        "repeat_3.4.branch1.1.conv.weight",
        "block8.conv2d.weight",
    ):
        assert name in names


def test_residual_blocks_scale_what_they_add() -> None:
    """facenet-pytorch's factors: 0.17, 0.1, 0.2, and 1 without a ReLU at the end."""
    torch.manual_seed(0)
    features = build("inception_resnet_v1").eval()
    for block, channels, scale in (
        (features.repeat_1[0], 256, 0.17),
        (features.repeat_2[9], 896, 0.1),
        (features.repeat_3[4], 1792, 0.2),
        (features.block8, 1792, 1.0),
    ):
        with torch.no_grad():
            block.conv2d.weight.zero_()
            block.conv2d.bias.fill_(1.0)
            x = torch.rand(1, channels, 3, 3)
            torch.testing.assert_close(block(x), x + scale)
            assert bool((block(x - 9) >= 0).all()) == (block is not features.block8)
