"""The training loop: SGD or AdamW, warm-up and cosine, early stopping, the same order of images for every head."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.console.formatting import count_noun
from gapstone.heads import BackboneOutput, Reads
from gapstone.heads.reads import read_backbone
from gapstone.images.augment import Augment
from gapstone.models.classifier import Classifier
from gapstone.statistics.labels import Labels, is_multi_label
from gapstone.training.balance import Balance, balance_weights, epoch_rows
from gapstone.training.drawn_rows import DrawnRows
from gapstone.training.losses import accuracy, begin_at, is_better, labels_tensor, log_odds, mean_loss

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]
Rows = NDArray[np.intp]


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to try."""


class Pictures(Protocol):
    """Stored images that the loop reads."""

    @property
    def images(self) -> NDArray[np.uint8]: ...  # (N, h, w, C)
    @property
    def labels(self) -> Labels: ...  # (N,), or (N, K) bool of several labels


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The defaults suit networks with batch norm, from scratch."""

    epochs: int = 20
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    warmup: float = 0.15
    """Share of all steps in which the learning rate rises."""
    patience: int = 10
    """Epochs without a better validation accuracy after which training stops; needs validation images."""
    augment: Augment = field(default_factory=Augment)
    precision: Precision = "float32"
    balance: Balance = "none"


@dataclass
class History:
    """Measurements of each epoch. The model ends with the weights of `best_epoch`, counted from 1.

    Where training is balanced, each class counts the same in loss and accuracy of the validation images.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0


def seeded(seed: int, device: str, *arguments: Any) -> Classifier:
    """Build `Classifier(*arguments)` on `device`.

    The same seed gives the same features under every head, because their weights are initialised first.
    """
    torch.manual_seed(seed)
    return Classifier(*arguments).to(device)


def train(
    model: Classifier,
    pictures: Pictures,
    rows: Rows,
    validation: Rows,
    settings: TrainSettings,
    seed: int = 0,
    after_epoch: Callable[[int, History], None] | None = None,
    drawn: DrawnRows | None = None,
    image_weights: NDArray[np.float64] | None = None,
) -> History:
    """Train `model` in place, on its own device; it ends in eval mode with the weights of its best epoch.

        >>> history = train(model, store, split.train, split.validation, TrainSettings(epochs=20), seed=0)

    Order and augmentation depend on `seed` and the epoch alone, never on the head. The best epoch is the one with the
    highest validation accuracy; at a tie, the one with the lower loss; of several labels per image, with the lowest
    loss; without validation images, the last.

    `after_epoch` is called with (epoch, history); `drawn` draws the training images by transforms of the user's own,
    and an epoch has each as often as its `image_weights` say, which are those of all images.

    Raises:
        TrainingError: the loss or a logit is NaN or infinite.
    """
    model.to(memory_format=torch.channels_last)
    validation_labels = labels_tensor(pictures.labels[validation])
    weights = balance_weights(settings.balance, pictures.labels[rows], model.head.classes)
    if is_multi_label(pictures.labels) and weights is None and model.head.module is None:
        begin_at(model.head, log_odds(pictures.labels[rows]))
    in_loss = None if weights is None or settings.balance != "loss" else weights.to(next(model.parameters()).device)

    def backward(images: Tensor, labels: Tensor) -> Tensor:
        loss = mean_loss(logits(model, images, settings.precision), labels, in_loss)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def validate() -> tuple[Tensor, Tensor]:
        return predict(model, pictures, validation, settings.precision, settings.batch_size), validation_labels

    train_epoch = epoch_trainer(
        model,
        len(rows),
        lambda epoch: batches(model, pictures, rows, settings, seed, epoch, drawn, image_weights),
        backward,
        settings,
    )
    return train_epochs(model, train_epoch, validate if len(validation) else None, settings, seed, after_epoch, weights)


