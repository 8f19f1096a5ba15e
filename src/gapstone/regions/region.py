"""What a region must say, and the reading of one-number-or-one-per-axis arguments."""

from typing import Protocol

from gapstone.regions.boxes import Axis

PerAxis = int | tuple[int, ...]


class Region(Protocol):
    def axes(self, sizes: tuple[int, ...]) -> tuple[Axis, ...] | None:
        """The boxes on a map of these spatial sizes; None where the answer is one vector per image, without axes."""
        ...


def per_axis(value: PerAxis, sizes: tuple[int, ...], what: str) -> tuple[int, ...]:
    """3 → (3, 3) on a 2-d map; (3, 5) stays, if the map has two axes."""
    if isinstance(value, int):
        return (value,) * len(sizes)
    if len(value) != len(sizes):
        raise ValueError(
            f"{what} has {len(value)} numbers, the map has {len(sizes)} spatial axes {sizes}: "
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
