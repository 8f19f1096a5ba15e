"""Images of different sizes in one batch: each answer is that of the image alone, whatever network, head and sizes."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gapstone as gs
from gapstone.heads import RECIPES
from gapstone.nets import build
from gapstone.ragged import Unsupported, mixed_sizes, outputs, plan
from tests.marks import slow_but

# seeded; a few of each: equal sizes, one side alike, very long, and the smallest there is
ODD = [(37, 41), (41, 37), (37, 37), (64, 33), (33, 64), (37, 41), (35, 90)]


def images(sizes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(channels, *size, generator=generator, dtype=dtype) for size in sizes]


def weighted(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Statistics unlike the first ones: what batch norm makes of zeros is then not zero."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):  # ConvNeXt begins as almost nothing
            parameter.data.fill_(0.5)
    return model.to(dtype).eval()


@torch.no_grad()
def alone(model: nn.Module, given: list[Tensor]) -> Tensor:
    return torch.cat([model(image[None]) for image in given])


def alike(model: nn.Module, given: list[Tensor], relative: float = 1e-12) -> None:
    found = mixed_sizes(model, given, how="masked")
    assert any(batch.several for batch in plan(model, given, how="masked").batches)
    expected = alone(model, given)
    assert found.dtype == expected.dtype
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())
    # that is no small thing: padded, and nothing kept out, they answer otherwise
    height, width = (max(image.shape[axis] for image in given) for axis in (1, 2))
    wrong = alone(model, [F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in given])
    assert float((wrong - expected).abs().max()) > 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    "name",
    slow_but(["nin", "nin:paper", "vgg11_bn", "resnet18", "resnet18:small", "googlenet"], "nin", "resnet18:small"),
)
def test_networks(name):
    torch.manual_seed(0)
    features = build(name)
    given = [(1, 1), (2, 5), (9, 12), (12, 9), (9, 12), (17, 30)] if features.stride < 32 else [(1, 3), *ODD]
    sizes = [size for size in given if min(size) >= features.smallest]
    alike(weighted(nn.Sequential(features, gs.Head("gap", features.channels, 5))), images(sizes))


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["googlenet", "densenet121", "efficientnet_b0", "convnext_tiny", "shufflenet_v2_x0_5"],
        "shufflenet_v2_x0_5",
        "densenet121",
    ),
)
def test_torchvisions_networks(name):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    more = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    alike(weighted(getattr(models, name)(num_classes=7, **more)), images([(39, 50), (50, 39), (43, 33)]))


# heads of any size that read maps alone; attention's products are refused (`test_attention_goes_size_by_size`)
POOLED = [
    name for name, recipe in RECIPES.items() if recipe.pools not in ((), ("attention",)) and not recipe.class_token
]


@pytest.mark.parametrize("spec", [*POOLED, "fc:grid=3", "gap:8", "gem:p=learned"])
def test_heads(spec):
    torch.manual_seed(0)
    features = build("nin")
    alike(weighted(nn.Sequential(features, gs.Head(spec, features.channels, 5))), images([(1, 1), (3, 9), *ODD]))


def test_attention_goes_size_by_size():
    torch.manual_seed(0)
    features = build("nin")
    head = gs.Head("attention:queries=2", features.channels, 5)
    torch.nn.init.normal_(next(parameter for name, parameter in head.named_parameters() if "quer" in name))
    model, given = nn.Sequential(features, head).double().eval(), images(ODD)
    with pytest.warns(UserWarning, match="padding cannot be kept out of einsum"):
        found = gs.mixed_sizes(model, given)
    with torch.no_grad():
        assert torch.allclose(found, torch.cat([model(image[None]) for image in given]))


def test_float32_is_right_to_rounding():
    torch.manual_seed(0)
    features = build("resnet18")
    model = nn.Sequential(features, gs.Head("catavgmax", features.channels, 5))
    alike(weighted(model, torch.float32), images(ODD, torch.float32), relative=1e-5)
    alike(model, [i.contiguous(memory_format=torch.contiguous_format) for i in images(ODD, torch.float32)], 1e-5)


class Pooling(nn.Module):
    """One pool between two convolutions."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.pool, self.second = nn.Conv2d(3, 4, 3, padding=1), pool, nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.pool(self.first(x))).mean((2, 3))


