"""As `SampleSpace`, from products of all images with each other, which all trials of a head share.

    x' = (y − m) f,   x'ᵢ·x'ⱼ = f² (yᵢ·yⱼ − yᵢ·m − yⱼ·m + m·m)        y: less the mean of all images

so that the products of one trial, whose training images have their own mean m and factor f, take none of what is read.
"""

import os
import random
import re
from functools import partial

import torch
from torch import Tensor

from gapstone.comparing.feature_scale import FeatureScale
from gapstone.comparing.sample_space import SampleSpace
from gapstone.comparing.shared_answers import shared
from gapstone.comparing.trained_inputs import MOST_HELD, TrainedInputs
from gapstone.training.loop import Rows

TIMES = 8
"""As many more products of images than of weights cost the same: they are large and read once (4,309 photos: 15 s for
all, 16 s for each trial without them)."""
MOST_IMAGES = 6000
"""Their products are 144 MB, and as much again in each trial."""
BLOCK = 512
"""Images that are read at a time."""


class SharedSpace(SampleSpace):
    @staticmethod
    def is_smaller(images: TrainedInputs, products: int) -> bool:
        """Whether it saves work; `products`: rows of weights that an image is multiplied with, in all epochs."""
        if images.form != "vectors" or images.predictor.pooled or images.normed:
            return False
        numbers = images.read(images.rows[:1]).shape[1]
        return images.of_all <= min(numbers // 2, TIMES * products, MOST_IMAGES)

    def __init__(self, images: TrainedInputs, rows: Rows, scale: FeatureScale) -> None:
        """`rows` are trained on."""
        self.scale, self.images, self.rows = scale, images, rows
        every = images.maps.rows
        known, trained = images.places_in(every, images.rows), images.places_in(every, rows)
        products = _products(images)[known].double()  # (images, all)
        with_mean = products[:, trained].mean(1)
        self.trained = images.places_in(images.rows, rows)
        mean_squared = with_mean[self.trained].mean()
        products = products[:, trained] - with_mean[:, None] - with_mean[self.trained] + mean_squared
        self._begin((products * scale.factor**2).float())

    def folded(self, coefficients: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        weight = torch.zeros(len(coefficients), len(self.scale.mean), device=coefficients.device)
        for first in range(0, len(self.rows), BLOCK):
            some = slice(first, first + BLOCK)
            weight += coefficients[:, some] @ self.scale(self.images.read(self.rows[some]))
        return self.scale.folded(weight, bias)


def _products(images: TrainedInputs) -> Tensor:
    """(all, all) of the images, less their mean: made once by the trials of all heads that read the same."""
    rows, device = images.maps.rows, images.predictor.device
    path, head = images.maps.path, images.predictor.head
    held: dict[int, Tensor] = {}
    hold = len(rows) * images.read(rows[:1]).nbytes <= MOST_HELD  # others are read again for each block after them
    name = "-".join(["products", str(head.depth), *(re.sub(r"\W+", "-", str(pool)) for pool in head.pools)])
    firsts = range(0, len(rows), BLOCK)

    def read(first: int) -> Tensor:
        if first in held:
            return held[first]
        some = images.read(rows[first : first + BLOCK])
        return held.setdefault(first, some) if hold else some

    def mean() -> Tensor:
        return torch.stack([read(first).sum(0, dtype=torch.float64) for first in firsts]).sum(0).div(len(rows)).float()

    centre = shared(path, f"{name}-mean", mean).to(device)

    def block(first: int) -> Tensor:
        """Of images from `first` on with themselves and all before them."""
        own = read(first) - centre
        return torch.cat([own @ (read(other) - centre).t() for other in range(0, first + 1, BLOCK)], 1)

    # each process in an order of its own: two that begin at the same time make few of them twice
    order = random.Random(os.getpid()).sample(firsts, len(firsts))
    blocks = {first: shared(path, f"{name}-{first}", partial(block, first)) for first in order}
    products = torch.empty(len(rows), len(rows), device=device)
    for first, made in blocks.items():
        stop = first + len(made)
        products[first:stop, :stop] = made
        products[:first, first:stop] = made[:, :first].t()
    return products
