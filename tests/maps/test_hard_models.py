"""Models on which an earlier form went wrong, in silence or with an error that nobody could read."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gapstone.maps.explain import explain
from gapstone.tracing.tape import SplitError
from tests.maps.test_user_models import CHANNELS, CLASSES, H, User, W, mean_maps, x

__all__ = ["x"]  # a fixture


def gxa(rest, last, k):
    last = last.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(rest(last)[:, k].sum(), last)
    return (g * last).sum(1).detach()


def test_named_map_overwritten_later(x):
    class M(User):
        def features(self, x):
            return self.conv(x).add_(1.0).mul_(2.0)

    m = M().eval()
    e = explain(m, x, at="conv")
    with torch.no_grad():
        maps = torch.einsum("kc,nchw->nkhw", m.fc.weight, 2 * m.conv(x)) / (H * W)
    torch.testing.assert_close(e.maps, maps)


@pytest.mark.parametrize("act", [nn.SiLU, nn.Hardswish])
def test_in_place_activation_after_named_map(act, x):
    seq = nn.Sequential(
        nn.Conv2d(3, 8, 3), act(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ).eval()
    last = seq[0](x).detach()
    rest = nn.Sequential(act(), *seq[2:])
    torch.testing.assert_close(explain(seq, x, [3], at="0").maps[:, 0], gxa(rest, last, 3))


@pytest.mark.parametrize("act", [nn.SiLU, nn.Hardswish])
def test_in_place_activation_after_pool(act, x):
    seq = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), act(inplace=True), nn.Linear(8, 5)
    ).eval()
    last = seq[:2](x).detach()
    rest = nn.Sequential(seq[2], seq[3], act(), seq[5])
    torch.testing.assert_close(explain(seq, x, [3]).maps[:, 0], gxa(rest, last, 3))


def test_bilinear_pooling_refused():
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.fc = nn.Linear(256, 5)

        def forward(self, x):
            f = self.conv(x).relu().flatten(2)
            return self.fc((f @ f.transpose(1, 2)).flatten(1))

    with pytest.raises(SplitError):
        explain(M().eval(), torch.randn(2, 3, 16, 16))


def test_test_time_augmentation_in_the_batch_refused(x):
    class M(User):
        def forward(self, x):
            a, b = super().forward(torch.cat([x, x.flip(-1)])).chunk(2)
            return (a + b) / 2

    with pytest.raises(SplitError):
        explain(M().eval(), x)


@pytest.mark.parametrize("head", [lambda s, f: s.fc(f.mean(-1).mean(-1)), lambda s, f: s.fc(f.max(-1)[0].max(-1)[0])])
def test_two_step_reductions(head, x):
    m = User(head).eval()
    first, again = explain(m, x), explain(m, x)  # the second is remembered
    assert first.maps.shape == (2, CLASSES, H, W)
    assert first.completeness.max() < 1e-5
    torch.testing.assert_close(again.maps, first.maps)


@pytest.mark.parametrize("size", [1, 2])
def test_a_parameter_that_stands_before_the_map(size, x):
    class M(User):
        def __init__(self):
            super().__init__()
            self.q = nn.Parameter(torch.rand(size, CHANNELS, H, W))

        def forward(self, x):
            f = self.features(x)
            return self.fc(torch.einsum("bchw,nchw->nc", self.q, f) / 100)

    m = M().eval()
    first, again = explain(m, x), explain(m, x)
    assert first.completeness.max() < 1e-5
    torch.testing.assert_close(again.maps, first.maps)


def test_a_head_that_rounds_is_refused(x):
    m = User(lambda s, f: s.fc(torch.div(f.sum((2, 3)), 3, rounding_mode="floor"))).eval()
    assert not explain(m, x).additive


@pytest.mark.parametrize(
    "head",
    [
        lambda s, f: s.fc(f.mean((2, 3)).to(torch.float16).float()),
        lambda s, f: s.fc(f.mean((2, 3))) + torch.arange(len(f))[:, None],
        lambda s, f: s.fc(f.mean((2, 3)) * torch.tensor([[1.0], [2.0]])),
    ],
)
def test_not_linear_or_not_the_same_for_all_images(head, x):
    assert not explain(User(head).eval(), x).additive


def test_one_axis_is_no_grid():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv1d(128, 8, 3, padding=1), nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.b(self.a(x).flatten(1, 2)).relu().mean(2))

    with pytest.raises(SplitError, match="16 positions in one row"):
        explain(Rows().eval(), torch.randn(2, 3, 32, 32))


def test_hidden_layers_in_inference_mode(x):
    m = User(lambda s, f: s.fc(torch.tanh(f.mean((2, 3))))).eval()
    expected = explain(m, x).maps
    with torch.inference_mode():
        torch.testing.assert_close(explain(m, x).maps, expected)


@pytest.mark.parametrize("name", ["resnet50", "regnet_y_400mf", "shufflenet_v2_x0_5"])
def test_a_last_map_of_one_cell(name):
    import torchvision

    m = torchvision.models.get_model(name, weights=None).eval()
    e = explain(m, torch.randn(2, 3, 32, 32), top_k=1)
    assert e.maps.shape == (2, 1, 1, 1)
    assert e.additive
    assert (e.completeness < 1e-5 * e.logits.abs().max()).all()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_a_last_map_of_one_cell_is_not_an_earlier_one(name):
    import torchvision

    m = torchvision.models.get_model(name, weights=None).eval()
    e = explain(m, torch.randn(2, 3, 32, 32), top_k=1)
    assert e.maps.shape == (2, 1, 1, 1)
    assert e.additive
    assert (e.completeness < 1e-5 * e.logits.abs().max()).all()


def test_detached_hidden_head(x):
    with pytest.raises(SplitError):
        explain(User(lambda s, f: s.fc(torch.tanh(f.mean((2, 3)).detach()))).eval(), x)


def test_at_a_vector(x):
    with pytest.raises(ValueError, match="no positions"):
        explain(User().eval(), x, at="fc")


def test_not_a_module(x):
    with pytest.raises(TypeError):
        explain(lambda y: y, x)


def test_one_image_at_a_time_batch_1(x):
    with pytest.raises(SplitError):
        explain(User(lambda s, f: torch.stack([s.fc(o.mean((1, 2))) for o in f])).eval(), x[:1])


def test_exported_program(x):
    m = User().eval()
    p = torch.export.export(m, (x,)).module()
    torch.testing.assert_close(explain(p, x).maps, mean_maps(m, x))


def test_float_classes(x):
    with pytest.raises((ValueError, TypeError)):
        explain(User().eval(), x, [1.7])


def test_pyramid_of_means(x):
    m = User(
        lambda s, f: s.fc(
            torch.cat([F.adaptive_avg_pool2d(f, 1).flatten(1), F.adaptive_avg_pool2d(f, 2).flatten(1)], 1)
        ),
        40,
    ).eval()
    e = explain(m, x)
    assert e.additive
    assert e.completeness.max() < 1e-5


def test_shared_module_called_twice_is_its_last_call(x):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.ReLU()
            self.a = nn.Conv2d(3, 8, 3)
            self.b = nn.Conv2d(8, 8, 3)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.r(self.b(self.r(self.a(x)))).mean((2, 3)))

    m = M().eval()
    assert torch.equal(explain(m, x, at="r").maps, explain(m, x).maps)


def test_exact_although_pooled_twice(x):
    class M(User):
        def __init__(self):
            super().__init__()
            self.flat = nn.Linear(CHANNELS * H * W, CLASSES)

        def forward(self, x):
            f = self.features(x)
            return self.fc(f.mean((2, 3))) + self.flat(f.flatten(1))

    e = explain(M().eval(), x)
    assert e.additive
    assert e.completeness.max() < 1e-5
