"""The pools as two operators that torch knows: whole graphs under torch.compile, dynamic sizes under torch.export.

`gapstone::pool` gives the answer and what its backward needs; `gapstone::pool_backward` gives the gradients, through
`share` and `slope`. Both run the loop they are told.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from gapstone.loops import numba
from gapstone.loops import torch as plain
from gapstone.loops.layout import is_channels_last
from gapstone.loops.memory import FORMATS
from gapstone.loops.places import check, decode, encode
from gapstone.loops.tuned import serve as tuned
from gapstone.pools import POOLS, Definition
from gapstone.pools.definition import looks_at
from gapstone.regions.places import Boxes, Labels, Place, Rectangles

Parameters = tuple[Tensor | float, ...]
Tensors = list[Tensor]

# the loops that keep something for the backward; the reference keeps x
COMPILED: dict[str, Any] = {"numba": numba, "tuned": tuned}

UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64}

LIBRARY = torch.library.Library("gapstone", "FRAGMENT")
CALL = "str name, str loop, SymInt[] numbers, Tensor[] places, float[] constants, Tensor[] tensors"
LIBRARY.define(f"pool(Tensor x, {CALL}, bool keep) -> Tensor[]")
LIBRARY.define(
    f"pool_backward(Tensor grad, Tensor[] known, SymInt[] shape, bool last, ScalarType dtype, bool slope, {CALL})"
    " -> Tensor[]"
)


def pool(name: str, loop: str, x: Tensor, place: Place, parameters: Parameters, keep: bool) -> Tensor:
    """One answer, by one loop, seen by torch as one operator."""
    numbers, places = encode(place)
    # NaN stands where a tensor comes
    constants = [nan if isinstance(p, Tensor) else float(p) for p in parameters]
    tensors = [p for p in parameters if isinstance(p, Tensor)]
    out: Tensor = torch.ops.gapstone.pool(x, name, loop, numbers, places, constants, tensors, keep)[0]
    return out


def _parameters(constants: Sequence[float], tensors: Sequence[Tensor]) -> Parameters:
    given = iter(tensors)
    # a whole number stays one: topk's k
    return tuple(next(given) if isnan(v) else int(v) if v.is_integer() and abs(v) < 2**53 else v for v in constants)


def answer_type(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.int64 if POOLS[name].integers == "int64" and not dtype.is_floating_point else dtype


def wide(name: str, x: Tensor) -> Tensor:
    """In the type that the state is kept in."""
    if x.dtype in UNSIGNED:  # torch copies them, and has no operator of them
        x = x.to(UNSIGNED[x.dtype])
    if not x.is_floating_point():
        return x if name in POOLS and POOLS[name].integers == "same" else x.long()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _laid(out: Tensor, last: bool) -> Tensor:
    if not last or out.dim() < 3:
        return out.contiguous()
    if out.dim() in FORMATS:
        return out.contiguous(memory_format=FORMATS[out.dim()])
    return out.movedim(1, -1).contiguous().movedim(-1, 1)


# ---- forward


def _pool(
    x: Tensor,
    name: str,
    loop: str,
    numbers: list[int],
    places: Tensors,
    constants: list[float],
    tensors: Tensors,
    keep: bool,
) -> Tensors:
    made = run(name, loop, x, decode(numbers, places), _parameters(constants, tensors), keep)
    return [_laid(part, is_channels_last(x)) for part in made]


def run(name: str, loop: str, x: Tensor, place: Place, parameters: Parameters, keep: bool) -> Tensors:
    """The answer by one loop, and what that loop keeps."""
    check(place, tuple(x.shape))
    if loop in COMPILED:
        out, kept = COMPILED[loop].forward(name, x, place, parameters, keep)
        return [out, *kept]
    return [plain.forward(name, wide(name, x), place, parameters).to(answer_type(name, x.dtype))]


def _pool_fake(
    x: Tensor,
    name: str,
    loop: str,
    numbers: list[int],
    places: Tensors,
    constants: list[float],
    tensors: Tensors,
    keep: bool,
) -> Tensors:
    place = decode(numbers, places)
    types = [answer_type(name, x.dtype)]
    if loop in COMPILED and keep:
        types += numba.kept_types(name, x.dtype, place)
    return [_laid(x.new_empty(_cells(x, place), dtype=dtype), is_channels_last(x)) for dtype in types]


def _cells(x: Tensor, place: Place) -> tuple[Any, ...]:
    """The shape of the answer."""
    if isinstance(place, Rectangles):
        return place.images.shape[0], x.shape[1], *(starts.shape[1] for starts in place.starts)
    if plain.is_whole(place):
        return tuple(x.shape[:2])
    if isinstance(place, Labels):
        return *x.shape[:2], place.count
    assert isinstance(place, Boxes)
    return *x.shape[:2], *(axis.cells for axis in place.axes or ())


# ---- backward


def _backward(
    grad: Tensor,
    known: Tensors,
    shape: list[int],
    last: bool,
    dtype: torch.dtype,
    slope: bool,
    name: str,
    loop: str,
    numbers: list[int],
    places: Tensors,
    constants: list[float],
    tensors: Tensors,
) -> Tensors:
    """`known`: x and the answer, where the loop looks at them, then what the loop kept."""
    place, parameters = decode(numbers, places), _parameters(constants, tensors)
    if loop in COMPILED:
        needs_x, needs_out = needs(name, slope)
        rest = list(known)
        x = rest.pop(0) if needs_x else None
        out = rest.pop(0) if needs_out else None
        dx, dp = COMPILED[loop].backward(name, grad, x, out, rest, tuple(shape), place, parameters, True, slope, last)
        return [_laid(dx, last), *([dp] if dp is not None else [])]
    x = wide(name, known[0])
    dx, dp = plain.backward(name, grad.to(x.dtype), x, place, parameters, slope)
    return [_laid(dx.to(dtype), last), *([_summed(name, dp)] if dp is not None else [])]


def _summed(name: str, slopes: Tensor) -> Tensor:
    """Over all that share one parameter: (N, C), or the map (N, 1, *spatial) of a parameter of each position."""
    per_position = next(iter(POOLS[name].parameters.values())).per_position
    return slopes.sum(1, keepdim=True) if per_position else slopes.flatten(2).sum(2)


def _backward_fake(
    grad: Tensor,
    known: Tensors,
    shape: list[int],
    last: bool,
    dtype: torch.dtype,
    slope: bool,
    name: str,
    loop: str,
    numbers: list[int],
    places: Tensors,
    constants: list[float],
    tensors: Tensors,
) -> Tensors:
    dx = _laid(grad.new_empty(shape, dtype=dtype), last)
    if not slope:
        return [dx]
    per_position = next(iter(POOLS[name].parameters.values())).per_position
    size = (shape[0], 1, *shape[2:]) if per_position else shape[:2]
    return [dx, grad.new_empty(size, dtype=torch.float64 if dtype == torch.float64 else torch.float32)]


def needs(name: str, slope: bool) -> tuple[bool, bool]:
    """Whether the backward looks at x, and at the answer."""
    return _needs(POOLS[name], slope)


@lru_cache  # asked on every call that is differentiated
def _needs(pool: Definition, slope: bool) -> tuple[bool, bool]:
    seen = set(looks_at(pool.share))
    if slope and pool.slope:
        seen |= set(looks_at(pool.slope))
    return "x" in seen, "out" in seen


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    x, name, loop, numbers, places, constants, tensors, keep = inputs
    slope = any(t.requires_grad for t in tensors)
    needs_x, needs_out = needs(name, slope)
    if loop in COMPILED and keep:
        known = [*([x] if needs_x else []), *output[: 1 if needs_out else 0], *output[1:]]
    else:
        known, loop = [x], "torch"
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*known, *places, *tensors)
    ctx.counts = len(known), len(places)
    ctx.call = tuple(x.shape), is_channels_last(x), x.dtype, slope, name, loop, numbers
    ctx.constants = constants


def _gradients(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    if (grad := grads[0]) is None:
        raise RuntimeError("the answer has no gradient to pass on")
    known, places, tensors = _saved(ctx)
    found = torch.ops.gapstone.pool_backward(grad, known, *ctx.call, places, ctx.constants, tensors)
    learned = [_like(found[1], t) for t in tensors] if ctx.call[3] else [None] * len(tensors)
    return found[0], None, None, None, [None] * len(places), _no_gradient(ctx.constants), learned, None


def _no_gradient(numbers: list[float]) -> list[None] | None:
    """torch takes an empty list for a list of tensors, and a list of numbers for one thing."""
    return None if numbers else []


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Summed over images where they share the parameter, over channels where these do."""
    shape = (1,) * (gradient.dim() - parameter.dim()) + tuple(parameter.shape)
    return gradient.sum_to_size(shape).reshape(parameter.shape).to(parameter.dtype)


