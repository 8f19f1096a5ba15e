"""The JSON that `gapstone convert --json` prints."""

from typing import Any

from gapstone.console.formatting import display
from gapstone.converting.converted import Converted
from gapstone.models.classifier import Classifier


def document(converted: Converted, new: Classifier) -> dict[str, Any]:
    """The results as JSON: accuracies as fractions, times in seconds; null if there is nothing to compare with."""
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
        "images": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "native": {
            "before": None if converted.paired is None else request.native and converted.before.only_size is None,
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
