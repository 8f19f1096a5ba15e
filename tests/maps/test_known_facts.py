"""Numbers that other projects' tests and closed formulas give for class activation maps.

Numbers are from the public tests of captum (pytorch/captum: tests/attr/layer/test_grad_cam.py,
test_layer_gradient_x_activation.py and the weights of its small models; BSD-3-Clause) and torch-cam (frgfm/torch-cam:
tests/test_gradcampp_formulas.py, test_methods_gradient.py, test_methods_activation.py; Apache-2.0). Facts alone: the
networks are rebuilt here. captum adds no maps up over channels, so its vectors of units are rows of cells here.
"""

import pytest
import torch
from torch import Tensor, nn

from gapstone.maps.explain import explain


class Units(nn.Module):
    """captum's three linear layers on the last axis of (N, 1, 3): each unit is a cell of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.linear0, self.linear1, self.relu, self.linear2 = (
            nn.Linear(3, 3),
            nn.Linear(3, 4),
            nn.ReLU(),
            nn.Linear(4, 2),
        )
        with torch.no_grad():
            self.linear0.weight.copy_(torch.eye(3))
            self.linear0.bias.zero_()
            self.linear1.weight.fill_(1.0)
            self.linear1.bias.copy_(torch.tensor([-10.0, 1.0, 1.0, 1.0]))
            self.linear2.weight.fill_(1.0)
            self.linear2.bias.copy_(torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.relu(self.linear1(self.linear0(x))).flatten(1))


@pytest.mark.parametrize(
    ("at", "image", "expected"),
    [
        ("linear0", [0.0, 100.0, 0.0], [0.0, 400.0, 0.0]),
        ("linear1", [0.0, 100.0, 0.0], [90.0, 101.0, 101.0, 101.0]),
        ("relu", [3.0, 4.0, 0.0], [0.0, 8.0, 8.0, 8.0]),
    ],
)
def test_captums_gradient_times_activation(at, image, expected):
    explained = explain(Units().eval(), torch.tensor([[image]]), [0], at=at)
    assert explained.maps.tolist() == [[expected]]


def test_captums_units_add_up_to_its_logits():
    # where its units lie in the image a linear layer does not say, so the map is named
    explained = explain(Units().eval(), torch.tensor([[[0.0, 100.0, 0.0]]]), at="relu")
    assert explained.additive
    assert explained.maps.tolist() == [[[90.0, 101.0, 101.0, 101.0]] * 2]
    assert explained.bias.tolist() == [-1.0, 1.0]
    assert explained.logits.tolist() == [[392.0, 394.0]]


class OneConvolution(nn.Module):
    """captum's convolution, under a mean with the weights that captum's flattened head has on average: there
    Grad-CAM, which averages gradients over the map, and gradient × activation are one map."""

    def __init__(self, weight: list[float], relu: bool) -> None:
        super().__init__()
        self.conv1, self.fc1 = nn.Conv2d(1, 2, 3), nn.Linear(2, 1, bias=False)
        self.relu1 = nn.ReLU() if relu else nn.Identity()
        with torch.no_grad():
            self.conv1.weight.fill_(1.0)
            self.conv1.bias.copy_(torch.tensor([-50.0, -75.0]))
            self.fc1.weight.copy_(torch.tensor([weight]) * 4)  # 4 positions

    def forward(self, x: Tensor) -> Tensor:
        return self.fc1(self.relu1(self.conv1(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("weight", "relu", "image", "expected"),
    [
        ([0.75, -0.5], False, torch.arange(16.0), [[11.25, 13.5], [20.25, 22.5]]),
        ([1.0, -0.5], True, torch.arange(16.0), [[0.0, 4.0], [28.0, 32.5]]),
        ([1.0, -0.5], False, torch.arange(16.0) + 1, [[14.5, 19.0], [32.5, 37.0]]),
    ],
)
def test_captums_grad_cam(weight, relu, image, expected):
    explained = explain(OneConvolution(weight, relu).eval(), image.view(1, 1, 4, 4))
    assert explained.additive
    assert explained.maps.tolist() == [[expected]]


class Spatial(nn.Module):
    """torch-cam's classifier with a weight for every position."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Identity()
        coefficients = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 0.0, -1.0, 2.0]], dtype=torch.float64)
        self.register_buffer("coefficients", coefficients.reshape(1, 2, *shape))

    def forward(self, x: Tensor) -> Tensor:
        score = (self.features(x) * self.coefficients).flatten(1).sum(1)
        return torch.stack((score, -score), 1)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 2, 2)])
def test_torchcams_weight_per_position(shape):
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]], dtype=torch.float64).reshape(1, 2, *shape)
    explained = explain(Spatial(shape), x, at="features")
    expected = torch.tensor([1.0 + 4, 4.0 + 0, 9.0 - 2, 16.0 + 2], dtype=torch.float64).reshape(shape)
    assert torch.equal(explained.maps, torch.stack([expected, -expected])[None])
    assert explained.completeness.max() == 0


class UnusedChannel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.ones_(self.features.weight)

    def forward(self, x: Tensor) -> Tensor:
        score = self.features(x)[:, 0].flatten(1).mean(1)
        return torch.stack((score, -score), 1)


def test_torchcams_unused_channel_adds_nothing():
    x = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    explained = explain(UnusedChannel().eval(), x, at="features")
    torch.testing.assert_close(explained.maps[0], torch.stack([x[0, 0], -x[0, 0]]) / 4)
    found = explained.maps[0, 0]
    found = (found - found.min()) / (found.max() - found.min())  # torch-cam's numbers are from 0 to 1
    torch.testing.assert_close(found, torch.tensor([[0.0, 1 / 3], [2 / 3, 1.0]]))


