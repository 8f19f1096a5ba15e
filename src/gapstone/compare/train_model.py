"""Train one classifier on DATA and save it: `gapstone train`.

On a frozen backbone it is one trial of `compare`: the same pass over the images, the same candidates, the same weights.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from gapstone.compare.feature_cache import FeatureCache
from gapstone.compare.feature_pass import NAME, FeaturePass, features_of, time_feature_pass
from gapstone.compare.plan import CompareRequest, trial_maker
from gapstone.compare.trials import Trial, train_on_cache
from gapstone.compare.tuning import TuningChoice, tuned
from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars, duration
from gapstone.console.terminal import Terminal
from gapstone.data.split import DataSplit
from gapstone.models.classifier import Classifier
from gapstone.runtime.interrupts import Section, stoppable
from gapstone.storage.owned_folder import own_file
from gapstone.training.learning_checks import few_validation, learned, majority
from gapstone.training.loop import History, make_repeatable, measure_pace, predict, train
from gapstone.training.training_data import TrainingData, TrainOptions, at_least, plan_training


def train_model(
    options: TrainOptions,
    head: str,
    seed: int,
    out: Path,
    console: Console | None = None,
    weights: Path | None = None,
    freeze: bool = False,
    finetune: bool = False,
) -> Classifier:
    """Train one head and save the model to `out`; the images are checked, split and decoded as for a comparison.

    A backbone with trained weights is frozen, as in a comparison, unless `finetune`. A wrong --out or --head is refused
    before any work.

    Raises:
        ValueError: as `plan_training`.
        TrainingError: as `train`.
    """
    console = console or Terminal()
    out = own_file(out, "model.safetensors")
    request = CompareRequest(options, (head,), 1, weights=weights, freeze=freeze, finetune=finetune, quick=True)
    request = request.checked()
    at_least(0, seed=seed)
    make_repeatable()
    stopped_early = "Training was stopped before its first epoch; no model was written. The same command starts again."
    with (
        stoppable(stopped_early) as section,
        Bars(console, idle=f"Preparing {request.heads[0]}") as bars,
        tempfile.TemporaryDirectory(prefix="gapstone-") as folder,
    ):
        # what is chosen by the number of training images is chosen by those of seed 0, as in a comparison
        seeds = [0, seed] if seed else [0]
        planned = plan_training(options, seeds, None, bars.log, bars, weights, request.mode, request.heads)
        data = planned.decode(Path(folder) / "store", bars.log, bars)
        work = _Work(request, data, seed, Path(folder), bars, section)
        trained = _train_on_features(work) if data.frozen else _train_whole(work)
        trained.model.trained_on = data.trained_on(data.splits[-1].train, data.splits[-1].validation)
        trained.model.cpu().save(out)
        section.message = f"Stopped; the model is written: {display(out)}"
    split = data.splits[-1]
    tested = f"{count_noun(len(split.test), 'image')} never trained on"
    bars.log(f"Test accuracy {100 * trained.accuracy:.1f} % on {tested}; {trained.chosen}.")
    for remark in _remarks(trained.accuracy, data, split):
        bars.log(remark)
    bars.log(f"Model: {display(out)}")
    return trained.model


@dataclass(frozen=True)
class _Trained:
    model: Classifier
    accuracy: float
    """Of the test images."""
    chosen: str
    """Which epoch and settings the model has, in words."""


@dataclass(frozen=True)
class _Work:
    """What is trained, and where its progress is shown."""

    request: CompareRequest
    data: TrainingData
    seed: int
    folder: Path
    bars: Bars
    section: Section

    def trial(self) -> Trial:
        """The trial of a comparison that this training is; of one thread, as there."""
        data, split, settings, grid = self.data, self.data.splits[-1], self.data.settings, None
        if data.frozen:
            settings, grid = tuned(self.request.choices, settings, len(data.splits[0].train))
        make = trial_maker(self.request, data, grid)
        rows = {"train": split.train, "validation": split.validation, "test": split.test}
        return make(head=self.request.heads[0], settings=settings, seed=self.seed, fold=None, threads=1, **rows)

    def after_epoch(self, trial: Trial) -> "_AfterEpoch":
        """To be called after each epoch; it shows the progress and keeps what is said if training is stopped."""
        return _AfterEpoch(self, trial.settings.epochs, f"Training {trial.head} on {trial.backbone}")


class _AfterEpoch:
    def __init__(self, work: _Work, epochs: int, name: str) -> None:
        self.epochs, self.done, self.progress = epochs, 0, work.bars(name)
        self.progress(0, epochs)
        work.section.message = lambda: (
            f"Training was stopped after {self.done} of {count_noun(epochs, 'epoch')}; no model was written. The same "
            f"command starts again."
        )

    def __call__(self, epoch: int, history: History) -> None:
        self.done = epoch
        self.progress(epoch, self.epochs, _accuracy_text(history.validation_accuracy))


def _train_whole(work: _Work) -> _Trained:
    """Train backbone and head."""
    trial, store, precision = work.trial(), work.data.store, work.request.choices.precision
    with work.bars.during("Measuring how long a step takes"):
        pace = measure_pace(trial.build, store, trial.train, trial.settings, precision)
    settings = replace(trial.settings, precision=pace.precision)
    passes = (settings.epochs * len(rows) for rows in (trial.train, trial.validation))
    estimate, epochs = duration(pace.seconds(settings, *passes)), count_noun(settings.epochs, "epoch")
    work.bars.log(f"{trial.head} on {trial.backbone}, {pace.precision}, up to {epochs}: about {estimate}.")
    model = trial.build()
    history = train(model, store, trial.train, trial.validation, settings, trial.seed, work.after_epoch(trial))
    predicted = predict(model, store, trial.test, settings.precision, settings.batch_size).argmax(1).numpy()
    trained = count_noun(len(history.train_loss), "epoch")
    return _Trained(
        model,
        float((predicted == store.labels[trial.test]).mean()),
        f"best of {trained} by validation accuracy: {history.best_epoch}; {history.seconds:.0f} s",
    )


def _train_on_features(work: _Work) -> _Trained:
    """Train the head on what the frozen backbone makes of the images, which it looks at once."""
    trial, store = work.trial(), work.data.store
    model = trial.build().eval().to(memory_format=torch.channels_last)
    with work.bars.during("Measuring how long a step takes"):
        pace = time_feature_pass(model, store, work.request.choices.precision, trial)
    trial = replace(trial, settings=replace(trial.settings, precision=pace.precision))
    cache = _run_pass(work, trial, model, pace.step)
    threads = torch.get_num_threads()
    torch.set_num_threads(trial.threads)
    try:
        predictor, history, choice = train_on_cache(trial, cache, store.labels, work.after_epoch(trial))
        predicted = predictor.logits(trial.test).argmax(1).numpy()
    finally:
        torch.set_num_threads(threads)
    model.head.load_state_dict(predictor.head.state_dict())
    accuracy = float((predicted == store.labels[trial.test]).mean())
    return _Trained(model, accuracy, f"{_choice_text(choice, len(trial.validation))}; {history.seconds:.0f} s")


def _run_pass(work: _Work, trial: Trial, model: Classifier, image_seconds: float) -> FeatureCache:
    rows = reduce(np.union1d, (trial.train, trial.validation, trial.test))
    work.bars.log(
        f"{trial.head} on the frozen backbone, no augmentation: one pass over {count_noun(len(rows), 'image')}, "
        f"{trial.settings.precision}, about {duration(image_seconds * len(rows))}; then the head alone is trained, at "
        f"the learning rate and decay that validation images choose."
    )
    progress = work.bars(NAME)

    def told(news: object) -> None:
        if isinstance(news, tuple):  # no message: there is no earlier pass that could be damaged
            progress(*news)

    work.section.message = "Stopped during the pass; no model was written. The same command starts again."
    plan = FeaturePass(trial, (trial.head,), rows, robust=rows[:0], shown=trial.test[:1], explains=False)
    return features_of(model, work.data.store, work.folder / "kept", plan, told)


def _choice_text(choice: TuningChoice, validation: int) -> str:
    """`learning rate 1, weight decay 0 and epoch 9 of 24 by the loss on 30 validation images`."""
    text = f"learning rate {choice.learning_rate:g}, weight decay {choice.weight_decay:g} and epoch {choice.epoch}"
    if not choice.chosen:
        return f"{text}, the last, as there are no validation images"
    return f"{text} of {choice.epochs} by the loss on {count_noun(validation, 'validation image')}"


def _remarks(accuracy: float, data: TrainingData, split: DataSplit) -> Iterator[str]:
    """Sentences that qualify the test accuracy."""
    counts = np.bincount(data.store.labels[split.test], minlength=len(data.labels))
    largest_class = majority(counts.tolist())
    if not learned(accuracy, largest_class):
        yield (
            f"That is {'no' if accuracy <= largest_class else 'hardly'} better than always predicting the largest "
            f"class ({100 * largest_class:.1f} %): the network has learned little; try more epochs or another "
            f"learning rate."
        )
    if note := few_validation(len(split.validation), tuned=data.frozen):
        yield note


def _accuracy_text(accuracy: Sequence[float]) -> str:
    return f"validation accuracy {100 * accuracy[-1]:.1f} %" if accuracy else ""
