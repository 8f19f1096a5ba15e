"""Heads of the user's own: a module of theirs that turns the last map into logits, known by a name."""

import copy
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from gapstone.console.formatting import display
from gapstone.pools import POOLS
from gapstone.runtime.code_digest import UnknownCodeError, code_digest

MakeHead = Callable[[int, int, tuple[int, ...] | None], nn.Module]
"""Makes a head for so many channels and classes, of maps of a size (h, w)."""

OwnHeadLike = nn.Module | MakeHead
"""A head, or a function that makes one."""


@dataclass(frozen=True)
class OwnHead:
    """How a head of the user's own is made."""

    make: MakeHead
    digest: str
    """Of what it does; of one that cannot be told, a number that never comes again."""
    source: str
    """The class or function that makes it and its module: "my_heads.MyHead"."""


@dataclass(frozen=True)
class CopyHead:
    """Makes copies of a head that was given, with its weights."""

    module: nn.Module

    def __call__(self, channels: int, classes: int, size: tuple[int, ...] | None) -> nn.Module:
        return copy.deepcopy(self.module)


_registered: dict[str, OwnHead] = {}


def register_head(name: str, head: OwnHead) -> None:
    """Make a head known by a name in this process; a name that another had means this one from now on."""
    _registered[name] = head


def own_head(name: object, made: Any, taken: Collection[str]) -> OwnHead:
    """The head of the user's own that is given with a name; `taken` are the names of gapstone's.

    Raises:
        ValueError: a name that is no name, or is taken.
        TypeError: it is neither a head nor a function.
    """
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        raise ValueError(f"head {name!r} names a head of your own: expected letters, digits and _, such as 'mine'.")
    if name in taken or name in POOLS:
        raise ValueError(f"head {name!r} is one of gapstone's: call yours something else.")
    given = isinstance(made, nn.Module)
    if not given and not callable(made):
        raise TypeError(
            f"head {name!r} is {display(repr(made)[:60])}; expected an nn.Module, or a function of channels, classes "
            f"and size that returns one."
        )
    try:
        digest = code_digest(made)
    except UnknownCodeError:
        digest = secrets.token_hex(8)  # never met again
    kind = type(made) if given else made
    source = f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__name__)}"
    return OwnHead(CopyHead(made) if isinstance(made, nn.Module) else made, digest, source)


def find_own_head(name: str) -> OwnHead | None:
    """The head of the user's own of that name; None: there is none in this process."""
    return _registered.get(name)


def own_head_names() -> list[str]:
    """The names of the user's own heads."""
    return list(_registered)
