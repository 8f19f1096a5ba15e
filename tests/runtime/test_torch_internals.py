"""torch's private names: each is taken away once, and everything is as right as before."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gapstone as gs
from gapstone.runtime import torch_internals
from gapstone.runtime.torch_internals import WITHOUT

NAMES = sorted(WITHOUT)
ONCE = {
    "torch._C._functorch.maybe_current_level": "_level",
    "torch._C._len_torch_dispatch_stack": "_dispatching",
    "torch._C._len_torch_function_stack": "_watching",
    "torch.autograd.forward_ad._current_level": "_forward_ad",
}
"""Names that are looked up once, as they are asked on every call."""


@pytest.fixture(params=[None, *NAMES], ids=lambda name: (name or "all there").rpartition(".")[2])
def without(request, monkeypatch):
    if request.param is not None:
        monkeypatch.setitem(torch_internals.FOUND, request.param, None)
        if request.param in ONCE:
            monkeypatch.setattr(torch_internals, ONCE[request.param], None)
    torch_internals.openmp.cache_clear()
    yield request.param
    monkeypatch.undo()
    torch_internals.openmp.cache_clear()


def test_this_torch_has_them_all():
    """Whoever supports another torch learns here what it lacks; it works all the same."""
    assert torch_internals.missing() == {}


def test_what_is_not_there_is_not_found():
    for name in ("torch._C._no_such_thing", "torch.no_such_module.name", "torch.nn.Module._no_such_hooks"):
        assert torch_internals.find(name) is None


def test_doctor_says_what_is_missing(monkeypatch):
    from gapstone.bench.doctor import machine

    assert machine()["torch lacks"] == "nothing"
    monkeypatch.setitem(torch_internals.FOUND, "torch._C.__file__", None)
    assert machine()["torch lacks"] == "torch._C.__file__ (compiled loops run on one thread)"


class Small(nn.Module):
    """A ReLU in place, a functional pool, a hook of the user's."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = F.max_pool2d(self.conv(x).relu_(), 2)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def images():
    return torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def model():
    torch.manual_seed(0)
    return Small().eval()


def test_pools_and_their_gradients(without):
    for threads in (1, 2):
        torch.set_num_threads(threads)
        x = torch.rand(4, 16, 40, 40, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = gs.pool(x, "max", gs.Window(3, 2, 1))
        (dx,) = torch.autograd.grad(out.sum(), x)
        right = F.max_pool2d(x, 3, 2, 1)
        assert torch.equal(out, right)
        torch.testing.assert_close(dx, torch.autograd.grad(right.sum(), x)[0])
    torch.set_num_threads(1)


def test_transforms_of_torch_func(without):
    x = torch.rand(3, 2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    for name in ("max", "gem", "mean"):
        rows = torch.vmap(lambda one, name=name: gs.pool(one, name))(x)
        torch.testing.assert_close(rows, torch.stack([gs.pool(one, name) for one in x]))
        slope = torch.func.grad(lambda one, name=name: gs.pool(one, name).sum())(x[0])
        y = x[0].clone().requires_grad_()
        torch.testing.assert_close(slope, torch.autograd.grad(gs.pool(y, name).sum(), y)[0])
    p = torch.tensor(3.0)
    slope = torch.func.grad(lambda p: gs.pool(x[0], "gem", p=p).sum())(p)
    q = p.clone().requires_grad_()
    torch.testing.assert_close(slope, torch.autograd.grad(gs.pool(x[0], "gem", p=q).sum(), q)[0])


def test_modes_see_pools(without):
    seen = []

    class Look(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Look():
        out = gs.pool(torch.rand(2, 3, 8, 8), "max", gs.Window(2))
    assert out.shape == (2, 3, 4, 4)
    assert seen


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, of forward_ad
def test_accelerated_networks(without):
    plain = model()
    fast = gs.accelerate(copy.deepcopy(plain))
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(fast(x), plain(x))
    tangent = torch.rand_like(x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        ours, theirs = (torch.autograd.forward_ad.unpack_dual(net(dual)).tangent for net in (fast, plain))
    torch.testing.assert_close(ours, theirs)


def test_explain_swap_inspect_and_mixed_sizes(without):
    x = images()
    explained = gs.explain(model(), x)
    torch.testing.assert_close(explained.maps.sum((2, 3)) + explained.bias, model()(x).detach(), atol=1e-5, rtol=1e-5)
    swapped = gs.swap_head(model(), "gmp", num_classes=4)
    assert swapped(x).shape == (2, 4)
    called = []
    net = model()
    net.conv.register_forward_hook(lambda *_: called.append(1))
    assert gs.inspect(net, size=(24, 24)).parameters == sum(p.numel() for p in net.parameters())
    assert bool(called) == (without == "torch.nn.Module._forward_hooks")
    several = [x[0], x[1][:, :20, :17]]
    answers = gs.mixed_sizes(model(), several)
    for one, answer in zip(several, answers, strict=True):
        torch.testing.assert_close(answer, model()(one[None])[0], atol=1e-5, rtol=1e-5)
    own = gs.swap_head(model(), "gem", num_classes=4).eval()
    with warnings.catch_warnings():
        if without == "torch._C.DisableTorchFunction":
            warnings.filterwarnings("ignore", "TrunkAndHead: 2 images in 2 batches", UserWarning)
        answers = gs.mixed_sizes(own, several)
    for one, answer in zip(several, answers, strict=True):
        torch.testing.assert_close(answer, own(one[None])[0], atol=1e-5, rtol=1e-5)


def test_a_map_that_is_changed_in_place(without):
    for x in (torch.rand(3), torch.rand(3) * torch.nan):
        before = torch_internals.snapshot(x)
        assert not torch_internals.changed(x, before)
        x.mul_(2).nan_to_num_(5.0)
        assert torch_internals.changed(x, before)


def test_export_takes_any_number_of_images(without):
    from gapstone.export.size_range import SizeRange
    from gapstone.export.to_pt2 import graph

    program, _ = graph(model(), SizeRange(3, (24, 24), 4, False))
    for number in (2, 5) if without == "torch.fx.experimental._config.patch" else (1, 2, 5):
        assert program.module()(images()[:1].expand(number, -1, -1, -1)).shape == (number, 4)
