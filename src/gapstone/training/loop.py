"""One short loop: SGD or AdamW, warm-up and cosine, early stopping, the same stream of images for every head."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.console.formatting import count_noun
from gapstone.images.augment import Augment
from gapstone.models.classifier import Classifier
from gapstone.models.model_cost import cost

Precision = Literal["float32", "bfloat16"]
Rows = NDArray[np.intp]
WORTH_BFLOAT16 = 10_000_000
"""Multiply-adds per image: NIN at 32 px has 4 million (1.1× faster in bfloat16), ResNet-18 at 112 px 450 (2.5×)."""


SKILL = 0.1
"""Of the way from the majority class to 100 %: a head that went less far has hardly learned anything."""
FEW = 100
"""Validation images, below which one of them decides which epoch is best."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


class Pictures(Protocol):
    """Stored images: what the loop reads."""

    @property
    def images(self) -> NDArray[np.uint8]: ...  # (N, h, w, C)
    @property
    def labels(self) -> NDArray[np.integer]: ...  # (N,)


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
    """Stop after so many epochs without a better validation accuracy; needs validation images."""
    augment: Augment = field(default_factory=Augment)
    precision: Precision = "float32"


@dataclass
class History:
    """What happened, epoch by epoch; the weights kept are those of `best_epoch` (counted from 1)."""

    train_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0


def seeded(seed: int, device: str, *about: Any) -> Classifier:
    """`Classifier(*about)` on `device`; one seed gives all heads the same trunk, whose weights are drawn first."""
    torch.manual_seed(seed)
    return Classifier(*about).to(device)


