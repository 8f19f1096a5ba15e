"""`gapstone predict`: prints the predictions of a model for image files as a table or as JSON."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data.input_files import InputFiles, input_files
from gapstone.data.scan_report import counted
from gapstone.explaining.common_folder import common_folder, relative_to
from gapstone.images.cropping import cropping_note
from gapstone.images.load import ImageError
from gapstone.images.load import load as load_image
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.models.model_file import NotFiniteError
from gapstone.storage.paths import sentence
from gapstone.training.training_data import pick_device


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
    """Print the prediction of a model for each image.

    JSON: {"schema": 1, "model", "native", "labels", "images": [{"name", "label", "probability", "probabilities":
    {label: p}} or {"name", "error"}]}; an image whose decoding needed an assumption also has "notes".

    Args:
        model: The model, as `open_model` takes it.
        images: Files, folders and patterns.
        as_json: Print JSON instead of a table.
        top: Classes per image in the table.
        device: "auto", or a device of PyTorch.
        console: Where the table is printed; the terminal by default.
        native: Images enter the network at their own size, neither cropped nor resized.
        weights: A file of weights for `open_model`.

    Returns:
        True if every image has a prediction.
    """
    console = console or Terminal()
    with Bars(Terminal(stderr=True), idle=f"Predicting with {display(model)}") as bars:
        with bars.during(f"Opening {model}"):
            image_model = open_model(model, weights, pick_device(device))
        smallest = image_model.check_native() if native else None
        inputs = input_files(images)
        if not as_json:
            for note in inputs.notes():
                console.print(note, highlight=False, markup=False, soft_wrap=True)
        sizes: Counter[tuple[int, int]] = Counter()
        rows = _predict_all(image_model, inputs, native, smallest, bars, sizes)
    if as_json:
        about = {"schema": 1, "model": display(model), "native": native, "labels": list(image_model.labels)}
        document = {**about, "images": rows}
        print(json.dumps(document, indent=1, allow_nan=False))  # ASCII: safe whatever the terminal's encoding
    else:
        console.print(_table(rows, top))
        for note, count in counted(note for row in rows for note in cast(list[str], row.get("notes", []))):
            console.print(
                f"note on {count_noun(count, 'image')}: {note}", highlight=False, markup=False, soft_wrap=True
            )
        if not native and (crop := cropping_note(image_model.preprocessing, sizes)):
            more = " --native shows all of it." if image_model.takes_any_size else ""
            console.print(f"{crop}{more}", highlight=False, markup=False, soft_wrap=True)
    return not any("error" in row for row in rows)


def _predict_all(
    image_model: ImageModel,
    inputs: InputFiles,
    native: bool,
    smallest: int | None,
    bars: Bars,
    sizes: Counter[tuple[int, int]],
) -> list[dict[str, object]]:
    """Return a row of the JSON document for each image; count (width, height) of those that were read in `sizes`."""
    # at its own size, an image may be one that the network cannot take: an error of this image only
    errors = (ValueError, OSError, RuntimeError, AssertionError) if native else (ImageError, NotFiniteError, OSError)
    rows: list[dict[str, object]] = [
        {"name": display(pattern), "error": "no file matches it"} for pattern in inputs.missing
    ]
    progress = bars("Predicting")
    for number, path in enumerate(inputs.paths, start=1):
        row: dict[str, object] = {"name": display(os.fsdecode(path))}
        try:
            loaded = load_image(path, ranges=image_model.preprocessing.ranges)
            pixels = loaded.pixels
            sizes[loaded.size] += 1
            if smallest is not None:
                pixels = image_model.preprocessing.native(pixels, smallest)
            probabilities = image_model.probabilities(pixels, native)
        except errors as error:
            row["error"] = display(sentence(error) if isinstance(error, OSError) else str(error))
        else:
            best = int(probabilities.argmax())
            row |= {
                "label": image_model.labels[best],
                "probability": float(probabilities[best]),
                "probabilities": dict(zip(image_model.labels, map(float, probabilities), strict=True)),
            }
            if loaded.notes:
                row["notes"] = [display(note) for note in loaded.notes]
        rows.append(row)
        progress(number, len(inputs.paths))
    return rows


def _table(rows: Sequence[dict[str, object]], top: int) -> Table:
    """Return the table; names are relative to their common folder, so that they fit a narrow terminal."""
    names = [str(row["name"]) for row in rows]
    folder: str | None = None
    for name in names:
        folder = common_folder(folder, name)
    title = Text(f"in {folder}") if folder else None
    table = Table("image", "prediction (confidence)", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    for name, row in zip(names, rows, strict=True):
        name_text = Text(relative_to(name, folder))  # control characters are escaped already
        if "error" in row:
            table.add_row(name_text, Text(f"no prediction: {row['error']}", style="red"))
            continue
        probabilities = row["probabilities"]
        assert isinstance(probabilities, dict)
        best = sorted(probabilities.items(), key=lambda item: -item[1])[: max(top, 1)]
        answer = Text(", ".join(f"{display(label)} {100 * p:.1f} %" for label, p in best))
        answer.stylize("bold", 0, len(display(best[0][0])))
        table.add_row(name_text, answer)
    return table
