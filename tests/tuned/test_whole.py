"""The tuned kernels over whole maps, against float64 formulas, their limits, and the derived loop.

Tolerance is a policy: the error against float64 at most twice that of the same formula in plain torch in that dtype,
plus one unit in the last place. A kernel takes up to a second to compile: the full matrix is slow.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gapstone.pools import POOLS
from gapstone.regions.places import Cells, Intervals, Labels, Place, Windows

pytest.importorskip("numba")

from gapstone.loops import compiled
from gapstone.loops.tuned import dispatch as tuned
from gapstone.loops.tuned import launch_whole
from tests.loops_by_name import ByName
from tests.marks import slow_but

derived, dispatch, whole = ByName(compiled), ByName(tuned), ByName(launch_whole)

EVERYWHERE = Intervals(None)


def gem(x: Tensor, p: Tensor) -> Tensor:
    x = x.clamp(min=1e-6)
    top = x.detach().amax(-1, keepdim=True)
    return top[..., 0] * (x / top).pow(p[..., None]).mean(-1).pow(1 / p)


FORMULAS = {
    "mean": lambda x, p: x.mean(-1),
    "max": lambda x, p: x.max(-1).values,
    "gem": gem,
    "logsumexp": lambda x, r: (torch.logsumexp(r[..., None] * x, -1) - math.log(x.shape[-1])) / r,
    "softmax": lambda x, r: (x * torch.softmax(r[..., None] * x, -1)).sum(-1),
}
CASES = {
    "mean": ("mean", ()), "max": ("max", ()), "gem": ("gem", (2.7,)), "gem 3": ("gem", (3.0,)),
    "gem 2": ("gem", (2.0,)), "logsumexp": ("logsumexp", (4.0,)), "softmax": ("softmax", (1.5,)),
}  # fmt: skip
LAYOUTS = ("contiguous", "channels_last")
QUICK = {
    ("mean", "channels_last", torch.bfloat16), ("max", "contiguous", torch.float32),
    ("gem", "contiguous", torch.float32),
    ("logsumexp", "contiguous", torch.float32), ("softmax", "contiguous", torch.float32),
}  # fmt: skip
MATRIX = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=" ".join(map(str, case)))
    for case in itertools.product(CASES, LAYOUTS, (torch.float32, torch.bfloat16, torch.float16))
]
SHAPES = [(2, 3, 1), (1, 40, 7), (3, 33, 7, 7), (2, 17, 9, 7), (1, 130, 8, 8), (1, 5, 10, 10, 10), (2, 1, 70, 71)]


def laid(x: Tensor, layout: str) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if layout == "channels_last" else x.contiguous()


def maps(shape: tuple[int, ...], dtype: torch.dtype, layout: str, name: str) -> Tensor:
    x = torch.randn(shape) if name in ("max", "softmax", "logsumexp") else torch.rand(shape) + 0.1
    return laid(x.to(dtype), layout)


def close(ours: Tensor, exact: Tensor, plain: Tensor, dtype: torch.dtype, ulps: int = 1) -> None:
    ours, plain = ours.double(), plain.double()
    error, theirs = (ours - exact).abs().max(), (plain - exact).abs().max()
    assert error <= 2 * theirs + ulps * torch.finfo(dtype).eps * exact.abs().max(), (error, theirs)


def check(name: str, x: Tensor, parameters: tuple, learned: bool = True) -> None:
    """Forward and backward, against the formula in float64 and in x's own type."""
    dtype, few = x.dtype, tuple(x.shape[:2])
    wide = torch.as_tensor(parameters[0] if parameters else 0.0).expand(few)
    learned = learned and bool(parameters)
    g, found = torch.randn(few).to(dtype), []
    for kind in (torch.float64, dtype):
        y, p = x.detach().to(kind).contiguous().requires_grad_(), wide.to(kind).clone().requires_grad_()
        answer = FORMULAS[name](y.flatten(2), p)
        found.append((answer.detach(), *torch.autograd.grad(answer + 0 * p, (y, p), g.to(kind))))
    exact, plain = found
    out, kept = whole.forward(name, x, EVERYWHERE, parameters, True)
    assert (out.shape, out.dtype) == (few, dtype)
    assert [k.dtype for k in kept] == derived.saved_types(name, dtype, EVERYWHERE)
    assert all(k.shape == few for k in kept)
    close(out, exact[0], plain[0], dtype)
    dx, dp = whole.backward(
        name, g, x if parameters else None, out, kept, x.shape, EVERYWHERE, parameters, learned,
        channels_last=not x.is_contiguous(),
    )  # fmt: skip
    assert dx is not None
    assert (dx.dtype, dx.stride()) == (dtype, x.stride())
    # softmax's share looks at the rounded answer: x - out has lost what they have in common
    close(dx, exact[1], plain[1], dtype, 4 if name == "softmax" else 1)
    if learned:
        assert dp is not None
        # logarithms that nearly cancel, of a sum that was rounded once
        close(dp, exact[2], plain[2], torch.float32, 4)


