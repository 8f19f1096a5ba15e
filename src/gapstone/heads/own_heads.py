"""Heads of the user's own: a module of theirs that turns the last map into logits, known by a name."""

import copy
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.console.formatting import display
from gapstone.pools import POOLS
from gapstone.runtime.code_digest import UnknownCodeError, code_digest
from gapstone.runtime.eval_mode import eval_mode

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
    unknown: str | None = None
    """The part of it that cannot be told, in words."""


@dataclass(frozen=True)
class CopyHead:
    """Makes copies of a head that was given, with its weights."""

    module: nn.Module

    def __call__(self, channels: int, classes: int, size: tuple[int, ...] | None) -> nn.Module:
        return copy.deepcopy(self.module)


def made_by_user(
    spec: str, own: OwnHead, channels: int, classes: int, size: tuple[int, ...] | None
) -> tuple[nn.Module, tuple[int, ...] | None]:
    """A head of the user's own, and the only size of maps that it takes; None: it takes others, too.

    Raises ValueError for what is no head.
    """
    wanted = f"an nn.Module that turns maps (N, {channels}, h, w) into logits (N, {classes})"
    try:
        module = own.make(channels, classes, size)
    except Exception as error:  # of the user's own
        raise ValueError(
            f"head {spec!r}: making it for {channels} channels, {classes} classes and maps of {size} failed "
            f"({type(error).__name__}: {error}); expected {wanted}."
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"head {spec!r} is a {type(module).__name__}; expected {wanted}.")
    cells = size or (7, 7)
    if (tried := next(module.parameters(), torch.zeros(0))).is_meta:
        return module, size

    def shape(*cells: int) -> object:
        with eval_mode(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            out = module(torch.zeros(2, channels, *cells, device=tried.device))
        return tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__

    try:
        found = shape(*cells)
    except Exception as error:  # of the user's own
        raise ValueError(
            f"head {spec!r}, given maps (2, {channels}, {', '.join(map(str, cells))}), failed ({type(error).__name__}: "
            f"{error}); expected {wanted}."
        ) from error
    if found != (2, classes):
        raise ValueError(f"head {spec!r} gave {found} of 2 images; expected logits (2, {classes}).")
    try:
        any_size = all(shape(*(side + more for side in cells)) == (2, classes) for more in (1, 2))
    except Exception:  # as one that flattens refuses other maps
        any_size = False
    return module, None if any_size else size


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
    unknown = None
    try:
        digest = code_digest(made)
    except UnknownCodeError as error:
        digest, unknown = secrets.token_hex(8), str(error)  # never met again
    kind = type(made) if given else made
    source = f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__name__)}"
    return OwnHead(CopyHead(made) if isinstance(made, nn.Module) else made, digest, source, unknown)


def find_own_head(name: str) -> OwnHead | None:
    """The head of the user's own of that name; None: there is none in this process."""
    return _registered.get(name)


def own_head_names() -> list[str]:
    """The names of the user's own heads."""
    return list(_registered)
