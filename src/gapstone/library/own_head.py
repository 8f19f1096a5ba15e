"""Heads of the user's own, by the names that they are given."""

import copy
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from gapstone.console.formatting import display
from gapstone.heads import RECIPES
from gapstone.heads.own_heads import MakeHead, OwnHead, register_head
from gapstone.pools import POOLS
from gapstone.runtime.code_digest import UnknownCodeError, code_digest

OwnHeadLike = nn.Module | MakeHead
"""A head, or a function that makes one for channels, classes and the size (h, w) of the maps."""


@dataclass(frozen=True)
class CopyHead:
    """Makes copies of a head that was given, with its weights."""

    module: nn.Module

    def __call__(self, channels: int, classes: int, size: tuple[int, ...] | None) -> nn.Module:
        return copy.deepcopy(self.module)


def name_heads(heads: Iterable[str | Mapping[str, OwnHeadLike]]) -> tuple[tuple[str, ...], dict[str, OwnHead]]:
    """Specs of all heads, and those of the user's own by their names, which are known in this process from now on.

    >>> name_heads(["gap", {"mine": lambda channels, classes, size: MyHead(channels, classes)}])[0]
    ('gap', 'mine')

    Raises:
        ValueError: a name that is no name, or is taken.
        TypeError: what is neither text nor a head by its name.
    """
    if isinstance(heads, str):
        raise TypeError(f"heads={heads!r}: expected a list, such as heads=[{heads!r}].")
    specs: list[str] = []
    own: dict[str, OwnHead] = {}
    for head in heads:
        if isinstance(head, str):
            specs.append(head)
            continue
        if not isinstance(head, Mapping):
            raise TypeError(
                f"heads: {display(repr(head)[:60])} has no name: give it one, {{'mine': {type(head).__name__}}}"
            )
        for name, made in head.items():
            _check_name(name)
            own[name] = _own_head(name, made)
            specs.append(name)
    for name, made_by in own.items():
        register_head(name, made_by)
    return tuple(specs), own


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        raise ValueError(f"heads: {name!r} names a head of your own: expected letters, digits and _, such as 'mine'.")
    if name in RECIPES or name in POOLS:
        raise ValueError(f"heads: {name!r} is a head of gapstone's: call yours something else.")


def _own_head(name: str, made: OwnHeadLike) -> OwnHead:
    if not isinstance(made, nn.Module) and not callable(made):
        raise TypeError(
            f"heads: {name!r} is a {type(made).__name__}; expected an nn.Module, or a function of channels, classes "
            f"and size that returns one."
        )
    try:
        digest = code_digest(made)
    except UnknownCodeError:
        digest = secrets.token_hex(8)  # never met again
    return OwnHead(CopyHead(made) if isinstance(made, nn.Module) else made, digest)
