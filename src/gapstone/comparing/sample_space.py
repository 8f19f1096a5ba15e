"""A wide linear layer, trained in the space that its training images span: they are fewer than the numbers it reads.

    W = A X',   W x' = A (X' x')        X' (N, D): the training images, scaled; A (K, N)

From W = 0 each step of SGD, its momentum and its decay included, adds multiples of training images to W. So only A is
trained, on the products X' x' of images, which are computed once: the same steps, without the D numbers of an image.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gapstone.comparing.feature_scale import FeatureScale
from gapstone.comparing.trained_inputs import TrainedInputs
from gapstone.training.loop import Rows


class SpannedInputs(NamedTuple):
    """A batch of images in the space of the training images."""

    products: Tensor
    """(B, N) with each training image."""
    own: Tensor
    """(B, N): 1 at the image itself, which is the gradient's direction; zeros for an image that is not trained on."""


class SampleSpace:
    """Both what `LinearDescent` reads and its scale: `mean` and `factor` change nothing, as products are scaled.

    >>> space = SampleSpace(images, trial.train, images.scale(trial.train))
    >>> run = LinearDescent(classes, space, points, settings, len(trial.train))
    >>> run.train_epoch(space.batches(order))
    """

    factor = 1.0

    @staticmethod
    def is_smaller(images: TrainedInputs, products: int) -> bool:
        """Whether it saves work; `products`: rows of weights that an image is multiplied with, in all epochs."""
        held = images.held
        if images.form != "vectors" or held is None:
            return False
        return images.count <= min(held.shape[1] // 2, products)

    def __init__(self, images: TrainedInputs, rows: Rows, scale: FeatureScale) -> None:
        """`images` gives away what it holds, which may be large; `rows` are trained on."""
        held = images.release()
        self.scale, self.images = scale, images
        self.inputs = held.sub_(scale.mean).mul_(scale.factor)
        self.trained = images.places_in(images.rows, rows)
        self._begin(self.inputs @ self.inputs[self.trained].t())

    def _begin(self, products: Tensor) -> None:
        self.products, trained = products, self.trained
        self.own = products.new_zeros(products.shape)
        self.own[trained, torch.arange(len(trained), device=products.device)] = 1.0
        self.mean = products.new_zeros(len(trained))

    def batches(self, parts: Iterable[Rows]) -> Iterator[tuple[SpannedInputs, Tensor]]:
        """(inputs, labels) of each part."""
        for part in parts:
            at = self.images.places_in(self.images.rows, part)
            yield SpannedInputs(self.products[at], self.own[at]), self.images.labels(part)

    def parts(self, rows: Rows) -> Iterator[Rows]:
        return self.images.parts(rows)

    def labels(self, rows: Rows) -> Tensor:
        return self.images.labels(rows)

    def folded(self, coefficients: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The weight (K, D) and bias of the layer on what is not scaled, from A (K, N)."""
        return self.scale.folded(coefficients @ self.inputs[self.trained], bias)
