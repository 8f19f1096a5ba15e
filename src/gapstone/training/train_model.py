"""Train one classifier on DATA and save it: `gapstone train`."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars, duration
from gapstone.console.terminal import Terminal
from gapstone.data.split import DataSplit
from gapstone.heads import parse
from gapstone.models.classifier import Classifier
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import own_file
from gapstone.training.learning_checks import few_validation, learned, majority
from gapstone.training.loop import History, make_repeatable, measure_pace, predict, seeded, train
from gapstone.training.training_data import TrainingData, TrainOptions, at_least, prepare_training_data


def train_model(options: TrainOptions, head: str, seed: int, out: Path, console: Console | None = None) -> Classifier:
    """Train one head and save the model to `out`; the images are checked, split and decoded as for a comparison.

    A wrong --out or --head is refused before any work.

    Raises:
        ValueError: as `prepare_training_data`.
        TrainingError: as `train`.
    """
    console = console or Terminal()
    out, head = own_file(out, "model.safetensors"), str(parse(head))
    at_least(0, seed=seed)
    make_repeatable()
    stopped_early = "Training was stopped before its first epoch; no model was written. The same command starts again."
    with (
        stoppable(stopped_early) as section,
        Bars(console, idle=f"Preparing {head}") as bars,
        tempfile.TemporaryDirectory(prefix="gapstone-") as folder,
    ):
        data = prepare_training_data(
            options, seeds=[seed], k=None, folder=Path(folder), log=bars.log, start_progress=bars, heads=[head]
        )
        (split,), settings, store = data.splits, data.settings, data.store

        def build() -> Classifier:
            return seeded(seed, data.device, data.backbone, head, data.labels, data.preprocessing, data.pretrained)

        with bars.during("Measuring how long a step takes"):
            pace = measure_pace(build, store, split.train, settings, options.precision)
        settings = replace(settings, precision=pace.precision)
        trained, validated = (settings.epochs * len(rows) for rows in (split.train, split.validation))
        estimate = duration(pace.seconds(settings, trained, validated))
        epochs = count_noun(settings.epochs, "epoch")
        bars.log(f"{head} on {data.backbone}, {pace.precision}, up to {epochs}: about {estimate}.")
        model = build()
        progress, epochs_done = bars(f"Training {head} on {data.backbone}"), 0
        progress(epochs_done, settings.epochs)

        def after_epoch(epoch: int, history: History) -> None:
            nonlocal epochs_done
            epochs_done = epoch
            progress(epoch, settings.epochs, _accuracy_text(history.validation_accuracy))

        section.message = lambda: (
            f"Training was stopped after {epochs_done} of {epochs}; no model was written. The same command starts "
            f"again."
        )
        history = train(model, store, split.train, split.validation, settings, seed, after_epoch)
        predicted = predict(model, store, split.test, settings.precision, settings.batch_size).argmax(1).numpy()
        accuracy = float((predicted == store.labels[split.test]).mean())
        model.cpu().save(out)
        section.message = f"Stopped; the model is written: {display(out)}"
    bars.log(
        f"Test accuracy {100 * accuracy:.1f} % on {count_noun(len(split.test), 'image')} never trained on; "
        f"best of {count_noun(len(history.train_loss), 'epoch')} by validation accuracy: {history.best_epoch}; "
        f"{history.seconds:.0f} s."
    )
    for remark in _remarks(accuracy, data, split):
        bars.log(remark)
    bars.log(f"Model: {display(out)}")
    return model


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
    if note := few_validation(len(split.validation)):
        yield note


def _accuracy_text(accuracy: Sequence[float]) -> str:
    return f"validation accuracy {100 * accuracy[-1]:.1f} %" if accuracy else ""
