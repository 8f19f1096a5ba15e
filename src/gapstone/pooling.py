"""The front door to the pools: `pool`, `partial`, and `Pool`, the layer."""

import math
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from gapstone.loops import eager, gathered, native, operators, ranks
from gapstone.loops import torch as plain
from gapstone.loops.choose import Loop, choose
from gapstone.loops.places import check
from gapstone.loops.resample import resample
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY, Composition
from gapstone.pools.definition import Parameter
from gapstone.pools.elsewhere import called_elsewhere
from gapstone.pools.names import AnyName, Composed, Merging, Name
from gapstone.regions import REGIONS, Grid, Region, Whole, Window
from gapstone.regions.places import Boxes, Place, Sampled, Weights
from gapstone.regions.region import plain as settled
from gapstone.regions.region import seen, symbolic
from gapstone.runtime.torch_internals import exporting, forward_mode, tracing, transformed

Value = float | Tensor


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
            "variance", "std", "attention", "median", "quantile"; "avgmax", "catavgmax"; or a tuple of names, whose
            answers stand side by side.
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
    if (
        type(name) is str
        and type(over) in BY_VALUE
        and (not parameters or NUMBERS.issuperset(map(type, parameters.values())))
        and eager.alone(x)
        and x.is_cpu
    ):
        keep = torch.is_grad_enabled() and x.requires_grad
        key: Any = (name, over, x.shape, x.dtype, x.stride(), keep)
        if parameters:
            key = key, tuple(parameters.items())
        ready = _ready.get(key)
        if ready is None and (ready := _prepared(x, name, over, keep, parameters)) is not None:
            if len(_ready) >= MOST_READY:
                _ready.clear()
            _ready[key] = ready
        if ready:
            return ready(x)
    if tracing():
        with warnings.catch_warnings():  # that sizes asked for here are those of the example
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return _pool(x, name, over, parameters)
    return _pool(x, name, over, parameters)


def _pool(x: Tensor, name: AnyName, over: Region, parameters: dict[str, Any]) -> Tensor:
    """The call as it was written, nothing of it known yet."""
    by_value = type(over) in BY_VALUE
    given = (x, *parameters.values()) if by_value else (x, *parameters.values(), *_tensors(over).values())
    usual = USUAL.issuperset(map(type, given)) or torch.compiler.is_compiling()
    if not usual and (overridden := list(filter(symbolic, given))):
        # who writes down a network's calls (torch.fx) gets this one whole, as torch's own functions give themselves
        asked: Any = pool
        found: Tensor = torch.overrides.handle_torch_function(asked, overridden, x, name, over, **parameters)
        return found
    if type(name) is list:
        name = tuple(name)
    if not torch.compiler.is_compiling() and (listener := listening.get()) is not None:
        heard = listener(x, name, over, parameters)
        if heard is not None:
            return heard
    recipe = _known(name)
    if recipe is not None:
        if recipe.pools == ("mean", "max") and not parameters and eager.fits_both(x, over) and eager.built_both(x):
            answers = list(eager.mean_and_max(x))
            return torch.cat(answers, 1) if recipe.join == "cat" else torch.stack(answers).mean(0)
        answers = [_pool(x, one, over, _own(one, parameters)) for one in _taken(name, recipe, parameters)]
        return torch.cat(answers, 1) if recipe.join == "cat" else torch.stack(answers).mean(0)
    assert isinstance(name, str)
    _check(x, name, over, parameters)
    values = _parameters(x, name, parameters)
    elsewhere = exporting()
    place = over.place(gathered.sizes(x) if elsewhere else tuple(x.shape))
    if isinstance(place, tuple):
        return torch.cat([_pool(x, name, part, parameters).flatten(2) for part in place], 2)
    if isinstance(place, Sampled):
        if "query" in parameters or "score" in parameters:
            raise ValueError(
                f"pool({name!r}, over={over!r}): attention has no meaning between positions; sampling=None."
            )
        of_each = place.images  # what is given per image is that of a box's image
        values = tuple(v[of_each] if isinstance(v, Tensor) and v.dim() == 2 and len(v) > 1 else v for v in values)
        x, place = resample(operators.wide(name, x), place).to(x.dtype), place.boxes
    return _answer(x, name, place, values, elsewhere)


