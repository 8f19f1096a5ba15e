"""Explains a picture that is too large to enter the network whole (`--native`) by `gs.stream`; keeps it small."""

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gapstone.any_size.given_image import ArrayImage, FileImage
from gapstone.any_size.kept_maps import MapsAsked
from gapstone.any_size.stream_image import Progress, StreamOptions, stream_image
from gapstone.drawing.evidence import Evidence
from gapstone.explaining.streamed_answer import open_large_tiff, said
from gapstone.images.as_picture import as_picture
from gapstone.images.load import load
from gapstone.maps.open_model import ImageModel


@dataclass(frozen=True)
class StreamedPicture:
    """What `explain` needs of it."""

    probabilities: Tensor
    """(K,)"""
    evidences: list[Evidence]
    """Of the classes asked for, in that order."""
    small: bytes
    """A PNG of at most 1024 px a side."""
    notes: tuple[str, ...]


def stream_picture(
    model: ImageModel,
    path: Path,
    classes: Sequence[int] | None,
    top: int | None,
    plain: bool,
    memory: int,
    checkpoint: Path,
    announce: Callable[[str], Progress],
) -> StreamedPicture:
    """A run that was stopped goes on from the file `checkpoint`.

    Raises what `gs.stream` raises; ValueError where there are no maps.
    """
    asked = MapsAsked(classes, top, model.labels, model.multi_label)
    with ExitStack() as stack:
        huge = open_large_tiff(path)
        if huge is not None:
            given: FileImage | ArrayImage = FileImage(stack.enter_context(huge), 0, model.preprocessing)
        else:
            pixels = load(path, ranges=model.preprocessing.ranges).pixels
            given = ArrayImage(pixels, model.preprocessing)
        kept = checkpoint if huge is not None else None
        streamed = stream_image(model.model, given, StreamOptions(asked, memory, checkpoint=kept, anew=True), announce)
    if streamed.explanation is None:
        raise ValueError(streamed.no_maps)
    evidences = streamed.explanation.shown(plain).evidence(0, streamed.size)
    assert streamed.picture is not None
    notes = (*streamed.notes, said(streamed))
    return StreamedPicture(streamed.probabilities[0].cpu(), evidences, _png(streamed.picture), notes)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    as_picture(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
