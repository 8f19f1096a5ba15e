"""Heads of the user's own, trained on cached features for all learning rates and weight decays at a time.

Nothing is known of their layers, so that neither what they read is scaled nor how they begin is changed, as it is of
gapstone's own heads: they are trained with AdamW, whose steps do not depend on the size of what is read.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import product
from typing import final

import torch
from torch import Tensor

from gapstone.comparing.head_copies import TrainedTogether
from gapstone.comparing.tuning import TuningGrid
from gapstone.heads import Head
from gapstone.training.loop import TrainSettings

OWN_HEAD_VERSION = 1  # raised when the same head would be trained to other numbers

OWN_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
OWN_DECAYS = (0.0, 0.05)
OWN_UNTUNED = (1e-3, 0.0)
"""Learning rate and weight decay where there are no validation images."""


def own_candidates(grid: TuningGrid) -> list[tuple[float, float]]:
    """(learning rate, weight decay) of each candidate; what the user has given is the only one."""
    given = TuningGrid()
    rates = OWN_RATES if grid.learning_rates == given.learning_rates else grid.learning_rates
    decays = OWN_DECAYS if grid.weight_decays == given.weight_decays else grid.weight_decays
    return list(product(rates, decays))


@final
class OwnHeadCopies:
    """As `HeadCopies`, of a head of the user's own, which reads maps."""

    def __init__(
        self,
        head: Head,
        points: list[tuple[float, float]],
        settings: TrainSettings,
        images: int,
        weights: Tensor | None = None,
    ) -> None:
        """`weights`: what the images of each class count for in the loss."""
        self.copies = [deepcopy(head) for _ in points]
        groups = []
        for copy, (rate, decay) in zip(self.copies, points, strict=True):
            trained = [parameter for parameter in copy.parameters() if parameter.requires_grad]
            matrices = [parameter for parameter in trained if parameter.dim() > 1]
            others = [parameter for parameter in trained if parameter.dim() <= 1]
            groups += [
                {"params": matrices, "lr": rate, "weight_decay": decay},
                {"params": others, "lr": rate, "weight_decay": 0.0},
            ]
        self.modules = TrainedTogether(self.copies, torch.optim.AdamW(groups), settings, images, weights)

    def train_epoch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        return self.modules.train_epoch(batches)

    def logits(self, inputs: Tensor) -> Tensor:
        return self.modules.logits(inputs)

    def take(self, point: int) -> Callable[[Head], None]:
        """A function that gives a head the weights that a candidate has now."""
        state = deepcopy(self.copies[point].state_dict())

        def give(head: Head) -> None:
            head.load_state_dict(state)

        return give