@pytest.mark.parametrize(("case", "layout", "dtype"), MATRIX)
def test_against_float64(case, layout, dtype):
    torch.manual_seed(0)
    name, parameters = CASES[case]
    for shape in SHAPES:
        check(name, maps(shape, dtype, layout, name), parameters, case not in ("gem 3", "gem 2"))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_against_float64_every_size(case, layout):
    torch.manual_seed(0)
    name, parameters = CASES[case]
    for length, channels in itertools.product(
        (1, 2, 7, 15, 16, 17, 49, 63, 64, 65, 1000, 5000), (1, 3, 5, 16, 17, 33, 64, 97)
    ):
        x = maps((2, channels, length), torch.float32, layout, name)
        check(name, x, parameters, case not in ("gem 3", "gem 2"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_the_derived_loop_says_the_same(case, layout, dtype):
    """Also of what is kept: either loop's backward takes what the other one kept."""
    torch.manual_seed(0)
    name, parameters = CASES[case]
    tolerance = {"rtol": 3e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-3}
    learned = bool(parameters) and case not in ("gem 3", "gem 2")
    for shape in SHAPES:
        x = maps(shape, dtype, layout, name)
        out, kept = whole.forward(name, x, EVERYWHERE, parameters, True)
        again, nothing = whole.forward(name, x, EVERYWHERE, parameters)
        assert torch.equal(out, again)
        assert nothing == []
        theirs, they_kept = derived.forward(name, x, EVERYWHERE, parameters, True)
        torch.testing.assert_close(out, theirs, **tolerance)
        for ours, other in zip(kept, they_kept, strict=True):
            torch.testing.assert_close(ours, other, rtol=3e-6, atol=1e-6)
        g = torch.randn(out.shape).to(dtype)
        rest = (x.shape, EVERYWHERE, parameters, learned, not x.is_contiguous())
        one = whole.backward(name, g, x, theirs, they_kept, *rest)
        other = derived.backward(name, g, x, out, kept, *rest)
        for ours, their in zip(one, other, strict=True):
            assert (ours is None) == (their is None)
            if ours is not None:
                # slopes: sums of terms that nearly cancel
                loose = {**tolerance, "atol": 1e-5} if ours is one[1] and dtype == torch.float32 else tolerance
                torch.testing.assert_close(ours, their, **loose)


# ---- the ends of the scale


def asked(name: str, x: Tensor, parameters: tuple, loop=whole) -> tuple[Tensor, Tensor]:
    """The answers, and dx of their sum."""
    out, kept = loop.forward(name, x, EVERYWHERE, parameters, True)
    dx, _ = loop.backward(
        name, torch.ones_like(out), x if parameters else None, out, kept, x.shape, EVERYWHERE, parameters,
        channels_last=not x.is_contiguous(),
    )  # fmt: skip
    return out, dx


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(name, layout, marks=() if (name, layout, torch.float32) in QUICK else pytest.mark.slow)
        for name in ("gem", "logsumexp", "softmax")
        for layout in LAYOUTS
    ],
)
def test_limits(name, layout):
    torch.manual_seed(0)
    x = laid(torch.randn(2, 35, 5, 6) * 3 + 10, layout)
    mean, top = x.double().mean((2, 3)).float(), x.amax((2, 3))
    assert torch.equal(asked(name, x, (1e30,))[0], top)
    small = {"gem": 1.0, "logsumexp": 1e-18, "softmax": 0.0}[name]
    torch.testing.assert_close(asked(name, x, (small,))[0], mean, rtol=1e-6, atol=0)
    if name == "logsumexp":
        for r in (1e-12, 1e-7):  # log(sum exp(r x)) / r divides a rounding error by r
            torch.testing.assert_close(asked(name, x, (r,))[0], mean, rtol=2e-6, atol=0)
    two = laid(torch.tensor([[[1.0, 4.0, 4.0, 2.0]]]).repeat(1, 40, 1), layout)
    assert asked(name, two, (1e30,))[1].flatten(0, 1).unique(dim=0).tolist() == [[0, 0.5, 0.5, 0]]
    torch.testing.assert_close(asked(name, two, (small,))[1], torch.full((1, 40, 4), 0.25))
    for p in (0.05, 0.5, 20.0, 100.0) if name == "gem" else (0.01, 30.0, 300.0):
        check(name, maps((2, 33, 7, 7), torch.float32, layout, name), (p,), learned=p <= 1)


