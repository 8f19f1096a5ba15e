"""Models as people write them: heads in every spelling, wrappers, types, modes; and nothing of theirs changes."""

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from gapstone.maps.explain import explain
from gapstone.tracing.tape import SplitError

H, W, CHANNELS, CLASSES = 12, 10, 8, 5


class User(nn.Module):
    """A backbone of one convolution; `head` turns its map into logits, as a user spelled it."""

    def __init__(self, head=None, inputs=CHANNELS):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Linear(inputs, CLASSES)
        self.head = head or (lambda self, f: self.fc(f.mean((2, 3))))

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def forward(self, x: Tensor):
        return self.head(self, self.features(x))


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, H, W)


def mean_maps(model: User, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.einsum("kc,nchw->nkhw", model.fc.weight, model.features(x)) / (H * W)


def agrees(explained, model: nn.Module, x: Tensor, maps: Tensor, additive: bool = True, atol: float = 1e-6) -> None:
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, model(x), atol=atol, rtol=1e-5, check_dtype=False)
    torch.testing.assert_close(explained.maps, maps, atol=atol, rtol=1e-5)
    assert explained.additive is additive
    assert explained.completeness.max() < atol


def in_place(self, f):
    f.relu_()
    return self.fc(f.mean((2, 3)))


MEANS = {
    "mean((2, 3))": lambda self, f: self.fc(f.mean((2, 3))),
    "mean, named, from the end": lambda self, f: self.fc(input=torch.mean(f, dim=(-2, -1))),
    "mean, kept dimensions": lambda self, f: self.fc(f.mean([2, 3], keepdim=True).flatten(1)),
    "flattened, then mean": lambda self, f: self.fc(f.flatten(2).mean(-1)),
    "viewed, then mean": lambda self, f: self.fc(f.view(f.size(0), f.size(1), -1).mean(2)),
    "sum over a count": lambda self, f: self.fc(f.sum((2, 3)) / (f.shape[2] * f.shape[3])),
    "reshaped, sum, div": lambda self, f: self.fc(f.reshape(f.shape[0], f.shape[1], H * W).sum(2).div(H * W)),
    "channels last": lambda self, f: self.fc(f.permute(0, 2, 3, 1).mean((1, 2))),
    "tokens": lambda self, f: self.fc(f.flatten(2).transpose(1, 2).mean(1)),
    "functional": lambda self, f: F.linear(F.adaptive_avg_pool2d(f, 1).flatten(1), self.fc.weight, self.fc.bias),
    "matrix product": lambda self, f: f.mean((2, 3)) @ self.fc.weight.t() + self.fc.bias,
    "avg_pool2d of the whole, squeezed": lambda self, f: self.fc(F.avg_pool2d(f, (H, W)).squeeze(-1).squeeze(-1)),
    "avg_pool2d of the whole, viewed": lambda self, f: self.fc(F.avg_pool2d(f, (H, W)).view(-1, CHANNELS)),
    "a literal number of images": lambda self, f: self.fc(F.adaptive_avg_pool2d(f, 1).view(2, -1)),
    "in-place ReLU after the map": in_place,
    "dropout that is off": lambda self, f: self.fc(F.dropout(f.mean((2, 3)), 0.5, self.training)),
    "twice side by side, halved": lambda self, f: self.fc(torch.cat([f.mean((2, 3))] * 2, 1).view(2, 2, -1).mean(1)),
    "no_grad of its own": torch.no_grad()(lambda self, f: self.fc(f.mean((2, 3)))),
    "an answer with logits": lambda self, f: namedtuple("Answer", "logits aux")(self.fc(f.mean((2, 3))), None).logits,
}


@pytest.mark.parametrize("spelled", MEANS)
def test_every_spelling_of_mean_and_linear(spelled, x):
    model = User(MEANS[spelled]).eval()
    maps = mean_maps(model, x)
    for _ in range(2):  # the second time from what the first has found
        agrees(explain(model, x), model, x, maps)
        agrees(explain(model, x, [4, 0]), model, x, maps[:, [4, 0]])


def test_other_pools_and_layouts_of_the_same_map(x):
    def maximum(self, f):
        return self.fc(f.amax((2, 3)))

    def both(self, f):
        return self.fc(torch.cat([f.mean((2, 3)), f.amax((2, 3))], 1))

    def added(self, f):
        return self.fc(f.mean((2, 3)) + f.amax((2, 3)))

    for head, inputs in ((maximum, CHANNELS), (both, 2 * CHANNELS), (added, CHANNELS)):
        model = User(head, inputs).eval()
        explained = explain(model, x)
        assert explained.additive
        assert explained.completeness.max() < 1e-6
        assert explained.maps.shape == (2, CLASSES, H, W)


