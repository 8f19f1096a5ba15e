"""Is a written file the model? Its answers against PyTorch's, on images of several sizes, before it gets its name."""

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

Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""The file, run: images (N, C, H, W) → logits, and maps where it has them."""

TOLERANCE = 1e-4
"""Of the largest number of each output. Sums in another order differ by some 1e-6; a wrong edge or divisor by 1e-2."""

DRAWS = 3
"""A maximum that two positions hold to the last digit may go to the other one elsewhere, and with it that channel's
part of a map. Maps may therefore fail on a draw of random images; a wrong formula fails on all. Logits fail on none."""


class ExportError(ValueError):
    """The model cannot be written, or what was written does not answer as it does and was deleted."""


@dataclass(frozen=True)
class Checked:
    """One size, and the largest difference there, as a share of the output's largest number."""

    shape: Shape
    logits: float
    maps: float | None


def verify(run: Run, opened: ImageModel, shapes: Sequence[Shape], reader: str) -> list[Checked]:
    """Compare on random pictures of every shape.

    Raises: ExportError with the numbers, where they differ by more than TOLERANCE.
    """
    return [_one(run, opened, shape, reader) for shape in shapes]


def _one(run: Run, opened: ImageModel, shape: Shape, reader: str) -> Checked:
    for draw in range(DRAWS):
        images = pictures(opened, shape, seed=draw)
        explained = explain(opened.model, images)
        answers = run(images.numpy())
        logits = _difference(answers[0], explained.logits, "logits", shape, reader)
        maps = _difference(answers[1], explained.maps, "maps", shape, reader) if len(answers) > 1 else None
        # written so that NaN is a failure
        if not logits <= TOLERANCE:
            break
        if maps is None or maps <= TOLERANCE:
            return Checked(shape, logits, maps)
    which, size = ("logits", logits) if not logits <= TOLERANCE else ("maps", maps)
    raise ExportError(
        f"export: the file's {which} on images {format_size(shape)} in {reader} differ from PyTorch's by {size:.2g} "
        f"of the "
        f"largest, and may by {TOLERANCE:g}; no file was kept. Please report it with the backbone and head."
    )


def _difference(found: NDArray[np.float32], expected: Tensor, which: str, shape: Shape, reader: str) -> float:
    reference = expected.numpy()
    if found.shape != reference.shape:
        raise ExportError(
            f"export: the file's {which} on images {format_size(shape)} in {reader} have the shape {found.shape}, not "
            f"{reference.shape}; no file was kept. Please report it with the backbone and head."
        )
    largest = float(np.abs(reference).max())
    return float(np.abs(found - reference).max()) / max(largest, 1e-30)


def pictures(opened: ImageModel, shape: Shape, seed: int) -> Tensor:
    """Random pixels, normalised as the model's images are."""
    count, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)
    return opened.preprocessing.normalise(pixels).contiguous()