EXTREMES = {
    "gem": ([1e30, 2e30, 3.0], [1e13, 2e13, 0.0], [1e-30, 1e-20, 1e-10], [0.0] * 3, [-5.0, -math.inf, -1.0],
            [1e38, 0.0, 0.0]),
    "logsumexp": ([1e30, 2e30, 3.0], [1e-30, 2e-30, 0.0], [-3e38, 3e38, 0.0], [-math.inf] * 3, [-math.inf, 0.0, 1.0]),
    "softmax": ([1e30, 2e30, 3.0], [1e-30, 2e-30, 0.0], [-3e38, 1.0, 0.0], [-math.inf] * 3, [-math.inf, 0.0, 1.0]),
    "max": ([1e30, 2e30, 3.0], [-math.inf] * 3, [-math.inf, 0.0, 0.0], [-3e38, -math.inf, 3e38]),
    "mean": ([1e30, 2e30, 3.0], [-math.inf] * 3, [-math.inf, 0.0, 0.0], [3e38, 3e38, 0.0]),
}  # fmt: skip


@pytest.mark.parametrize("layout", slow_but(LAYOUTS, "contiguous"))
@pytest.mark.parametrize("case", slow_but(CASES, "gem", "gem 3"))
def test_huge_tiny_infinite_and_nan(case, layout):
    """Each alone (what is noticed sends the whole call to the derived loop), then all of them among other maps."""
    name, parameters = CASES[case]
    torch.manual_seed(0)
    rows = [*EXTREMES[name], [math.inf, 1.0, 2.0], [math.nan, 1.0, 2.0], [1.0, math.nan, math.inf], [2.0, 2.0, 1.0]]
    batches = [torch.tensor([[row]]) for row in rows]
    batches.append(torch.cat([torch.tensor([rows]), torch.rand(1, 40, 3)], 1))
    for batch in batches:
        x = laid(batch.repeat(1, 1, 7), layout)
        for ours, theirs in zip(asked(name, x, parameters), asked(name, x, parameters, derived), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-7, equal_nan=True)


