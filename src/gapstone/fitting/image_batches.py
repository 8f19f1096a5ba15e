"""Views of a set of images: they yield normalised batches, resized as in training or each in its own size."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.images.batches import AT_ONCE, batches
from gapstone.images.preprocessing import Preprocessing
from gapstone.training.loop import Pictures, Rows

Images = Tensor | Sequence[Tensor]
"""(n, C, H, W); or a list of (C, H, W), each of its own size."""

View = Callable[[Rows], Iterator[Images]]
"""Rows → batches of their images, in that order, normalised, on the device."""

Decode = Callable[[int], NDArray[np.uint8]]
"""A row → (H, W, C) of any size."""


def stored_view(pictures: Pictures, preprocessing: Preprocessing, device: torch.device) -> View:
    """Images from a store, cropped as in training: one tensor."""

    def view(rows: Rows) -> Iterator[Images]:
        pixels = preprocessing.centre(torch.from_numpy(pictures.images[rows]))
        yield preprocessing.normalise(pixels.to(device))

    return view


def resized_view(decode: Decode, preprocessing: Preprocessing, device: torch.device) -> View:
    """The same, decoded each time they are needed."""

    def view(rows: Rows) -> Iterator[Images]:
        pixels = torch.from_numpy(np.stack([preprocessing.fit(decode(int(row))) for row in rows]))
        yield preprocessing.normalise(preprocessing.centre(pixels).to(device))

    return view


def native_view(decode: Decode, preprocessing: Preprocessing, smallest: int, device: torch.device) -> View:
    """Images in their own sizes, decoded each time: lists of one image, or of at most `AT_ONCE` pixels."""

    def view(rows: Rows) -> Iterator[Images]:
        pixels = (preprocessing.native(decode(int(row)), smallest) for row in rows)
        for batch in batches(pixels, len(rows), AT_ONCE):
            yield [preprocessing.normalise(torch.from_numpy(np.array(image[None])).to(device))[0] for image in batch]

    return view
