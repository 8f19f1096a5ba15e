"""Which images a model was trained or validated on: eight bytes of each image's hash, in the model's file.

No names, and no image can be made of them: they say only whether an image at hand is one of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.models.model_file import ModelFileError, Shapes

TENSOR = "trained_on"
"""The tensor of a model's file that holds the hashes, and the field of its JSON that says whether they are all."""

Hashes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """The images that a model was trained or validated on.

        >>> seen = NOTHING.union(np.array([7, 3]))
        >>> seen.contains(np.array([3, 4])).tolist()
        [True, False]

    What published weights were trained on, before gapstone trained them further, is not among them.
    """

    hashes: Hashes
    """Each once, in ascending order (`Scan.content_hashes`)."""
    complete: bool = True
    """False: it, or the weights it began with, was also trained on images that are not known."""

    def union(self, hashes: Hashes) -> "TrainedOn":
        """With more images."""
        return TrainedOn(np.union1d(self.hashes, hashes).astype(np.int64), self.complete)

    def contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """(n,) whether each of the images is one of them."""
        return np.isin(hashes, self.hashes)

    @property
    def incomplete(self) -> "TrainedOn":
        """The same, where images that are not known may have come to it."""
        return TrainedOn(self.hashes, complete=False)


NOTHING = TrainedOn(np.empty(0, np.int64))
UNKNOWN = NOTHING.incomplete


def to_file(trained_on: TrainedOn | None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensor and the field of a model's file; neither where nothing is known."""
    if trained_on is None:
        return {}, {}
    hashes = torch.zeros(len(trained_on.hashes), dtype=torch.int64)  # numpy's empty arrays have no stride
    return {TENSOR: hashes.copy_(torch.from_numpy(trained_on.hashes))}, {TENSOR: {"complete": trained_on.complete}}


def from_file(weights: Mapping[str, Tensor], about: Mapping[str, object]) -> TrainedOn | None:
    """What `to_file` made; None of a file without it. `check_shape` has accepted the tensor."""
    if TENSOR not in weights:
        return None
    field = about.get(TENSOR)
    return TrainedOn(
        np.unique(weights[TENSOR].numpy()), complete=isinstance(field, dict) and field.get("complete") is True
    )


def without(shapes: Shapes) -> Shapes:
    """The shapes of a file's other tensors. Raises ModelFileError for hashes of another form."""
    dtype, shape = shapes.get(TENSOR, ("I64", (0,)))
    if dtype != "I64" or len(shape) != 1:
        raise ModelFileError(
            f"{TENSOR}, the hashes of the images it was trained on, is {dtype}{list(shape)}, not I64[n]: save it again"
        )
    return {name: entry for name, entry in shapes.items() if name != TENSOR}
