"""What the file of a pool that cannot merge must say: `rank(n, *parameters)`.

The answer is read off the n sorted values of a region at that rank, counted from 0; between two ranks it is
interpolated, and both values share the gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gapstone.pools.definition import Parameter


@dataclass(frozen=True, eq=False)
class WholeOnly:
    name: str
    about: str
    rank: Callable[..., Any]
    parameters: dict[str, Parameter]
    source: str
    nothing: str = "NaN"
    """The answer over no position at all, in words."""

    @property
    def formula(self) -> str:
        return self.about.partition("\n")[0].partition(": ")[2]


def define(file: ModuleType) -> WholeOnly:
    """Read a pool's file."""
    return WholeOnly(
        name=file.__name__.rpartition(".")[2],
        about=file.__doc__ or "",
        rank=file.rank,
        parameters=getattr(file, "parameters", {}),
        source=file.source,
    )
