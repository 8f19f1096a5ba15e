"""Train one classifier on DATA and save it: `gapstone train`.

On a frozen backbone it is one trial of `compare`: the same pass over the images, the same candidates, the same weights.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.feature_pass import NAME, FeaturePass, features_of, time_feature_pass
from gapstone.comparing.plan import trial_maker
from gapstone.comparing.trials import EpochNumbers, Trial, train_on_cache
from gapstone.comparing.tuning import TuningChoice, tuned
from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars, duration
from gapstone.console.terminal import Terminal
from gapstone.data import scan_report
from gapstone.data.split import DataSplit
from gapstone.evaluating.evaluate_request import EvaluateRequest, Part
from gapstone.evaluating.evaluated_model import Robustness, evaluated_model
from gapstone.evaluating.evaluation_page import write_evaluation
from gapstone.evaluating.evaluation_table import show_metrics
from gapstone.evaluating.evaluation_text import in_words
from gapstone.evaluating.gather_evaluation import AnsweredModel, gather
from gapstone.evaluating.tested_images import NOT_LEFT_OUT, TestedImages
from gapstone.maps.open_model import as_image_model
from gapstone.models.classifier import Classifier
from gapstone.runtime.interrupts import Section, stoppable
from gapstone.statistics.metrics import find_metric
from gapstone.storage.owned_folder import EVALUATE, check_folder, own_file, own_folder
from gapstone.training.learning_checks import few_validation, learned, majority
from gapstone.training.loop import History, make_repeatable, predict, train
from gapstone.training.pace import measure_pace
from gapstone.training.training_data import TrainingData, at_least, plan_training

OnEpoch = Callable[[Trial, int, int, EpochNumbers], object]
"""Called after an epoch with the trial, the epoch, how many there are at most, and what it ended with."""


def train_model(
    request: CompareRequest,
    seed: int,
    out: Path | None,
    console: Console | None = None,
    report: Path | None = None,
    command: str = "",
    on_epoch: OnEpoch | None = None,
) -> Classifier:
    """Train the request's one head and save the model to `out`, where it is given.

    The images are checked, split and decoded as for a comparison. A backbone with trained weights is frozen, as there,
    unless `finetune`. A wrong --out or --head is refused before any work. What `evaluate` says of a model is said of
    the test images; `report` is a folder for its page.

    Raises:
        ValueError: as `plan_training`.
        TrainingError: as `train`.
    """
    console = console or Terminal()
    out = None if out is None else own_file(out, "model.safetensors")
    if report is not None:
        check_folder(report, EVALUATE, "--report")
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
        options = request.choices
        planned = plan_training(options, seeds, None, bars.log, bars, request.weights, request.mode, request.heads)
        data = planned.decode(Path(folder) / "store", bars.log, bars)
        work = _Work(request, data, seed, Path(folder), bars, section, on_epoch)
        trained = _train_on_features(work) if data.frozen else _train_whole(work)
        trained.model.trained_on = data.trained_on(data.splits[-1].train, data.splits[-1].validation)
        trained.model.cpu()
        if out is not None:
            trained.model.save(out)
            section.message = f"Stopped; the model is written: {display(out)}"
        results, page = _tested(work, trained, out, report, command)
    metric = find_metric(results["settings"]["metric"], data.source.multi_label)
    tested = count_noun(results["data"]["images"], "image")
    value = in_words(metric, results["models"][0]["metrics"][metric.name])
    bars.log(f"Test {metric.words} {value} on {tested} never trained on; {trained.chosen}.")
    show_metrics(results, console)
    for remark in _remarks(data, data.splits[-1], results):
        bars.log(remark)
    if out is not None:
        bars.log(f"Model: {display(out)}")
    if page is not None:
        bars.log(f"Report: {display(page)}")
    return trained.model


@dataclass(frozen=True)
class _Trained:
    model: Classifier
    logits: NDArray[np.float32]
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
    on_epoch: OnEpoch | None

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
        return _AfterEpoch(self, trial, f"Training {trial.head} on {trial.backbone}")


class _AfterEpoch:
    def __init__(self, work: _Work, trial: Trial, name: str) -> None:
        self.epochs, self.done, self.progress = trial.settings.epochs, 0, work.bars(name)
        self.multi_label, self.trial, self.on_epoch = work.data.source.multi_label, trial, work.on_epoch
        self.progress(0, epochs := self.epochs)
        work.section.message = lambda: (
            f"Training was stopped after {self.done} of {count_noun(epochs, 'epoch')}; no model was written. The same "
            f"command starts again."
        )

    def __call__(self, epoch: int, history: History) -> None:
        self.done = epoch
        self.progress(epoch, self.epochs, _validation_text(history, self.multi_label))
        if self.on_epoch is not None:
            self.on_epoch(self.trial, epoch, self.epochs, EpochNumbers.last(history))


def _train_whole(work: _Work) -> _Trained:
    """Train backbone and head."""
    trial, store, precision = work.trial(), work.data.store, work.request.choices.precision
    with work.bars.during("Measuring how long a step takes"):
        pace = measure_pace(trial.build, store, trial.train, trial.settings, precision, trial.drawn)
    settings = replace(trial.settings, precision=pace.precision)
    passes = (settings.epochs * len(rows) for rows in (trial.train, trial.validation))
    estimate, epochs = duration(pace.seconds(settings, *passes)), count_noun(settings.epochs, "epoch")
    work.bars.log(f"{trial.head} on {trial.backbone}, {pace.precision}, up to {epochs}: about {estimate}.")
    model = trial.build()
    rows, draws = (trial.train, trial.validation), (trial.drawn, trial.image_weights)
    history = train(model, store, *rows, settings, trial.seed, work.after_epoch(trial), *draws)
    logits = predict(model, store, trial.test, settings.precision, settings.batch_size)
    trained = count_noun(len(history.train_loss), "epoch")
    return _Trained(
        model,
        logits.float().numpy(),
        f"best of {trained} by validation {'loss' if trial.multi_label else 'accuracy'}: {history.best_epoch}; "
        f"{history.seconds:.0f} s",
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
        logits = predictor.logits(trial.test)
    finally:
        torch.set_num_threads(threads)
    model.head.load_state_dict(predictor.head.state_dict())
    return _Trained(
        model, logits.float().numpy(), f"{_choice_text(choice, len(trial.validation))}; {history.seconds:.0f} s"
    )


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


def _tested(
    work: _Work, trained: _Trained, out: Path | None, report: Path | None, command: str
) -> tuple[dict[str, Any], Path | None]:
    """What `evaluate` says of the test images, and its page in the folder `report`."""
    data, split, model = work.data, work.data.splits[-1], trained.model
    part: Part = "val" if data.source.splits == ("train", "val") else "test"
    options = work.request.choices
    name = str(out) if out is not None else f"{work.request.heads[0]} on {model.backbone}"
    request = EvaluateRequest(
        (name,), options.data, part, limit=options.limit, batch_size=options.batch_size,
        duplicates=options.duplicates, quick=report is None,
    )  # fmt: skip
    model = model.to(data.device).eval()
    classes = np.arange(len(model.labels))
    asked = evaluated_model(
        as_image_model(model, name), data.store, split.test, classes, model.preprocessing, "float32",
        options.batch_size, work.bars("Moving and resizing images"),
    )  # fmt: skip
    named, numbers = data.source.grouping, data.groups[split.test]
    groups = None if named is None and len(np.unique(numbers)) == len(numbers) else numbers
    about = f"of DATA: {split.described}", part, dict(NOT_LEFT_OUT), ()
    tested = TestedImages(data.used[split.test], *about, groups, None if named is None else named.by)

    def evaluated(robust: Robustness | None) -> tuple[dict[str, Any], list[AnsweredModel]]:
        one = AnsweredModel(display(name if out is None else out.name), asked, classes, trained.logits, robust)
        return gather(request, data.source, data.scan, tested, [one], command, ()), [one]

    if report is None:
        return evaluated(None)[0], None
    with own_folder(report, EVALUATE, "--report", work.bars.log):
        results, evaluations = evaluated(asked.robustness(report / "kept", work.bars.log))
        asked.progress(1, 1)
        scan_report.write(data.scan, report)
        return results, write_evaluation(report, data.source, evaluations, results)


def _remarks(data: TrainingData, split: DataSplit, results: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on the training that qualify the test accuracy."""
    accuracy = results["models"][0]["metrics"]["accuracy"]["mean"]
    if not data.source.multi_label and not learned(accuracy, majority(results["data"]["counts"])):
        yield "The network has learned little; try more epochs or another learning rate."
    if note := few_validation(len(split.validation), tuned=data.frozen):
        yield note


def _validation_text(history: History, multi_label: bool) -> str:
    if multi_label:
        return f"validation loss {history.validation_loss[-1]:.3f}" if history.validation_loss else ""
    return f"validation accuracy {100 * history.validation_accuracy[-1]:.1f} %" if history.validation_accuracy else ""
