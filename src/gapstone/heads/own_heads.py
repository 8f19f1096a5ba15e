"""Heads of the user's own: a module of theirs that turns the last map into logits, known by a name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

MakeHead = Callable[[int, int, tuple[int, ...] | None], nn.Module]
"""Makes a head for so many channels and classes, of maps of a size (h, w)."""


@dataclass(frozen=True)
class OwnHead:
    """How a head of the user's own is made."""

    make: MakeHead
    digest: str
    """Of what it does; of one that cannot be told, a number that never comes again."""


_registered: dict[str, OwnHead] = {}


def register_head(name: str, head: OwnHead) -> None:
    """Make a head known by a name in this process; a name that another had means this one from now on."""
    _registered[name] = head


def find_own_head(name: str) -> OwnHead | None:
    """The head of the user's own of that name; None: there is none in this process."""
    return _registered.get(name)


def own_head_names() -> list[str]:
    """The names of the user's own heads."""
    return list(_registered)
