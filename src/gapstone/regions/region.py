"""What a region must say, and the reading of one-number-or-one-per-axis arguments."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gapstone.regions.places import Place
from gapstone.runtime.torch_internals import tracing

PerAxis = int | Sequence[int]
"""A list is kept as a tuple: a region that is a value can be hashed."""

LARGEST = 2**31 - 1
"""No map is longer along an axis."""

MOST = 1 << 24
MOST_TAPS = 1 << 16
"""Cells along an axis, and places of a window, of a map that is shorter: beyond, nothing would ever end."""


class Region(Protocol):
    def place(self, shape: tuple[int, ...]) -> Place | tuple["Region", ...]:
        """Where to pool on a map of this shape (N, C, *spatial); or the regions whose answers stand side by side."""
        ...


def plain(value: Any) -> Any:
    """As Python has it: numpy's numbers and arrays, and lists of numbers (all that YAML knows) as tuples."""
    if type(value) in (int, float, bool, str):
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(plain(part) for part in value)
    return value


def settle(region: Any, *names: str) -> None:
    """Make these fields of a frozen region plain."""
    for name in names:
        object.__setattr__(region, name, plain(getattr(region, name)))


def symbolic(value: Any) -> bool:
    """Stands for a tensor while somebody writes down what is called: torch.fx's proxies."""
    return not isinstance(value, Tensor) and torch.overrides.has_torch_function((value,))


def seen(condition: Tensor) -> bool | None:
    """Whether it is true; None where nobody can look: shapes alone, graphs, torch.vmap."""
    if torch.compiler.is_compiling() or tracing():
        return None
    try:
        return bool(condition)
    except RuntimeError:
        return None


def check_extent(region: object, cells: int, places: int, length: int) -> None:
    """Refuse what is mistyped, before it is tried."""
    if torch.compiler.is_compiling():  # sizes may be symbols, of which nothing is asked
        return
    if cells > MOST and cells > length:
        raise ValueError(f"{region!r}: {cells} cells along an axis of {length} positions: {max(MOST, length)} at most.")
    if places > MOST_TAPS and places > length:
        raise ValueError(f"{region!r}: {places} places along an axis of {length} positions: {MOST_TAPS} at most.")


def per_axis(value: PerAxis, axes: int, what: str) -> tuple[int, ...]:
    """3 → (3, 3) on a 2-d map; (3, 5) stays, if the map has two axes."""
    if isinstance(value, int):
        return (value,) * axes
    if len(value) != axes:
        raise ValueError(f"{what} {value!r} has {len(value)} numbers, and {read_as(axes)}")
    return tuple(value)


def read_as(axes: int) -> str:
    """Which axes of a tensor are the map's, for whoever meant others."""
    spatial = ("L", "H, W", "D, H, W")[axes - 1]
    return (
        f"a tensor of {axes + 2} axes is read as (N, C, {spatial}), with {axes} spatial axes. "
        f"Give one number, or one per axis; to one picture without a batch axis, x[None] gives it."
    )


def check_whole_numbers(owner: str, least: int, **values: PerAxis) -> None:
    """Reject Window(0), Window(2.5), Grid((3, -1)) when they are made, not when they are first used."""
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)]
        if not numbers or len(whole) < len(numbers) or min(whole) < least:
            raise ValueError(
                f"{owner}: {name}={value!r} needs whole numbers of at least {least}: one, or a tuple with one per axis."
            )
        if max(whole) > LARGEST:
            raise ValueError(f"{owner}: {name}={value!r} is more than any map has positions: {LARGEST} at most.")