Listener = Callable[[Tensor, AnyName, Region, dict[str, Any]], Tensor | None]
listening: ContextVar[Listener | None] = ContextVar("listening", default=None)
"""Who answers pools of padded maps (gapstone.mixed): of the region as it was given, before it meets the padded size."""

NUMBERS = {float, int}
USUAL = {Tensor, nn.Parameter, float, int}
BY_VALUE = {Whole, Window, Grid}
MOST_READY = 4096
_ready: dict[Any, Callable[[Tensor], Tensor] | Literal[False]] = {}
"""Calls like one before: all checks looked at nothing but what is in the key, and need not be made again."""


def _prepared(
    x: Tensor, name: str, over: Region, keep: bool, parameters: dict[str, Any]
) -> Callable[[Tensor], Tensor] | Literal[False] | None:
    """What is left of a call whose parameters are numbers, all checked and chosen. False: nothing can be left out;
    None: not yet.
    """
    if _known(name) is not None or name in WHOLE_ONLY:
        return False
    _check(x, name, over, {})
    values = _parameters(x, name, parameters)
    place = over.place(tuple(x.shape))
    if not isinstance(place, Boxes):
        return False
    _check_place(x, name, place)
    loop = choose(name, x, place, values, keep).loop
    if loop == "native":
        return native.prepared(name, place, tuple(x.shape[2:]))
    if not eager.fits(x, loop, place, values):
        return False
    if not eager.built(name, loop, x, place, values, keep):
        return None
    return lambda x: eager.pool(name, loop, x, place, values, keep)


def _answer(x: Tensor, name: str, place: Place, values: tuple[Value, ...], elsewhere: bool) -> Tensor:
    if name in WHOLE_ONLY:
        check(place, tuple(x.shape))
        return ranks.forward(name, operators.wide(name, x), place, values).to(x.dtype)  # type: ignore[arg-type]
    _check_place(x, name, place)
    if elsewhere:
        return gathered.forward(name, operators.wide(name, x), place, values).to(operators.answer_type(name, x.dtype))
    at = (x, *values, place.weights) if isinstance(place, Weights) else (x, *values)
    differentiated = not torch.compiler.is_compiling() and (forward_mode(*at) or transformed(*at))
    if differentiated or (isinstance(place, Weights) and place.weights.requires_grad):
        # share says nothing of weights and of tangents, and torch.func takes no operator that returns a list: torch's
        # own way
        check(place, tuple(x.shape))
        return plain.forward(name, operators.wide(name, x), place, values).to(operators.answer_type(name, x.dtype))
    keep = torch.is_grad_enabled() and (
        x.requires_grad or any(isinstance(v, Tensor) and v.requires_grad for v in values)
    )
    return by(choose(name, x, place, values, keep).loop, x, name, place, values, keep)


def by(loop: Loop, x: Tensor, name: str, place: Place, values: tuple[Value, ...], keep: bool) -> Tensor:
    """The answer by the loop that was chosen; `keep`: its gradient will be asked for. Nothing is checked.

    While a compiled loop's kernels are built in the background, torch's kernel or the reference answers.
    """
    if loop in operators.COMPILED and eager.alone(x) and not eager.built(name, loop, x, place, values, keep):
        loop = eager.meanwhile(name, x, place, keep)
    if loop == "native":
        assert isinstance(place, Boxes)
        return native.forward(name, x, place)
    if eager.fits(x, loop, place, values):
        return eager.pool(name, loop, x, place, values, keep)  # type: ignore[arg-type]
    return operators.pool(name, loop, x, place, values, keep)


