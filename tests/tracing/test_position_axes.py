"""A named place is read as the map that is found by itself would be: channels first, channels last, tokens."""

import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.tape import SplitError

CLASSES = 3


def images(high: int = 32, wide: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, high, wide)


class Last(nn.Module):
    """Channels last, and a roll and a window after which nobody follows positions any more."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 8, 8)
        self.body = nn.Sequential(nn.LayerNorm(channels), Rolled(), nn.Linear(channels, channels), nn.GELU())
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x):
        return self.fc(self.body(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


class Rolled(nn.Module):
    def forward(self, x):
        n, h, w, c = x.shape
        x = torch.roll(x, (1, 1), (1, 2)).view(n, h, 1, w, 1, c).transpose(2, 3).reshape(n, h * w, c)
        return x.reshape(n, h, w, c)


def swin_of_torchvision() -> nn.Module:
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    return swin.SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4], num_classes=CLASSES)


def swin_of_timm() -> nn.Module:
    timm = pytest.importorskip("timm.models.swin_transformer")
    return timm.SwinTransformer(32, 4, 3, CLASSES, "avg", 8, (1, 1), (1, 1), window_size=4)


def vit(**options: object) -> nn.Module:
    timm = pytest.importorskip("timm.models.vision_transformer")
    return timm.VisionTransformer(32, 8, 3, CLASSES, embed_dim=16, depth=3, num_heads=2, **options)


PLACES = [
    (Last, "body", (4, 6), 12, (32, 48)),
    (Last, "body.1", (4, 6), 12, (32, 48)),
    (Last, "patches", (4, 6), 12, (32, 48)),
    (Last, "body", (4, 4), 12, (32, 32)),
    (swin_of_torchvision, "features", (4, 6), 16, (32, 48)),
    (swin_of_torchvision, "features.1", (8, 12), 8, (32, 48)),
    (swin_of_torchvision, "norm", (4, 4), 16, (32, 32)),
    (swin_of_torchvision, "permute", (4, 4), 16, (32, 32)),
    (swin_of_timm, "layers", (4, 4), 16, (32, 32)),
    (swin_of_timm, "layers.0", (8, 8), 8, (32, 32)),
    (swin_of_timm, "norm", (4, 4), 16, (32, 32)),
    (vit, "blocks.1", (4, 4), 16, (32, 32)),
]


@pytest.mark.parametrize(("make", "at", "cells", "channels", "size"), PLACES)
def test_a_named_map_has_its_positions_where_they_are(make, at, cells, channels, size):
    model, x = make().eval(), images(*size)
    explained = gs.explain(model, x, at=at)
    assert explained.maps.shape == (2, CLASSES, *cells)
    tail, _ = locate_head(model, x, at)
    assert tail.map.shape[1] == channels
    swapped = gs.swapped(gs.swap_head(model, "gap", 4, at=at, images=x))
    assert (swapped.channels, swapped.cells) == (channels, cells)


@pytest.mark.parametrize(
    ("make", "at"),
    [(Last, "body.3"), (swin_of_torchvision, "permute"), (swin_of_timm, "norm"), (vit, "norm")],
)
def test_named_and_found_are_the_same(make, at):
    model = make(class_token=False, global_pool="avg", fc_norm=True) if make is vit else make()
    x = images()
    found, named = gs.explain(model.eval(), x), gs.explain(model, x, at=at)
    torch.testing.assert_close(named.maps, found.maps, rtol=1e-4, atol=1e-6)
    assert named.additive
    assert named.completeness.max() < 3e-6


def test_a_norm_between_the_named_map_and_the_pool_is_held():
    explained = gs.explain(swin_of_torchvision().eval(), images(), at="features")
    assert explained.additive
    assert explained.held == ("the norm's standard deviation",)
    assert explained.completeness.max() < 3e-6


def test_a_class_token_belongs_to_no_position():
    model = vit().eval()
    x = images()
    explained = gs.explain(model, x, at="blocks.1")
    assert explained.additive  # with what it brings in the bias
    assert explained.bias.shape == (2, CLASSES)
    torch.testing.assert_close(explained.maps, gs.explain(model, x).maps)
    with pytest.raises(SplitError, match=r"class token.*name an earlier module"):
        gs.explain(model, images(), at="norm")


def test_a_light_in_one_patch_is_found_in_its_cell():
    """Not turned about its diagonal, nor by the tokens before it."""
    torch.manual_seed(0)
    model = vit(class_token=False, global_pool="avg").eval()
    for block in model.blocks:
        nn.init.zeros_(block.attn.proj.weight)  # each token by itself
    dark = torch.zeros(1, 3, 32, 32)
    light = dark.clone()
    light[..., 8:16, 24:32] = 5.0
    there, away = (gs.explain(model, x, at="blocks.1").maps for x in (light, dark))
    changed = (there - away).abs().sum((0, 1))
    assert changed.argmax() == 1 * 4 + 3


class Odd(nn.Module):
    """Two dimensions that are no grid of the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(32, 5), nn.Linear(3 * 5, CLASSES)

    def forward(self, x):
        return self.fc(self.inner(x.mean(2)).flatten(1))


def test_what_is_no_grid_is_refused():
    with pytest.raises(SplitError, match="which of that are positions"):
        gs.explain(Odd().eval(), images(), at="inner")


@pytest.mark.parametrize(
    ("turn", "cells"),
    [
        (lambda x: x.permute(0, 2, 3, 1).flip(1), (4, 6)),
        (lambda x: torch.movedim(x, 1, -1), (4, 6)),
        (lambda x: x.transpose(1, 2).transpose(2, 3).roll(1, 1), (4, 6)),
        (lambda x: x.flatten(2).transpose(1, 2).reshape(2, 4, 6, 12).roll(1, 2), (4, 6)),
        (lambda x: (x.permute(0, 2, 3, 1).flip(1) @ torch.eye(12)).sigmoid(), (4, 6)),
        (lambda x: x.flatten(2).mT, (4, 6)),  # tokens
        (lambda x: torch.einsum("nchw,dc->nhwd", x, torch.eye(12)), (4, 6)),  # by its proportions
        (lambda x: x.flip(2), (4, 6)),
    ],
)
def test_channels_are_followed_where_positions_are_not(turn, cells):
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.turn = nn.Conv2d(3, 12, 8, 8), Turn()
            self.fc = nn.Linear(12, CLASSES)

        def forward(self, x):
            x = self.turn(self.patches(x))
            axes = [axis for axis in range(1, x.dim()) if x.shape[axis] != 12]
            return self.fc(x.mean(axes))

    class Turn(nn.Module):
        def forward(self, x):
            return turn(x)

    explained = gs.explain(Turned().eval(), images(32, 48), at="turn")
    assert explained.maps.shape == (2, CLASSES, *cells)
    assert explained.completeness.max() < 3e-6