def _saved(ctx: Any) -> tuple[Tensors, Tensors, Tensors]:
    saved, (a, b) = list(ctx.saved_tensors), ctx.counts
    return saved[:a], saved[a : a + b], saved[a + b :]


# ---- the gradient of the gradient


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    grad, known, *call, numbers, places, constants, tensors = inputs
    ctx.save_for_backward(grad, *known, *places, *tensors)
    ctx.counts = 1 + len(known), len(places)
    ctx.call, ctx.numbers, ctx.constants = tuple(call), numbers, constants


def _second(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """Where share does not look at x the pool is linear in it: the gradient of the gradient is the pool itself, or what
    stands at the winners. Elsewhere the reference is differentiated.
    """
    (grad, *known), places, tensors = _saved(ctx)
    _, last, _, slope, name, loop = ctx.call
    place, parameters = decode(ctx.numbers, places), _parameters(ctx.constants, tensors)
    nothing = [None] * len(places), _no_gradient(ctx.constants)
    if loop in COMPILED and not needs(name, slope)[0]:
        gg = grads[0]
        assert gg is not None
        if POOLS[name].positional:
            at = COMPILED[loop].positions(_laid(gg, last), place, known[-1], name)
            linear = gg.flatten(2).gather(2, at.flatten(2)).reshape(grad.shape)
        else:
            linear = pool(name, loop, gg, place, parameters, torch.is_grad_enabled())
        return linear, [None] * len(known), *(None,) * 7, *nothing, [None] * len(tensors)
    with torch.enable_grad():
        first, x = grad.detach().requires_grad_(), known[0].detach().requires_grad_()
        own = tuple(p.detach().requires_grad_() if isinstance(p, Tensor) else p for p in parameters)
        dx, dp = plain.backward(name, first.to(wide(name, x).dtype), wide(name, x), place, own, slope)
        answers = [dx] if dp is None else [dx, _summed(name, dp)]
        pairs = [(a, g.to(a.dtype)) for a, g in zip(answers, grads, strict=False) if g is not None and a.requires_grad]
        into = [first, x, *(p for p in own if isinstance(p, Tensor))]
        heads, tails = [a for a, _ in pairs], [g for _, g in pairs]
        found = torch.autograd.grad(heads, into, tails, allow_unused=True) if pairs else (None,) * len(into)
    return found[0], [found[1], *[None] * (len(known) - 1)], *(None,) * 7, *nothing, list(found[2:])


for key in ("CPU", "CUDA", "MPS", "XPU"):  # opcheck wants the devices by name
    LIBRARY.impl("pool", _pool, key)
    LIBRARY.impl("pool_backward", _backward, key)
torch.library.register_fake("gapstone::pool", _pool_fake, lib=LIBRARY)
torch.library.register_fake("gapstone::pool_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("gapstone::pool", _gradients, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd("gapstone::pool_backward", _second, setup_context=_setup_backward, lib=LIBRARY)
