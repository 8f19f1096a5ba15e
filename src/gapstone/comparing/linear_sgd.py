"""SGD of one linear layer for all learning rates and weight decays at a time: gradient = (softmax(W x) − truth)ᵀ x / N.

With several labels per image it is the sigmoid's: of the sum over classes of binary cross-entropy.

A step of so small a layer is mostly overhead and reading x. The layers of all candidates are one matrix: ten cost 1.7
times as much as one. No autograd, which takes four times as long.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapstone.comparing.feature_scale import layers_of
from gapstone.comparing.sample_space import SpannedInputs
from gapstone.heads import Head
from gapstone.training.loop import TrainSettings, count_steps, warm_cosine

Inputs = Tensor | SpannedInputs


class InputScale(Protocol):
    """x' = (x − mean) · factor"""

    @property
    def mean(self) -> Tensor: ...  # (D,)
    @property
    def factor(self) -> float: ...
    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]: ...  # the layer on x


@final
class LinearDescent:
    """Trains the layers of all candidates on the same batches, as torch's SGD with Nesterov momentum would.

    `weights` are what the images of each class count for in the loss, as cross_entropy(weight=…); None: the same.

        >>> run = LinearDescent(10, scale, [(0.1, 0.0), (1.0, 0.0)], settings, images=3000)
        >>> run.train_epoch(batches)                             # the mean loss of each candidate
        tensor([1.3124, 0.9861])
        >>> run.take(1)(head)                                    # the head gets the second candidate's layer

    `batches` are of (inputs, labels): of a linear layer inputs (N, D); of a layer of class maps, which are rectified
    and averaged over their cells (`nin`), inputs (N, cells, D); with a `SampleSpace` as its scale, what that yields.

    All begin at 0, and class maps at 1: the loss of a linear layer has one minimum. With several labels per image,
    labels (N, K) bool, `weights` are (2, K), and biases begin at the log-odds `begin` of the classes.
    """

    def __init__(
        self,
        classes: int,
        scale: InputScale,
        points: list[tuple[float, float]],
        settings: TrainSettings,
        images: int,
        maps: bool = False,
        weights: Tensor | None = None,
        begin: Tensor | None = None,
    ) -> None:
        self.classes, self.scale, self.maps = classes, scale, maps
        rows, like = len(points) * classes, scale.mean
        self.weights = None if weights is None else weights.to(like.device)
        self.weight, self.momentum = (torch.zeros(rows, len(like), device=like.device) for _ in range(2))
        self.bias, self.bias_momentum = torch.full((rows,), float(maps), device=like.device), like.new_zeros(rows)
        if begin is not None:
            self.bias += begin.to(like.device).repeat(len(points))
        rates, decays = (torch.tensor(numbers, device=like.device) for numbers in zip(*points, strict=True))
        self.rates = rates.repeat_interleave(classes)[:, None]
        self.decays = decays.repeat_interleave(classes)[:, None]
        self.factor = warm_cosine(count_steps(images, settings), settings.warmup)
        self.step = 0

    @torch.inference_mode()
    def train_epoch(self, batches: Iterable[tuple[Inputs, Tensor]]) -> Tensor:
        total, count = torch.zeros(len(self.rates) // self.classes, device=self.rates.device), 0
        for inputs, labels in batches:
            total += self._step(inputs, labels)
            count += len(labels)
        return total / count

    def _step(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """One step; returns the sum of the losses of each candidate."""
        x, directions = inputs if isinstance(inputs, SpannedInputs) else (inputs.flatten(0, -2),) * 2
        maps, logits = self._forward(x, len(labels))
        losses, slope = self._losses_and_slope(logits.view(-1, self.classes, len(labels)), labels)
        slope = slope.view(len(self.weight), -1)
        if maps is not None:
            slope = ((maps > 0) * (slope / maps.shape[2])[:, :, None]).view(len(self.weight), -1)
        of_bias, factor = slope.sum(1), self.scale.factor
        gradient = torch.outer(of_bias, self.scale.mean).addmm_(slope, directions, beta=-factor, alpha=factor)
        gradient.addcmul_(self.decays, self.weight)
        rates = self.rates * self.factor(self.step)
        _nesterov(self.weight, gradient, self.momentum, rates)
        _nesterov(self.bias, of_bias, self.bias_momentum, rates[:, 0])
        self.step += 1
        return losses

    def _losses_and_slope(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of logits (candidates, K, N): the sum of each candidate's losses, and the slope of their mean."""
        if labels.dim() > 1:
            truth = labels.t().to(logits.dtype)
            # log(1 + e^z) − z·truth, and its slope, sigmoid(z) − truth
            losses, slope = F.softplus(logits) - logits * truth, logits.sigmoid().sub_(truth).div_(len(labels))
            if self.weights is not None:
                share = torch.where(labels, self.weights[1], self.weights[0]).t()
                losses, slope = losses * share, slope.mul_(share)
            return losses.sum((1, 2)), slope
        truth = F.one_hot(labels, self.classes).t().to(logits.dtype)
        log_p = logits.log_softmax(1)
        if self.weights is None:
            losses = -(log_p * truth).sum((1, 2))
            return losses, log_p.exp_().sub_(truth).div_(len(labels))
        share = self.weights[labels]
        share = share / share.sum()
        losses = -(log_p * truth).sum(1) @ share * len(labels)
        return losses, log_p.exp_().sub_(truth).mul_(share)

    def _forward(self, x: Tensor, images: int) -> tuple[Tensor | None, Tensor]:
        """The class maps (candidates · K, N, cells), if any, and the logits (candidates · K, N).

        x is not scaled: to scale it would take as long as to multiply it. W x' + b = r W x + (b − r W mean).
        """
        factor = self.scale.factor
        bias = self.bias - factor * (self.weight @ self.scale.mean)
        # x @ weight.t() takes three times as long
        answers = torch.addmm(bias[:, None], self.weight, x.t(), alpha=factor)
        if not self.maps:
            return None, answers
        maps = answers.view(len(self.weight), images, -1)
        return maps, maps.clamp_min(0).mean(2)

    @torch.inference_mode()
    def logits(self, inputs: Inputs) -> Tensor:
        """(candidates, N, K)"""
        x = inputs.products if isinstance(inputs, SpannedInputs) else inputs
        _, logits = self._forward(x.flatten(0, -2), len(x))
        return logits.view(-1, self.classes, len(x)).transpose(1, 2)

    def take(self, point: int) -> Callable[[Head], None]:
        """A function that gives a head the weights that a candidate has now, for inputs that are not scaled."""
        rows = slice(point * self.classes, (point + 1) * self.classes)
        own_weight, own_bias = self.weight[rows].clone(), self.bias[rows].clone()

        @torch.no_grad()
        def give(head: Head) -> None:
            weight, bias = self.scale.folded(own_weight, own_bias)
            layer = next(layer for layer in layers_of(head) if isinstance(layer, nn.Linear | nn.Conv2d))
            assert layer.bias is not None
            layer.weight.copy_(weight.view_as(layer.weight))
            layer.bias.copy_(bias)

        return give


def _nesterov(weight: Tensor, gradient: Tensor, momentum: Tensor, rates: Tensor) -> None:
    # three passes over memory, which is what a step of many weights (`fc`) waits for
    torch.add(gradient, momentum, alpha=0.9, out=momentum)
    weight.addcmul_(gradient.add_(momentum, alpha=0.9), rates, value=-1)