POOLS = {
    "max, ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max, ceil, padding": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max, stride beyond the window": nn.MaxPool2d(2, 5, ceil_mode=True),
    "max, dilation": nn.MaxPool2d(3, 2, padding=1, dilation=2),
    "average": nn.AvgPool2d(2),
    "average, ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "average, padding counts": nn.AvgPool2d(3, 2, padding=1),
    "average, padding counts, ceil": nn.AvgPool2d((3, 5), (2, 3), padding=(1, 2), ceil_mode=True),
    "average, padding does not count": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "average, all its own": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False, divisor_override=4),
    "adaptive": nn.Sequential(nn.AdaptiveAvgPool2d(5)),
    "adaptive max": nn.Sequential(nn.AdaptiveMaxPool2d((3, 4))),
    "ours, max, ceil": gs.Pool("max", over=gs.Window(3, 2, ceil_mode=True)),
    "ours, max, same": gs.Pool("max", over=gs.Window(3, 2, "same")),
    "ours, mean, padded": gs.Pool("mean", over=gs.Window(3, 2, 1, divisor="padded")),
    "ours, mean, ceil": gs.Pool("mean", over=gs.Window(3, 2, 1, ceil_mode=True)),
    "ours, gem": gs.Pool("gem", over=gs.Window(3, 2, 1)),
    "ours, min": gs.Pool("min", over=gs.Window(3, 2, 1)),
    "ours, softmax, no padding": gs.Pool("softmax", over=gs.Window(2)),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4),
    "strided, dilated": nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2),
    "same": nn.Conv2d(4, 4, (3, 5), padding="same", dilation=(1, 2)),
    "depthwise, unpadded": nn.Conv2d(4, 4, 5, groups=4),
}


@pytest.mark.parametrize("name", POOLS)
def test_layers_between_convolutions(name):
    sizes = [(7, 7), (8, 7), (7, 8), (8, 8), (9, 11), (10, 12), (11, 9), (12, 13), (20, 7), (7, 19)]
    alike(Pooling(POOLS[name]).double(), images(sizes))


def test_sizes_of_all_remainders():
    """Strides, ceil mode and padding together, at every remainder: no last row is lost or won."""
    model = Pooling(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(), nn.AvgPool2d(3, 2, 1))).double()
    alike(model, images([(h, w) for h in range(6, 14) for w in range(6, 14)]))


