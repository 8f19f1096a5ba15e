"""explain_files(): list, look, draw, write. Stopped anywhere, the same call goes on and ends with the same bytes."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gapstone import __version__
from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data.input_files import InputFiles, input_files
from gapstone.explaining import draw_maps, explain_json, explain_page, explain_table
from gapstone.explaining.explain_folder import ExplainFolder, alone, digest
from gapstone.explaining.explain_request import ExplainRequest, indexes
from gapstone.explaining.map_pass import BOX_GRID, ClassQuery, PassResult, run_map_pass
from gapstone.images.load import VERSION as LOADER
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.atomic import sync_folder
from gapstone.storage.owned_folder import EXPLAIN, check_folder
from gapstone.storage.sealed_json import damage_note
from gapstone.training.training_data import pick_device

VERSION = 2  # raised when the same pictures and options would give other numbers


def explain_files(request: ExplainRequest, out: Path, console: Console | None = None) -> bool:
    """Explain pictures into the folder `out`; True when all of them could be read.

        >>> explain_files(Request("photos.safetensors", ("new", "more/*.jpg"), html=True), Path("runs/new"))

    The same call again, after a Ctrl-C or a kill at any moment, does only what is missing, and `out` ends with the same
    bytes. Another model, other options or a changed picture are done anew and never mixed up with what was there.

    Raises: ValueError for options, classes, folders or pictures that cannot be; what `open_model` raises.
    """
    console = console or Terminal(stderr=request.as_json)
    check_folder(out, EXPLAIN)
    found = input_files(request.images)
    if not found.paths:
        raise ValueError(_nothing(request, found))
    with Bars(console, idle=f"Explaining {display(request.model)}") as bars, ExitStack() as stack:
        with bars.during(f"Opening {request.model}"):
            opened = open_model(request.model, request.weights, pick_device(request.device))
        asked = _asked(request, opened)  # what cannot be is told before anything is written
        stack.enter_context(stoppable(f"Stopped; kept in {display(out)}. The same command goes on from here."))
        kept = stack.enter_context(alone(out, bars.log))
        for note in found.notes():
            bars.log(note)
        looked = _look(request, opened, asked, found, kept, bars)
        _say_damaged(kept, bars)
        failed = _draw(request, opened, looked, kept, bars)
        _say_damaged(kept, bars)
        for path, why in failed.items():
            bars.log(f"{display(path)}: it could not be drawn ({why}); its maps are in the .npz file.")
        for folder in (kept.maps, kept.thumbs):
            sync_folder(folder)
        _write(request, opened, asked, looked, found, kept, failed)
    if request.as_json:
        with (out / "explained.json").open(encoding="ascii") as document:
            shutil.copyfileobj(document, sys.stdout)
    else:
        explain_table.show(console, opened.labels, looked, lambda: _rows(kept, looked), found.missing, out, request)
    return not looked.errors and not found.missing


def _say_damaged(kept: ExplainFolder, bars: Bars) -> None:
    if kept.damaged:
        bars.log(damage_note(kept.damaged))
        kept.damaged.clear()


def _nothing(request: ExplainRequest, found: InputFiles) -> str:
    given = ", ".join(display(one) for one in request.images) or "nothing"
    why = " ".join(found.notes())
    return f"no images found in {given}. {why}".strip() + (
        "" if why else " Give image files, folders of them, or patterns such as 'photos/**/*.jpg'."
    )


def _asked(request: ExplainRequest, opened: ImageModel) -> ClassQuery:
    classes = indexes(request.classes, opened.labels) if request.classes is not None else None
    shown = opened.labels if classes is None or request.all_classes else [opened.labels[k] for k in classes]
    for label in shown:
        if label.endswith("\0"):
            raise ValueError(
                f"{display(request.model)}: its class {display(label)} ends in NUL, which an .npz of maps cannot hold; "
                f"rename the class, or name those to show with --classes"
            )
    smallest = opened.check_native() if request.native else None
    key = digest(
        [VERSION, __version__, torch.__version__.partition("+")[0], LOADER, BOX_GRID],
        _identity(opened),
        [classes, request.top if classes is None else None, request.all_classes, request.box, request.batch_size],
        request.native,
        str(opened.device) if opened.device.type == "cpu" else torch.cuda.get_device_name(opened.device),
    )
    return ClassQuery(classes, request.top, request.all_classes, request.threshold, key, smallest)


def _identity(opened: ImageModel) -> list[Any]:
    """What the model is, by its content: a file's name may stay while what is in it changes."""
    content = hashlib.sha256()
    for name, tensor in sorted(opened.model.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    # repr: layers without weights, such as which pool the head has
    return [repr(opened.model), content.hexdigest(), list(opened.labels), opened.preprocessing.to_json()]


def _look(
    request: ExplainRequest, opened: ImageModel, asked: ClassQuery, found: InputFiles, kept: ExplainFolder, bars: Bars
) -> PassResult:
    total, done = len(found.paths), 0
    for name in ("explained.json", "index.html"):  # of what was in the folder before: wrong from here on
        (kept.out / name).unlink(missing_ok=True)
    tell = bars("Looking")

    def told(now: int, of: int) -> None:
        nonlocal done
        done = now
        tell(now, of)

    with stoppable(
        lambda: (
            f"Stopped: {done:,} of {total:,} pictures looked at, kept in {display(kept.out)}. The same command goes on "
            f"from here."
        )
    ):
        looked = run_map_pass(opened, asked, found.paths, request.batch_size, kept, told)
    if looked.again:
        bars.log(f"{looked.again:,} of {total:,} pictures had been looked at before.")
    return looked


def _draw(
    request: ExplainRequest, opened: ImageModel, looked: PassResult, kept: ExplainFolder, bars: Bars
) -> dict[str, str]:
    """By path, why a picture could not be drawn."""
    side = draw_maps.thumbnail_side(min(looked.pictures, explain_page.MOST)) if request.html else None
    if not request.drawings and not side:
        return {}
    tell, done = bars("Drawing"), 0

    def told(now: int) -> None:
        nonlocal done
        done = now
        tell(now, looked.pictures)

    rows = (row for row in _rows(kept, looked) if "error" not in row)
    with stoppable(
        lambda: (
            f"Stopped: {done:,} of {looked.pictures:,} pictures drawn, kept in {display(kept.out)}. The same command "
            f"goes on from here."
        )
    ):
        how, ranges = (request.how, request.alpha, request.drawings), opened.preprocessing.ranges
        return draw_maps.draw(kept, rows, looked.largest or 1.0, *how, side, told, ranges)


def _write(
    request: ExplainRequest,
    opened: ImageModel,
    asked: ClassQuery,
    looked: PassResult,
    found: InputFiles,
    kept: ExplainFolder,
    failed: dict[str, str],
) -> None:
    head = {
        "schema": 2,
        "model": display(request.model),
        "gapstone": __version__,
        "labels": list(opened.labels),
        "largest": looked.largest or 1.0,
        "options": {
            "classes": asked.classes,
            "top": None if asked.classes else request.top,
            "all": request.all_classes,
            "box": request.box,
            "how": request.how,
            "alpha": request.alpha,
            "native": request.native,
        },
        "missing": [display(pattern) for pattern in found.missing],
    }
    rows = (explain_json.public(row, opened.labels, request.drawings, failed) for row in _rows(kept, looked))
    explain_json.write(kept.out / "explained.json", head, rows)
    if request.html:
        explain_page.write(kept, head, looked, lambda: _rows(kept, looked), failed)


def _rows(kept: ExplainFolder, looked: PassResult) -> Iterator[dict[str, Any]]:
    """All rows in order, one batch in memory at a time."""
    for key in looked.batches:
        yield from kept.read(key)["rows"]
