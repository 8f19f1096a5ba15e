"""`pool`: from the call as it was written to the answer of a loop; and `share`."""

import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.loops import gathered, order_statistics, reference
from gapstone.loops.choose_loop import choose_loop
from gapstone.loops.direct import alone
from gapstone.loops.mean_and_max import both_ready, fits_both, mean_and_max
from gapstone.loops.operators import KERNEL_LOOPS
from gapstone.loops.place_encoding import check
from gapstone.loops.pool_call import LoopName, PoolCall
from gapstone.loops.precision import wide
from gapstone.loops.resample import resample
from gapstone.loops.run_call import by_loop, remember, runner
from gapstone.pooling.call_checks import BY_VALUE, Value, check_map, check_place, tensors_of
from gapstone.pooling.pool_names import composition_of, pool_named
from gapstone.pooling.pool_parameters import named_parameters, own_parameters, parameter_values
from gapstone.pools import POOLS, Composition, Definition, WholeOnly
from gapstone.pools.name_types import AnyName, Merging, Name
from gapstone.regions import Region, Whole
from gapstone.regions.places import Place, PositionWeights, Sampled
from gapstone.regions.region import symbolic
from gapstone.runtime.torch_internals import exporting, forward_mode, tracing, transformed

Key = tuple[object, ...]


def pool(x: Tensor, name: Name, over: Region = Whole(), **parameters: Value) -> Tensor:  # noqa: B008 a value
    """Pool a map.

    Examples:
        >>> x = torch.rand(2, 512, 14, 14)
        >>> gs.pool(x, "mean").shape  # global average pooling
        torch.Size([2, 512])
        >>> gs.pool(x, "max", over=gs.Window(3, 2, 1)).shape
        torch.Size([2, 512, 7, 7])
        >>> gs.pool(x, "gem", over=gs.Grid(4), p=2.5).shape
        torch.Size([2, 512, 4, 4])
        >>> gs.pool(x, ("mean", "std")).shape  # side by side along the channels
        torch.Size([2, 1024])

    Args:
        x: (N, C, *spatial) with one, two or three spatial axes, contiguous or channels-last. float16 and bfloat16 are
            pooled in float32 and rounded once; integers only by "max", "min" and "sum" (which gives int64).
        name: a pool of docs/pools.md: "mean", "sum", "max", "min", "gem", "l2", "lp", "logsumexp", "softmax", "topk",
            "variance", "std", "attention", "median", "quantile"; "avgmax", "catavgmax"; one of your own
            (`gs.register_pool`); or a tuple of names, whose answers stand side by side.
        over: where: `Whole()`, `Window(3, 2, 1)`, `Grid(4)`, `Pyramid((1, 2, 4))`, `Boxes(boxes, 7)`, `Mask(mask)`,
            `Segments(labels)`.
        parameters: the pool's own (gem's and lp's `p`, logsumexp's and softmax's `r`, topk's `k`, quantile's `q`,
            variance's and std's `correction`, attention's `query`), as a number, or, for p and r, a tensor that
            broadcasts over (N, C). A tensor with `requires_grad` is learned.

    Returns:
        (N, C) over the whole map or a mask; (N, C, *cells) over windows and grids; (N, C, all cells) over a
        pyramid; (N, C, labels) over segments; (R, C, *cells) over R boxes. The dtype of x.

    Raises:
        ValueError: an unknown name or parameter, a shape without channels or positions, a region that does not fit;
            says what was given and what to do.
        TypeError: a dtype the pool has no meaning for.
    """
    key: Key | None = None
    if (
        type(name) is str
        and type(over) in BY_VALUE
        and (not parameters or NUMBERS.issuperset(map(type, parameters.values())))
        and alone(x)
        and x.is_cpu
        and (definition := POOLS.get(name)) is not None
    ):
        requires_grad = torch.is_grad_enabled() and x.requires_grad
        key = definition, over, x.shape, x.dtype, x.stride(), requires_grad
        if parameters:
            key = key, tuple(parameters.items())
        run = _remembered.get(key)
        if run is not None:
            return run(x)
    if tracing():
        with warnings.catch_warnings():  # that sizes asked for here are those of the example
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return _pool(x, name, over, parameters)
    return _pool(x, name, over, parameters, key)


NUMBERS = {float, int}
USUAL = {Tensor, nn.Parameter, float, int}
_remembered: dict[Key, Callable[[Tensor], Tensor]] = {}
"""How calls like one before are answered: their checks looked at nothing but what is in the key."""

Listener = Callable[[Tensor, AnyName, Region, dict[str, Any]], Tensor | None]
listening: ContextVar[Listener | None] = ContextVar("listening", default=None)
"""Who answers pools of padded maps (gs.mixed_sizes): of the region as it was given, before it meets the padded size."""


