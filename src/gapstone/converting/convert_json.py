"""What `gapstone convert --json` prints."""

from typing import Any

from gapstone.console.formatting import display
from gapstone.converting.converted import Converted
from gapstone.models.classifier import Classifier


def document(converted: Converted, new: Classifier) -> dict[str, Any]:
    """Numbers as they are: shares of 1, bytes, seconds; null where there is nothing to compare with."""
    request, fitted, parts = converted.request, converted.fitted, converted.parts
    tuned = fitted.tuned
    return {
        "schema": 1,
        "model": display(request.model),
        "out": display(str(request.out)),
        "data": display(str(request.data)),
        "split": parts.described,
        "seed": request.seed,
        "labels": list(new.labels),
        "images": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        "native": {
            "before": None if converted.paired is None else request.native and converted.before.only is None,
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
        "test_accuracy": float(converted.test.mean()),
        "paired": converted.paired and converted.paired.as_json(),
        "moved": {"pixels": converted.distance, "before": converted.moved[0], "after": converted.moved[1]},
        "seconds": converted.seconds,
    }