def epoch_trainer(
    model: nn.Module,
    count: int,
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    backward: Callable[[Tensor, Tensor], Tensor],
    settings: TrainSettings,
) -> Callable[[int], float]:
    """Make a function that trains `model` for one epoch and returns the mean loss.

    `batches(epoch)` yields (inputs, labels); `backward(inputs, labels)` returns the loss and leaves its gradients in
    the parameters; `count` is the number of examples.
    """
    optimizer = make_optimizer(model, settings)
    factor = warm_cosine(count_steps(count, settings), settings.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def train_epoch(epoch: int) -> float:
        total = 0.0
        for inputs, labels in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss = backward(inputs, labels).item()
            optimizer.step()
            schedule.step()
            total += loss * len(labels)
            if not math.isfinite(total):
                raise divergence_error(loss, epoch, float(schedule.get_last_lr()[0]))
        return total / count

    return train_epoch


def train_epochs(
    model: nn.Module,
    train_epoch: Callable[[int], float],
    validate: Callable[[], tuple[Tensor, Tensor]] | None,
    settings: TrainSettings,
    seed: int,
    after_epoch: Callable[[int, History], None] | None = None,
    weights: Tensor | None = None,
) -> History:
    """Train epoch by epoch with early stopping; `model` ends with the weights of the best epoch.

    `train_epoch(epoch)` returns the mean loss; `validate` returns logits and labels on the CPU; `seed` is that of
    dropout; `weights` are what validation images of each class count for, None: the same.
    """
    began = time.perf_counter()
    device = next(model.parameters()).device
    history = History()
    best: tuple[float, float] | None = None
    best_state: dict[str, Tensor] = {}
    torch.manual_seed(seed)  # dropout
    for epoch in range(1, settings.epochs + 1):
        model.train()
        history.train_loss.append(train_epoch(epoch))
        if validate is not None:
            logits, labels = validate()
            found = accuracy(logits, labels, weights).item(), mean_loss(logits, labels, weights).item()
            history.validation_accuracy.append(found[0])
            history.validation_loss.append(found[1])
            if is_better(*found, best, labels.dim() > 1):
                best, history.best_epoch = found, epoch
                best_state = {key: value.detach().clone() for key, value in model.state_dict().items()}
        else:
            history.best_epoch = epoch
        history.seconds = time.perf_counter() - began
        if after_epoch:
            after_epoch(epoch, history)
        if epoch - history.best_epoch >= settings.patience:
            break
    if best_state:
        model.load_state_dict(best_state)
    model.eval()
    synchronize(device)
    history.seconds = time.perf_counter() - began
    return history


def divergence_error(loss: float, epoch: int, rate: float) -> TrainingError:
    return TrainingError(
        f"the loss became {loss} in epoch {epoch} at learning rate {rate:.2g}: "
        f"try a smaller learning rate, or a backbone with batch norm."
    )


def count_steps(count: int, settings: TrainSettings) -> int:
    """The optimizer steps of a whole training on `count` examples."""
    return settings.epochs * math.ceil(count / settings.batch_size)


def batches(
    model: Classifier,
    pictures: Pictures,
    rows: Rows,
    settings: TrainSettings,
    seed: int,
    epoch: int,
    drawn: DrawnRows | None = None,
    image_weights: NDArray[np.float64] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of (images (N, C, H, W) normalised, labels), shuffled and augmented by (seed, epoch)."""
    device = next(model.parameters()).device
    random = np.random.default_rng((seed, epoch))
    size = model.preprocessing.size
    of_epoch = epoch_rows(rows, pictures.labels, settings.balance, random, image_weights)
    parts = list(shuffled(of_epoch, settings.batch_size, random))
    if drawn is None:
        arrays: Iterator[NDArray[np.uint8]] = (
            settings.augment(pictures.images[batch], size, random) for batch in parts
        )
    else:
        arrays = drawn.batches(parts, seed, epoch, model.preprocessing)
    for batch, pixels in zip(parts, arrays, strict=True):
        images = model.preprocessing.normalise(torch.from_numpy(pixels).to(device))
        yield images, labels_tensor(pictures.labels[batch]).to(device)


def shuffled(rows: Rows, batch_size: int, random: np.random.Generator) -> Iterator[Rows]:
    """Yield the rows of each batch of an epoch."""
    order = random.permutation(rows)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        if len(batch) == 1 and len(order) > 1:
            return  # batch norm has no variance over one image
        yield batch


def read_features(
    model: Classifier, images: Tensor, precision: Precision, reads: Reads | None = None
) -> Tensor | BackboneOutput:
    """Compute what a head reads (None: the model's own) in `precision`, and return it as float32."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        output = read_backbone(model.features, images, reads or model.head.reads)
    return output.float()


def logits(model: Classifier, images: Tensor, precision: Precision) -> Tensor:
    """Compute the features in `precision` and the head in float32: it is cheap, and bfloat16 logits would tie."""
    result: Tensor = model.head(read_features(model, images, precision))
    return result


@torch.inference_mode()
def predict(
    model: Classifier,
    pictures: Pictures,
    rows: Rows,
    precision: Precision = "float32",
    batch_size: int = 64,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Compute the logits (len(rows), K) of centre crops, on the CPU, in eval mode.

    A batch size that fits for training fits here: without gradients a batch takes a fraction of the memory.

    `change` is applied to each normalised batch.

    Raises:
        TrainingError: a logit is NaN or infinite; the accuracy of such logits would be arbitrary.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(rows), batch_size):
        pixels = torch.from_numpy(pictures.images[rows[start : start + batch_size]])
        images = model.preprocessing.normalise(model.preprocessing.centre(pixels).to(device))
        parts.append(logits(model, change(images) if change else images, precision).cpu())
    return checked_logits(torch.cat(parts))


def checked_logits(logits: Tensor) -> Tensor:
    """Return the logits. Raises TrainingError if one is NaN or infinite."""
    if bool(torch.isfinite(logits).all()):
        return logits
    wrong = int((~torch.isfinite(logits)).any(1).sum())
    raise TrainingError(
        f"the network's logits are NaN or infinite for {wrong:,} of {count_noun(len(logits), 'image')}: its numbers "
        f"overflow. Try a smaller learning rate, a backbone with batch norm, or other --weights."
    )


def make_repeatable() -> None:
    """Make torch give the same numbers in every run of this process.

    One exception remains: the order of additions in the backward of adaptive pooling (`fc:grid`) on a GPU.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    # no weight decay on norms, biases and a learned p, which are one-dimensional: they do not overfit
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)


def warm_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """The share of the learning rate at each step: a linear rise, then half a cosine down to 0."""
    warm = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor
