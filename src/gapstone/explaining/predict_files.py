"""`gapstone predict`: prints the predictions of a model for image files as a table or as JSON."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from gapstone.any_size.plan_bands import MEMORY, parse_bytes
from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data.input_files import input_files
from gapstone.data.scan_report import counted
from gapstone.explaining.image_table import class_list, image_table
from gapstone.explaining.streamed_answer import streamed_answer
from gapstone.images.cropping import cropping_note
from gapstone.images.load import ImageError
from gapstone.images.load import load as load_image
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.models.class_probabilities import answered
from gapstone.models.model_file import NotFiniteError
from gapstone.storage.paths import sentence
from gapstone.training.training_data import pick_device

Row = dict[str, Any]
NO_FILE = "no file matches it"
"""What is said of a pattern."""


def predict_files(
    model: str,
    images: Sequence[str],
    as_json: bool,
    top: int,
    device: str,
    console: Console | None = None,
    native: bool = False,
    weights: Path | None = None,
    memory: str = MEMORY,
) -> bool:
    """Print the prediction of a model for each image; return True if every image has one.

    JSON: {"schema": 1, "model", "native", "labels", "images": [{"name", "label", "probability", "probabilities":
    {label: p}} or {"name", "error"}]}; an image whose decoding needed an assumption also has "notes". Of a multi-label
    model there is "multi_label": true, and an image has "labels", all of 50 % or more, instead of label and
    probability.

    `model` and `weights` are as `open_model` takes them; `images` files, folders and patterns; `top` the classes per
    image in the table. With `native`, images enter the network at their own size, neither cropped nor resized; those of
    more than 4096² px by `gs.stream`, in about so much `memory`.
    """
    console, most = console or Terminal(), parse_bytes(memory)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with Bars(Terminal(stderr=True), idle=f"Predicting with {display(model)}") as bars:
        with bars.during(f"Opening {model}"):
            image_model = open_model(model, weights, pick_device(device))
        smallest = image_model.check_native() if native else None
        inputs = input_files(images)
        if not as_json:
            for note in inputs.notes():
                say(note)
        sizes: Counter[tuple[int, int]] = Counter()
        rows: list[Row] = [{"name": display(pattern), "error": NO_FILE} for pattern in inputs.missing]
        named = [(display(os.fsdecode(path)), path) for path in inputs.paths]
        rows += predict_rows(image_model, named, smallest, bars, sizes, most)
    if as_json:
        about: Row = {"schema": 1, "model": display(model), "native": native, "labels": image_model.labels}
        if image_model.multi_label:
            about["multi_label"] = True
        print(json.dumps({**about, "images": rows}, indent=1, allow_nan=False))  # ASCII: safe in any terminal
    else:
        console.print(_table(rows, top, image_model.multi_label))
        for note, count in counted(note for row in rows for note in row.get("notes", [])):
            say(f"note on {count_noun(count, 'image')}: {note}")
        if not native and (crop := cropping_note(image_model.preprocessing, sizes)):
            more = " --native shows all of it." if image_model.takes_any_size else ""
            say(f"{crop}{more}")
    return not any("error" in row for row in rows)


def predict_rows(
    image_model: ImageModel,
    images: Sequence[tuple[str, Path | NDArray[np.uint8]]],
    smallest: int | None,
    bars: Bars,
    sizes: Counter[tuple[int, int]],
    memory: int,
) -> list[Row]:
    """Return a row of the JSON document for each image; count (width, height) of those that were read in `sizes`.

    `images` are names, each with a file or pixels (H, W, C). `smallest`: the least side of those that enter the network
    at their own size; None: they are resized.
    """
    native = smallest is not None
    # at its own size, an image may be one that the network cannot take: an error of this image only
    errors = (ValueError, OSError, RuntimeError, AssertionError) if native else (ImageError, NotFiniteError, OSError)
    rows: list[Row] = []
    progress = bars("Predicting")
    for number, (name, image) in enumerate(images, start=1):
        row: Row = {"name": name}
        try:
            probabilities, notes = _answer(image_model, image, smallest, bars, sizes, memory)
        except errors as error:
            row["error"] = display(sentence(error) if isinstance(error, OSError) else str(error))
        else:
            names, found = image_model.labels, [float(p) for p in probabilities]
            predicted = answered(found, image_model.multi_label)
            if image_model.multi_label:
                row["labels"] = [names[k] for k in predicted]
            else:
                row |= {"label": names[predicted[0]], "probability": found[predicted[0]]}
            row["probabilities"] = dict(zip(names, found, strict=True))
            if notes:
                row["notes"] = [display(note) for note in notes]
        rows.append(row)
        progress(number, len(images))
    return rows


def _answer(
    model: ImageModel,
    image: Path | NDArray[np.uint8],
    smallest: int | None,
    bars: Bars,
    sizes: Counter[tuple[int, int]],
    memory: int,
) -> tuple[Tensor, tuple[str, ...]]:
    """(the probability of each class, notes)"""
    native, notes = smallest is not None, tuple[str, ...]()
    if isinstance(image, Path):
        if native and (found := streamed_answer(model, image, memory, bars)) is not None:
            return found
        loaded = load_image(image, ranges=model.preprocessing.ranges)
        image, notes = loaded.pixels, loaded.notes
    sizes[image.shape[1], image.shape[0]] += 1
    if smallest is not None:
        if (found := streamed_answer(model, image, memory, bars)) is not None:
            return found[0], (*notes, *found[1])
        image = model.preprocessing.native(image, smallest)
    return model.probabilities(image, native), notes


def _table(rows: Sequence[Row], top: int, multi_label: bool) -> Table:
    table, names = image_table([row["name"] for row in rows], multi_label)
    for name, row in zip(names, rows, strict=True):
        if "error" in row:
            table.add_row(name, Text(f"no prediction: {row['error']}", style="red"))
        else:
            most = max(top, 1, len(row.get("labels", ())))
            best = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:most]
            table.add_row(name, class_list(best, multi_label))
    return table
