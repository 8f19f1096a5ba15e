"""`--tune`: a network is trained whole with each candidate of a grid; validation images choose (decision 30)."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.tuning import TuningChoice, TuningGrid
from gapstone.models.classifier import Classifier
from gapstone.training.drawn_rows import DrawnRows
from gapstone.training.loop import History, Pictures, Rows, TrainingError, TrainSettings, train


def tune_network(
    build: Callable[[], Classifier],
    pictures: Pictures,
    rows: Rows,
    validation: Rows,
    settings: TrainSettings,
    grid: TuningGrid,
    seed: int,
    after_epoch: Callable[[int, History], None] | None = None,
    drawn: DrawnRows | None = None,
    image_weights: NDArray[np.float64] | None = None,
) -> tuple[Classifier, History, TuningChoice]:
    """Train what `build` makes with every candidate; the model of the least validation loss is taken.

    Each candidate starts from the same weights and sees the same batches in the same order, and ends with its own best
    epoch as every training does. No test image is read. Without validation images there is one candidate, the rate and
    decay of `settings`. The history is that of the chosen candidate, its seconds are those of all.

    `after_epoch` is called with the number of epochs so far, of all candidates together, and the history of this one.

    Raises:
        TrainingError: the numbers of all candidates overflow.
    """
    began = time.perf_counter()
    points = grid.points if len(validation) else [(settings.learning_rate, settings.weight_decay)]
    losses: list[float | None] = []
    best: tuple[float, tuple[float, float], Classifier, History] | None = None
    failed: TrainingError | None = None
    for number, (rate, decay) in enumerate(points):
        before = number * settings.epochs

        def counted(epoch: int, history: History, before: int = before) -> None:
            if after_epoch:
                after_epoch(before + epoch, history)

        model = build()
        chosen = replace(settings, learning_rate=rate, weight_decay=decay)
        try:
            history = train(model, pictures, rows, validation, chosen, seed, counted, drawn, image_weights)
        except TrainingError as error:
            failed = error
            losses.append(None)
            continue
        loss = history.validation_loss[history.best_epoch - 1] if len(validation) else 0.0
        losses.append(loss if len(validation) else None)
        if best is None or loss < best[0]:
            best = loss, (rate, decay), model, history
    if best is None:
        assert failed is not None
        raise failed
    _, (rate, decay), model, history = best
    history.seconds = time.perf_counter() - began
    candidates = [(*point, loss) for point, loss in zip(points, losses, strict=True)]
    choice = TuningChoice(rate, decay, history.best_epoch, len(history.train_loss), bool(len(validation)), candidates)
    return model, history, choice
