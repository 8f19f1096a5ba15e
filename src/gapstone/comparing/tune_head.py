"""Trains a head on cached features with every candidate of a grid; validation images choose rate, decay and epoch."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.comparing.attend_together import attend_together
from gapstone.comparing.feature_cache import CachedPredictor
from gapstone.comparing.head_copies import HeadCopies
from gapstone.comparing.linear_sgd import LinearDescent
from gapstone.comparing.own_head_copies import OWN_UNTUNED, OwnHeadCopies, own_candidates
from gapstone.comparing.sample_space import SampleSpace
from gapstone.comparing.shared_space import SharedSpace
from gapstone.comparing.trained_inputs import TrainedInputs, is_linear, learns_pool
from gapstone.comparing.tuning import TuningChoice, TuningGrid
from gapstone.heads import Head
from gapstone.heads.attention_queries import AttentionQueries
from gapstone.statistics.labels import is_multi_label
from gapstone.training.balance import balance_weights, epoch_rows
from gapstone.training.loop import History, Rows, TrainSettings, divergence_error, shuffled
from gapstone.training.losses import accuracy, begin_at, log_odds, mean_loss

Points = list[tuple[float, float]]


class SideBySide(Protocol):
    """The training of all candidates at a time."""

    def train_epoch(self, batches: Iterable[tuple[Any, Tensor]]) -> Tensor: ...  # the mean loss of each candidate
    def logits(self, inputs: Any) -> Tensor: ...  # (candidates, N, K)
    def take(self, point: int) -> Callable[[Head], None]: ...  # a function that gives a head the weights of now


def tune_head(
    predictor: CachedPredictor,
    rows: Rows,
    validation: Rows,
    settings: TrainSettings,
    grid: TuningGrid,
    seed: int,
    after_epoch: Callable[[int, History], None] | None = None,
    image_weights: NDArray[np.float64] | None = None,
) -> tuple[History, TuningChoice]:
    """Train the predictor's head on the images `rows`; it ends with the weights that were chosen.

        >>> history, choice = tune_head(predictor, trial.train, trial.validation, trial.settings, trial.tuning, seed=0)
        >>> choice.learning_rate, choice.weight_decay, choice.epoch
        (1.0, 0.0, 9)

    All candidates are trained for the whole of `settings.epochs`, with the same batches in the same order. Of all
    candidates and epochs the one with the least loss on the `validation` images is taken: no test image is read.
    Without validation images there is one candidate, the rate and decay of `settings`, and its last epoch is taken. An
    epoch has each training image as often as its `image_weights` say, which are those of all images.

    The history is that of the chosen candidate. Raises TrainingError if the numbers of all candidates overflow.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)  # dropout
    points = candidates(predictor.head, grid)
    if not len(validation):
        points = [OWN_UNTUNED if predictor.head.module is not None else (settings.learning_rate, settings.weight_decay)]
    run, images = side_by_side(predictor, rows, validation, points, settings)
    best = _Best(points, balance_weights(settings.balance, predictor.labels[rows], predictor.head.classes))
    for epoch in range(1, settings.epochs + 1):
        random = np.random.default_rng((seed, epoch))
        of_epoch = epoch_rows(rows, predictor.labels, settings.balance, random, image_weights)
        order = shuffled(of_epoch, settings.batch_size, random)
        losses = run.train_epoch(images.batches(order))
        if len(validation):
            inputs = (inputs for inputs, _ in images.batches(images.parts(validation)))
            logits = torch.cat([run.logits(part) for part in inputs], 1)
            best.validated(epoch, losses, logits, images.labels(validation), run)
        else:
            best.trained(epoch, losses, run)
        if after_epoch:
            after_epoch(epoch, best.history(time.perf_counter() - began))
    best.write(predictor.head)
    return best.history(time.perf_counter() - began), best.choice()


def candidates(head: Head, grid: TuningGrid) -> Points:
    """(learning rate, weight decay) of each candidate."""
    if head.module is not None:
        return own_candidates(grid)
    return (grid.without_decays() if learns_pool(head) else grid).points


