"""Heads with hidden layers, dropout or a pool that learns, trained for all learning rates and weight decays at a time.

Each candidate is a copy of the head; all see the same batches, which are read once, where that can be by all together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.comparing.feature_scale import FeatureScale, ScaledLayer, layers_of
from gapstone.heads import Head
from gapstone.training.loop import TrainSettings, count_steps, warm_cosine
from gapstone.training.losses import mean_loss

PoolTogether = Callable[[Tensor, Sequence[nn.Module]], Sequence[Tensor]]
"""Inputs and pools to what each pool says of them."""

POOLS_SHARE = 0.05
"""Of the learning rate, for what a pool learns: 0.05 at rate 1, as in training from scratch."""
SMALL = 1e-3
"""Of the learning rate under AdamW, for biases and what a pool learns: its steps do not shrink with the gradient."""


@final
class TrainedTogether:
    """Modules that are trained by one optimizer on the same batches, each on its own loss."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        settings: TrainSettings,
        images: int,
        weights: Tensor | None,
        read: Callable[[Tensor], Sequence[Tensor]] | None = None,
    ) -> None:
        """`weights`: what the images of each class count for in the loss; `read` gives each module its own inputs."""
        self.modules, self.optimizer = modules, optimizer
        self.read = read or (lambda inputs: [inputs] * len(modules))
        self.weights = None if weights is None else weights.to(next(modules[0].parameters()).device)
        factor = warm_cosine(count_steps(images, settings), settings.warmup)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def train_epoch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """The mean loss of each module."""
        total, count = torch.zeros(len(self.modules)), 0
        for module in self.modules:
            module.train()
        for inputs, labels in batches:
            answers = self._answers(inputs)
            losses = torch.stack([mean_loss(logits, labels, self.weights) for logits in answers])
            self.optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            total, count = total.to(losses.device) + losses.detach() * len(labels), count + len(labels)
        return total / count

    @torch.inference_mode()
    def logits(self, inputs: Tensor) -> Tensor:
        """(modules, N, K)"""
        for module in self.modules:
            module.eval()
        return torch.stack(self._answers(inputs))

    def _answers(self, inputs: Tensor) -> list[Tensor]:
        return [module(given) for module, given in zip(self.modules, self.read(inputs), strict=True)]


@final
class HeadCopies:
    """As `LinearDescent`, of any head. `whole`: the copies read maps, else the vectors that their classifier reads.

        >>> run = HeadCopies(head, scale, [(0.1, 0.0), (1.0, 0.0)], settings, images=3000, whole=True)

    `pool(inputs, pools)` answers for the pools of all copies at a time, if given; the copies read its answers.

    A weight that reads D numbers steps at rate / D, with D times the decay: the numbers that the first layer reads are
    scaled to a variance of 1, so that this is what `LinearDescent` does. The last layer begins at 0.
    """

    def __init__(
        self,
        head: Head,
        scale: FeatureScale,
        points: list[tuple[float, float]],
        settings: TrainSettings,
        images: int,
        whole: bool,
        weights: Tensor | None = None,
        pool: PoolTogether | None = None,
    ) -> None:
        """`weights`: what the images of each class count for in the loss."""
        self.copies = []
        for _ in points:
            copy = deepcopy(head)
            layers = layers_of(copy)
            affine = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d)]
            nn.init.zeros_(layers[affine[-1]].weight)  # type: ignore[arg-type]
            layers[affine[0]] = ScaledLayer(layers[affine[0]], scale)  # type: ignore[arg-type]
            self.copies.append(copy)
        learned = [copy if whole or pool else layers_of(copy) for copy in self.copies]
        groups = [
            group
            for trained, point in zip(learned, points, strict=True)
            for group in parameter_groups(trained, *point, settings)
        ]
        if settings.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        modules: list[nn.Module] = [copy if whole and not pool else layers_of(copy) for copy in self.copies]
        pools = [copy.pools[0] for copy in self.copies] if pool else []
        read = (lambda inputs: pool(inputs, pools)) if pool else None
        self.modules = TrainedTogether(modules, optimizer, settings, images, weights, read)

    def train_epoch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        return self.modules.train_epoch(batches)

    def logits(self, inputs: Tensor) -> Tensor:
        return self.modules.logits(inputs)

    def take(self, point: int) -> Callable[[Head], None]:
        """A function that gives a head the weights that a candidate has now, for inputs that are not scaled."""
        copy = deepcopy(self.copies[point])
        layers = layers_of(copy)
        for place, layer in enumerate(layers):
            if isinstance(layer, ScaledLayer):
                layers[place] = layer.plain()

        def give(head: Head) -> None:
            head.load_state_dict(copy.state_dict())

        return give


def parameter_groups(
    trained: nn.Module, rate: float, decay: float, settings: TrainSettings
) -> Iterator[dict[str, Any]]:
    """The optimizer's groups of one candidate."""
    for name, parameter in trained.named_parameters():
        if parameter.dim() > 1:
            inputs = parameter[0].numel()
            yield {"params": [parameter], "lr": rate / inputs, "weight_decay": decay * inputs}
        else:  # no decay on biases and what a pool learns
            share = SMALL if settings.optimizer == "adamw" else POOLS_SHARE if name.startswith("pools.") else 1.0
            yield {"params": [parameter], "lr": rate * share, "weight_decay": 0.0}