def train(
    model: Classifier,
    pictures: Pictures,
    rows: Rows,
    validation: Rows,
    settings: TrainSettings,
    seed: int = 0,
    after_epoch: Callable[[int, History], None] | None = None,
) -> History:
    """Train `model` in place, on its own device, and leave it in eval mode with the weights of its best epoch.

        >>> history = train(model, store, split.train, split.validation, Settings(epochs=20), seed=0)

    Order and augmentation depend on `seed` and the epoch alone, never on the head. The best epoch is the one with the
    highest validation accuracy, at a tie the one with the lower loss; without validation images, the last.

    Raises: TrainingError when the loss is no longer a number.
    """
    model.to(memory_format=torch.channels_last)
    labels = torch.from_numpy(pictures.labels[validation].astype(np.int64))

    def learn(images: Tensor, truth: Tensor) -> Tensor:
        loss = F.cross_entropy(logits(model, images, settings.precision), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def check() -> tuple[Tensor, Tensor]:
        return predict(model, pictures, validation, settings.precision, settings.batch_size), labels

    descent = descend(
        model, len(rows), lambda epoch: batches(model, pictures, rows, settings, seed, epoch), learn, settings
    )
    return fit(model, descent, check if len(validation) else None, settings, seed, after_epoch)


def descend(
    model: nn.Module,
    count: int,
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    learn: Callable[[Tensor, Tensor], Tensor],
    settings: TrainSettings,
) -> Callable[[int], float]:
    """A function that trains `model` for one epoch and gives the mean loss.

    count: examples in an epoch. batches(epoch): (inputs, labels). learn(inputs, labels): the loss, its gradients left
    in the parameters.
    """
    optimizer = _optimizer(model, settings)
    factor = warm_cosine(steps_of(count, settings), settings.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def run(epoch: int) -> float:
        total = 0.0
        for inputs, labels in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss = learn(inputs, labels).item()
            optimizer.step()
            schedule.step()
            total += loss * len(labels)
            if not math.isfinite(total):
                raise diverged(loss, epoch, float(schedule.get_last_lr()[0]))
        return total / count

    return run


def fit(
    model: nn.Module,
    run: Callable[[int], float],
    check: Callable[[], tuple[Tensor, Tensor]] | None,
    settings: TrainSettings,
    seed: int,
    after_epoch: Callable[[int, History], None] | None = None,
) -> History:
    """Epoch by epoch, until the last or until none was better for long; `model` ends with the best one's weights.

    run(epoch): train, and give the mean loss. check(): logits and labels of the validation examples, on the CPU.
    """
    began = time.perf_counter()
    device = next(model.parameters()).device
    history = History()
    best: tuple[float, float] | None = None
    kept: dict[str, Tensor] = {}
    torch.manual_seed(seed)  # dropout
    for epoch in range(1, settings.epochs + 1):
        model.train()
        history.train_loss.append(run(epoch))
        if check is not None:
            answers, truth = check()
            accuracy = (answers.argmax(1) == truth).double().mean().item()
            loss_now = F.cross_entropy(answers, truth).item()
            history.validation_accuracy.append(accuracy)
            history.validation_loss.append(loss_now)
            if best is None or (accuracy, -loss_now) > best:
                best, history.best_epoch = (accuracy, -loss_now), epoch
                kept = {key: value.detach().clone() for key, value in model.state_dict().items()}
        else:
            history.best_epoch = epoch
        history.seconds = time.perf_counter() - began
        if after_epoch:
            after_epoch(epoch, history)
        if epoch - history.best_epoch >= settings.patience:
            break
    if kept:
        model.load_state_dict(kept)
    model.eval()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    history.seconds = time.perf_counter() - began
    return history


def diverged(loss: float, epoch: int, rate: float) -> TrainingError:
    return TrainingError(
        f"the loss became {loss} in epoch {epoch} at learning rate {rate:.2g}: "
        f"try a smaller learning rate, or a backbone with batch norm."
    )


def steps_of(count: int, settings: TrainSettings) -> int:
    return settings.epochs * math.ceil(count / settings.batch_size)


def batches(
    model: Classifier, pictures: Pictures, rows: Rows, settings: TrainSettings, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of (images (N, C, H, W) normalised, labels (N,)), shuffled and augmented by (seed, epoch)."""
    device = next(model.parameters()).device
    random = np.random.default_rng((seed, epoch))
    for chosen in shuffled(rows, settings.batch_size, random):
        seen = settings.augment(pictures.images[chosen], model.preprocessing.size, random)
        images = model.preprocessing.normalise(torch.from_numpy(seen).to(device))
        yield images, torch.from_numpy(pictures.labels[chosen].astype(np.int64)).to(device)


def shuffled(rows: Rows, batch_size: int, random: np.random.Generator) -> Iterator[Rows]:
    """The rows of each batch of an epoch."""
    order = random.permutation(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        if len(chosen) == 1 and len(order) > 1:
            return  # batch norm has no variance over one image
        yield chosen


def feature_maps(model: Classifier, images: Tensor, precision: Precision) -> Tensor:
    """The trunk's maps, made in `precision`, as float32: what every head is given."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        maps: Tensor = model.features(images)
    return maps.float()


def logits(model: Classifier, images: Tensor, precision: Precision) -> Tensor:
    """Features in `precision`, the head in float32: it is cheap, and bfloat16 logits would tie."""
    answer: Tensor = model.head(feature_maps(model, images, precision))
    return answer


@torch.inference_mode()
def predict(
    model: Classifier,
    pictures: Pictures,
    rows: Rows,
    precision: Precision = "float32",
    batch_size: int = 64,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Logits (len(rows), K) on the CPU, of centre crops, in eval mode; `change` is applied to each normalised batch.

    A batch that could be trained on fits: without a gradient it takes a fraction of the memory.

    Raises: TrainingError where a logit is NaN or infinite: an accuracy of such logits would be one of luck.
    """
    model.eval()
    device = next(model.parameters()).device
    answers = []
    for start in range(0, len(rows), batch_size):
        seen = torch.from_numpy(pictures.images[rows[start : start + batch_size]])
        images = model.preprocessing.normalise(model.preprocessing.centre(seen).to(device))
        answers.append(logits(model, change(images) if change else images, precision).cpu())
    return usable(torch.cat(answers))


def usable(logits: Tensor) -> Tensor:
    """The same logits. Raises TrainingError where one is NaN or infinite."""
    if bool(torch.isfinite(logits).all()):
        return logits
    wrong = int((~torch.isfinite(logits)).any(1).sum())
    raise TrainingError(
        f"the network's logits are NaN or infinite for {wrong:,} of {count_noun(len(logits), 'image')}: its numbers "
        f"overflow. Try a smaller learning rate, a backbone with batch norm, or other --weights."
    )


@dataclass(frozen=True)
class Pace:
    """How fast training goes, and the precision it goes fastest in."""

    precision: Precision
    step: float
    """Seconds of one training step."""

    def seconds(self, settings: TrainSettings, trained: float, looked_at: float) -> float:
        """For so many images trained on (all epochs) and so many only answered: those cost about a third."""
        return self.step * (trained + looked_at / 3) / settings.batch_size


def measure_pace(
    make: Callable[[], Classifier],
    pictures: Pictures,
    rows: Rows,
    settings: TrainSettings,
    asked: Literal["auto", "float32", "bfloat16"],
) -> Pace:
    """Train a throw-away model for a few steps; medians of five, interleaved, after one to warm up.

    Under "auto", bfloat16 is chosen where it measures at least 1.25× faster: it is emulated, and slower, on many CPUs.
    It is never tried on small networks, where noise would decide, and with it the results.
    """
    model = make().to(memory_format=torch.channels_last)
    if asked == "auto":
        choices: list[Precision] = ["float32", "bfloat16"] if cost(model)["macs"] >= WORTH_BFLOAT16 else ["float32"]
    else:
        choices = [asked]
    seconds: dict[Precision, list[float]] = {precision: [] for precision in choices}
    model.train()
    optimizer = _optimizer(model, settings)
    device = next(model.parameters()).device
    for turn in range(6):
        for precision in choices:
            began = time.perf_counter()
            images, labels = next(batches(model, pictures, rows, settings, 0, turn))
            loss = F.cross_entropy(logits(model, images, precision), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _wait(device)
            if turn:
                seconds[precision].append(time.perf_counter() - began)
    step = {precision: float(np.median(taken)) for precision, taken in seconds.items()}
    chosen = faster(step)
    return Pace(chosen, step[chosen])


def faster(step: dict[Precision, float]) -> Precision:
    """bfloat16 where it takes less than 1/1.25 of float32's seconds, or is the only one."""
    if "float32" not in step:
        return "bfloat16"
    return "bfloat16" if step.get("bfloat16", math.inf) * 1.25 < step["float32"] else "float32"


def majority(counts: Sequence[int]) -> float:
    """The accuracy of always predicting the largest class."""
    return max(counts, default=0) / max(sum(counts), 1)


def learned(accuracy: float, majority: float) -> bool:
    """Is that accuracy more than hardly better than the majority class's?

    >>> learned(0.58, majority=0.55), learned(0.15, majority=0.1), learned(0.7, majority=0.55)
    (False, False, True)
    """
    return accuracy - majority >= SKILL * (1 - majority)


def few_validation(images: int) -> str | None:
    """A best epoch chosen on few images is partly chosen by luck."""
    if not 0 < images < FEW:
        return None
    return (
        f"The best epoch was chosen on {count_noun(images, 'validation image')}, where one image is "
        f"{100 / images:.1f} percentage points: which epoch is best is partly luck."
    )


def repeatable() -> None:
    """Ask this process for the same numbers every time. What remains: the order of additions in the backward of
    adaptive pooling (`fc:grid`) on a GPU.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    # norms and biases (and a learned p) are one-dimensional: pulling them to zero shrinks nothing that overfits
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