@pytest.mark.parametrize(
    "flat", [lambda f: f.view(2, -1), lambda f: f.view(-1, CHANNELS * H * W), lambda f: torch.flatten(f, 1)]
)
def test_flattened(flat, x):
    model = User(lambda self, f: self.fc(flat(f)), CHANNELS * H * W).eval()
    with torch.no_grad():
        maps = torch.einsum("kchw,nchw->nkhw", model.fc.weight.view(CLASSES, CHANNELS, H, W), model.features(x))
    agrees(explain(model, x), model, x, maps)


def test_squeeze_and_excite_is_no_head(x):
    class Gated(User):
        def features(self, x):
            f = super().features(x)
            return f * torch.sigmoid(f.mean((2, 3)))[:, :, None, None]

    model = Gated().eval()
    agrees(explain(model, x), model, x, mean_maps(model, x))


def test_channels_in_another_order_after_the_pool(x):
    order = torch.tensor([3, 1, 2, 0, 4, 5, 7, 6])
    model = User(lambda self, f: self.fc(f.mean((2, 3))[:, order])).eval()
    with torch.no_grad():
        maps = torch.einsum("kc,nchw->nkhw", model.fc.weight, model.features(x)[:, order]) / (H * W)
    agrees(explain(model, x), model, x, maps)


def test_two_linear_layers_on_halves(x):
    def head(self, f):
        pooled, weight = f.mean((2, 3)), self.fc.weight
        return torch.cat([F.linear(pooled[:, :4], weight[:2, :4]), F.linear(pooled[:, 4:], weight[2:, 4:])], 1)

    model = User(head).eval()
    with torch.no_grad():
        weight = model.fc.weight.clone()
        weight[:2, 4:] = weight[2:, :4] = 0
        maps = torch.einsum("kc,nchw->nkhw", weight, model.features(x)) / (H * W)
    agrees(explain(model, x), model, x, maps)


# ---- heads that are not linear say so


@pytest.mark.parametrize(
    "head",
    [
        lambda self, f: self.fc(f.mean((2, 3)) ** 2),
        lambda self, f: self.fc(torch.tanh(f.mean((2, 3)))),
        lambda self, f: self.fc(torch.logsumexp(f, (2, 3))),
    ],
)
def test_what_is_not_linear_is_gradient_times_activation(head, x):
    model = User(head).eval()
    explained = explain(model, x)
    last = model.features(x).detach().requires_grad_()
    logits = model.head(model, last)
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), last)
    torch.testing.assert_close(explained.maps[:, 3], (gradient * last).sum(1).detach())
    assert not explained.additive
    assert explained.completeness.max() > 1e-5


# ---- wrappers, types, layouts


def test_wrappers(x):
    model = User().eval()
    maps = mean_maps(model, x)
    agrees(explain(nn.DataParallel(model), x), model, x, maps)
    agrees(explain(nn.Sequential(nn.Sequential(model)), x), model, x, maps)
    agrees(explain(torch.compile(model, backend="eager"), x), model, x, maps)


def test_traced_by_fx(x):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    expected = explain(model, x)
    assert torch.equal(explain(torch.fx.symbolic_trace(model), x).maps, expected.maps)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float64, 1e-12)])
def test_dtypes(dtype, atol, x):
    model = User().eval()
    maps = mean_maps(model.double(), x.double())
    explained = explain(model.to(dtype), x.to(dtype))
    assert explained.maps.dtype == explained.logits.dtype == explained.bias.dtype
    assert explained.maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(explained.maps.double(), maps, atol=atol, rtol=atol)
    assert explained.completeness.max() < atol


def test_autocast_channels_last_and_strides(x):
    model = User().eval()
    maps = mean_maps(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(explain(model, x).maps, maps, atol=1e-3, rtol=0.05)
    agrees(
        explain(model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)), model, x, maps
    )
    agrees(explain(model, x.transpose(2, 3).contiguous().transpose(2, 3)), model, x, maps)


