"""Evidence: the map of one class in one picture with its numbers, as drawings and files show it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display, format_size
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
    reference: str | None = None
    """What was subtracted from map, logit and bias (`Explanation.reference`); None: nothing. The probability is the
    same with and without."""

    def __repr__(self) -> str:
        more = ("" if self.additive else ", not additive") + (f", held: {', '.join(self.held)}" if self.held else "")
        numbers = f"{percent(self.probability)}, {self.logit_text}, map {format_size(self.map.shape)}{more}"
        return f"Evidence({display(self.label)!r}, {numbers})"

    def check_finite(self) -> None:
        """Raises ValueError for a map that holds NaN or infinity."""
        if not np.isfinite(self.map).all():
            raise ValueError(
                f"the map of {self.label!r} holds NaN or infinity: an error of the model, which overflows on this "
                f"picture"
            )

    @property
    def logit_text(self) -> str:
        """Return "logit +4.12", or where something was subtracted "logit 3.10 above the mean"."""
        if self.reference is None:
            return f"logit {signed(self.logit)}"
        side = "below" if self.logit < 0 else "above"
        return f"logit {signed(abs(self.logit)).removeprefix('+')} {side} {short_reference(self.reference)}"

    @property
    def positive(self) -> float:
        """Sum of the positive contributions; 0 means that no part of the picture is evidence for the class."""
        return float(self.map.clip(0).sum())


def short_reference(reference: str) -> str:
    """Return what was subtracted as a caption has room for it: "the mean", or the other class's name."""
    return display(reference).removesuffix(" of all classes")


def signed(value: float) -> str:
    """Return at most six characters: +4.12, −0.35, +123.4, −12345, +1e+06. "0" is exactly zero, "−0.00" is not."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:+.0e}" if size >= 1e5 else f"{value:+.{2 if size < 99.9 else 1 if size < 999.9 else 0}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def percent(probability: float) -> str:
    """Return 93.1 %, and "< 0.1 %" or "> 99.9 %" for what would be rounded to 0 or 100 %."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"
