"""Networks as shapes: nothing is drawn, and what a dry run says is what a network does."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gapstone.nets import build, dry_run
from gapstone.nets.on_meta import ACTIVATIONS, DRAWN, SHAPES, dependence_alone, on_meta, shapes_alone


@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
def test_nothing_is_drawn(draw):
    given = (0.5,) if draw is torch.Tensor.geometric_ else ()
    before = torch.get_rng_state()
    with on_meta():
        x = torch.empty(3, 4)
        assert draw(x, *given) is x
        assert draw(x[0], *given).shape == (4,)
    assert torch.equal(torch.get_rng_state(), before)
    with on_meta():  # what has values is drawn as ever
        y = torch.zeros(3, 4, device="cpu")
        draw(y, *given)
    assert not torch.equal(torch.get_rng_state(), before)
    assert y.any()


def test_networks_have_their_shapes_and_no_values():
    with on_meta():
        features = build("resnet18:small", 5)
        linear = nn.Linear(3, 4)
    assert all(p.is_meta for p in (*features.parameters(), *linear.parameters()))
    made = build("resnet18:small", 5).state_dict()
    assert {k: v.shape for k, v in features.state_dict().items()} == {k: v.shape for k, v in made.items()}


def test_calls_on_shapes_are_answered_and_others_are_computed():
    calls = {
        F.batch_norm: lambda x: F.batch_norm(x, x.new_zeros(4), x.new_ones(4)),
        F.layer_norm: lambda x: F.layer_norm(x, (5, 6)),
        F.group_norm: lambda x: F.group_norm(x, 2),
        F.dropout: lambda x: F.dropout(x, 0.5, False),
        F.dropout1d: lambda x: torch.stack([F.dropout1d(one.flatten(1), 0.5, False).view_as(one) for one in x]),
        F.dropout2d: lambda x: F.dropout2d(x, 0.5, False),
        F.dropout3d: lambda x: F.dropout3d(x[:, None], 0.5, False)[:, 0],
    }
    calls |= {function: function for function in (*ACTIVATIONS, F.hardtanh)}
    calls[torch.Tensor.add] = lambda x: x[:, :1].add(x[:1], alpha=2)
    calls[torch.Tensor.mul] = lambda x: 0.5 * x * x[:, :, :1]
    calls[F.conv1d] = lambda x: F.conv1d(x.flatten(2), x.new_ones(4, 2, 3), None, 1, 1, groups=2).view_as(x)
    calls[F.conv2d] = lambda x: F.conv2d(x, x.new_ones(4, 4, 3, 5), x.new_ones(4), (1, 1), (2, 4), 2)
    calls[F.conv3d] = lambda x: F.conv3d(x[:, :, None], x.new_ones(4, 4, 1, 1, 1))[:, :, 0]
    calls[torch.cat] = lambda x: torch.cat([x[:, :3], x[:, 1:]], 1)[:, 1:5]
    calls[F.linear] = lambda x: F.linear(x, x.new_ones(6, 6), x.new_ones(6))
    calls[F.scaled_dot_product_attention] = lambda x: F.scaled_dot_product_attention(x, x[:, :, 1:], x[:, :, 1:])
    assert set(calls) == set(SHAPES)
    real = torch.rand(2, 4, 5, 6)
    shape = torch.empty(2, 4, 5, 6, device="meta", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    for call in calls.values():
        with shapes_alone():
            out, found = call(shape), call(real)
        assert (out.is_meta, out.shape, out.dtype) == (True, shape.shape, shape.dtype)
        assert torch.equal(found, call(real))


def test_a_step_in_place_takes_no_memory():
    """As many images run at once as before their activations were answered."""
    sizes = [dry_run(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU6(place)), 3, (9, 7)).bytes for place in (True, False)]
    assert sizes == [4 * 9 * 7 * (3 + 8), 4 * 9 * 7 * (8 + 8)]


class _Blocks(nn.Module):
    """Each kind of call that is answered, and a module that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.unused = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.plain, self.still = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)

    def forward(self, x):
        x = F.hardtanh(self.plain(F.relu6(self.norm(self.first(x)), inplace=True)), 0, 6, inplace=True)
        self.unused(x)
        still = self.still
        return F.silu(F.batch_norm(x, still.running_mean, still.running_var, weight=still.weight, bias=still.bias))


def test_what_depends_on_what_is_what_autograd_says():
    """In each mode: the same parameters have a gradient, the same shape comes out."""
    found = []
    for tracer in (nullcontext(), dependence_alone()):
        with on_meta():
            net = _Blocks().eval()
        with tracer:
            made = net(torch.empty(2, 3, 9, 8, device="meta"))
            torch.autograd.backward(made, torch.ones_like(made))
        gradients = {name: p.grad.shape for name, p in net.named_parameters() if p.grad is not None}
        found.append((made.shape, gradients))
    assert found[0] == found[1]
    named = ("first", "norm", "still")
    assert set(found[0][1]) == {f"{name}.{what}" for name in named for what in ("weight", "bias")}


@pytest.mark.parametrize("name", ["nin", "resnet18", "vgg11_bn", "googlenet"])
def test_a_dry_run_is_what_the_network_does(name):
    features = build(name).eval()
    assert dry_run(features, 3, (97, 130)).size == tuple(features(torch.zeros(1, 3, 97, 130)).shape[2:])
    assert all(not module.training for module in features.modules())


CONVOLUTIONS = [
    nn.Conv2d(3, 8, 3),
    nn.Conv2d(3, 8, (3, 1), (2, 1), (1, 0), (1, 3)),
    nn.Conv2d(3, 6, 3, 2, "valid", groups=3),
    nn.Conv2d(3, 8, 5, padding="same"),
    nn.Conv2d(3, 8, 3, padding=2, padding_mode="reflect"),
    nn.ConvTranspose2d(3, 8, 3, 2),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_convolutions_of_shapes(layer):
    right = layer(torch.zeros(2, 3, 17, 12)).shape
    with shapes_alone():
        assert layer.to("meta")(torch.empty(2, 3, 17, 12, device="meta")).shape == right


REFUSED = [
    lambda x: nn.Conv2d(4, 8, 7).to("meta")(x),  # larger than the map
    lambda x: nn.Conv2d(3, 8, 3).to("meta")(x),
    lambda x: torch.cat([x, x[..., 1:]], 1),
    lambda x: torch.cat([x, x[0]], 0),
    lambda x: torch.cat([]),
    lambda x: F.layer_norm(x, (4, 5, 7)),
    lambda x: F.instance_norm(x[..., :1, :1]),  # one position has no spread
    lambda x: x + x[..., 1:],
]


@pytest.mark.parametrize("call", REFUSED)
def test_what_torch_refuses_is_refused(call):
    """Else a size that a network cannot take would seem to be one that it takes."""
    x = torch.empty(2, 4, 5, 6, device="meta")
    with pytest.raises((RuntimeError, ValueError)):
        call(x)
    with shapes_alone(), pytest.raises((RuntimeError, ValueError)):
        call(x)
