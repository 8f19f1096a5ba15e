"""What a model predicts for image files, as a table or as JSON: `gapstone predict`."""

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