def test_cubes_that_overflow_are_noticed():
    x = torch.tensor([[[1e20, 2e20], [1.0, 2.0]]])
    exact = [2e20 * (9 / 16) ** (1 / 3), (9 / 2) ** (1 / 3)]
    assert whole.forward("gem", x, EVERYWHERE, (3.0,))[0].flatten().tolist() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_of_ties(layout):
    torch.manual_seed(0)
    for length in (1, 7, 49, 64, 1000, 4097, 9000):
        x = laid(torch.randint(0, 3, (2, 35, length)).float(), layout)
        x[0, 0], x[0, 1, : length // 2] = 1.0, -math.inf
        out, kept = whole.forward("max", x, EVERYWHERE, (), True)
        first = (x == x.amax(-1, keepdim=True)).int().argmax(-1)
        assert torch.equal(out, x.amax(-1))
        assert torch.equal(kept[0].long(), first)
        g = torch.randn(2, 35)
        dx, _ = whole.backward("max", g, None, None, kept, x.shape, EVERYWHERE, channels_last=layout != "contiguous")
        assert torch.equal(dx, torch.zeros_like(x).scatter(2, first[..., None], g[..., None]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_sums_are_as_exact_as_torchs(layout):
    torch.manual_seed(0)
    x = laid(torch.rand(1, 2, 1024, 1024), layout)
    exact, plain = x.double().mean((2, 3)), x.mean((2, 3)).double()
    allowed = 2 * (plain - exact).abs().max() + 2**-23 * exact.max()
    places = [Labels(torch.zeros(1, 1024, 1024, dtype=torch.long), 1, whole=True)]
    for place in [EVERYWHERE, *places] if layout == "channels_last" else places:
        out, _ = whole.forward("mean", x, place)
        assert (out.double() - exact).abs().max() <= allowed


# ---- mean and max in one read, and the masked mean


@pytest.mark.slow  # quick: test_masked_mean, test_against_float64
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("contiguous", torch.float32),
        *(
            pytest.param(layout, dtype, marks=pytest.mark.slow)
            for layout in LAYOUTS
            for dtype in (torch.float32, torch.bfloat16)
            if (layout, dtype) != ("contiguous", torch.float32)
        ),
    ],
    ids=str,
)
def test_avgmax(layout, dtype):
    torch.manual_seed(0)
    for shape in SHAPES:
        x = maps(shape, dtype, layout, "max")
        mean, largest, position = launch_whole.avgmax_kept(x)
        flat = x.flatten(2)
        close(mean, flat.double().mean(-1), flat.mean(-1), dtype)
        assert torch.equal(largest, flat.amax(-1))
        assert torch.equal(position.long(), (flat == largest[..., None]).int().argmax(-1))
        out = torch.empty(shape[:2], dtype=dtype), torch.empty(shape[:2], dtype=dtype)
        again = launch_whole.avgmax(x, out)
        assert again[0] is out[0]
        assert again[1] is out[1]
        assert torch.equal(out[0], mean)
        assert torch.equal(out[1], largest)
        a, b = torch.randn(2, *shape[:2]).to(dtype)
        dx = launch_whole.avgmax_backward(a, b, position, shape, not x.is_contiguous())
        wanted = (a.double() / flat.shape[-1])[..., None].repeat(1, 1, flat.shape[-1])
        wanted.scatter_add_(2, position.long()[..., None], b.double()[..., None])
        assert dx.stride() == x.stride()
        torch.testing.assert_close(dx.flatten(2).double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-7)
    x[0, 0, 0] = math.nan
    mean, largest, _ = launch_whole.avgmax_kept(x)
    assert mean[0, 0].isnan()
    assert largest[0, 0].isnan()
    assert not mean[1].isnan().any()


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *(pytest.param(d, marks=pytest.mark.slow) for d in (torch.bfloat16, torch.float16))],
    ids=str,
)
@pytest.mark.parametrize("layout", slow_but(LAYOUTS, "contiguous"))
def test_masked_mean(layout, dtype):
    torch.manual_seed(0)
    for shape, shared in itertools.product(SHAPES, (False, True)):
        x = maps(shape, dtype, layout, "mean")
        mask = torch.rand(1 if shared else shape[0], *shape[2:]) > 0.4
        mask[0].view(-1)[0] = True
        if len(mask) > 1:
            mask[1] = False  # nothing counts
        hidden = ~mask.expand(shape[0], *shape[2:])[:, None].expand(shape)
        x = laid(torch.where(hidden, math.nan, x), layout)  # is not looked at
        place = Labels(torch.where(mask, 0, -1), 1, whole=True)
        counts = (~hidden).flatten(2).sum(-1)
        seen = torch.where(hidden, 0.0, x)
        out, kept = whole.forward("mean", x, place)
        assert kept == []
        assert torch.equal(out.isnan(), counts == 0)
        exact = (seen.double().flatten(2).sum(-1) / counts).nan_to_num()
        close(out.nan_to_num(), exact, (seen.flatten(2).sum(-1) / counts).nan_to_num(), dtype)
        g = torch.randn(shape[:2]).to(dtype)
        dx, _ = whole.backward("mean", g, None, None, [], shape, place, channels_last=not x.is_contiguous())
        wanted = torch.where(hidden, 0.0, (g.double() / counts).view(*shape[:2], *[1] * (len(shape) - 2)))
        assert dx.stride() == x.stride()
        torch.testing.assert_close(dx.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-7)


# ---- parameters, threads, layouts, refusals


@pytest.mark.parametrize("layout", slow_but(LAYOUTS, "contiguous"))
def test_parameters_of_every_shape(layout):
    torch.manual_seed(0)
    images, channels = 3, 37
    x = maps((images, channels, 6, 7), torch.float32, layout, "gem")
    for shape in ((), (1,), (channels,), (1, 1), (1, channels), (images, 1), (images, channels)):
        check("gem", x, (torch.rand(shape) * 3 + 1,))
    with pytest.raises(ValueError, match="a parameter of shape"):
        whole.forward("gem", x, EVERYWHERE, (torch.ones(images),))


def test_any_number_of_threads_gives_the_same(some):
    torch.manual_seed(0)
    before, found = torch.get_num_threads(), []
    x = torch.rand(8, 70, 28, 28)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            one = []
            for y in some([x, laid(x, "channels_last")], 1):
                out, kept = whole.forward("gem", y, EVERYWHERE, (3.3,), True)
                one += [out, *kept]
                one += whole.backward("gem", out, y, out, kept, x.shape, EVERYWHERE, (3.3,), True)
            found.append(one)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_out_is_written():
    x = torch.rand(2, 3, 8, 8)
    out = torch.full((2, 3), math.nan)
    found, _ = whole.forward("max", x, EVERYWHERE, (), True, out)
    assert found is out
    assert torch.equal(out, x.amax((2, 3)))
    x[0, 0, 0, 0] = math.nan  # the derived loop's answer gets there too
    found, _ = whole.forward("max", x, EVERYWHERE, (), True, out)
    assert found is out
    assert out[0, 0].isnan()
    for bad in (torch.empty(3, 2), torch.empty(2, 3, dtype=torch.float64), torch.empty(3, 2).T, torch.empty(2, 3, 1)):
        with pytest.raises(ValueError, match="out must be"):
            whole.forward("max", x, EVERYWHERE, (), True, bad)


