"""The ends of the scale: p and r at their limits, zeros and negatives, half precision, long sums."""

import math

import pytest
import torch

import gapstone as gs
from tests.contract.conftest import by as serve_by

LOOPS = pytest.mark.parametrize("loop", ["reference", None], ids=["reference", "chosen"])
REGIONS = [gs.Whole(), gs.Window((5, 6)), gs.Grid(1)]


@pytest.fixture
def by(monkeypatch):
    return lambda loop: serve_by(loop, monkeypatch)


@LOOPS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limits_of_p_and_r(loop, dtype, by):
    by(loop)
    x = torch.randn(2, 3, 5, 6, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 3 + 10
    mean, top = x.mean((2, 3)), x.amax((2, 3))
    for region in REGIONS:

        def ask(name, region=region, **parameters):
            return gs.pool(x, name, region, **parameters).flatten(1)

        exact = {"rtol": 1e-6 if dtype == torch.float32 else 1e-14, "atol": 0}
        torch.testing.assert_close(ask("gem", p=1.0), mean, **exact)
        assert torch.equal(ask("gem", p=math.inf), top)
        assert torch.equal(ask("lp", p=math.inf), top)
        torch.testing.assert_close(ask("lp", p=1.0), x.sum((2, 3)), **exact)
        for r in (0.0, 1e-30, 1e-12, 1e-7):
            # in between, log-sum-exp lost its digits: log(sum exp(r x)) / r divides a rounding error by r
            torch.testing.assert_close(
                ask("logsumexp", r=r), mean, rtol=2e-6 if dtype == torch.float32 else 1e-6, atol=0
            )
        torch.testing.assert_close(ask("logsumexp", r=0.0), mean, **exact)
        torch.testing.assert_close(ask("softmax", r=0.0), mean, **exact)
        for name in ("logsumexp", "softmax"):
            assert torch.equal(ask(name, r=math.inf), top)
            torch.testing.assert_close(ask(name, r=1e4), top, rtol=1e-4, atol=1e-4)
        assert torch.equal(ask("topk", k=1), top)
        torch.testing.assert_close(ask("topk", k=1000), mean, **exact)


@LOOPS
def test_gradients_at_the_limits(loop, by):
    by(loop)
    x = torch.tensor([[[1.0, 4.0, 4.0, 2.0]]], requires_grad=True)
    for name, parameters in (("gem", {"p": math.inf}), ("logsumexp", {"r": math.inf}), ("softmax", {"r": math.inf})):
        (dx,) = torch.autograd.grad(gs.pool(x, name, **parameters).sum(), x)
        assert dx.tolist() == [[[0, 0.5, 0.5, 0]]], name  # all the largest share it
    for name, parameters in (("gem", {"p": 1.0}), ("logsumexp", {"r": 0.0}), ("softmax", {"r": 0.0})):
        (dx,) = torch.autograd.grad(gs.pool(x, name, **parameters).sum(), x)
        torch.testing.assert_close(dx, torch.full_like(dx, 0.25))


@LOOPS
@pytest.mark.parametrize(
    "name", ["mean", "sum", "max", "min", "gem", "l2", "lp", "logsumexp", "softmax", "variance", "std"]
)
def test_zeros_and_negatives_give_numbers(name, loop, by):
    by(loop)
    for fill in (0.0, -3.0):
        for region in (gs.Whole(), gs.Window(2), gs.Grid(2)):
            x = torch.full((1, 2, 4, 4), fill, requires_grad=True)
            out = gs.pool(x, name, region)
            (dx,) = torch.autograd.grad(out.sum(), x)
            assert torch.isfinite(out).all(), fill
            assert torch.isfinite(dx).all(), fill


@LOOPS
@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, 10.0])
@pytest.mark.parametrize("name", ["gem", "lp"])
def test_a_learned_p_learns_from_zeros(name, p, loop, by):
    by(loop)
    x, value = torch.zeros(1, 2, 3, 3, requires_grad=True), torch.tensor(p, requires_grad=True)
    for gradient in torch.autograd.grad(gs.pool(x, name, p=value).sum(), (x, value)):
        assert torch.isfinite(gradient).all()


@LOOPS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_drifts(loop, dtype, by):
    by(loop)
    x = torch.full((1, 1, 256, 256), 60.0, dtype=dtype)
    for region in (gs.Whole(), gs.Window(128), gs.Grid(2)):
        for name, parameters in (
            ("mean", {}), ("gem", {"p": 3.0}), ("gem", {"p": 50.0}), ("logsumexp", {"r": 100.0}), ("softmax", {}),
            ("topk", {"k": 2}), ("max", {}),
        ):  # fmt: skip
            if name == "topk" and not isinstance(region, gs.Whole):
                continue
            out = gs.pool(x, name, region, **parameters)
            assert out.dtype == dtype
            assert out.flatten().tolist() == pytest.approx([60] * out.numel(), rel=2 * torch.finfo(dtype).eps)


@LOOPS
def test_norms_of_the_largest_and_the_smallest_numbers(loop, by):
    by(loop)
    for scale in (1e-30, 1e30):
        x = torch.tensor([[[3.0, -4.0]]]) * scale
        for name in ("l2", "lp"):
            assert gs.pool(x, name).item() == pytest.approx(5 * scale, rel=1e-6)
    assert gs.pool(torch.tensor([[[1e30, 2e30]]]), "gem", p=20.0).item() == pytest.approx(2e30 * 0.5**0.05, rel=1e-5)


@LOOPS
def test_long_sums_are_as_exact_as_torchs(loop, by):
    by(loop)
    x = torch.rand(1, 2, 1024, 1024, generator=torch.Generator().manual_seed(0))
    right = x.double().mean((2, 3))
    for region in (gs.Whole(), gs.Window(1024), gs.Grid(1), gs.Mask(torch.ones(1024, 1024, dtype=torch.bool))):
        for laid in (x, x.contiguous(memory_format=torch.channels_last)):
            plain = (laid.mean((2, 3)).double() - right).abs().max()
            allowed = 2 * plain + torch.finfo(torch.float32).eps * right.max()
            off = (gs.pool(laid, "mean", region).double().flatten(1) - right).abs().max()
            assert off <= allowed, region
    # far from zero, the spread is still there
    far = torch.randn(1, 2, 300, 300, generator=torch.Generator().manual_seed(0)) + 1e4
    for name in ("variance", "std"):
        expected = gs.pool(far.double(), name)
        torch.testing.assert_close(gs.pool(far, name).double(), expected, rtol=1e-3, atol=0)
        torch.testing.assert_close(gs.pool(far, name, gs.Grid(1)).double().flatten(1), expected, rtol=1e-3, atol=0)


def test_torchs_corrupted_memory_is_minus_infinity_here():
    """F.max_pool2d of this, backwards, aborts the process: the last window sees only padding."""
    x = torch.zeros(1, 1, 1, 224, requires_grad=True)
    out = gs.pool(x, "max", gs.Window(3, (6, 1), 1, dilation=2, ceil_mode=True))
    assert out.shape == (1, 1, 1, 222)
    assert (out == -math.inf).all()
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
