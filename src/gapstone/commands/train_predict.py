"""One classifier: train it on DATA and keep it; ask a kept one about images."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars, duration
from gapstone.console.terminal import Terminal
from gapstone.data.input_files import InputFiles, input_files
from gapstone.data.scan_report import counted
from gapstone.data.split import DataSplit
from gapstone.heads import parse
from gapstone.images.cropping import cropping_note
from gapstone.images.load import ImageError
from gapstone.images.load import load as load_image
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.models.classifier import Classifier
from gapstone.models.model_file import NotFiniteError
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import own_file
from gapstone.storage.paths import sentence
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
from gapstone.training.training_data import TrainingData, TrainOptions, at_least, pick_device, prepare_training_data


def train_one(choices: TrainOptions, head: str, seed: int, out: Path, console: Console | None = None) -> Classifier:
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
            choices, seeds=[seed], k=None, folder=Path(folder), say=bars.say, progress=bars
        )
        (parts,), settings = prepared.splits, prepared.settings

        def make() -> Classifier:
            about = prepared.backbone, head, prepared.labels, prepared.preprocessing, choices.pretrained
            return seeded(seed, prepared.device, *about)

        with bars.during("Measuring how long a step takes"):
            pace = measure_pace(make, prepared.store, parts.train, settings, choices.precision)
        settings = replace(settings, precision=pace.precision)
        seen, looked_at = (settings.epochs * len(rows) for rows in (parts.train, parts.validation))
        long = duration(pace.seconds(settings, seen, looked_at))
        epochs = count_noun(settings.epochs, "epoch")
        bars.say(f"{head} on {prepared.backbone}, {pace.precision}, up to {epochs}: about {long}.")
        model = make()
        tell, done = bars(f"Training {head} on {prepared.backbone}"), 0
        tell(done, settings.epochs)

        def told(epoch: int, history: History) -> None:
            nonlocal done
            done = epoch
            tell(epoch, settings.epochs, _sure(history.validation_accuracy))

        section.says = lambda: (
            f"Training was stopped after {done} of {epochs}; no model was written. The same command starts again."
        )
        history = train(model, prepared.store, parts.train, parts.validation, settings, seed, told)
        answers = predict(model, prepared.store, parts.test, settings.precision, settings.batch_size).argmax(1).numpy()
        accuracy = float((answers == prepared.store.labels[parts.test]).mean())
        model.cpu().save(out)
        section.says = f"Stopped; the model is written: {display(out)}"
    bars.say(
        f"Test accuracy {100 * accuracy:.1f} % on {count_noun(len(parts.test), 'image')} never trained on; "
        f"best of {count_noun(len(history.train_loss), 'epoch')} by validation accuracy: {history.best_epoch}; "
        f"{history.seconds:.0f} s."
    )
    for remark in _remarks(accuracy, prepared, parts):
        bars.say(remark)
    bars.say(f"Model: {display(out)}")
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


def predict_files(
    model: str,
    images: Sequence[str],
    as_json: bool,
    top: int,
    device: str,
    console: Console | None = None,
    native: bool = False,
    weights: Path | None = None,
) -> bool:
    """Print what `model`, as `open_model` takes it, predicts for each image; True when there is a prediction for all.

    native: each image as it is, neither cut nor resized.
    JSON: {"schema": 1, "model", "native", "labels", "images": [{"name", "label", "probability", "probabilities":
    {label: p}} or {"name", "error"}]}; an image of which something had to be assumed has "notes", too.
    """
    console = console or Terminal()
    with Bars(Terminal(stderr=True), idle=f"Predicting with {display(model)}") as bars:
        with bars.during(f"Opening {model}"):
            opened = open_model(model, weights, pick_device(device))
        smallest = opened.check_native() if native else None
        found = input_files(images)
        if not as_json:
            for note in found.notes():
                console.print(note, highlight=False, markup=False, soft_wrap=True)
        sizes: Counter[tuple[int, int]] = Counter()
        rows = _answers(opened, found, native, smallest, bars, sizes)
    if as_json:
        about = {"schema": 1, "model": display(model), "native": native, "labels": list(opened.labels)}
        document = {**about, "images": rows}
        print(json.dumps(document, indent=1, allow_nan=False))  # ASCII: safe whatever the terminal's encoding
    else:
        console.print(_table(rows, top))
        for note, count in counted(note for row in rows for note in cast(list[str], row.get("notes", []))):
            console.print(
                f"note on {count_noun(count, 'image')}: {note}", highlight=False, markup=False, soft_wrap=True
            )
        if not native and (said := cropping_note(opened.preprocessing, sizes)):
            more = " --native shows all of it." if opened.takes_any_size else ""
            console.print(f"{said}{more}", highlight=False, markup=False, soft_wrap=True)
    return not any("error" in row for row in rows)


def _answers(
    opened: ImageModel,
    found: InputFiles,
    native: bool,
    smallest: int | None,
    bars: Bars,
    sizes: Counter[tuple[int, int]],
) -> list[dict[str, object]]:
    """A row for each image, as JSON has them; `sizes` counts those that were read, (width, height)."""
    # as it is, a picture may be of a size that the network cannot take: its error, not everyone's
    errors = (ValueError, OSError, RuntimeError, AssertionError) if native else (ImageError, NotFiniteError, OSError)
    rows: list[dict[str, object]] = [{"name": display(one), "error": "no file matches it"} for one in found.missing]
    tell = bars("Predicting")
    for number, path in enumerate(found.paths, start=1):
        row: dict[str, object] = {"name": display(os.fsdecode(path))}
        try:
            loaded = load_image(path, ranges=opened.preprocessing.ranges)
            pixels = loaded.pixels
            sizes[loaded.size] += 1
            if smallest is not None:
                pixels = opened.preprocessing.native(pixels, smallest)
            probabilities = opened.probabilities(pixels, native)
        except errors as error:
            row["error"] = display(sentence(error) if isinstance(error, OSError) else str(error))
        else:
            best = int(probabilities.argmax())
            row |= {
                "label": opened.labels[best],
                "probability": float(probabilities[best]),
                "probabilities": dict(zip(opened.labels, map(float, probabilities), strict=True)),
            }
            if loaded.notes:
                row["notes"] = [display(note) for note in loaded.notes]
        rows.append(row)
        tell(number, len(found.paths))
    return rows


def _sure(accuracy: Sequence[float]) -> str:
    return f"validation accuracy {100 * accuracy[-1]:.1f} %" if accuracy else ""


def _table(rows: Sequence[dict[str, object]], top: int) -> Table:
    """Names without the folder they share, so that they can be told apart on a narrow terminal."""
    names = [str(row["name"]) for row in rows]
    alike = len({os.path.isabs(name) for name in names}) == 1  # else there is no folder they share
    shared = os.path.commonpath([os.path.dirname(name) for name in names]) if alike else ""
    title = Text(f"in {shared}") if shared else None
    table = Table("image", "prediction (confidence)", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    for name, row in zip(names, rows, strict=True):
        shown = Text(os.path.relpath(name, shared) if shared else name)  # `display`ed already
        if "error" in row:
            table.add_row(shown, Text(f"no prediction: {row['error']}", style="red"))
            continue
        probabilities = row["probabilities"]
        assert isinstance(probabilities, dict)
        best = sorted(probabilities.items(), key=lambda item: -item[1])[: max(top, 1)]
        answer = Text(", ".join(f"{display(label)} {100 * p:.1f} %" for label, p in best))
        answer.stylize("bold", 0, len(display(best[0][0])))
        table.add_row(shown, answer)
    return table
