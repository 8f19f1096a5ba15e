"""Each kind of layer, played on bands of any height, gives what it gives for the whole image, or is refused by name."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gapstone as gs
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_recorder import record_rows
from tests.streaming.test_row_pass import streamed


class Called(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def in_place(x):
    y = F.relu_(x - 0.5)
    x += y
    return x * y


def changed_after_windows(x):
    y = F.avg_pool2d(x, (3, 1), 1)
    x.mul_(2.0)
    return y + x[:, :, 1:-1]


def changed_after_a_meeting(x):
    y = F.max_pool2d(x, 5, 1, 2) + x
    x.mul_(3.0)
    return y * x


def grn(x):
    strength = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + x * (strength / (strength.mean(1, keepdim=True) + 1e-6))


def channels_last(x):
    x = x.permute(0, 2, 3, 1)
    return F.gelu(F.layer_norm(x, x.shape[-1:])).permute(0, 3, 1, 2)


LAYERS = {
    "stride above kernel": nn.Conv2d(4, 4, 2, stride=5),
    "stride above kernel, padded": nn.Conv2d(4, 4, 1, stride=3, padding=1),
    "dilation": nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    "groups": nn.Conv2d(4, 4, (5, 3), stride=(2, 1), padding=(2, 0), groups=2),
    "same, even kernel": nn.Conv2d(4, 4, 4, padding="same"),
    "max, ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max, ceil, padded": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max, dilated": nn.MaxPool2d(2, 1, dilation=3),
    "average": nn.AvgPool2d(3, 2, padding=1),
    "average, ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "average, ceil, padded": nn.AvgPool2d(4, 3, padding=2, ceil_mode=True),
    "average, padding not counted": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
    "average, divisor": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, divisor_override=5),
    "padding, one side": nn.ZeroPad2d((1, 2, 3, 0)),
    "padding, a constant": nn.ConstantPad2d((0, 1, 2, 2), 0.7),
    "negative padding": nn.ZeroPad2d((0, -1, -2, -3)),
    "rows cut out": Called(lambda x: x[:, :, 3:-2]),
    "every second row": Called(lambda x: x[:, :, 1::2, ::2]),
    "columns cut out": Called(lambda x: x[..., 2:9]),
    "some channels": Called(lambda x: torch.cat([x[:, 2:], x[:, :2]], 1)),
    "chunks": Called(lambda x: torch.cat([part * k for k, part in enumerate(x.chunk(2, 1), 1)], 1)),
    "channel shuffle": Called(shuffled),
    "in place": Called(in_place),
    "in place, after windows": Called(changed_after_windows),
    "in place, after branches met": Called(changed_after_a_meeting),
    "stacked": Called(lambda x: torch.stack([x, x * x], 2).sum(2)),
    "max of channels": Called(lambda x: x * x.amax(1, keepdim=True)),
    "softmax of channels": nn.Softmax(1),
    "channels last": Called(channels_last),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "response norm": Called(grn),
    "centred": Called(lambda x: x - x.mean((2, 3), keepdim=True)),
    "of all values": Called(lambda x: x / x.sum()),
    "by the largest": Called(lambda x: x / x.amax((2, 3), keepdim=True)),
    "tokens": Called(lambda x: F.gelu(F.layer_norm(x.flatten(2).transpose(1, 2), (4,))).transpose(1, 2).view(x.shape)),
    "pool of tokens": Called(lambda x: x * x.flatten(2).mean(-1)[:, :, None, None]),
    "maximum of tokens": Called(lambda x: x - x.view(1, 4, -1).max(-1, keepdim=True).values[..., None]),
    "heads": Called(lambda x: x.view(1, 2, 2, -1).softmax(2).view(x.shape)),
    "logsumexp": Called(lambda x: x - x.logsumexp((2, 3), keepdim=True)),
    "two depths": Called(lambda x: F.max_pool2d(x, 5, 1, 2) + F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1), 3, 1, 1) - x),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("size", [(23, 17), (12, 12)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, size):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), LAYERS[name], nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    ).double().eval()  # fmt: skip
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    for rows in (1, 2, 5, size[0]):
        found, _ = streamed(network, image, rows)
        assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()


HEADS = ["gap", "gmp", "gem", "gem:p=learned", "lse", "avgmax", "catavgmax", "nin", "gap:dropout=0.5"]
POOLS = {
    "mean": {},
    "max": {},
    "min": {},
    "sum": {},
    "std": {},
    "l2": {},
    "softmax": {},
    "topk": {"k": 7},
    "lp": {"p": 3.0},
}


def check(network):
    image = torch.rand(1, 3, 23, 17, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    for rows in (1, 5, 23):
        found, passes = streamed(network, image, rows)
        assert passes == 1
        assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()


@pytest.mark.parametrize("head", HEADS)
def test_heads(head):
    check(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), gs.Head(head, 6, 5)).double().eval())


@pytest.mark.parametrize("name", POOLS)
def test_pools(name):
    pool = gs.Pool(name, **POOLS[name])
    check(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), pool, nn.Flatten(), nn.Linear(6, 5)).double().eval())


class Embedded(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.position = nn.Parameter(torch.rand(1, 4, *size))

    def forward(self, x):
        return x + self.position


REFUSED = {
    "upsampling": (nn.Upsample(scale_factor=2), r"'1' \(Upsample\) cannot be streamed"),
    "transposed": (nn.ConvTranspose2d(4, 4, 2, 2), r"'1' \(ConvTranspose2d\) .*upsampling"),
    "flattened": (
        nn.Sequential(nn.Flatten(2), nn.Linear(81, 4), nn.Unflatten(2, (2, 2))),
        r"'1\.1' \(Linear\) .*over positions",
    ),
    "position embedding": (Embedded((9, 9)), "differs from row to row"),
    "coordinates": (Called(lambda x: x + torch.arange(9.0, device=x.device)[:, None]), "differs from row to row"),
    "layer norm of positions": (nn.LayerNorm([4, 9, 9]), "a layer norm over positions"),
    "no running statistics": (nn.BatchNorm2d(4, track_running_stats=False), "the statistics of this one image"),
    "dropout always": (Called(lambda x: F.dropout(x, 0.5)), "drops units at random"),
    "reflected": (nn.ReflectionPad2d(1), "reflect padding"),
    "a grid": (nn.AdaptiveAvgPool2d((3, 3)), "a pool to a grid of \\(3, 3\\) cells"),
    "one axis": (Called(lambda x: x.mean(2, keepdim=True)), "over rows alone, or columns alone"),
    "softmax of positions": (nn.Softmax(2), "over positions"),
    "turned": (Called(lambda x: x.flip(2)), "cannot be streamed"),
    "transposed axes": (Called(lambda x: x + x.transpose(2, 3)), "their rows and columns are not the same"),
    "positions of a maximum": (nn.MaxPool2d(2, return_indices=True), "return_indices"),
    "where a maximum is": (
        Called(lambda x: x + x.flatten(2).max(-1).indices[..., None, None]),
        "never seen to be made",
    ),
    "some tokens": (Called(lambda x: x.flatten(2)[..., 1:].unflatten(2, (8, 10))), "some positions are taken"),
    "more tokens": (Called(lambda x: F.pad(x.flatten(2), (1, 0)).unflatten(2, (2, 41))), "are padded in one dimension"),
    "tokens mixed": (Called(lambda x: x + (x.flatten(2).mT @ x.flatten(2)).mean()), "cannot be streamed"),
    "columns first": (Called(lambda x: x + x.transpose(2, 3).flatten(2).view(x.shape)), "in another order"),
    "median": (Called(lambda x: x - x.flatten(2).median()), "cannot be streamed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_streamed_is_named(name):
    layer, says = REFUSED[name]
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(StreamError, match=says) as raised:
        record_rows(network.eval(), 3, (9, 9))
    assert "'1" in str(raised.value)


def test_an_attention_head_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), gs.Head("attention", 6, 5))
    with pytest.raises(StreamError, match="cannot be streamed"):
        record_rows(network.eval(), 3, (9, 9))
