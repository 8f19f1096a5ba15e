"""The front door to the pools: `pool`, `partial`, and `Pool`, the layer."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.loops import torch as loop
from gapstone.loops.native import native
from gapstone.pools import POOLS
from gapstone.regions import REGIONS, Region, Whole

Parameter = float | Tensor


def pool(x: Tensor, name: str, over: Region = Whole(), **parameters: Parameter) -> Tensor:  # noqa: B008 a value
    """Pool a map.

        >>> x = torch.rand(2, 512, 14, 14)
        >>> gs.pool(x, "mean").shape                              # global average pooling
        torch.Size([2, 512])
        >>> gs.pool(x, "max", over=gs.Window(3, 2, 1)).shape
        torch.Size([2, 512, 7, 7])
        >>> gs.pool(x, "gem", over=gs.Grid(4), p=2.5).shape
        torch.Size([2, 512, 4, 4])

    Args:
        x: (N, C, *spatial) with one, two or three spatial axes, contiguous or channels-last. float16 and bfloat16 are
            pooled in float32 and rounded once; integers only by "max", and by "sum" (which gives int64).
        name: "mean", "sum", "max", "gem" or "logsumexp".
        over: where: `Whole()`, `Window(size, stride, padding)`, `Grid(size)`.
        parameters: the pool's own, as a number or a tensor that broadcasts over (N, C): gem's `p`, logsumexp's `r`.
            A tensor with `requires_grad` is learned.

    Returns: (N, C) over the whole map, (N, C, *cells) over windows and grids; the dtype of x.

    Raises: ValueError for an unknown name or parameter, for a shape without channels or positions, for a region that
        does not fit; TypeError for a dtype the pool has no meaning for. Each says what was given and what to do.
    """
    spatial = _check(x, name, over)
    values = _parameters(x, name, parameters)
    axes = over.axes(tuple(x.shape[2:]))
    # a maximum is exact in any type; a mean is rounded once, and torch has no 3-d pools of half precision on a CPU
    given = x if name == "max" and spatial < 3 else _wide(x)
    if (fast := native(name, given, axes)) is not None:
        return fast.to(x.dtype)
    answer = loop.finish(
        name,
        loop.over_boxes(name, _wide(x), axes, spatial, _shaped(values, spatial)),
        spatial,
        _shaped(values, spatial),
    ).to(_answer_type(name, x))
    return answer if axes is not None else answer.flatten(1)


@dataclass(frozen=True)
class Partial:
    """The running state of a pool over some positions. States of disjoint pieces add up; see `partial`."""

    name: str
    parts: tuple[Tensor, ...]
    spatial: int
    whole: bool
    parameters: dict[str, Parameter]
    dtype: torch.dtype

    def __add__(self, other: "Partial") -> "Partial":
        mine, yours = self._kind(), other._kind()
        if mine != yours or not _same(self.parameters, other.parameters):
            raise ValueError(
                f"{self!r} + {other!r}: only states of the same pool, parameters and cells add up; "
                f"make both with the same arguments of gs.partial."
            )
        values = _shaped(tuple(self.parameters.values()), self.spatial)
        parts = loop.combine(self.name, self.parts, other.parts, self.spatial, values)
        return Partial(self.name, parts, self.spatial, self.whole, self.parameters, self.dtype)

    def finish(self) -> Tensor:
        """The answer for all positions seen so far: what `pool` gives for them at once."""
        values = _shaped(tuple(self.parameters.values()), self.spatial)
        answer = loop.finish(self.name, self.parts, self.spatial, values).to(self.dtype)
        return answer.flatten(1) if self.whole else answer

    def _kind(self) -> tuple[Any, ...]:
        return self.name, self.spatial, self.whole, self.dtype, self.parts[0].shape

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self.parameters.items())
        return f"<partial {self.name!r}{given} of shape {tuple(self.parts[0].shape)}>"


def partial(x: Tensor, name: str, over: Region = Whole(), **parameters: Parameter) -> Partial:  # noqa: B008 a value
    """The state of a pool over a piece of a map; states of pieces add up to the state of the whole.

        >>> a, b = gs.partial(x[..., :7], "mean"), gs.partial(x[..., 7:], "mean")
        >>> (a + b).finish()                                      # the same as gs.pool(x, "mean")

    Arguments and errors as `pool`. The state is kept in float32 where x is narrower. Over windows or grids, states add
    cell by cell: both pieces need as many cells.
    """
    spatial = _check(x, name, over)
    values = _parameters(x, name, parameters)
    axes = over.axes(tuple(x.shape[2:]))
    parts = loop.over_boxes(name, _wide(x), axes, spatial, _shaped(values, spatial))
    kept = dict(zip(POOLS[name].parameters, values, strict=True))
    return Partial(name, parts, spatial, axes is None, kept, _answer_type(name, x))


def share(x: Tensor, name: str, **parameters: Parameter) -> Tensor:
    """d pool(x, name) / d x at every position, over the whole map; float32 where x is narrower, the shape of x.

    For pools that add up (`POOLS[name].adds_up`), `(x * share).sum() == pool` for each map: the contribution of each
    position. Arguments and errors as `pool`.
    """
    spatial = _check(x, name, Whole())
    return loop.share(name, _wide(x), spatial, _shaped(_parameters(x, name, parameters), spatial))


class Pool(nn.Module):
    """A pool as a layer.

        >>> gs.Pool("max", over=gs.Window(3, stride=2, padding=1))
        >>> gs.Pool("gem", p=torch.nn.Parameter(torch.tensor(3.0)))   # a learned p

    Arguments, shapes and errors as `pool`. A parameter given as `nn.Parameter` is learned and saved with the model.
    """

    def __init__(self, name: str, over: Region = Whole(), **parameters: Parameter) -> None:  # noqa: B008 a value
        super().__init__()
        _known(name, over)
        self.name, self.over = name, over
        self.names = tuple(_named(name, parameters))
        for key, value in _named(name, parameters).items():
            _check_value(name, key, value)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(key, value)
            else:
                setattr(self, key, value)

    def parameters_of_pool(self) -> dict[str, Parameter]:
        return {key: getattr(self, key) for key in self.names}

    def forward(self, x: Tensor) -> Tensor:
        return pool(x, self.name, self.over, **self.parameters_of_pool())

    def extra_repr(self) -> str:
        values = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in self.parameters_of_pool().items()}
        over = "" if self.over == Whole() else f", over={self.over!r}"
        return f"{self.name!r}{over}" + "".join(f", {key}={value!r}" for key, value in values.items())


def _known(name: str, over: Region) -> None:
    if name not in POOLS:
        close = get_close_matches(str(name), POOLS, 1, 0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"pool {name!r} is not known; there are {', '.join(POOLS)}.{hint}")
    if not isinstance(over, REGIONS):
        names = ", ".join(region.__name__ for region in REGIONS)
        raise ValueError(f"pool({name!r}, over={over!r}): a region is one of {names}, such as gs.Window(3, stride=2).")


def _check(x: Tensor, name: str, over: Region) -> int:
    _known(name, over)
    shape = tuple(x.shape)
    if not 3 <= x.dim() <= 5:
        raise ValueError(
            f"pool({name!r}) of a tensor of shape {shape}: needs (N, C, *spatial) with one to three spatial axes; "
            f"add a batch axis with x[None]."
        )
    if 0 in shape[1:]:
        raise ValueError(f"pool({name!r}) of a tensor of shape {shape}: there is no position to pool.")
    if x.is_complex() or x.dtype == torch.bool or not (x.is_floating_point() or POOLS[name].integers):
        raise TypeError(f"pool({name!r}) of {x.dtype}: convert with x.float() first.")
    return x.dim() - 2


def _named(name: str, given: dict[str, Parameter]) -> dict[str, Parameter]:
    known = POOLS[name].parameters
    if unknown := set(given) - set(known):
        takes = f"takes {', '.join(known)}" if known else "takes no parameters"
        raise ValueError(f"pool({name!r}, {', '.join(f'{k}={given[k]!r}' for k in sorted(unknown))}): {name} {takes}.")
    return {**known, **given}


def _check_value(name: str, key: str, value: Parameter) -> None:
    # a tensor is trusted: looking at its values would wait for the GPU on every call
    if not isinstance(value, Tensor) and not 0 < float(value) < float("inf"):
        raise ValueError(f"pool({name!r}, {key}={value!r}): {key} must be a positive, finite number.")


def _parameters(x: Tensor, name: str, given: dict[str, Parameter]) -> tuple[Parameter, ...]:
    values = _named(name, given)
    for key, value in values.items():
        _check_value(name, key, value)
        if isinstance(value, Tensor) and value.dim() > 2:
            raise ValueError(
                f"pool({name!r}, {key}=a tensor of shape {tuple(value.shape)}): give one number, one per channel (C,), "
                f"or one per image and channel (N, C)."
            )
    return tuple(values.values())


def _shaped(values: tuple[Parameter, ...], spatial: int) -> tuple[Parameter, ...]:
    """(C,) → (C, 1, 1): parameters broadcast over positions."""
    return tuple(v[(...,) + (None,) * spatial] if isinstance(v, Tensor) and v.dim() else v for v in values)


def _same(a: dict[str, Parameter], b: dict[str, Parameter]) -> bool:
    return all(
        x is y or bool((torch.as_tensor(x) == torch.as_tensor(y)).all())
        for x, y in zip(a.values(), b.values(), strict=True)
    )


def _wide(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x.long()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _answer_type(name: str, x: Tensor) -> torch.dtype:
    return torch.int64 if POOLS[name].integers == "int64" and not x.is_floating_point() else x.dtype
