"""The result of `gapstone convert`."""

from dataclasses import dataclass

from gapstone.converting.convert_request import ConvertRequest
from gapstone.converting.model_measures import ModelCosts
from gapstone.converting.paired_difference import Correct, Paired
from gapstone.data.split import DataSplit
from gapstone.fitting.fit_head import Fitted


@dataclass(frozen=True)
class Converted:
    """The fitted model, and measurements of the models before and after on the same test images."""

    request: ConvertRequest
    fitted: Fitted
    split: DataSplit
    before: ModelCosts
    after: ModelCosts
    correct: Correct
    """Of the new model, on the test images."""
    paired: Paired | None
    """Comparison with the old model; None if its classes are others."""
    distance: int
    """Pixels by which test images were moved."""
    moved: tuple[float | None, float]
    """Accuracy on moved test images, before and after; before is None if the old model sees other images."""
    seconds: float