def _pool(x: Tensor, name: AnyName, over: Region, parameters: dict[str, Any], key: Key | None = None) -> Tensor:
    """The call as it was written. `key`: what it is remembered by."""
    given = (x, *parameters.values(), *tensors_of(over).values())
    usual = USUAL.issuperset(map(type, given)) or torch.compiler.is_compiling()
    if not usual and (overridden := list(filter(symbolic, given))):
        # who writes down a network's calls (torch.fx) gets this one whole, as torch's own functions give themselves
        function: Any = pool
        node: Tensor = torch.overrides.handle_torch_function(function, overridden, x, name, over, **parameters)
        return node
    if type(name) is list:
        name = tuple(name)
    if not torch.compiler.is_compiling() and (listener := listening.get()) is not None:
        heard = listener(x, name, over, parameters)
        if heard is not None:
            return heard
    composition = composition_of(name)
    if composition is not None:
        return _composed(x, name, composition, over, parameters)
    assert isinstance(name, str)
    return _one(x, pool_named(name), over, parameters, key)


def _composed(x: Tensor, name: AnyName, composition: Composition, over: Region, parameters: dict[str, Any]) -> Tensor:
    """Several pools' answers, side by side or averaged."""
    if composition.pools == ("mean", "max") and not parameters and fits_both(x, over) and both_ready(x):
        answers = list(mean_and_max(x))
    else:
        named_parameters(name, parameters)
        members: tuple[Any, ...] = composition.pools
        answers = [pool(x, member, over, **own_parameters(member, parameters)) for member in members]
    return torch.cat(answers, 1) if composition.join == "cat" else torch.stack(answers).mean(0)


def _one(
    x: Tensor,
    pool: Definition | WholeOnly,
    over: Region,
    parameters: dict[str, Any],
    key: Key | None = None,
    loop: LoopName | None = None,
) -> Tensor:
    """One pool's answer: checks, then the place, then the loop, which is chosen unless it is given."""
    check_map(x, pool, over, parameters)
    values = parameter_values(x, pool, parameters)
    elsewhere = exporting()
    place = over.place(gathered.sizes(x) if elsewhere else tuple(x.shape))
    if isinstance(place, tuple):
        return torch.cat([_one(x, pool, part, parameters, loop=loop).flatten(2) for part in place], 2)
    if isinstance(place, Sampled):
        if "query" in parameters or "score" in parameters:
            raise ValueError(
                f"pool({pool.name!r}, over={over!r}): attention has no meaning between positions; sampling=None."
            )
        of_each = place.images  # what is given per image is that of a box's image
        values = tuple(v[of_each] if isinstance(v, Tensor) and v.dim() == 2 and len(v) > 1 else v for v in values)
        x, place = resample(wide(pool, x), place).to(x.dtype), place.boxes
    if isinstance(pool, WholeOnly):
        check(place, tuple(x.shape))
        return order_statistics.forward(pool, x, place, values)  # type: ignore[arg-type]
    check_place(x, pool, place)
    if elsewhere:
        return gathered.forward(PoolCall.for_reference(pool, x, place, values), x)
    if _differentiated_by_torch(x, place, values):
        check(place, tuple(x.shape))
        return reference.pooled(PoolCall.for_reference(pool, x, place, values), x)
    call = PoolCall.of(pool, x, place, values, _requires_grad(x, values))
    if loop is not None:
        return by_loop(call, loop, loop in KERNEL_LOOPS and alone(x))(x)
    run, lasting = runner(call, choose_loop(call).loop, x)
    if key is not None and lasting:
        remember(_remembered, key, run)
    return run(x)


def pool_by_loop(x: Tensor, name: str, over: Region, loop: LoopName, **parameters: Value) -> Tensor:
    """`pool` with the loop given: for tests, which compare loops. A loop that cannot run the call raises."""
    return _one(x, pool_named(name), over, parameters, loop=loop)


def _requires_grad(x: Tensor, values: tuple[Value, ...]) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad or any(isinstance(v, Tensor) and v.requires_grad for v in values)
    )


def _differentiated_by_torch(x: Tensor, place: Place, values: tuple[Value, ...]) -> bool:
    """Share says nothing of weights and of tangents, and torch.func takes no operator that returns a list."""
    at = (x, *values, place.weights) if isinstance(place, PositionWeights) else (x, *values)
    if not torch.compiler.is_compiling() and (forward_mode(*at) or transformed(*at)):
        return True
    return isinstance(place, PositionWeights) and place.weights.requires_grad


def share(x: Tensor, name: Merging, **parameters: Value) -> Tensor:
    """The derivative of a pool by every position, over the whole map.

    Examples:
        >>> torch.allclose((x * gs.share(x, "max")).sum((2, 3)), gs.pool(x, "max"))
        True

    For pools that add up (`gapstone.pools.POOLS[name].adds_up`), `(x * share).sum() == pool` for each map: the
    contribution of each position. (Of attention: with its weights held.)

    Args:
        x: as `pool`.
        name: as `pool`.
        parameters: as `pool`.

    Returns:
        The shape of x; float32 where x is narrower.

    Raises:
        ValueError: as `pool`.
        TypeError: as `pool`.
    """
    if name not in POOLS:
        raise ValueError(f"share(x, {name!r}): there are {', '.join(POOLS)}; of a composition, ask each of its pools.")
    check_map(x, POOLS[name], Whole(), parameters)
    return reference.share(POOLS[name], x, parameter_values(x, POOLS[name], parameters))
