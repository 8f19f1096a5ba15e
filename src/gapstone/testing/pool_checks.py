"""What every pool is checked for, one function each; each raises AssertionError with what is wrong."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from gapstone.loops.pool_call import Parameters, PoolCall
from gapstone.loops.reference_states import empty_like, lift, on_tensors, states
from gapstone.pooling import partial, pool, share
from gapstone.pooling.call_checks import Value
from gapstone.pools import POOLS, Definition
from gapstone.pools.name_types import OwnPool
from gapstone.regions import Grid, Mask, Region, Segments, Whole, Window
from gapstone.regions.places import Intervals
from gapstone.testing.region_cases import Axis, RegionCase

Formula = Callable[..., Tensor]
"""Pools the last axis of a float64 tensor; parameters follow by name."""
Given = Mapping[str, float]
"""The parameters of a call."""
Ask = Callable[[Tensor, Region], Tensor]
"""Pools a map over a region."""

GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def made_map(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, signed: bool = False) -> Tensor:
    """A map of random numbers, positive unless `signed`."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype) if signed else x.abs().add(0.05).to(dtype)


def layouts(x: Tensor) -> Iterator[Tensor]:
    """x contiguous, and channels-last where torch has such a format."""
    yield x.contiguous()
    if x.dim() >= 4:
        yield x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def pooled_by_formula(
    formula: Formula, x: Tensor, answers: Axis, parameters: Given, score: Tensor | None = None
) -> Tensor:
    """The formula on each answer's positions: (N, C, answers) in float64; empty lists give NaN.

    `score`: (N, 1, positions), a second argument of the formula.
    """
    flat = x.double().flatten(2)
    out = torch.full((*flat.shape[:2], len(answers)), math.nan, dtype=torch.float64)
    for length in {len(at) for at in answers} - {0}:  # those of a length at once: a third of the time
        these = [i for i, at in enumerate(answers) if len(at) == length]
        at = torch.tensor([answers[i] for i in these])
        scores = () if score is None else (score[..., at],)
        out[..., these] = formula(flat[..., at], *scores, **parameters)
    return out


def tolerance(right: Tensor, dtype: torch.dtype) -> Tensor:
    """The tolerance policy: float64's last digits, or twice what rounding the answer and float32 sums may cost."""
    scale = right.abs().clamp(min=right[right.isfinite()].abs().max() if right.isfinite().any() else 1)
    if dtype == torch.float64:
        return 1e-11 * scale
    ulp = torch.finfo(dtype).eps
    return scale * (ulp if dtype != torch.float32 else 8 * ulp)


def check_answer(ask: Ask, right: Tensor, x: Tensor, case: RegionCase) -> int:
    """The answers over a region are the formula's (`right`: (N, C, answers)), in each layout; how many were tried."""
    right = right.reshape(*x.shape[:2], *case.shape)
    there = torch.tensor([bool(at) for at in case.answers]).reshape(case.shape).expand(right.shape)
    count = 0
    for laid in layouts(x):
        out = ask(laid, case.region)
        where = f"over {case.region!r} of a map {tuple(x.shape)}, strides {laid.stride()}, {x.dtype}"
        assert out.dtype == x.dtype, f"the answer {where} is {out.dtype}"
        assert out.shape == right.shape, f"the answer {where} has the shape {tuple(out.shape)}"
        off = (out.double() - right).abs()
        wrong = there & ~(off <= tolerance(right, x.dtype))
        assert not wrong.any(), f"the answer {where} is off by {off[wrong].max():.3g}"
        count += 1
    return count