@dataclass(frozen=True)
class Partial:
    """The running state of a pool over some positions. States of disjoint pieces add up; see `partial`."""

    name: str
    parts: tuple[Tensor, ...]
    spatial: int
    whole: bool
    parameters: dict[str, Value]
    dtype: torch.dtype

    def __add__(self, other: "Partial") -> "Partial":
        if not isinstance(other, Partial) or self._kind() != other._kind() or not self._same(other):
            raise ValueError(
                f"{self!r} + {other!r}: only states of the same pool, parameters and cells add up; "
                f"make both with the same arguments of gs.partial."
            )
        parts = plain.combine(self.name, self.parts, other.parts, self.spatial, self.values())
        return Partial(self.name, parts, self.spatial, self.whole, self.parameters, self.dtype)

    def finish(self) -> Tensor:
        """The answer for all positions seen so far: what `pool` gives for them at once."""
        answer: Tensor = plain.spoken(self.name, self.spatial).finish(
            *self.parts, *plain.shaped(self.values(), self.spatial)
        )
        answer = answer.to(self.dtype)
        return answer.flatten(1) if self.whole else answer

    def values(self) -> tuple[Value, ...]:
        """Of the parameters, in the order of the definition."""
        return tuple(self.parameters.values())

    def _kind(self) -> tuple[Any, ...]:
        return self.name, self.spatial, self.whole, self.dtype, self.parts[0].shape, self.parts[0].device

    def _same(self, other: "Partial") -> bool:
        pairs = zip(self.values(), other.values(), strict=True)
        return all(a is b or bool((torch.as_tensor(a) == torch.as_tensor(b)).all()) for a, b in pairs)

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self.parameters.items())
        return f"<partial {self.name!r}{given} of shape {tuple(self.parts[0].shape)}>"


@dataclass(frozen=True)
class Partials:
    """The running states of a composition: one `Partial` each."""

    members: tuple[Partial, ...]
    join: str

    def __add__(self, other: "Partials") -> "Partials":
        if not isinstance(other, Partials) or (self.join, len(self.members)) != (other.join, len(other.members)):
            raise ValueError(f"{self!r} + {other!r}: only states of the same composition add up.")
        return Partials(tuple(a + b for a, b in zip(self.members, other.members, strict=True)), self.join)

    def finish(self) -> Tensor:
        answers = [member.finish() for member in self.members]
        return torch.cat(answers, 1) if self.join == "cat" else torch.stack(answers).mean(0)


@overload
def partial(x: Tensor, name: Merging, over: Region = ..., **parameters: Value) -> Partial: ...
@overload
def partial(
    x: Tensor, name: Composed | tuple[Merging, ...] | list[Merging], over: Region = ..., **parameters: Value
) -> Partials: ...
def partial(x: Tensor, name: AnyName, over: Region = Whole(), **parameters: Value) -> Partial | Partials:  # noqa: B008
    """The state of a pool over a piece of a map; states of pieces add up to the state of the whole.

    Examples:
        >>> a, b = gs.partial(x[..., :7], "mean"), gs.partial(x[..., 7:], "mean")
        >>> torch.allclose((a + b).finish(), gs.pool(x, "mean"))
        True

    The state is kept in float32 where x is narrower. Over windows, grids, masks and segments, states add cell by cell:
    both pieces need as many cells.

    Args:
        x: a piece of a map, (N, C, *spatial).
        name: as `pool`; median and quantile cannot be cut.
        over: as `pool`.
        parameters: as `pool`.

    Returns:
        The state, with `+` and `finish()`.

    Raises:
        ValueError: as `pool`; a pool that cannot be cut.
        TypeError: as `pool`.
    """
    name = _one_or_more(name)
    recipe = _known(name)
    if recipe is not None:
        members = [_partial(x, one, over, _own(one, parameters)) for one in _taken(name, recipe, parameters)]
        return Partials(tuple(members), recipe.join)
    assert isinstance(name, str)
    return _partial(x, name, over, parameters)


