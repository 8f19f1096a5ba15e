"""What a region must say, and the reading of one-number-or-one-per-axis arguments."""

from typing import Protocol

from gapstone.regions.places import Place

PerAxis = int | tuple[int, ...]


class Region(Protocol):
    def place(self, shape: tuple[int, ...]) -> Place | tuple["Region", ...]:
        """Where to pool on a map of this shape (N, C, *spatial); or the regions whose answers stand side by side."""
        ...


def per_axis(value: PerAxis, axes: int, what: str) -> tuple[int, ...]:
    """3 → (3, 3) on a 2-d map; (3, 5) stays, if the map has two axes."""
    if isinstance(value, int):
        return (value,) * axes
    if len(value) != axes:
        raise ValueError(
            f"{what} {value!r} has {len(value)} numbers, the map has {axes} spatial axes: "
            f"give one number, or one per axis."
        )
    return value


def check_whole_numbers(owner: str, least: int, **values: PerAxis) -> None:
    """Reject Window(0), Window(2.5), Grid((3, -1)) when they are made, not when they are first used."""
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in numbers):
            raise ValueError(
                f"{owner}: {name}={value!r} needs whole numbers of at least {least}: one, or a tuple with one per axis."
            )
