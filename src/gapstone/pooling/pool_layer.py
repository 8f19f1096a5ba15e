"""`Pool`: a pool as a layer, with parameters that can be learned."""

from typing import Any

import torch
from torch import Tensor, nn

from gapstone.pooling.call_checks import Value, check_region
from gapstone.pooling.pool_function import pool
from gapstone.pooling.pool_names import joined_names, one_or_more
from gapstone.pooling.pool_parameters import check_value, named_parameters, parameters_of
from gapstone.pools.name_types import Name
from gapstone.regions import Region, Whole
from gapstone.regions.region import seen


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
        name = one_or_more(name)  # type: ignore[assignment]
        check_region(name, over)
        if any(isinstance(value, Tensor | list | tuple) and not _numbers(value) for value in vars(over).values()):
            kind = type(over).__name__
            raise ValueError(
                f"Pool({name!r}, over={kind}(…)): a {kind} belongs to a batch: layer(x, over=gs.{kind}(…))."
            )
        self.name: Any = name
        self.over = over
        named = named_parameters(name, parameters)
        known = parameters_of(name)
        self.names = tuple(named)
        self.learns: tuple[str, ...] = ()
        self.started: dict[str, float] = {}
        """The numbers that learned parameters begin at."""
        for key, value in named.items():
            parameter = known[key]
            check_value(name, key, parameter, value)
            if isinstance(value, nn.Parameter) or (learn and parameter.learned):
                setattr(self, key, value if isinstance(value, nn.Parameter) else nn.Parameter(_tensor(value)))
                self.learns += (key,)
                if not isinstance(value, Tensor):
                    self.started[key] = float(value)
            elif isinstance(value, Tensor):
                self.register_buffer(key, value)
            else:
                setattr(self, key, value)
        if learn and not list(self.parameters()):
            raise ValueError(f"Pool({name!r}, learn=True): {joined_names(name)} has nothing to learn.")
        self.register_load_state_dict_pre_hook(_with_an_axis)  # type: ignore[no-untyped-call]

    def parameters_of_pool(self) -> dict[str, Value]:
        """As they count: learned ones held in their range."""
        values: dict[str, Value] = {}
        for key in self.names:
            value = values[key] = getattr(self, key)
            learned = parameters_of(self.name)[key].learned
            if key in self.learns and learned is not None:
                values[key] = value + (value.clamp(*learned) - value).detach()
        return values

    def reset_parameters(self) -> None:
        """Set learned parameters to the numbers they began at, for layers made on the meta device and then `to_empty`.

        Those given as tensors stay: their numbers are the caller's.
        """
        with torch.no_grad():
            for key, start in self.started.items():
                getattr(self, key).fill_(start)

    def forward(self, x: Tensor, over: Region | None = None) -> Tensor:
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


def pools_in(module: nn.Module) -> list[str]:
    """The names of the pools of all pooling layers in a module, and of the module itself if it is one."""
    names = [layer.name for layer in module.modules() if isinstance(layer, Pool)]
    return [each for name in names for each in ((name,) if isinstance(name, str) else name)]
