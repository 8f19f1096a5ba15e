"""The last stage of a network and its head, trained a little longer, from what the stage is given: kept, not remade."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.models.classifier import Classifier
from gapstone.training.loop import shuffled, warm_cosine

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

RATE, PLAIN_RATE = 0.03, 0.01
"""Learning rate with batch norm in what is trained, and without."""

BATCH = 64
WARMUP = 0.15
"""Share of all steps in which the learning rate rises."""

PATIENCE = 10
"""Epochs without a better one on the held-out images, after which no more are tried."""


@dataclass(frozen=True, eq=False)
class LastStage:
    """What the last stage is given, `Features.before_last`, and the class of each image."""

    maps: NDArray[Any]
    """(n, …), half precision or float32, on disk or in memory."""
    labels: NDArray[np.int64]


@dataclass
class Finetuned:
    """What happened, epoch by epoch; the first entry is the start, before any."""

    accuracy: list[float] = field(default_factory=list)
    """On the held-out images."""
    loss: list[float] = field(default_factory=list)
    best: int = 0
    """The epoch whose weights were kept; 0 is the start."""
    stopped: str = ""
    """Why it ended early, where it did."""


def finetune(
    model: Classifier,
    train: LastStage,
    held_out: LastStage,
    epochs: int,
    seed: int = 0,
    tell: Callable[[int, int, str], None] | None = None,
    learning_rate: float | None = None,
) -> Finetuned:
    """Train `model.features.last_modules()` and `model.head` in place, and leave them in eval mode with the weights
    that were best on `held_out`: an epoch's, or those they began with.

        >>> finetune(model, Between(maps, labels), Between(other_maps, other_labels), epochs=10).best
        7

    SGD with Nesterov momentum, a short warm-up, then a cosine; no augmentation, as the maps are of the images as they
    are. What comes before the last stage stays in eval mode and is never run. Batch norm within the stage is trained as
    usual, its statistics those of the batch: a stage that changes under statistics that do not falls behind and easily
    diverges (NIN, `fc:256` to `gap`, 10 epochs at 0.03: CIFAR-10 58.8 % against 58.1 %, MNIST 97.2 % against a loss
    that is no number in the first epoch). Where the loss becomes none, it ends, and the best so far stays. Parameters
    that were frozen (`requires_grad`) are trained all the same, and frozen after.
    """
    modules: list[nn.Module] = [*model.features.last_modules(), model.head]
    device = next(model.parameters()).device
    parameters = [p for module in modules for p in module.parameters()]
    frozen = [p for p in parameters if not p.requires_grad]
    normed = any(isinstance(layer, BATCH_NORMS) for part in modules for layer in part.modules())
    optimizer = _sgd(parameters, learning_rate or (RATE if normed else PLAIN_RATE))
    steps = epochs * math.ceil(len(train.labels) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, WARMUP))
    model.eval()
    tuned = Finetuned()
    kept: list[dict[str, Tensor]] = []

    def judge(epoch: int) -> None:
        nonlocal kept
        accuracy, loss = _judge(model, held_out, device)
        before = max(zip(tuned.accuracy, (-x for x in tuned.loss), strict=True), default=(-1.0, -math.inf))
        if (accuracy, -loss) > before:
            tuned.best = epoch
            kept = [{k: v.detach().clone() for k, v in module.state_dict().items()} for module in modules]
        tuned.accuracy.append(accuracy)
        tuned.loss.append(loss)
        if tell is not None:
            tell(epoch, epochs, f"validation accuracy {100 * accuracy:.1f} %")

    def one_epoch(epoch: int) -> bool:
        """False where the loss is no longer a number."""
        for module in modules:
            module.train()
        for maps, labels in _batches(train, device, np.random.default_rng((seed, epoch))):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model.head(model.features.last(maps)), labels)
            if not math.isfinite(loss.item()):
                return False
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        model.eval()
        return True

    try:
        for p in frozen:
            p.requires_grad_(True)
        judge(0)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # dropout
            for epoch in range(1, epochs + 1):
                if not one_epoch(epoch):
                    tuned.stopped = f"the loss was no longer a number in epoch {epoch}"
                    break
                judge(epoch)
                if epoch - tuned.best >= PATIENCE:
                    tuned.stopped = f"no better epoch since {tuned.best}"
                    break
    finally:
        for module, state in zip(modules, kept, strict=False):
            module.load_state_dict(state)
        for p in frozen:
            p.requires_grad_(False)
        model.eval()
    return tuned


def _sgd(parameters: list[nn.Parameter], rate: float) -> torch.optim.SGD:
    """Weight decay on matrices and filters, none on norms and biases."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 5e-4},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)


def _batches(data: LastStage, device: torch.device, random: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in shuffled(np.arange(len(data.labels)), BATCH, random):
        yield _some(data, chosen, device), torch.from_numpy(data.labels[chosen]).to(device)


def _some(data: LastStage, chosen: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(data.maps[chosen])).to(device).float()  # a copy: maps on disk are read-only


@torch.inference_mode()
def _judge(model: Classifier, data: LastStage, device: torch.device) -> tuple[float, float]:
    logits = torch.cat(
        [
            model.head(model.features.last(_some(data, slice(first, first + BATCH), device))).float().cpu()
            for first in range(0, len(data.labels), BATCH)
        ]
    )
    labels = torch.from_numpy(data.labels)
    return (logits.argmax(1) == labels).double().mean().item(), F.cross_entropy(logits, labels).item()
