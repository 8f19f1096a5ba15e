"""Evidence: the map of one class in one picture with its numbers, as drawings and files show it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display, format_size
from gapstone.drawing.logit_text import percent, signed
from gapstone.tracing.placement import Placement


@dataclass(frozen=True, repr=False)
class Evidence:
    """The evidence for and against one class in one picture.

    >>> explained.evidence(0, (480, 640))[0]
    Evidence('cat', 50.7 %, logit −0.04, map 8×8)
    """

    index: int
    label: str
    logit: float
    probability: float
    bias: float
    map: NDArray[np.float32]
    """(h, w): each cell's contribution to the logit."""
    placement: Placement
    """Where the cells lie in the picture."""
    size: tuple[int, int]
    """(H, W) of the picture, in pixels."""
    additive: bool
    completeness: float
    held: tuple[str, ...] = ()
    """What is treated as a number of the picture (`Explanation.held`)."""

    def __repr__(self) -> str:
        more = ("" if self.additive else ", not additive") + (f", held: {', '.join(self.held)}" if self.held else "")
        numbers = f"{percent(self.probability)}, logit {signed(self.logit)}, map {format_size(self.map.shape)}{more}"
        return f"Evidence({display(self.label)!r}, {numbers})"

    @property
    def positive(self) -> float:
        """Sum of the positive contributions; 0 means that no part of the picture is evidence for the class."""
        return float(self.map.clip(0).sum())