def test_gradients_on_off_and_inference(x):
    model = User().eval()
    maps = mean_maps(model, x)
    agrees(explain(model, x.clone().requires_grad_()), model, x, maps)
    with torch.no_grad():
        agrees(explain(model, x), model, x, maps)
    with torch.inference_mode():
        tensor = x.clone()
        agrees(explain(model, tensor), model, x, maps)
    agrees(explain(model, tensor), model, x, maps)
    model.requires_grad_(False)
    explained = explain(model, x)
    agrees(explained, model, x, maps)
    assert not any(found.requires_grad for found in (explained.maps, explained.bias, explained.logits))


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes(dims):
    torch.manual_seed(0)
    convolution, pool = ((nn.Conv1d, nn.AdaptiveAvgPool1d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[dims // 2]
    body, fc = nn.Sequential(convolution(2, 6, 3, 2, 1), nn.ReLU()), nn.Linear(6, 3)
    images = torch.randn(2, 2, *(8, 10, 12)[:dims])
    explained = explain(nn.Sequential(body, pool(1), nn.Flatten(), fc).eval(), images)
    last = body(images).detach()
    expected = torch.einsum("kc,nc...->nk...", fc.weight.detach(), last) / last[0, 0].numel()
    torch.testing.assert_close(explained.maps, expected)
    assert explained.placement.stride == (2.0,) * dims
    assert explained.placement.exact


# ---- nothing changes


def test_nothing_of_the_model_changes(x):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(True), nn.Dropout2d(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5),
    )  # fmt: skip
    model.train()
    model[1].eval()  # frozen statistics: modes are each module's own
    model[7].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))

    def state():
        return (
            [m.training for m in model.modules()],
            [
                (p.requires_grad, p._version, None if p.grad is None else p.grad.sum().item())
                for p in model.parameters()
            ],
            [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
            (x._version, x.requires_grad, torch.is_grad_enabled(), _get_current_function_mode_stack()),
        )

    before, tensors = state(), {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    for at in (None, None, "3"):
        explained = explain(model, x, top_k=2, at=at)
    assert state() == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())
    assert len(calls) == 3  # a user's own hooks run, once per forward pass
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, model.eval()(x))


def test_a_model_that_fails_is_left_as_it_was(x):
    def fails(self, f):
        raise RuntimeError("boom")

    model = User(fails).train()
    with pytest.raises(RuntimeError, match="boom"):
        explain(model, x)
    assert all(module.training for module in model.modules())
    assert not _get_current_function_mode_stack()
    assert torch.is_grad_enabled()


def test_a_model_that_changes_is_looked_at_again(x):
    model = User().eval()
    explain(model, x)
    model.fc = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))
    assert not explain(model, x).additive
    model.fc = nn.Linear(8, 3)
    assert explain(model, x).maps.shape == (2, 3, H, W)
    model.head = lambda self, f: self.fc((f + 1).mean((2, 3)))
    explained = explain(model, x)
    with torch.no_grad():
        maps = torch.einsum("kc,nchw->nkhw", model.fc.weight, model.features(x) + 1) / (H * W)
    torch.testing.assert_close(explained.maps, maps)


def test_a_path_that_depends_on_the_number_of_images(x):
    model = User(lambda self, f: self.fc((f * 2 if len(f) == 1 else f.contiguous() * 3).mean((2, 3)))).eval()
    for n in (2, 1, 2, 1):
        torch.testing.assert_close(explain(model, x[:n]).maps, mean_maps(model, x[:n]) * (2 if n == 1 else 3))


# ---- what cannot be explained is refused


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (lambda self, f: {"logits": self.fc(f.mean((2, 3)))}, "a dict"),
        (lambda self, f: (self.fc(f.mean((2, 3))), None), "a tuple"),
        (lambda self, f: self.fc(f.mean((2, 3)))[:, 0], r"shape \(2,\)"),
        (lambda self, f: torch.from_numpy(self.fc(f.mean((2, 3))).detach().numpy()), "no last feature map"),
        (lambda self, f: torch.stack([self.fc(one.mean((1, 2))) for one in f]), "meet in stack"),
    ],
)
def test_refused_with_a_reason(head, match, x):
    with pytest.raises(SplitError, match=match):
        explain(User(head).eval(), x)


def test_what_passes_by_the_map_is_refused(x):
    class Beside(User):
        def forward(self, x):
            brightness = x.mean((1, 2, 3))[:, None]
            return super().forward(x) + brightness

    with pytest.raises(SplitError, match="something else of the image"):
        explain(Beside().eval(), x)


def test_images_that_are_none(x):
    model = User().eval()
    with pytest.raises(ValueError, match="at least one image"):
        explain(model, x[:0])
    with pytest.raises(ValueError, match="at least one image"):
        explain(model, x.flatten(1))
    for images in (x.numpy(), [x[0], x[1]], (x, x), {"x": x}):
        with pytest.raises(TypeError, match="takes images as a tensor"):
            explain(model, images)
    with pytest.raises(RuntimeError, match="channels"):
        explain(model, x[:, :1])
    with pytest.raises(ValueError, match="no such module; its last ones are conv, fc"):
        explain(model, x, at="layr")
