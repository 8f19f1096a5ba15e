"""Batch norms that a convolution can compute are folded, others are left; nothing of the network changes."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from gapstone.tracing import folded_norms
from gapstone.tracing.folded_norms import fold_norms


def normed(norm):
    """Its statistics and parameters not as they begin."""
    with torch.no_grad():
        for tensor in (*norm.parameters(), *norm.buffers()):
            if tensor.dim():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return norm


class Folding(nn.Module):
    """Six pairs, in all forms."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), normed(nn.BatchNorm2d(8)), nn.ReLU(inplace=True))
        self.grouped, self.norm = nn.Conv2d(8, 16, 3, 2, 1, groups=4), normed(nn.BatchNorm2d(16, affine=False))
        self.left, self.right = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 3, padding=1, padding_mode="reflect")
        self.norms = nn.ModuleList([normed(nn.BatchNorm2d(4)), normed(nn.BatchNorm2d(4, eps=0.1))])
        self.line, self.line_norm = nn.Conv1d(4, 5, 3), normed(nn.BatchNorm1d(5))
        self.called, self.called_norm = nn.Parameter(torch.randn(2, 4, 1, 1)), normed(nn.BatchNorm2d(2))

    def forward(self, x):
        x = self.norm(self.grouped(self.plain(x)))
        left, right = self.left(x), self.right(x)  # both convolutions, then both norms
        assert left.shape[1] == 4
        both = self.norms[1](right).relu_() - self.norms[0](left)
        norm = self.called_norm
        named = {"running_var": norm.running_var, "weight": norm.weight, "bias": norm.bias, "training": False}
        called = F.batch_norm(F.conv2d(both, self.called, bias=None), norm.running_mean, **named)
        return self.line_norm(self.line(both.flatten(2))), called


class Kept(nn.Module):
    """Norms whose convolution's answer is used otherwise, or changed; and those that are no fixed function."""

    def __init__(self):
        super().__init__()
        self.conv = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(7)])
        self.norm = nn.ModuleList([normed(nn.BatchNorm2d(3)) for _ in range(10)])
        self.conv[3] = weight_norm(self.conv[3])
        self.norm[5] = nn.BatchNorm2d(3, track_running_stats=False)
        self.turned, self.shared = nn.ConvTranspose2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        conv, norm = self.conv, self.norm
        used = conv[0](x)
        x = norm[0](used) + used
        x = norm[1](conv[1](x).relu_())
        x = norm[2](conv[2](norm[2](conv[2](x))))
        for place in (3, 4, 5):
            x = norm[place](conv[place](x))
        x = norm[7](self.turned(norm[6](x)))
        x = norm[9](self.shared(norm[8](self.shared(x))))
        return (norm[6](conv[6](x)),)


def run(network, x):
    with torch.no_grad():
        return network(x)


def folded(network, x):
    return fold_norms(lambda: run(network, x), lambda: run(deepcopy(network).double(), x.double()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_norm_is_computed_by_the_convolution_before_it(layout):
    torch.manual_seed(0)
    network = Folding().to(memory_format=layout).eval()
    first, other = torch.randn(2, 3, 9, 9), torch.randn(3, 3, 12, 7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = run(network, other)
    without = folded(network, first)
    assert len(without.folds) == 6
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "batch_norm", lambda *_: called.append(1))
        with without:
            found = run(network, other)
    assert not called  # no norm was computed
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(run(network, other), expected, strict=True))


def test_a_norm_is_left_whose_convolution_is_used_otherwise_or_that_is_no_fixed_function():
    torch.manual_seed(0)
    network = Kept().eval()
    network.norm[4].train()
    x = torch.randn(2, 3, 6, 6)
    with folded_norms._Watch() as watch:
        run(network, x)
    assert len(watch.norms) == 12
    assert not watch.folds()  # before it is asked whether that would be exact
    assert folded(network, x) is None


def test_a_network_that_would_be_less_exact_is_left(monkeypatch):
    torch.manual_seed(0)
    network, x = Folding().eval(), torch.randn(2, 3, 9, 9)
    exact = folded_norms._folded

    def a_little_off(*given):
        fold = exact(*given)
        return folded_norms._Fold(fold.own, fold.weight * 1.0001, fold.bias, fold.mean)

    monkeypatch.setattr(folded_norms, "_folded", a_little_off)
    assert folded(network, x) is None


def test_another_way_through_the_network_is_an_error():
    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.other = nn.Conv2d(1, 2, 1), normed(nn.BatchNorm2d(2)), normed(nn.BatchNorm2d(2))

        def forward(self, x, way="norm"):
            x = self.conv(x)
            return (x if way == "none" else getattr(self, way)(x),)

    network, x = Switched().eval(), torch.randn(1, 1, 2, 2)
    without = folded(network, x)
    for way, words in (("none", "without the batch norm"), ("other", "another batch norm")):
        with pytest.raises(AssertionError, match=words), without:
            network(x, way)
    with without:
        torch.testing.assert_close(network(x), run(network, x))
