"""How long a training step takes, and in which precision it is fastest."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gapstone.models.classifier import Classifier
from gapstone.models.model_cost import cost
from gapstone.training.drawn_rows import DrawnRows
from gapstone.training.loop import (
    Pictures,
    Precision,
    PrecisionChoice,
    Rows,
    TrainSettings,
    batches,
    logits,
    make_optimizer,
    synchronize,
)
from gapstone.training.losses import mean_loss

WORTH_BFLOAT16 = 10_000_000
"""Multiply-adds per image: NIN at 32 px has 4 million (1.1× faster in bfloat16), ResNet-18 at 112 px 450 (2.5×)."""


@dataclass(frozen=True)
class Pace:
    """The fastest precision for training, and its speed."""

    precision: Precision
    step: float
    """Seconds of one training step."""

    def seconds(self, settings: TrainSettings, trained: float, predicted: float) -> float:
        """Estimate the seconds for so many images trained on, in all epochs, and predicted, at a third of the cost."""
        return self.step * (trained + predicted / 3) / settings.batch_size


def measure_pace(
    build: Callable[[], Classifier],
    pictures: Pictures,
    rows: Rows,
    settings: TrainSettings,
    precision: PrecisionChoice,
    drawn: DrawnRows | None = None,
) -> Pace:
    """Time the training steps of a throw-away model: medians of five, interleaved, after one to warm up.

    With "auto", bfloat16 is chosen if it measures at least 1.25× faster: many CPUs emulate it, and are slower. It is
    never tried on small networks, where timing noise would decide the precision, and so the results.
    """
    model = build().to(memory_format=torch.channels_last)
    model.train()
    optimizer = make_optimizer(model, settings)
    device = next(model.parameters()).device

    def step(candidate: Precision, turn: int) -> None:
        images, labels = next(batches(model, pictures, rows, settings, 0, turn, drawn))
        loss = mean_loss(logits(model, images, candidate), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)

    return time_precisions(precision, cost(model)["macs"], step, 6)


def time_precisions(
    precision: PrecisionChoice, macs: int, step: Callable[[Precision, int], object], turns: int
) -> Pace:
    """Time `step(precision, turn)` in the precisions in question, in turns, of which the first warms up.

    With "auto" they are both for a network of many multiply-adds, else float32.
    """
    seconds: dict[Precision, list[float]] = {"float32": []} if precision == "auto" else {precision: []}
    if precision == "auto" and macs >= WORTH_BFLOAT16:
        seconds["bfloat16"] = []
    for turn in range(turns):
        for candidate, times in seconds.items():
            began = time.perf_counter()
            step(candidate, turn)
            times += [time.perf_counter() - began] * bool(turn)
    medians = {candidate: float(np.median(times)) for candidate, times in seconds.items()}
    fastest = faster(medians)
    return Pace(fastest, medians[fastest])


def faster(step: dict[Precision, float]) -> Precision:
    """bfloat16 if it takes less than 1/1.25 of float32's seconds, or is the only one."""
    if "float32" not in step:
        return "bfloat16"
    return "bfloat16" if step.get("bfloat16", math.inf) * 1.25 < step["float32"] else "float32"