class Written(nn.Module):
    """A head that somebody wrote by hand."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.way = nn.Conv2d(3, 6, 3, padding=1), way

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = torch.sigmoid(F.adaptive_avg_pool2d(x, 1))
        x = F.relu(x * gate, inplace=True)
        ways = {
            "mean": lambda: x.mean((-2, -1)),
            "mean, kept": lambda: x.mean((2, 3), keepdim=True).flatten(1),
            "flat": lambda: x.flatten(2).mean(-1),
            "view": lambda: x.view(len(x), 6, -1).max(2).values,
            "amax": lambda: x.amax(dim=(2, 3)),
            "both": lambda: x.amax((2, 3)) + x.mean((2, 3)),
            "gem": lambda: F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(3), 1).pow(1 / 3).flatten(1),
            "logsumexp": lambda: torch.logsumexp(x, (2, 3)),
            "norm": lambda: x.norm(dim=(2, 3)),
            "functions": lambda: gs.pool(F.max_pool2d(x, 3, 2, 1), ("mean", "max")),
            "pyramid": lambda: gs.pool(x, "max", over=gs.Pyramid((1, 2))).flatten(1),
            "channels last": lambda: F.layer_norm(x.permute(0, 2, 3, 1), (6,)).mean((1, 2)),
        }
        return ways[self.way]()


@pytest.mark.parametrize(
    "way",
    [
        *("mean", "mean, kept", "flat", "view", "amax", "both", "gem", "logsumexp", "norm", "functions", "pyramid"),
        "channels last",
    ],
)
def test_heads_written_by_hand(way):
    alike(Written(way).double(), images(ODD))


class Refusing(nn.Module):
    """What padding cannot be kept out of."""

    def __init__(self, why: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.why = nn.Conv2d(3, 4, 3, padding=1), why

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.why == "interpolate":
            x = F.interpolate(x, scale_factor=2)
        elif self.why == "pad":
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        elif self.why == "scaled_dot_product_attention":
            tokens = x.flatten(2).transpose(1, 2)
            x = F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2)[..., None]
        elif self.why == "add":
            x = x + torch.linspace(0, 1, x.shape[3], dtype=x.dtype)
        elif self.why == "answered differently":
            return x.sum((2, 3)) / (x.shape[2] * x.shape[3])
        return x.mean((2, 3))


@pytest.mark.parametrize(
    "why", ["interpolate", "pad", "scaled_dot_product_attention", "add", "answered differently"]
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name_and_goes_by_size(why):
    model, given = Refusing(why).double(), images(ODD)
    with pytest.raises(Unsupported, match=why):
        mixed_sizes(model, given, how="masked")
    with pytest.warns(UserWarning, match=f"padding cannot be kept out of .*{why}"):
        found = mixed_sizes(model, given)
    torch.testing.assert_close(found, alone(model, given), rtol=1e-12, atol=1e-12)
    chosen = plan(model, given)
    assert chosen.refused
    assert [batch.images for batch in chosen.batches if len(batch.images) > 1] == [(0, 5)]
    assert not any(batch.several for batch in chosen.batches)
    assert mixed_sizes(model, given, how="buckets").shape == (7, 4)


def test_padding_that_is_no_number_is_asked_again():
    class Dividing(nn.Module):
        by = 1.0

        def forward(self, x: Tensor) -> Tensor:
            x = x / (x + self.by)
            return F.avg_pool2d(x, 3, 1, 1).mean((2, 3))

    model, given = Dividing(), [image.abs() + 1 for image in images(ODD)]
    assert not plan(model, given).refused
    model.by = 0.0  # 0 / 0 beyond the images
    torch.testing.assert_close(mixed_sizes(model, given, how="masked"), alone(model, given))


def test_maps_come_in_their_own_sizes():
    torch.manual_seed(0)
    features, given = weighted(build("nin")), images(ODD)
    found = dict(outputs(features, given, how="masked"))
    assert sorted(found) == list(range(len(ODD)))
    with torch.no_grad():
        for number, image in enumerate(given):
            torch.testing.assert_close(found[number], features(image[None])[0], rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="add a pool"):
        mixed_sizes(features, given)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.9), gs.Pool("mean"))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = images(ODD, torch.float32)
    copies = [image.clone() for image in given]
    first, second = mixed_sizes(model, given), mixed_sizes(model, given)
    assert torch.equal(first, second)  # no dropout
    assert model.training
    assert not model[1].training
    assert not first.requires_grad
    for name, tensor in model.state_dict().items():
        assert torch.equal(before[name], tensor)
    for image, copy in zip(given, copies, strict=True):
        assert torch.equal(image, copy)
    with torch.inference_mode():
        assert torch.equal(mixed_sizes(model, given), first)


def test_what_it_cannot_take_is_said():
    model = nn.Sequential(build("vgg11"), gs.Head("gap", 512, 3))
    with pytest.raises(ValueError, match="needs at least 32 px"):
        mixed_sizes(model, images([(20, 20), (40, 40)], torch.float32))
    fixed = nn.Sequential(build("nin"), gs.Head("fc", 64, 3, size=(8, 8)))
    with pytest.raises(ValueError, match="was made for 8×8 feature maps and got 10×10"):
        mixed_sizes(fixed, images([(32, 32), (40, 40)], torch.float32), how="buckets")
    with pytest.raises(ValueError, match="as many channels"):
        mixed_sizes(model, [torch.rand(3, 40, 40), torch.rand(1, 40, 40)])
    with pytest.raises(ValueError, match='"auto", "masked" or "buckets"'):
        mixed_sizes(model, images([(40, 40)]), how="best")
    assert mixed_sizes(model, []).numel() == 0


def test_sizes_at_random():
    rng = random.Random(0)
    torch.manual_seed(0)
    features = build("nin:paper")
    model = weighted(nn.Sequential(features, gs.Head("avgmax", features.channels, 4)))
    alike(model, images([(rng.randint(4, 40), rng.randint(4, 40)) for _ in range(12)]))


def test_one_and_three_dimensions():
    torch.manual_seed(0)
    line = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.MaxPool1d(3, 2, 1), nn.Conv1d(4, 4, 3, padding=1), gs.Pool("max")
    )
    given = [torch.randn(2, n, dtype=torch.float64) for n in (9, 12, 17, 12)]
    torch.testing.assert_close(mixed_sizes(line.double(), given, how="masked"), alone(line, given))
    solid = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.AvgPool3d(2, ceil_mode=True), nn.Conv3d(3, 2, 3, padding=1))
    model = nn.Sequential(solid, gs.Pool("mean")).double()
    given = [torch.randn(1, *s, dtype=torch.float64) for s in ((4, 5, 6), (7, 4, 5), (5, 5, 5))]
    torch.testing.assert_close(mixed_sizes(model, given, how="masked"), alone(model, given))
