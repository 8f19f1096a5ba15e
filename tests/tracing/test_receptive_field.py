"""Receptive fields against gradients: what a cell's gradient touches is what it sees."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gapstone import Pool, Window
from gapstone.tracing.receptive_field import ReceptiveFieldTracer
from tests.marks import slow_but


class Branches(nn.Module):
    """Two ways that see differently far, and to different sides."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 4)

    def forward(self, x):
        return self.near(x) + self.far(F.pad(x, (1, 2, 2, 1)))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


NETS = {
    "convolutions": nn.Sequential(nn.Conv2d(1, 2, 5, 2, 2), nn.Conv2d(2, 2, (3, 1), (1, 2)), nn.Conv2d(2, 1, 3)),
    "dilation": nn.Sequential(nn.Conv2d(1, 2, 3, dilation=3), nn.AvgPool2d(2), nn.Conv2d(2, 1, 3, dilation=(1, 2))),
    "pools": nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.Conv2d(1, 1, 1), nn.AvgPool2d((1, 4), 2)),
    "ours": nn.Sequential(Pool("mean", over=Window(3, 2, 1)), nn.Conv2d(1, 1, 3), Pool("mean", over=Window(2, 2))),
    "branches": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), Branches()),
    "concatenated": nn.Sequential(Function(lambda x: torch.cat([x, F.avg_pool2d(x, 7, 1, 3)], 1)), nn.Conv2d(2, 1, 3)),
    "slices": Function(lambda x: x[..., ::2, 1::2] + x[..., 1::2, 1::2]),
    "unshuffled": nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(16, 1, 3)),
    "channels last": nn.Sequential(nn.Conv2d(1, 2, 3), Function(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(2)),
}


@pytest.mark.parametrize("name", slow_but(NETS, "dilation", "ours", "branches", "channels last"))
def test_fields_are_what_gradients_touch(name):
    torch.manual_seed(0)
    model = NETS[name].double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.5, 1)  # positive: nothing cancels
    images = torch.rand(1, 1, 64, 80, dtype=torch.float64, requires_grad=True)
    with ReceptiveFieldTracer(images) as tracer:
        out = model(images)
        seen = tracer.of(out)
    cells = out if name != "channels last" else out[..., 0][:, None]
    h, w = cells.shape[2] // 2, cells.shape[3] // 2
    # a norm over channels lets only differences through: one channel's square has a gradient all the same
    cells[0, 0, h, w].backward(retain_graph=True)
    touched = images.grad[0, 0].abs() > 1e-12
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    assert seen.size == (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)
    assert not seen.whole
    images.grad = None
    cells[0, 0, h + 1, w + 1].backward()
    moved = images.grad[0, 0].abs() > 1e-12
    assert seen.stride == (
        int(moved.any(1).nonzero()[0]) - int(rows[0]),
        int(moved.any(0).nonzero()[0]) - int(columns[0]),
    )


def seen_by(function, *images):
    x = torch.rand(*(images or (1, 8, 16, 16)))
    with ReceptiveFieldTracer(x) as tracer:
        return tracer.of(function(x))


def test_the_maximum_sees_its_window():
    seen = seen_by(lambda x: F.max_pool2d(F.max_pool2d(x, 3, 2, 1), 2, 2, dilation=3))
    assert seen.size == (3 + 3 * 2, 3 + 3 * 2)
    assert seen.stride == (4, 4)


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: x * F.adaptive_max_pool2d(x, 1),
        lambda x: x + F.linear(x.flatten(1), torch.rand(8, 8 * 256))[:, :, None, None],
        lambda x: x.softmax(3),
    ],
)
def test_what_averages_over_all_positions_sees_them(mixes):
    seen = seen_by(lambda x: mixes(F.avg_pool2d(x, 3, 1, 1)))
    assert seen.whole
    assert seen.size == (3, 3)  # in detail


@pytest.mark.parametrize("local", [lambda x: F.relu(x), lambda x: F.batch_norm(x, torch.zeros(8), torch.ones(8)),
                                   lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,))])  # fmt: skip
def test_what_looks_at_one_position_sees_no_more(local):
    seen = seen_by(lambda x: local(F.avg_pool2d(x, 3, 1, 1)))
    assert (seen.size, seen.whole) == ((3, 3), False)


def test_better_unknown_than_wrong():
    """Positions that were moved about and added again: the field is larger than that of the way beside."""
    seen = seen_by(lambda x: x + torch.roll(F.avg_pool2d(x, 3, 1, 1), (4, 4), (2, 3)))
    assert seen.size is None
    seen = seen_by(
        lambda x: x + x.view(1, 8, 4, 4, 4, 4).mean(5, keepdim=True).expand(-1, -1, -1, -1, -1, 4).reshape(x.shape)
    )
    assert seen.size is None


def test_vectors_have_no_field():
    assert seen_by(lambda x: x.mean((2, 3))).size is None
    assert seen_by(lambda x: x.mean((2, 3))).whole
    assert seen_by(lambda x: torch.zeros(3)) is None
