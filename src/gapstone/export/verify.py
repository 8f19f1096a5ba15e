"""Compares the outputs of a written file with those of PyTorch on images of several sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.console.formatting import format_size
from gapstone.export.size_range import Shape
from gapstone.maps.explain import explain
from gapstone.maps.open_model import ImageModel
from gapstone.models.classifier import Classifier

Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""Runs a file: images (N, C, H, W) → logits, and maps if it has them."""

TOLERANCE = 1e-4
"""Largest difference, relative to the largest number of an output. Another order of sums gives about 1e-6, a wrong
border or divisor 1e-2."""

DRAWS = 3
"""Draws of random images. If two positions have the same maximum, another runtime may select the other one, and move a
channel's part of the map. So maps may fail on a draw; a wrong formula fails on all. Logits must not fail on any."""


class ExportError(ValueError):
    """The model cannot be written, or the outputs of the written file differ and it was deleted."""


@dataclass(frozen=True)
class Checked:
    """The largest differences at one size, relative to the largest number of the output."""

    shape: Shape
    logits: float
    maps: float | None


def verify(run: Run, image_model: ImageModel, shapes: Sequence[Shape], reader: str) -> list[Checked]:
    """Compare file and model on random pictures of every shape.

    Raises:
        ExportError: If they differ by more than TOLERANCE; the message has the numbers.
    """
    return [_compare(run, image_model, shape, reader) for shape in shapes]


def _compare(run: Run, image_model: ImageModel, shape: Shape, reader: str) -> Checked:
    for draw in range(DRAWS):
        images = pictures(image_model, shape, seed=draw)
        answers = run(images.numpy())
        if len(answers) == 1 and isinstance(image_model.model, Classifier):  # its head may have no maps of its own
            with torch.no_grad():
                logits, maps = _difference(answers[0], image_model.model(images), "logits", shape, reader), None
        else:
            explained = explain(image_model.model, images)
            logits = _difference(answers[0], explained.logits, "logits", shape, reader)
            maps = _difference(answers[1], explained.maps, "maps", shape, reader) if len(answers) > 1 else None
        # `not <=` makes NaN a failure
        if not logits <= TOLERANCE:
            break
        if maps is None or maps <= TOLERANCE:
            return Checked(shape, logits, maps)
    name, size = ("logits", logits) if not logits <= TOLERANCE else ("maps", maps)
    raise ExportError(
        f"export: the file's {name} on images {format_size(shape)} in {reader} differ from PyTorch's by {size:.2g} "
        f"of the "
        f"largest, and may by {TOLERANCE:g}; no file was kept. Please report it with the backbone and head."
    )


def _difference(output: NDArray[np.float32], expected: Tensor, name: str, shape: Shape, reader: str) -> float:
    reference = expected.numpy()
    if output.shape != reference.shape:
        raise ExportError(
            f"export: the file's {name} on images {format_size(shape)} in {reader} have the shape {output.shape}, not "
            f"{reference.shape}; no file was kept. Please report it with the backbone and head."
        )
    largest = float(np.abs(reference).max())
    return float(np.abs(output - reference).max()) / max(largest, 1e-30)


def pictures(image_model: ImageModel, shape: Shape, seed: int) -> Tensor:
    """Return random pixels, normalised for the model."""
    count, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)
    return image_model.preprocessing.normalise(pixels).contiguous()
