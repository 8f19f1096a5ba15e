"""What `gs.compare` and `gs.train` do with their arguments before the work begins."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gapstone.comparing.user_code import UserCode
from gapstone.console.formatting import display
from gapstone.console.terminal import Terminal
from gapstone.cutting.own_network import own_network
from gapstone.heads import parse
from gapstone.heads.own_heads import OwnHead
from gapstone.pools import POOLS
from gapstone.pools.registration import is_own

Data = Any
"""A path, or one of the objects that DATA may be (`gapstone.data.python_objects`)."""
Backbone = str | nn.Module | Callable[[], nn.Module]
Size = int | str | Sequence[int]


def find_backbone(
    backbone: Backbone | None, at: str | None, heads: tuple[str, ...], own_heads: dict[str, OwnHead], console: Terminal
) -> tuple[str | None, UserCode | None]:
    """The backbone by a name, and what processes need of the user's own."""
    for head, own_head in own_heads.items():
        _say_unknown(head, own_head.unknown, console)
    pools = {str(pool): POOLS[pool] for head in heads for pool in parse(head).recipe.pools if is_own(pool)}
    if backbone is None or isinstance(backbone, str):
        if at is not None:
            raise ValueError(f"at={at!r} is for a network of your own; a backbone by its name knows its last map.")
        return backbone, UserCode.of({}, own_heads, pools)
    own = own_network(backbone, at)
    _say_unknown(own.name, own.unknown, console)
    return own.name, UserCode.of({own.name: own.trunk}, own_heads, pools)


def _say_unknown(name: str, unknown: str | None, console: Terminal) -> None:
    if unknown is not None:
        console.print(
            f"Trials of {display(name)} cannot be used again after a stop: it could not be told from an edited one, "
            f"since it holds {display(unknown)}."
        )


def given_data(data: Data) -> Data:
    """DATA as the work takes it: a path as text."""
    return os.fspath(data) if isinstance(data, os.PathLike) else data


def given_path(path: str | Path | None) -> Path | None:
    """A path, where there is one."""
    return None if path is None else Path(path)


def as_typed(value: object, between: str) -> str | None:
    """An argument as the command line has it: the parts of a list with this between them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return between.join(map(str, value))
    return None if value is None else str(value)