def _partial(x: Tensor, name: str, over: Region, parameters: dict[str, Any]) -> Partial:
    if name in WHOLE_ONLY:
        raise ValueError(
            f"partial(x, {name!r}): the {name} needs all positions at once; pool a region that fits in memory."
        )
    _check(x, name, over, parameters)
    values = _parameters(x, name, parameters)
    place = over.place(tuple(x.shape))
    if isinstance(place, tuple | Sampled):
        raise ValueError(
            f"partial(x, {name!r}, over={over!r}): states are kept per cell of a map; take the levels or boxes one by "
            f"one, each as a Grid of its piece."
        )
    _check_place(x, name, place)
    if isinstance(place, Boxes) and place.divisor != "positions":
        raise ValueError(f"partial(x, {name!r}, over={over!r}): a state counts positions; take divisor='positions'.")
    check(place, tuple(x.shape))
    parts = plain.over(name, operators.wide(name, x), place, values)
    names = POOLS[name].parameters
    kept = {key: 0.0 if names[key].per_position else v for key, v in zip(names, values, strict=True)}
    return Partial(name, parts, x.dim() - 2, plain.is_whole(place), kept, operators.answer_type(name, x.dtype))


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
    _check(x, name, Whole(), parameters)
    return plain.share(name, operators.wide(name, x), _parameters(x, name, parameters))


class Pool(nn.Module):
    """A pool as a layer.

    Examples:
        >>> gs.Pool("max", over=gs.Window(3, stride=2, padding=1))(torch.rand(2, 64, 112, 112)).shape
        torch.Size([2, 64, 56, 56])
        >>> gs.Pool("gem", p=3.0, learn=True)(x).shape  # p is learned
        torch.Size([2, 512])
        >>> gs.Pool("gem", p=torch.full((512,), 3.0), learn=True)(x).shape  # one p per channel
        torch.Size([2, 512])
        >>> gs.Pool("attention", query=torch.zeros(512), learn=True)(x).shape
        torch.Size([2, 512])

    A learned value that training drives out of its range (gem's and lp's p: 0.1 to 100) counts as the range's end, and
    its gradient still reaches it. A region that belongs to a batch is given with it: `layer(x, over=gs.Mask(mask))`.

    Args:
        name: as `pool`.
        over: as `pool`.
        learn: parameters that can be learned become `nn.Parameter`s, saved with the model under their names; one given
            as `nn.Parameter` does so by itself.
        parameters: as `pool`.

    Raises:
        ValueError: as `pool`.
    """

    def __init__(self, name: Name, over: Region = Whole(), learn: bool = False, **parameters: Value) -> None:  # noqa: B008
        super().__init__()
        name = _one_or_more(name)  # type: ignore[assignment]
        _check_region(name, over)
        if any(isinstance(value, Tensor | list | tuple) and not _numbers(value) for value in vars(over).values()):
            kind = type(over).__name__
            raise ValueError(
                f"Pool({name!r}, over={kind}(…)): a {kind} belongs to a batch: layer(x, over=gs.{kind}(…))."
            )
        self.name: Any = name
        self.over = over
        named = _named(name, parameters)
        self.names = tuple(named)
        self.learns: tuple[str, ...] = ()
        self.started: dict[str, float] = {}
        """The numbers that learned parameters begin at."""
        for key, value in named.items():
            knob = _knobs(name)[key]
            _check_value(name, key, knob, value)
            if isinstance(value, nn.Parameter) or (learn and knob.learned):
                setattr(self, key, value if isinstance(value, nn.Parameter) else nn.Parameter(_tensor(value)))
                self.learns += (key,)
                if not isinstance(value, Tensor):
                    self.started[key] = float(value)
            elif isinstance(value, Tensor):
                self.register_buffer(key, value)
            else:
                setattr(self, key, value)
        if learn and not list(self.parameters()):
            raise ValueError(f"Pool({name!r}, learn=True): {_called(name)} has nothing to learn.")
        self.register_load_state_dict_pre_hook(_with_an_axis)  # type: ignore[no-untyped-call]

    def parameters_of_pool(self) -> dict[str, Value]:
        """As they count: learned ones held in their range."""
        found: dict[str, Value] = {}
        for key in self.names:
            value = found[key] = getattr(self, key)
            learned = _knobs(self.name)[key].learned
            if key in self.learns and learned is not None:
                found[key] = value + (value.clamp(*learned) - value).detach()
        return found

    def reset_parameters(self) -> None:
        """Set learned parameters to the numbers they began at, for layers made on the meta device and then `to_empty`.

        Those given as tensors stay: their numbers are the caller's.
        """
        with torch.no_grad():
            for key, start in self.started.items():
                getattr(self, key).fill_(start)

    def forward(self, x: Tensor, over: Region | None = None) -> Tensor:
        """Pool a map (N, C, *spatial); `over` is used instead of the layer's own region."""
        return pool(x, self.name, self.over if over is None else over, **self.parameters_of_pool())

    def extra_repr(self) -> str:
        values = {key: getattr(self, key) for key in self.names}
        over = "" if self.over == Whole() else f", over={self.over!r}"
        learn = ", learn=True" if list(self.parameters()) else ""
        return f"{self.name!r}{over}{learn}" + "".join(f", {key}={_shown(value)}" for key, value in values.items())