def test_strides_of_its_own():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 10, 12)
    for view in (x[:, ::2], x[..., ::3], x.transpose(2, 3), laid(x, "channels_last")[..., 1:]):
        assert torch.equal(whole.forward("max", view, EVERYWHERE, (), True)[0], view.amax((2, 3)))


def test_nothing():
    for shape in ((0, 3, 5, 5), (2, 0, 5, 5)):
        out, kept = whole.forward("gem", torch.rand(shape), EVERYWHERE, (3.0,), True)
        assert out.shape == shape[:2]
        dx, dp = whole.backward("gem", out, torch.rand(shape), out, kept, shape, EVERYWHERE, (3.0,), True)
        assert dx is not None
        assert dp is not None
        assert (dx.shape, dp.shape) == (shape, shape[:2])


def test_a_slope_that_is_not_wanted_is_not_given():
    x = torch.rand(2, 3, 7, 7) + 0.1
    out, kept = whole.forward("gem", x, EVERYWHERE, (2.7,), True)
    given = ("gem", out, x, out, kept, x.shape, EVERYWHERE, (2.7,))
    assert whole.backward(*given, slope=True)[1] is not None
    assert whole.backward(*given, slope=False)[1] is None


def test_what_is_refused():
    x, g = torch.rand(2, 3, 4, 4), torch.rand(2, 3)
    out, kept = whole.forward("max", x, EVERYWHERE, (), True)
    wrong: list[tuple[type[Exception], object]] = [
        (TypeError, lambda: whole.forward("max", x.double(), EVERYWHERE)),
        (TypeError, lambda: whole.forward("max", x[0, 0], EVERYWHERE)),
        (ValueError, lambda: whole.forward("max", x, Intervals((Windows(2, 2, 2, 0, 0, 1),) * 2))),
        (ValueError, lambda: whole.forward("max", x, Labels(torch.zeros(1, 4, 4), 1, whole=True))),
        (ValueError, lambda: whole.forward("mean", x, Labels(torch.zeros(1, 4, 5), 1, whole=True))),
        (ValueError, lambda: whole.forward("mean", x, Labels(torch.zeros(3, 4, 4), 1, whole=True))),
        (ValueError, lambda: whole.forward("gem", x, EVERYWHERE, (-1.0,))),
        (ValueError, lambda: whole.backward("max", g, None, None, [], x.shape, EVERYWHERE)),
        (ValueError, lambda: whole.backward("max", g[:1], None, None, kept, x.shape, EVERYWHERE)),
        (ValueError, lambda: whole.backward("max", g, None, None, [kept[0].long()], x.shape, EVERYWHERE)),
        (ValueError, lambda: whole.backward("gem", g, None, out, [g, g, g], x.shape, EVERYWHERE, (3.0,))),
        (ValueError, lambda: whole.backward("gem", g, x[:1], out, [g, g, g], x.shape, EVERYWHERE, (3.0,))),
        (ValueError, lambda: launch_whole.avgmax(torch.rand(2, 3, 0))),
        (ValueError, lambda: launch_whole.avgmax_backward(g, g, kept[0][:1], x.shape)),
    ]
    for kind, call in wrong:
        with pytest.raises(kind):
            call()
    # a position that is not on the map is not written to
    assert (
        whole.backward("max", g, None, None, [torch.full((2, 3), 10**6, dtype=torch.int32)], x.shape, EVERYWHERE)[0]
        .eq(0)
        .all()
    )


def test_who_is_served():
    x, place = torch.rand(2, 3, 4, 4), Labels(torch.zeros(1, 4, 4, dtype=torch.long), 1, whole=True)
    for name in FORMULAS:
        given = tuple(knob.default for knob in POOLS[name].parameters.values())
        assert bool(dispatch.serves(name, x, EVERYWHERE, given)) == (name != "mean")
        assert dispatch.serves(name, laid(x, "channels_last"), EVERYWHERE, given)
        assert bool(dispatch.serves(name, x, place, given)) == (name == "mean")
        assert not dispatch.serves(name, x.double(), EVERYWHERE, given)
    assert not dispatch.serves("variance", x, EVERYWHERE, (0.0,))
    some: Place = Intervals((Cells(2, 4), Cells(2, 4)))
    assert not dispatch.serves("max", x, some)
