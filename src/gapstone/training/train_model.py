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
from gapstone.training.loop import (
    History,
    few_validation,
    learned,
    majority,
    measure_pace,
    predict,
    repeatable,
    seeded,
    train,
)
from gapstone.training.training_data import TrainingData, TrainOptions, at_least, prepare_training_data


def train_model(options: TrainOptions, head: str, seed: int, out: Path, console: Console | None = None) -> Classifier:
    """Train one head and save the model to `out`; the images are checked, split and decoded as for a comparison.

    A wrong --out or --head is refused at once, not an hour later.
    Raises: ValueError and TrainingError as `prepare` and `train`.
    """
    console = console or Terminal()
    out, head = own_file(out, "model.safetensors"), str(parse(head))
    at_least(0, seed=seed)
    repeatable()
    started = "Training was stopped before its first epoch; no model was written. The same command starts again."
    with (
        stoppable(started) as section,
        Bars(console, idle=f"Preparing {head}") as bars,
        tempfile.TemporaryDirectory(prefix="gapstone-") as folder,
    ):
        prepared = prepare_training_data(
            options, seeds=[seed], k=None, folder=Path(folder), say=bars.log, progress=bars
        )
        (parts,), settings = prepared.splits, prepared.settings

        def make() -> Classifier:
            about = prepared.backbone, head, prepared.labels, prepared.preprocessing, options.pretrained
            return seeded(seed, prepared.device, *about)

        with bars.during("Measuring how long a step takes"):
            pace = measure_pace(make, prepared.store, parts.train, settings, options.precision)
        settings = replace(settings, precision=pace.precision)
        seen, looked_at = (settings.epochs * len(rows) for rows in (parts.train, parts.validation))
        long = duration(pace.seconds(settings, seen, looked_at))
        epochs = count_noun(settings.epochs, "epoch")
        bars.log(f"{head} on {prepared.backbone}, {pace.precision}, up to {epochs}: about {long}.")
        model = make()
        tell, done = bars(f"Training {head} on {prepared.backbone}"), 0
        tell(done, settings.epochs)

        def told(epoch: int, history: History) -> None:
            nonlocal done
            done = epoch
            tell(epoch, settings.epochs, _sure(history.validation_accuracy))

        section.message = lambda: (
            f"Training was stopped after {done} of {epochs}; no model was written. The same command starts again."
        )
        history = train(model, prepared.store, parts.train, parts.validation, settings, seed, told)
        answers = predict(model, prepared.store, parts.test, settings.precision, settings.batch_size).argmax(1).numpy()
        accuracy = float((answers == prepared.store.labels[parts.test]).mean())
        model.cpu().save(out)
        section.message = f"Stopped; the model is written: {display(out)}"
    bars.log(
        f"Test accuracy {100 * accuracy:.1f} % on {count_noun(len(parts.test), 'image')} never trained on; "
        f"best of {count_noun(len(history.train_loss), 'epoch')} by validation accuracy: {history.best_epoch}; "
        f"{history.seconds:.0f} s."
    )
    for remark in _remarks(accuracy, prepared, parts):
        bars.log(remark)
    bars.log(f"Model: {display(out)}")
    return model


def _remarks(accuracy: float, prepared: TrainingData, parts: DataSplit) -> Iterator[str]:
    """What whoever reads the accuracy must know."""
    classes = len(prepared.labels)
    most = majority(np.bincount(prepared.store.labels[parts.test], minlength=classes).tolist())
    if not learned(accuracy, most):
        yield (
            f"That is {'no' if accuracy <= most else 'hardly'} better than always predicting the largest class "
            f"({100 * most:.1f} %): the network has learned little; try more epochs or another learning rate."
        )
    if said := few_validation(len(parts.validation)):
        yield said


def _sure(accuracy: Sequence[float]) -> str:
    return f"validation accuracy {100 * accuracy[-1]:.1f} %" if accuracy else ""