def _with_an_axis(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A single learned number had no axis once: FSDP2 wants one."""
    for key, own in module.named_parameters(recurse=False):
        saved = state_dict.get(prefix + key)
        if own.shape == (1,) and isinstance(saved, Tensor) and saved.dim() == 0:
            state_dict[prefix + key] = saved.reshape(1)


def _shown(value: Value) -> str:
    """A number, or what makes the tensor again."""
    if not isinstance(value, Tensor):
        return repr(value)
    size = tuple(value.shape)
    if seen((value == value.flatten()[:1]).all()) is None:  # on the meta device, say
        return f"torch.empty({size}, device={str(value.device)!r})"
    if value.numel() == 1:
        return repr(value.item())
    if seen((value == value.flatten()[0]).all()):
        return f"torch.full({size}, {value.flatten()[0].item()!r})"
    if value.numel() <= MOST_SHOWN:
        return f"torch.tensor({value.tolist()})"
    return f"<{'×'.join(map(str, size))} numbers from {value.min().item():.4g} to {value.max().item():.4g}>"


MOST_SHOWN = 8


def _tensor(value: Value) -> Tensor:
    """With an axis: FSDP2 shards parameters along their first."""
    made = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(float(value))
    return made.reshape(1) if made.dim() == 0 else made


def _numbers(value: Any) -> bool:
    """Nested tuples of numbers: what a region that is a value holds."""
    return isinstance(value, int | float) or (isinstance(value, tuple) and all(map(_numbers, value)))


# ---- what is asked for


def _one_or_more(name: AnyName) -> str | tuple[str, ...]:
    """A list as a tuple: all that YAML knows."""
    return tuple(name) if isinstance(name, list) else name  # type: ignore[return-value]


def _called(name: AnyName) -> str:
    return name if isinstance(name, str) else " + ".join(name)


def _known(name: AnyName) -> Composition | None:
    """The recipe of a composition; None for a pool; an error for anything else."""
    if isinstance(name, tuple) and name:
        for one in name:
            if _known(one) is not None:
                raise ValueError(f"pool({name!r}): {one!r} is a composition itself; name its pools.")
        return Composition(name, "cat", "")
    if isinstance(name, str) and name in COMPOSITIONS:
        return COMPOSITIONS[name]
    if not isinstance(name, str) or name not in (*POOLS, *WHOLE_ONLY):
        known = [*POOLS, *WHOLE_ONLY, *COMPOSITIONS]
        close = get_close_matches(str(name), known, 1, 0.4)
        meant = called_elsewhere(str(name)) or (close[0] if close else None)
        hint = f" Did you mean {meant!r}?" if meant else ""
        raise ValueError(f"pool {name!r} is not known; there are {', '.join(known)}, and tuples of them.{hint}")
    return None


def _check_region(name: AnyName, over: Region) -> None:
    _known(name)
    if not isinstance(over, REGIONS):
        names = ", ".join(region.__name__ for region in REGIONS)
        raise ValueError(f"pool({name!r}, over={over!r}): a region is one of {names}, such as gs.Window(3, stride=2).")


def _tensors(over: Region) -> dict[str, Any]:
    """A region's tensors, or what stands for them, by name."""
    if type(over) in BY_VALUE:
        return {}
    found: dict[str, Any] = {}
    for key in ("mask", "labels", "boxes"):
        value = getattr(over, key, None)
        if isinstance(value, list | tuple):
            found |= {f"{key}[{i}]": one for i, one in enumerate(value)}
        elif value is not None:
            found[key] = value
    return found


def _check_devices(x: Tensor, name: str, over: Region, parameters: dict[str, Any]) -> None:
    """Of every region, parameter and pool. What is computed on one device would read the other's memory as its own."""
    given = parameters if type(over) in BY_VALUE else {**parameters, **_tensors(over)}
    for key, value in given.items():
        if isinstance(value, Tensor) and value.device != x.device:
            raise ValueError(
                f"pool({name!r}, over={type(over).__name__}(…)): x is on {x.device}, {key} on {value.device}; "
                f"give both on one device: {key}.to(x.device)."
            )


def _check(x: Tensor, name: str, over: Region, parameters: dict[str, Any]) -> None:
    _check_region(name, over)
    if not isinstance(x, Tensor):
        raise TypeError(f"pool({name!r}) of {type(x).__name__}: give a tensor, such as torch.as_tensor(x).")
    _check_devices(x, name, over, parameters)
    shape = tuple(x.shape)
    if not 3 <= x.dim() <= 5:
        raise ValueError(
            f"pool({name!r}) of a tensor of shape {shape}: needs (N, C, *spatial) with one to three spatial axes; "
            f"add a batch axis with x[None]."
        )
    if 0 in shape[1:]:
        raise ValueError(f"pool({name!r}) of a tensor of shape {shape}: there is no position to pool.")
    if x.dtype == torch.uint64:
        raise TypeError(f"pool({name!r}) of {x.dtype}: not all fit into int64; if yours do, convert with x.long().")
    integers = name in POOLS and POOLS[name].integers
    if x.is_complex() or x.dtype == torch.bool or not (x.is_floating_point() or integers) or x.is_sparse:
        raise TypeError(
            f"pool({name!r}) of {'a sparse tensor' if x.is_sparse else x.dtype}: convert with x.float() first."
        )


def _check_place(x: Tensor, name: str, place: Place) -> None:
    if isinstance(place, Weights) and not x.is_floating_point():
        raise TypeError(f"pool({name!r}) of {x.dtype} over a Mask of weights: convert with x.float() first.")
    if isinstance(place, Weights) and not POOLS[name].weighted:
        raise ValueError(
            f"pool({name!r}) over a Mask of weights: a {name} cannot count a position in part; give a mask of bool."
        )
    if isinstance(place, Boxes) and place.divisor != "positions" and POOLS[name].count is None:
        raise ValueError(f"pool({name!r}) over a Window with divisor={place.divisor!r}: only a mean divides.")


# ---- parameters


def _knobs(name: AnyName) -> dict[str, Parameter]:
    """The parameters a pool, or any of a composition's, takes from its caller."""
    recipe = _known(name)
    if recipe is not None:
        return {key: knob for one in recipe.pools for key, knob in _knobs(one).items()}
    assert isinstance(name, str)
    if name == "attention":
        return {"query": Parameter(learned=(-math.inf, math.inf))}
    return (POOLS[name] if name in POOLS else WHOLE_ONLY[name]).parameters


def _named(name: AnyName, given: dict[str, Value]) -> dict[str, Value]:
    """All of a pool's parameters, those not given at their defaults."""
    knobs = _knobs(name)
    if unknown := set(given) - set(knobs):
        takes = f"takes {', '.join(knobs)}" if knobs else "takes no parameters"
        asked = ", ".join(f"{k}={given[k]!r}" for k in sorted(unknown))
        raise ValueError(f"pool({name!r}, {asked}): {_called(name)} {takes}.")
    missing = [key for key, knob in knobs.items() if knob.default is None and key not in given]
    if missing:
        raise ValueError(f"pool({name!r}): {_called(name)} needs {', '.join(f'{key}=…' for key in missing)}.")
    defaults = {key: knob.default for key, knob in knobs.items() if knob.default is not None}
    return {key: settled(given.get(key, defaults.get(key, 0.0))) for key in knobs}


def _taken(name: AnyName, recipe: Composition, given: dict[str, Value]) -> tuple[str, ...]:
    _named(name, given)
    return recipe.pools


def _own(name: str, given: dict[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in given.items() if key in _knobs(name)}


def _check_value(name: AnyName, key: str, knob: Parameter, value: Value) -> None:
    # a tensor's values are trusted: looking at them would wait for the GPU on every call
    if isinstance(value, Tensor):
        if knob.learned is None:
            raise ValueError(f"pool({name!r}, {key}=a tensor): {key} is one number, the same for all channels.")
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not knob.least <= value <= knob.most:
        raise ValueError(
            f"pool({name!r}, {key}={value!r}): {key} must be a number from {knob.least:g} to {knob.most:g}."
        )
    if knob.whole and value != int(value):
        raise ValueError(f"pool({name!r}, {key}={value!r}): {key} must be a whole number.")


def _parameters(x: Tensor, name: str, given: dict[str, Value]) -> tuple[Value, ...]:
    """In the order of the definition, inside the range that is computed with."""
    if name == "attention":
        return (_score(x, _named(name, given)["query"]),)
    values: list[Value] = []
    for key, value in _named(name, given).items():
        knob = _knobs(name)[key]
        _check_value(name, key, knob, value)
        if isinstance(value, Tensor):
            sizes = ((), (1,), (x.shape[1],), (1, 1), (1, x.shape[1]), (x.shape[0], 1), tuple(x.shape[:2]))
            if tuple(value.shape) not in sizes:
                raise ValueError(
                    f"pool({name!r}, {key}=a tensor of shape {tuple(value.shape)}) of a map of shape {tuple(x.shape)}: "
                    f"give one number, one per channel (C,), or one per image and channel (N, C)."
                )
            value = value.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
            values.append(value.clamp(*knob.computed))
        else:
            # no more than there are positions: a list of 2⁴⁰ would not fit
            most = x.shape[2:].numel() if knob.whole and value > MOST_LISTED else value
            values.append(int(min(value, most)) if knob.whole else min(max(value, knob.computed[0]), knob.computed[1]))
    return tuple(values)


MOST_LISTED = 1 << 12


def _score(x: Tensor, query: Value) -> Tensor:
    """(N, 1, *spatial): how much each position is what the query asks for."""
    if not isinstance(query, Tensor) or tuple(query.shape) not in ((x.shape[1],), tuple(x.shape[:2])):
        size = tuple(query.shape) if isinstance(query, Tensor) else query
        raise ValueError(
            f"pool('attention', query={size}) of a map of shape {tuple(x.shape)}: give a tensor with one number per "
            f"channel ({x.shape[1]},), or per image and channel."
        )
    wide = operators.wide("attention", x)
    query = query.to(wide.dtype).reshape(-1, x.shape[1], *(1,) * (x.dim() - 2))
    return (wide * query).sum(1, keepdim=True) / math.sqrt(x.shape[1])
