"""The arguments and the result of `gapstone convert`, and the JSON that `--json` prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapstone.console.formatting import display
from gapstone.converting.before_and_after import Correct, Paired
from gapstone.converting.model_measures import ModelCosts
from gapstone.data.split import DataSplit, Duplicates
from gapstone.fitting.fit_head import Fitted, Method
from gapstone.models.classifier import Classifier
from gapstone.models.trained_on import TrainedOn


@dataclass(frozen=True)
class ConvertRequest:
    """The arguments of one conversion."""

    model: str
    head: str
    data: str | None
    out: Path
    finetune: int = 0
    method: Method = "logistic"
    limit: int | None = None
    weights: Path | None = None
    native: bool = False
    """Do not crop or resize the images; for the old model only if its head takes any size."""
    device: str = "auto"
    seed: int = 0
    """Should be the seed of the model's training: it decides which validation images choose λ and the epoch."""
    batch_size: int = 64
    duplicates: Duplicates = "group"
    """Should be that of the model's training, as should the threshold: they decide which images are tested."""
    duplicate_threshold: float | None = None
    group: str | None = None
    """The column that says which images belong together."""
    group_pattern: str | None = None
    """A regular expression on their paths that says it."""


@dataclass(frozen=True)
class Converted:
    """The fitted model, and measurements of the models before and after on the same test images."""

    request: ConvertRequest
    fitted: Fitted
    split: DataSplit
    trained_on: TrainedOn
    """The images that the new model was trained on."""
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


def document(converted: Converted, new: Classifier) -> dict[str, Any]:
    """The results as JSON: accuracies as fractions, times in seconds; null if there is nothing to compare with.

    With several labels per image accuracy is the share of images that get all of their labels and no other.
    """
    request, fitted, split = converted.request, converted.fitted, converted.split
    tuned = fitted.tuned
    return {
        "schema": 1,
        "model": display(request.model),
        "out": display(str(request.out)),
        "data": display(str(request.data)),
        "split": split.described,
        "seed": request.seed,
        "labels": list(new.labels),
        **({"multi_label": True} if new.multi_label else {}),
        "images": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "native": {
            "before": None if converted.paired is None else request.native and converted.before.only_input is None,
            "after": request.native,
        },
        "method": request.method,
        "penalty": fitted.penalty,
        "finetune": None
        if tuned is None
        else {
            "epochs": request.finetune,
            "best_epoch": tuned.best,
            "validation_accuracy": tuned.accuracy,
            "validation_loss": tuned.loss,
            "stopped": tuned.stopped or None,
        },
        "before": converted.before.as_json(),
        "after": converted.after.as_json(),
        "test_accuracy": float(converted.correct.mean()),
        "paired": converted.paired and converted.paired.as_json(),
        "moved": {"pixels": converted.distance, "before": converted.moved[0], "after": converted.moved[1]},
        "seconds": converted.seconds,
    }
