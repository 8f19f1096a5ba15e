"""A comparison of small noisy pictures on a frozen backbone, planned in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.plan import ComparisonPlan, plan_comparison
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.training_data import TrainOptions


def planned_comparison(
    out: Path, heads: tuple[str, ...], seeds: int, options: dict[str, Any] | None = None, **request: Any
) -> ComparisonPlan:
    """Of 60 pictures of 16×16 px, whose class is the colour of a square; it writes DATA and weights to `out`, too."""
    write_data(out)
    choices = TrainOptions(str(out / "data.npz"), batch_size=16, **(options or {}))
    asked = CompareRequest(choices, heads, seeds, weights=out / "weights.safetensors", **request)
    (out / "trials").mkdir()
    return plan_comparison(asked.checked(), out, lambda text: None, lambda name: lambda done, total: None)


def write_data(out: Path) -> None:
    """`data.npz` and `weights.safetensors`, a model of gapstone's."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 120, (60, 16, 16, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:10, 4:10, label] = 250
    np.savez(out / "data.npz", images=images, labels=labels)
    torch.manual_seed(0)
    preprocessing = Preprocessing(3, (16, 16), (16, 16), (0.3, 0.3, 0.3), (0.2, 0.2, 0.2))
    Classifier("nin", "gap", ("a", "b"), preprocessing).save(out / "weights.safetensors")
