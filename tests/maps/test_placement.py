"""Cells lie where their receptive fields have their centres: a bright pixel's map peaks at that pixel."""

import numpy as np
import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.nets import build
from gapstone.tracing.locate_head import locate_features
from gapstone.tracing.placement import Placement
from tests.marks import slow_but


class Answer(nn.Module):
    """Features and the mean of all their channels as the one of two logits."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.fc = features, nn.Linear(channels, 2)
        nn.init.ones_(self.fc.weight)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


def smooth(model: nn.Module) -> nn.Module:
    """Every convolution the mean of its window: what reaches a cell is its receptive field's own shape, a bell."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.eval()


def googlenet() -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    whole = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False)
    whole.fc = nn.Linear(1024, 2)
    nn.init.ones_(whole.fc.weight)
    return whole


NETS = {
    "resnet18": lambda: Answer(build("resnet18"), 512),
    "vgg11": lambda: Answer(build("vgg11"), 512),
    "nin": lambda: Answer(build("nin"), 64),
    "nin:paper": lambda: Answer(build("nin:paper"), 192),
    "resnet18:small": lambda: Answer(build("resnet18:small"), 512),
    "googlenet": googlenet,
}


@pytest.mark.parametrize("name", slow_but(NETS, "nin", "resnet18:small"))
def test_a_bright_pixel_peaks_at_that_pixel(name):
    model = smooth(NETS[name]())
    stride = gs.explain(model, torch.zeros(1, 3, 64, 64)).placement.stride[0]
    side = int(stride) * 13 + 5  # room enough that padding is far
    middle = side // 2
    spots = range(middle - int(stride) // 2, middle + int(stride) // 2 + 1, max(1, int(stride) // 8))
    dark = torch.zeros(1, 3, side, side)
    nothing = gs.explain(model, dark, [0])
    assert nothing.placement.exact
    off, peaks = [], []
    for spot in spots:
        images = dark.clone()
        images[0, :, spot, middle] = 1000.0
        lit = gs.explain(model, images, [0])
        rows = (lit.maps - nothing.maps)[0, 0].sum(1).double().numpy()
        centres = lit.placement.centres(len(rows), axis=0)
        peaks.append(abs(centres[rows.argmax()] - spot))
        off.append((rows * centres).sum() / rows.sum() - spot)
    assert max(peaks) <= stride / 2 + 1e-9
    # and the middle of it all is the pixel: "equal shares" would be off by 15 px in resnet18
    assert abs(np.mean(off)) < stride / 16 + 0.5


KNOWN = {
    "resnet18": (32.0, 0.0),
    "vgg11": (32.0, 15.5),
    "nin": (4.0, 0.0),
    "nin:paper": (4.0, 3.0),
    "timm:convnext_atto": (32.0, 15.5),
    "timm:resnet50d": (32.0, 7.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_by_hand(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    placement = Placement.of(locate_features(build(name).eval(), torch.zeros(1, 3, 96, 128))[1])
    stride, start = KNOWN[name]
    assert placement.stride == (stride, stride)
    assert placement.start == (start, start)
    assert placement.exact
    assert placement.seen == ((0, 96), (0, 128))


F = nn.functional
THREE = torch.ones(1, 1, 3, 3)
CALLS = {
    "a dilated convolution": (lambda x: F.conv2d(x, THREE, stride=2, dilation=4), 2, 4),
    "padding same": (lambda x: F.conv2d(x, torch.ones(1, 1, 4, 4), padding="same"), 1, 0.5),
    "padded by hand": (lambda x: F.conv2d(F.pad(x, (1, 2, 3, 4)), THREE), 1, -2),
    "a slice": (lambda x: x[:, :, 3::2, 3::2], 2, 3),
    "from behind": (lambda x: x[..., 5:, :][..., 5:], 1, 5),
    "twice as large": (lambda x: F.interpolate(x, scale_factor=2), 0.5, -0.25),
    "channels last": (lambda x: x.permute(0, 2, 3, 1)[:, ::2, ::2].permute(0, 3, 1, 2), 2, 0),
    "unshuffled": (lambda x: F.pixel_unshuffle(x, 4), 4, 1.5),
    "a transposed convolution": (lambda x: F.conv_transpose2d(x, torch.ones(1, 1, 2, 2), stride=2), 0.5, -0.25),
    "a max pool, dilated": (lambda x: F.max_pool2d(x, 3, 2, 1, 2), 2, 1),
    "gapstone's pool": (lambda x: gs.pool(x, "max", over=gs.Window(3, 2, 1)), 2, 0),
    "shuffled channels": (lambda x: x.view(1, 1, 1, 24, 24).transpose(1, 2).reshape(1, 1, 24, 24), 1, 0),
    "two branches": (lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1), 2, 0.5),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", CALLS)
def test_every_rule(name):
    call, stride, start = CALLS[name]

    class Features(nn.Module):
        def forward(self, x):
            return torch.relu(call(x))

    y, found = locate_features(Features(), torch.rand(1, 1, 24, 24))
    placement = Placement.of(found)
    assert placement.exact
    assert placement.stride == (stride, stride)
    # the rows' start; padding by hand is not the same on all sides
    assert placement.start[1 if name != "padded by hand" else 0] == start
    assert y.dim() == 4


LOST = {
    "unfolded": lambda x: nn.functional.unfold(x, 4, stride=4).view(1, 16, 6, 6),
    "a strange reshape": lambda x: x.reshape(1, 16, 6, 6),
    "mirrored": lambda x: x.flip(3),
    "rolled": lambda x: torch.roll(x, 3, 3),
    "turned": lambda x: torch.rot90(x, 1, (2, 3)),
    "transposed": lambda x: x.mT,
    "sampled": lambda x: F.grid_sample(x, torch.rand(1, 24, 24, 2), align_corners=False),
    "branches that disagree": lambda x: x[..., :20, :20] + x[..., 4:, 4:],
}


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_followed_is_not_called_exact(name):
    class Features(nn.Module):
        def forward(self, x):
            return torch.relu(LOST[name](x))

    y, found = locate_features(Features(), torch.rand(1, 1, 24, 24))
    placement = Placement.of(found)
    assert not placement.exact
    assert placement == Placement.even(y.shape[2:], (24, 24))


def test_in_a_larger_picture():
    small = Placement((32.0, 32.0), (0.0, 0.0), ((0, 224), (0, 224)), exact=True)
    large = small.within((100, 50), (4.0, 2.0))
    assert large.stride == (128.0, 64.0)
    assert large.start == (101.5, 50.5)  # pixel 0's middle, half a pixel in: 100 + 0.5 · 4 − 0.5
    assert large.seen == ((100, 996), (50, 498))
    edges = large.edges(7, axis=0)
    assert edges[0] == 100
    assert edges[-1] == 996
    assert edges[1] == 101.5 + 64 + 0.5


def test_gapstone_preprocessing_says_what_was_seen():
    from gapstone.images.preprocessing import Preprocessing

    p = Preprocessing(3, (224, 224), (256, 256), (0.5,) * 3, (0.25,) * 3)
    assert p.seen(1024, 2048) == ((4.0, 4.0), (64.0, 576.0))
    # against the pixels themselves: a lit column of the picture is where `seen` says
    picture = np.zeros((512, 768, 3), np.uint8)
    picture[:, 384:388] = 255
    kept = p.centre(p.fit(picture)[None])[0, 112, :, 0].astype(float)
    (_, scale), (_, left) = p.seen(512, 768)
    middle = (kept * (np.arange(224) + 0.5)).sum() / kept.sum()
    assert left + middle * scale == pytest.approx(386.0, abs=0.1)
