"""The parameters of a call: which a pool takes, and their values inside the range that is computed with."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gapstone.loops.precision import wide
from gapstone.pooling.call_checks import Value
from gapstone.pooling.pool_names import composition_of, joined_names, pool_named
from gapstone.pools import Definition, WholeOnly
from gapstone.pools.definition import Parameter
from gapstone.pools.name_types import AnyName
from gapstone.regions.region import plain as settled

MOST_LISTED = 1 << 12


def parameters_of(name: AnyName) -> Mapping[str, Parameter]:
    """The parameters that a pool, or any of a composition's, takes from its caller."""
    composition = composition_of(name)
    if composition is not None:
        return {key: parameter for each in composition.pools for key, parameter in parameters_of(each).items()}
    assert isinstance(name, str)
    if name == "attention":
        return {"query": Parameter(learned=(-math.inf, math.inf))}
    return pool_named(name).parameters


def named_parameters(name: AnyName, given: Mapping[str, Value]) -> dict[str, Value]:
    """All of a pool's parameters, those not given at their defaults."""
    known = parameters_of(name)
    if unknown := set(given) - set(known):
        takes = f"takes {', '.join(known)}" if known else "takes no parameters"
        wrong = ", ".join(f"{k}={given[k]!r}" for k in sorted(unknown))
        raise ValueError(f"pool({name!r}, {wrong}): {joined_names(name)} {takes}.")
    missing = [key for key, parameter in known.items() if parameter.default is None and key not in given]
    if missing:
        raise ValueError(f"pool({name!r}): {joined_names(name)} needs {', '.join(f'{key}=…' for key in missing)}.")
    defaults = {key: parameter.default for key, parameter in known.items() if parameter.default is not None}
    return {key: settled(given.get(key, defaults.get(key, 0.0))) for key in known}


def own_parameters(name: str, given: Mapping[str, Value]) -> dict[str, Value]:
    """Of a composition's parameters, those of one of its pools."""
    return {key: value for key, value in given.items() if key in parameters_of(name)}


def check_value(name: AnyName, key: str, parameter: Parameter, value: Value) -> None:
    """Refuse a number out of range. A tensor's values are trusted: reading them would wait for the GPU at each call."""
    if isinstance(value, Tensor):
        if parameter.learned is None:
            raise ValueError(f"pool({name!r}, {key}=a tensor): {key} is one number, the same for all channels.")
        return
    least, most = parameter.least, parameter.most
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"pool({name!r}, {key}={value!r}): {key} must be a number from {least:g} to {most:g}.")
    if parameter.whole and value != int(value):
        raise ValueError(f"pool({name!r}, {key}={value!r}): {key} must be a whole number.")


def parameter_values(x: Tensor, pool: Definition | WholeOnly, given: Mapping[str, Value]) -> tuple[Value, ...]:
    """In the order of the definition, inside the range that is computed with."""
    named = named_parameters(pool.name, given)
    if pool.name == "attention":
        return (_score(x, pool, named["query"]),)
    return tuple(_value(x, pool.name, key, pool.parameters[key], value) for key, value in named.items())


def _value(x: Tensor, name: str, key: str, parameter: Parameter, value: Value) -> Value:
    check_value(name, key, parameter, value)
    least, most = parameter.computed
    if isinstance(value, Tensor):
        sizes = ((), (1,), (x.shape[1],), (1, 1), (1, x.shape[1]), (x.shape[0], 1), tuple(x.shape[:2]))
        if tuple(value.shape) not in sizes:
            raise ValueError(
                f"pool({name!r}, {key}=a tensor of shape {tuple(value.shape)}) of a map of shape {tuple(x.shape)}: "
                f"give one number, one per channel (C,), or one per image and channel (N, C)."
            )
        value = value.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        return value.clamp(least, most)
    if parameter.whole:
        # no more than there are positions: a list of 2⁴⁰ would not fit
        return int(min(value, x.shape[2:].numel() if value > MOST_LISTED else value))
    return min(max(value, least), most)


def _score(x: Tensor, pool: Definition | WholeOnly, query: Value) -> Tensor:
    """(N, 1, *spatial): how much each position is what the query asks for."""
    if not isinstance(query, Tensor) or tuple(query.shape) not in ((x.shape[1],), tuple(x.shape[:2])):
        size = tuple(query.shape) if isinstance(query, Tensor) else query
        raise ValueError(
            f"pool('attention', query={size}) of a map of shape {tuple(x.shape)}: give a tensor with one number per "
            f"channel ({x.shape[1]},), or per image and channel."
        )
    x = wide(pool, x)
    query = query.to(x.dtype).reshape(-1, x.shape[1], *(1,) * (x.dim() - 2))
    return (x * query).sum(1, keepdim=True) / math.sqrt(x.shape[1])