def check_gradient(ask: Ask, formula_of: Callable[[Tensor, Axis], Tensor], x: Tensor, case: RegionCase) -> int:
    """The gradient is that of the formula, as torch differentiates it in float64: share, position by position."""
    keep = torch.tensor([bool(at) for at in case.answers])
    g = torch.randn(*x.shape[:2], len(case.answers), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    g = (g * keep).to(x.dtype)
    there = [at for at in case.answers if at]
    exact = x.double().requires_grad_()
    right = torch.zeros_like(exact)
    if there:
        (right,) = torch.autograd.grad((formula_of(exact, there) * g.double()[..., keep]).sum(), exact)
    known = right.isfinite()  # the formula's root has no slope where all are equal
    known.view(-1)[0] |= not known.any()
    right = right.nan_to_num(0.0)
    scale = right.abs().max().clamp(min=1e-3)
    count = 0
    for laid in layouts(x):
        leaf = laid.detach().requires_grad_()
        out = ask(leaf, case.region)
        (dx,) = torch.autograd.grad(out, leaf, g.reshape(out.shape))
        where = f"over {case.region!r} of a map {tuple(x.shape)}, strides {laid.stride()}, {x.dtype}"
        assert (dx.dtype, dx.shape) == (x.dtype, x.shape), f"the gradient {where} is {dx.dtype} {tuple(dx.shape)}"
        off = (dx.double() - right)[known].abs().amax()
        assert off <= GRADIENT_TOLERANCE[x.dtype] * scale, f"the gradient {where} is off by {off:.3g}: share is wrong"
        count += 1
    return count


def check_laws(definition: Definition, parameters: Parameters = ()) -> None:
    """The empty state changes nothing, order and grouping change nothing, blocks are their positions one by one."""
    pool = on_tensors(definition, 1)
    x = made_map(1, 1, 6, seed=5)
    parts = lift(pool, x, parameters)
    pairs = zip(parts, pool.empty, strict=True)
    empty = tuple(empty_like(p, e).expand(p[..., :1].shape) for p, e in pairs)
    ones = [tuple(p[..., i : i + 1] for p in parts) for i in range(6)]

    def add(s: tuple[Tensor, ...], t: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(pool.combine(*s, *t, *parameters))

    def same(s: tuple[Tensor, ...], t: tuple[Tensor, ...], law: str) -> None:
        for part, (a, b) in enumerate(zip(s, t, strict=True)):
            close(a.expand_as(b), b, f"{law}, in part {part} of the state")

    for state in (ones[0], add(ones[0], ones[1]), empty):
        # a log-sum-exp that passed every other law gave NaN for empty + empty
        same(add(empty, state), state, "combine(empty, s) is not s")
        same(add(state, empty), state, "combine(s, empty) is not s")
    grouped = add(ones[0], add(ones[1], ones[2]))
    same(add(add(ones[0], ones[1]), ones[2]), grouped, "combine depends on how states are grouped")
    same(add(ones[3], ones[4]), add(ones[4], ones[3]), "combine depends on the order of states")
    total = ones[0]
    for state in ones[1:]:
        total = add(total, state)
    finished = pool.finish(*total, *parameters)
    block = states(PoolCall.for_reference(definition, x, Intervals(None), parameters), x)
    close(pool.finish(*block, *parameters), finished, "a block (fold or terms) is not its positions one by one")
    if pool.terms:
        key = pool.key(x, *parameters) if pool.key else x
        terms = pool.terms(x, key, *parameters)
        same((key, *(torch.as_tensor(t, dtype=x.dtype) for t in terms)), parts, "terms are not those of lift")


def close(a: Tensor, b: Tensor, what: str, rtol: float = 1e-12, atol: float = 1e-12) -> None:
    """As torch.testing.assert_close, with what was compared; NaN is NaN."""
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{what}: {text}")


def check_merging(name: str, parameters: Given, signed: bool) -> None:
    """States of tiles add up to the state of the whole, whichever the tiles, in any order."""
    x = made_map(2, 3, 7, 9, seed=3, signed=signed)
    labels = torch.arange(63).reshape(7, 9) % 4 - 1
    for over in ("whole", "segments"):

        def region(rows: slice, columns: slice, over: str = over) -> Region:
            if over == "segments":
                return Segments(labels[rows, columns], 3)
            return Mask(torch.ones(7, 9, dtype=torch.bool)[rows, columns])

        tiles = [(slice(a, b), slice(c, d)) for a, b in ((0, 2), (2, 7)) for c, d in ((4, 9), (0, 1), (1, 4))]
        pieces = [partial(x[..., r, c], OwnPool(name), region(r, c), **parameters) for r, c in tiles]
        total = pieces[0]
        for piece in pieces[1:]:
            total = total + piece
        whole = pool(x, OwnPool(name), region(slice(None), slice(None)), **parameters)
        close(total.finish(), whole, f"tiles over {over} do not add up to the whole", 1e-11, 1e-11)


def check_order(name: str, parameters: Given, signed: bool) -> None:
    """The order of positions does not matter."""
    x = made_map(2, 3, 40, seed=4, signed=signed)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    a, b = (pool(each, OwnPool(name), Whole(), **parameters) for each in (x, x[..., order]))
    close(a, b, "the answer depends on the order of positions", 1e-11, 1e-11)


def check_nan(name: str, parameters: Given, signed: bool) -> None:
    """A NaN reaches its own answer and no other."""
    x = made_map(1, 2, 6, 6, dtype=torch.float32, signed=signed)
    x[0, 0, 1, 1] = math.nan
    for region in (Whole(), Window(2), Grid(3)):
        spoilt = pool(x, OwnPool(name), region, **parameters).isnan().reshape(2, -1)
        many = int(spoilt[0].sum())
        assert many == 1, f"of a map with one NaN, {many} answers over {region!r} are NaN, not 1"
        assert not spoilt[1].any(), f"a NaN reaches the answers of another channel over {region!r}"


def check_empty(name: str, parameters: Given, signed: bool) -> None:
    """Of no image there is no answer; of no position the answer is finish(*empty), and no gradient."""
    key = OwnPool(name)
    nothing = made_map(0, 3, 4, 4).requires_grad_()
    out = pool(nothing, key, Whole(), **parameters)
    assert out.shape == (0, 3), f"the answer of no image has the shape {tuple(out.shape)}"
    x = made_map(2, 3, 4, 4, signed=signed).requires_grad_()
    labels = torch.zeros(4, 4, dtype=torch.long)
    empty = pool(x, key, Segments(labels, 2), **parameters)[..., 1]
    definition = POOLS[name]
    bound = on_tensors(definition, 1)
    parts = [x.new_full((2, 3), value) for value in definition.empty]
    values = tuple(parameters.get(k, p.default) for k, p in definition.parameters.items())
    close(empty, bound.finish(*parts, *values).expand_as(empty), "the answer of no position is not finish(*empty)")
    gone = pool(x, key, Mask(torch.zeros(4, 4, dtype=torch.bool)), **parameters)
    (dx,) = torch.autograd.grad(gone, x, torch.ones_like(gone))
    assert not dx.any(), "positions that are masked have a gradient"


def check_maps(name: str, parameters: Given, signed: bool) -> None:
    """Class activation maps add up where the definition says so, and not where it says not."""
    x = made_map(2, 3, 9, 11, signed=signed)
    parts = x * share(x, OwnPool(name), **parameters)
    gap = (parts.sum((2, 3)) - pool(x, OwnPool(name), Whole(), **parameters)).abs().max()
    adds_up = bool(gap < 1e-10)
    stated = POOLS[name].adds_up
    assert adds_up == stated, f"adds_up={stated}, and sum(x * share) is off the answer by {gap:.3g}"


def check_weights(name: str, formula: Formula, parameters: Given, signed: bool) -> None:
    """Weight 3 is the position three times; a position of weight 0 is not looked at, whatever stands there."""
    times = torch.tensor([[2, 0, 1, 3], [1, 1, 4, 0]])
    x = made_map(2, 3, 4, signed=signed)
    right = torch.stack([formula(x[i].repeat_interleave(times[i], 1), **parameters) for i in range(2)])
    spoilt = torch.where(times[:, None] == 0, math.nan, x)
    close(
        pool(spoilt, OwnPool(name), Mask(times.double()), **parameters), right,
        "weighted=True, and a weight of 3 is not the position three times", 1e-11, 1e-11,
    )  # fmt: skip


def check_slope(name: str, parameters: Given, signed: bool) -> None:
    """A learned parameter has its gradient, as differences give it."""
    x = made_map(2, 3, 4, 5, signed=signed)
    for key, parameter in POOLS[name].parameters.items():
        if parameter.learned is None:
            continue
        start = parameters.get(key, parameter.default)
        assert start is not None, f"{key} has no default: give check_pool a value in parameters"
        p = (torch.full((3,), float(start), dtype=torch.float64) + torch.arange(3) * 0.3).requires_grad_()
        for region in (Whole(), Grid(3)):

            def ask(value: Tensor, key: str = key, region: Region = region) -> Tensor:
                values: dict[str, Value] = {**parameters, key: value}
                return pool(x, OwnPool(name), region, **values)

            try:
                assert torch.autograd.gradcheck(ask, p)
            except RuntimeError as error:
                raise AssertionError(f"slope is wrong: the gradient of {key} over {region!r}: {error}") from error
