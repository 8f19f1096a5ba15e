"""`partial`: the running state of a pool over a piece of a map; states of pieces add up."""

from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Tensor

from gapstone.loops import reference
from gapstone.loops.place_encoding import check
from gapstone.loops.pool_call import PoolCall
from gapstone.loops.precision import answer_type, wide
from gapstone.loops.reference_states import on_tensors, shaped, states
from gapstone.pooling.call_checks import Value, check_map, check_place
from gapstone.pooling.pool_names import composition_of, one_or_more, pool_named
from gapstone.pooling.pool_parameters import named_parameters, own_parameters, parameter_values
from gapstone.pools import Definition, WholeOnly
from gapstone.pools.name_types import AnyName, Composed, Merging
from gapstone.regions import Region, Whole
from gapstone.regions.places import Intervals, Sampled


@dataclass(frozen=True)
class Partial:
    """The running state of a pool over some positions. States of disjoint pieces add up; see `partial`."""

    pool: Definition
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
        parts = reference.combine(self.pool, self.parts, other.parts, self.spatial, self.values())
        return replace(self, parts=parts)

    def finish(self) -> Tensor:
        """The answer for all positions seen so far: what `pool` gives for them at once."""
        bound = on_tensors(self.pool, self.spatial)
        answer: Tensor = bound.finish(*self.parts, *shaped(self.values(), self.spatial)).to(self.dtype)
        return answer.flatten(1) if self.whole else answer

    def values(self) -> tuple[Value, ...]:
        """Of the parameters, in the order of the definition."""
        return tuple(self.parameters.values())

    def _kind(self) -> tuple[Any, ...]:
        return self.pool, self.spatial, self.whole, self.dtype, self.parts[0].shape, self.parts[0].device

    def _same(self, other: "Partial") -> bool:
        pairs = zip(self.values(), other.values(), strict=True)
        return all(a is b or bool((torch.as_tensor(a) == torch.as_tensor(b)).all()) for a, b in pairs)

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self.parameters.items())
        return f"<partial {self.pool.name!r}{given} of shape {tuple(self.parts[0].shape)}>"


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
def partial(  # type: ignore[overload-overlap]  # an OwnPool is a str
    x: Tensor, name: Merging, over: Region = ..., **parameters: Value
) -> Partial: ...
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
    name = one_or_more(name)
    composition = composition_of(name)
    if composition is not None:
        named_parameters(name, parameters)
        members = [_partial(x, each, over, own_parameters(each, parameters)) for each in composition.pools]
        return Partials(tuple(members), composition.join)
    assert isinstance(name, str)
    return _partial(x, name, over, parameters)


def _partial(x: Tensor, name: str, over: Region, parameters: dict[str, Any]) -> Partial:
    pool = pool_named(name)
    if isinstance(pool, WholeOnly):
        raise ValueError(
            f"partial(x, {name!r}): the {name} needs all positions at once; pool a region that fits in memory."
        )
    check_map(x, pool, over, parameters)
    values = parameter_values(x, pool, parameters)
    place = over.place(tuple(x.shape))
    if isinstance(place, tuple | Sampled):
        raise ValueError(
            f"partial(x, {name!r}, over={over!r}): states are kept per cell of a map; take the levels or boxes one by "
            f"one, each as a Grid of its piece."
        )
    check_place(x, pool, place)
    if isinstance(place, Intervals) and place.divisor != "positions":
        raise ValueError(f"partial(x, {name!r}, over={over!r}): a state counts positions; take divisor='positions'.")
    check(place, tuple(x.shape))
    call = PoolCall.for_reference(pool, x, place, values)
    pairs = zip(pool.parameters.items(), values, strict=True)
    # a parameter of each position has done its part
    remaining = {key: 0.0 if parameter.per_position else value for (key, parameter), value in pairs}
    parts = states(call, wide(pool, x))
    return Partial(pool, parts, x.dim() - 2, call.without_cells, remaining, answer_type(pool, x.dtype))
