"""A trained model that predicts images by their rows in the store, so that measurements need not know how it does."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.images.shift import shifted
from gapstone.maps.explain import explain_head, explain_model_vectors, has_maps
from gapstone.maps.explanation import Explanation
from gapstone.models.classifier import Classifier
from gapstone.models.model_cost import cost
from gapstone.nets import map_size
from gapstone.statistics.labels import Labels
from gapstone.tracing.locate_head import locate_features
from gapstone.tracing.placement import Placement
from gapstone.tracing.tape import SplitError
from gapstone.training.loop import Pictures, Precision, Rows, predict


@dataclass(frozen=True)
class Change:
    """A change of test images before the network sees them: a move by whole pixels, or another size."""

    down: int = 0
    right: int = 0
    size: tuple[int, int] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Change normalised images (N, C, H, W)."""
        if self.size is not None:
            images = F.interpolate(images, size=self.size, mode="bilinear", antialias=True)
        return shifted(images, self.down, self.right) if self.down or self.right else images

    def batch_size(self, batch_size: int, size: tuple[int, int]) -> int:
        """Reduce the batch size for images of `size` that are enlarged: 1.5 times the side takes 2.25 the memory."""
        scale = self.size[0] / size[0] if self.size else 1.0
        return max(1, int(batch_size / max(1.0, scale) ** 2))


STILL = Change()


class Answering(Protocol):
    """The interface of a model that is asked about moved and resized images."""

    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def labels(self) -> Labels: ...  # of all images, by row
    @property
    def only_size(self) -> tuple[int, int] | None: ...  # (H, W) of a model that takes one size only

    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        """Logits (len(rows), K), on the CPU."""
        ...

    def accepts(self, size: tuple[int, int]) -> bool:
        """Whether the backbone takes images of that size."""
        ...


class Predictor(Answering, Protocol):
    """The interface of a trained model that measurements use."""

    @property
    def head(self) -> Head: ...
    @property
    def batch_size(self) -> int: ...

    def explain(self, rows: Rows, classes: Tensor | None = None) -> Explanation | None:
        """The maps of the centre crops, of all classes or of `classes` (N, k); None where the head has none."""
        ...

    def cost(self) -> dict[str, int]:
        """As `gapstone.models.model_cost`."""
        ...


@dataclass(frozen=True)
class ModelPredictor:
    """A model that runs for every prediction."""

    model: Classifier
    pictures: Pictures
    precision: Precision = "float32"
    batch_size: int = 64

    @property
    def head(self) -> Head:
        return self.model.head

    @property
    def preprocessing(self) -> Preprocessing:
        return self.model.preprocessing

    @property
    def labels(self) -> NDArray[Any]:
        return self.pictures.labels

    @property
    def only_size(self) -> tuple[int, int] | None:
        fixed = self.model.features.fixed is not None or self.head.size is not None
        return self.preprocessing.size if fixed else None

    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        batch_size = change.batch_size(self.batch_size, self.preprocessing.size)
        return predict(self.model, self.pictures, rows, self.precision, batch_size, None if change == STILL else change)

    def images(self, rows: Rows) -> Tensor:
        """The centre crops, as the network takes them."""
        pixels = torch.from_numpy(np.asarray(self.pictures.images[rows]))
        return self.preprocessing.normalise(self.preprocessing.centre(pixels).to(next(self.model.parameters()).device))

    def explain(self, rows: Rows, classes: Tensor | None = None) -> Explanation | None:
        explained = self._explain(rows, classes)
        return explained and replace(explained, multi_label=self.model.multi_label)

    def _explain(self, rows: Rows, classes: Tensor | None) -> Explanation | None:
        self.model.eval()
        images = self.images(rows)
        if not has_maps(self.head):
            try:
                return explain_model_vectors(self.model, images, classes)
            except SplitError:
                return None
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            given, location = locate_features(self.model.features, images, self.head.reads)
        return explain_head(self.head, given.float(), classes, placement=Placement.of(location))

    def accepts(self, size: tuple[int, int]) -> bool:
        try:  # on the meta device: some networks take multiples of 32 only
            map_size(self.model.features, self.preprocessing.channels, size)
        except Exception:  # networks raise errors of many types
            return False
        return True

    def cost(self) -> dict[str, int]:
        return cost(self.model)
