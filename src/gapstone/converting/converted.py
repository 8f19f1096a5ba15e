"""What `gapstone convert` did and measured."""

from dataclasses import dataclass

from gapstone.converting.convert_request import ConvertRequest
from gapstone.converting.model_measures import ModelCosts
from gapstone.converting.paired_difference import Paired, Right
from gapstone.data.split import DataSplit
from gapstone.fitting.fit_head import Fitted


@dataclass(frozen=True)
class Converted:
    """The measures of the model before and after, on the same test images."""

    request: ConvertRequest
    fitted: Fitted
    parts: DataSplit
    before: ModelCosts
    after: ModelCosts
    test: Right
    """Which test images are answered right after."""
    paired: Paired | None
    """Against before; None where the classes are not the model's."""
    distance: int
    """Pixels that test images were moved by."""
    moved: tuple[float | None, float]
    """Share of moved test images answered right, before and after; before only where it sees the same images."""
    seconds: float
