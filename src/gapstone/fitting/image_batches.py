"""Images on their way to a network, a few at a time: as it was trained, or each as it is."""

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
"""Of these rows the images, in their order, normalised, on the device."""

Decode = Callable[[int], NDArray[np.uint8]]
"""A row → (H, W, C) of any size."""


def stored(pictures: Pictures, preprocessing: Preprocessing, device: torch.device) -> View:
    """As the network was trained, from a store: one tensor."""

    def view(rows: Rows) -> Iterator[Images]:
        seen = preprocessing.centre(torch.from_numpy(pictures.images[rows]))
        yield preprocessing.normalise(seen.to(device))

    return view


def resized(decode: Decode, preprocessing: Preprocessing, device: torch.device) -> View:
    """The same, decoded anew each time."""

    def view(rows: Rows) -> Iterator[Images]:
        seen = preprocessing.centre(torch.from_numpy(np.stack([preprocessing.fit(decode(int(row))) for row in rows])))
        yield preprocessing.normalise(seen.to(device))

    return view


def native(decode: Decode, preprocessing: Preprocessing, smallest: int, device: torch.device) -> View:
    """As they are, decoded anew each time: lists of no more than `AT_ONCE` pixels, if not of one image."""

    def view(rows: Rows) -> Iterator[Images]:
        shown = (preprocessing.native(decode(int(row)), smallest) for row in rows)
        for few in batches(shown, len(rows), AT_ONCE):
            yield [preprocessing.normalise(torch.from_numpy(np.array(one[None])).to(device))[0] for one in few]

    return view
