"""The cases that are measured: a pool, a region, a map, forward or backward; one row of the table each."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from gapstone.regions import Mask, Region, Whole, Window

Layout = Literal["contiguous", "channels-last"]
Direction = Literal["forward", "backward"]
LAYOUTS: tuple[Layout, ...] = ("contiguous", "channels-last")
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Case:
    """A measured case: `Case("max", (8, 64, 112, 112), window=(3, 2, 1))`; JSON can hold its numbers and names."""

    pool: str
    shape: tuple[int, ...]
    window: tuple[int, int, int] | None = None
    """Size, stride, padding; None: the whole map."""
    layout: Layout = "contiguous"
    direction: Direction = "forward"
    dtype: str = "float32"
    parameter: float | None = None
    learned: bool = False
    """The parameter is a tensor, and the backward gives its gradient too."""
    masked: bool = False
    keep: bool = False
    """A forward that also keeps what its backward needs."""
    into: bool = False
    """A forward that writes into an existing tensor."""

    @property
    def title(self) -> str:
        words = [self.pool]
        if self.learned:
            words.append("p learned")
        elif self.pool == "gem":
            words.append(f"p={self.parameter:g}")
        if self.window:
            size, stride, _ = self.window
            words.append("×".join([str(size)] * (len(self.shape) - 2)) + f" s{stride}")
        elif not self.masked:
            words.append("whole")
        words += [self.dtype] if self.dtype != "float32" else []
        words += ["masked"] if self.masked else []
        words += ["positions kept"] if self.keep else []
        words += ["into"] if self.into else []
        return " ".join(words)

    @property
    def group(self) -> str:
        return f"{self.direction}, {self.layout}"

    def region(self, mask: Tensor | None) -> Region:
        if mask is not None:
            return Mask(mask)
        return Window(*self.window) if self.window else Whole()

    def laid(self, x: Tensor) -> Tensor:
        """The map in this case's memory layout."""
        return x.contiguous(memory_format=FORMATS[x.dim()]) if self.layout == "channels-last" else x.contiguous()

    @classmethod
    def read(cls, document: dict[str, Any]) -> "Case":
        """From JSON, where tuples are lists."""
        values = ((field.name, document[field.name]) for field in fields(cls))
        arguments: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values}
        return cls(**arguments)


def both(*cases: Case, layouts: tuple[Layout, ...] = LAYOUTS) -> Iterator[Case]:
    """Forward, then backward, in each layout."""
    for direction in DIRECTIONS:
        for layout in layouts:
            for case in cases:
                yield Case(**{**vars(case), "direction": direction, "layout": layout})


def daily(tiny: bool = False) -> list[Case]:
    """The pools of common networks, in sizes that take a minute; `tiny`: on maps of a few numbers."""

    def shape(*given: int) -> tuple[int, ...]:
        return (2, 4, *(min(n, 6) for n in given[2:])) if tiny else given

    windows = [
        Case("max", shape(8, 64, 112, 112), (3, 2, 1)),
        Case("max", shape(8, 64, 112, 112), (2, 2, 0)),
        Case("max", shape(8, 256, 28, 28), (3, 1, 1)),
        Case("mean", shape(8, 384, 35, 35), (3, 1, 1)),
        *(Case("max", shape(4, 256, 20, 20), (size, 1, size // 2)) for size in (5, 9, 13)),
    ]
    return list(both(*windows, *whole_maps(shape(32, 2048, 7, 7))))


def whole_maps(shape: tuple[int, ...]) -> list[Case]:
    return [
        Case("mean", shape),
        Case("max", shape),
        Case("gem", shape, parameter=3.0),
        Case("gem", shape, parameter=2.7, learned=True),
        Case("logsumexp", shape, parameter=5.0),
        Case("avgmax", shape),
    ]