def test_torchcams_contrast_of_classes_is_a_difference_of_maps():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3, False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[3].weight.copy_(torch.tensor([[1.0], [3.0], [-1.0]]))
    maps = explain(model.eval(), torch.ones(1, 1, 2, 2)).maps[0]
    assert maps.tolist() == [[[k / 4] * 2] * 2 for k in (1.0, 3.0, -1.0)]
    assert torch.count_nonzero(maps[0] - maps[[1, 2]].mean(0)) == 0


# ---- closed forms


def backbone(dims: int = 2) -> nn.Sequential:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return nn.Sequential(
        convolution(3, 8, 3, padding=1), nn.ReLU(), convolution(8, 16, 3, stride=2, padding=1), nn.ReLU()
    )


def pictures(dims: int = 2) -> Tensor:
    return torch.randn(2, 3, *(8, 12, 10)[-dims:])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_mean_and_linear(dims):
    """map_k = sum over c of W[k, c] F[c] / positions; Zhou et al., arXiv 1512.04150."""
    torch.manual_seed(0)
    features, pool, linear = (
        backbone(dims),
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        nn.Linear(16, 5),
    )
    model, x = nn.Sequential(features, pool[dims - 1](1), nn.Flatten(), linear).eval(), pictures(dims)
    last = features(x).detach()
    explained = explain(model, x)
    expected = torch.einsum("kc,nc...->nk...", linear.weight.detach(), last) / last[0, 0].numel()
    torch.testing.assert_close(explained.maps, expected)
    assert torch.equal(explained.bias, linear.bias.detach())
    assert explained.additive


def test_maximum_and_linear():
    """All of a channel's part lies where its maximum is (torch-cam has no such map; Oquab et al., CVPR 2015)."""
    torch.manual_seed(0)
    features, linear = backbone(), nn.Linear(16, 5)
    x = pictures()
    explained = explain(nn.Sequential(features, nn.AdaptiveMaxPool2d(1), nn.Flatten(), linear).eval(), x)
    last = features(x).detach()
    expected = torch.zeros(2, 5, last[0, 0].numel())
    for image in range(2):
        for channel in range(16):
            values = last[image, channel].flatten()
            if values.max() > 0:
                expected[image, :, values.argmax()] += linear.weight.detach()[:, channel] * values.max()
    torch.testing.assert_close(explained.maps.flatten(2), expected)
    assert explained.additive


def test_a_map_per_class():
    """NIN and SqueezeNet: the last map of class k over the positions is its part (Lin et al., arXiv 1312.4400)."""
    torch.manual_seed(0)
    features, last = backbone(), nn.Conv2d(16, 5, 1)
    x = pictures()
    for tail in ([], [nn.ReLU(inplace=True)]):  # SqueezeNet has one
        model = nn.Sequential(features, nn.Dropout(0.5), last, *tail, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        explained = explain(model, x)
        maps = last(features(x)).detach()
        maps = maps.relu() if tail else maps
        torch.testing.assert_close(explained.maps, maps / maps[0, 0].numel())
        assert explained.additive
        assert not explained.bias.any()


def test_a_convolution_after_the_mean():
    """torch-cam's `mock_fullyconv_model`: a 1×1 convolution where others have a linear layer."""
    torch.manual_seed(0)
    features, last = backbone(), nn.Conv2d(16, 5, 1)
    x = pictures()
    explained = explain(nn.Sequential(features, nn.AdaptiveAvgPool2d(1), last, nn.Flatten(1)).eval(), x)
    maps = features(x).detach()
    expected = torch.einsum("kc,nchw->nkhw", last.weight.detach()[:, :, 0, 0], maps) / maps[0, 0].numel()
    torch.testing.assert_close(explained.maps, expected)
    torch.testing.assert_close(explained.bias, last.bias.detach())
    assert explained.additive


def test_flattened_weights_stay_where_they_are():
    """map_k(y, x) = sum over c of W[k, (c, y, x)] F[c, y, x]."""
    torch.manual_seed(0)
    features, linear = backbone(), nn.Linear(16 * 6 * 5, 5)
    x = pictures()
    explained = explain(nn.Sequential(features, nn.Flatten(), linear).eval(), x)
    weight = linear.weight.detach().view(5, 16, 6, 5)
    torch.testing.assert_close(explained.maps, torch.einsum("kchw,nchw->nkhw", weight, features(x).detach()))
    assert explained.additive


def test_grad_cam_is_this_map_for_mean_heads_and_is_not_for_flattened_ones():
    """Grad-CAM (Selvaraju et al., arXiv 1610.02391) averages gradients over positions."""
    torch.manual_seed(0)
    x = pictures()
    for flat, head in ((False, nn.Linear(16, 5)), (True, nn.Linear(480, 5))):
        features = backbone()
        pool = nn.Identity() if flat else nn.AdaptiveAvgPool2d(1)
        last = features(x).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(head(pool(last).flatten(1))[:, 3].sum(), last)
        grad_cam = (gradient.mean((2, 3), keepdim=True) * last).sum(1).detach()
        found = explain(nn.Sequential(features, pool, nn.Flatten(), head).eval(), x, [3]).maps[:, 0]
        assert torch.allclose(found, grad_cam, atol=1e-6) != flat
        torch.testing.assert_close(found, (gradient * last).sum(1).detach())