def side_by_side(
    predictor: CachedPredictor,
    rows: Rows,
    validation: Rows,
    points: Points,
    settings: TrainSettings,
    count: int | None = None,
) -> tuple[SideBySide, TrainedInputs | SampleSpace]:
    """The training of all candidates, and what it reads; `count`: as if of so many images, to time it."""
    head = predictor.head
    linear = settings.optimizer == "sgd" and is_linear(head)
    images = TrainedInputs(predictor, np.union1d(rows, validation), whole=not linear, count=count)
    weights = balance_weights(settings.balance, predictor.labels[rows], head.classes)
    weights = weights if settings.balance == "loss" else None
    if head.module is not None:
        return OwnHeadCopies(head, points, settings, len(rows), weights), images
    images.fix_norm(rows)
    scale = images.scale(rows)
    begin = None
    if is_multi_label(predictor.labels) and weights is None:
        begin = log_odds(predictor.labels[rows])
    if not linear:
        if begin is not None:
            begin_at(head, begin)
        attends = len(head.pools) == 1 and isinstance(head.pools[0], AttentionQueries)
        pool = images.table or (attend_together if attends else None)
        return HeadCopies(head, scale, points, settings, len(rows), images.form == "maps", weights, pool), images
    products = len(points) * head.classes * settings.epochs
    for space_of in (SampleSpace, SharedSpace):
        if not space_of.is_smaller(images, products):
            continue
        space = space_of(images, rows, scale)
        return LinearDescent(head.classes, space, points, settings, len(rows), weights=weights, begin=begin), space
    cells = images.form == "cells"
    return LinearDescent(head.classes, scale, points, settings, len(rows), cells, weights, begin), images


class _Best:
    """The course of all candidates, and the best of them so far."""

    def __init__(self, points: Points, weights: Tensor | None) -> None:
        """`weights`: what a validation image of each class counts for; None: the same."""
        self.points, self.weights = points, weights
        self.train_losses: list[list[float]] = []
        self.validation_losses: list[list[float]] = []
        self.accuracies: list[list[float]] = []
        self.least, self.point, self.epoch = math.inf, 0, 0
        self.give: Callable[[Head], None] | None = None

    def validated(self, epoch: int, losses: Tensor, logits: Tensor, labels: Tensor, run: SideBySide) -> None:
        """After an epoch: `losses` (candidates) of training, `logits` (candidates, N, K) of the validation images."""
        self.train_losses.append(losses.tolist())
        weights = None if self.weights is None else self.weights.to(logits.device, torch.float64)
        found = torch.stack([mean_loss(candidate.double(), labels, weights) for candidate in logits])
        self.validation_losses.append(found.tolist())
        self.accuracies.append(accuracy(logits, labels, weights).tolist())
        point = int(found.nan_to_num(math.inf).argmin())
        if float(found[point]) < self.least:
            self.least, self.point, self.epoch, self.give = float(found[point]), point, epoch, run.take(point)

    def trained(self, epoch: int, losses: Tensor, run: SideBySide) -> None:
        self.train_losses.append(losses.tolist())
        if not math.isfinite(float(losses[0])):
            raise divergence_error(float(losses[0]), epoch, self.points[0][0])
        self.epoch, self.give = epoch, run.take(0)

    def write(self, head: Head) -> None:
        """Raises TrainingError if no candidate had a validation loss."""
        if self.give is None:
            losses = self.train_losses[-1]
            raise divergence_error(losses[0], len(self.train_losses), min(rate for rate, _ in self.points))
        self.give(head)
        head.eval()

    def history(self, seconds: float) -> History:
        def course(rows: list[list[float]]) -> list[float]:
            return [numbers[self.point] for numbers in rows]

        losses, accuracies = course(self.train_losses), course(self.accuracies)
        return History(losses, accuracies, course(self.validation_losses), self.epoch, seconds)

    def choice(self) -> TuningChoice:
        rate, decay = self.points[self.point]
        losses: list[float | None] = [None] * len(self.points)
        if self.validation_losses:
            found = np.array(self.validation_losses)
            least = np.where(np.isfinite(found), found, np.inf).min(0)
            losses = [float(loss) if math.isfinite(loss) else None for loss in least]
        candidates = [(*point, loss) for point, loss in zip(self.points, losses, strict=True)]
        return TuningChoice(rate, decay, self.epoch, len(self.train_losses), bool(self.validation_losses), candidates)
