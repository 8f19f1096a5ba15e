"""`gapstone explain`: runs the network over the pictures, draws the maps, writes the results. A stopped run resumes."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gapstone import __version__
from gapstone.any_size.plan_bands import parse_bytes
from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data.input_files import InputFiles, input_files
from gapstone.explaining import draw_maps, explain_json, explain_page, explain_table
from gapstone.explaining.explain_folder import ExplainFolder, digest, open_folder
from gapstone.explaining.explain_request import ExplainRequest, indexes
from gapstone.explaining.map_pass import BOX_GRID, ClassQuery, PassResult, run_map_pass
from gapstone.images.load import VERSION as LOADER
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.pooling import pools_in
from gapstone.pools.digest import own_pools
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.atomic import sync_folder
from gapstone.storage.owned_folder import EXPLAIN, check_folder
from gapstone.storage.sealed_json import damage_note
from gapstone.training.training_data import pick_device

VERSION = 3  # increased when the same pictures and options give other numbers


def explain_files(request: ExplainRequest, out: Path, console: Console | None = None) -> bool:
    """Explain pictures, and write the results into the folder `out`.

        >>> explain_files(ExplainRequest("photos.safetensors", ("new", "more/*.jpg"), html=True), Path("runs/new"))

    The same call resumes a run that was stopped or killed at any moment: it does only the missing work, and `out` ends
    with the same bytes. Results of another model, other options or a changed picture are never reused.

    Returns:
        True if every picture was explained and every pattern matched a file.

    Raises:
        ValueError: If an option, a class, `out` or the list of pictures is invalid. Also what `open_model` raises.
    """
    console = console or Terminal(stderr=request.as_json)
    check_folder(out, EXPLAIN)
    inputs = input_files(request.images)
    if not inputs.paths:
        raise ValueError(_no_images_message(request, inputs))
    with Bars(console, idle=f"Explaining {display(request.model)}") as bars, ExitStack() as stack:
        with bars.during(f"Opening {request.model}"):
            image_model = open_model(request.model, request.weights, pick_device(request.device))
        query = _make_query(request, image_model)  # raises before anything is written
        stack.enter_context(stoppable(f"Stopped; kept in {display(out)}. The same command goes on from here."))
        folder = stack.enter_context(open_folder(out, bars.log))
        for note in inputs.notes():
            bars.log(note)
        result = _run_map_pass(request, image_model, query, inputs.paths, folder, bars)
        _report_damage(folder, bars)
        undrawn = _draw_maps(request, image_model, result, folder, bars)
        _report_damage(folder, bars)
        for path, reason in undrawn.items():
            bars.log(f"{display(path)}: it could not be drawn ({reason}); its maps are in the .npz file.")
        for subfolder in (folder.maps, folder.thumbs):
            sync_folder(subfolder)
        _write_results(request, image_model, query, result, inputs, folder, undrawn)
    if request.as_json:
        with (out / "explained.json").open(encoding="ascii") as document:
            shutil.copyfileobj(document, sys.stdout)
    else:
        explain_table.show(console, image_model.labels, result, folder, inputs.missing, request)
    return not result.errors and not inputs.missing


def _report_damage(folder: ExplainFolder, bars: Bars) -> None:
    if folder.damaged:
        bars.log(damage_note(folder.damaged))
        folder.damaged.clear()


def _no_images_message(request: ExplainRequest, inputs: InputFiles) -> str:
    given = ", ".join(display(pattern) for pattern in request.images) or "nothing"
    notes = " ".join(inputs.notes())
    return f"no images found in {given}. {notes}".strip() + (
        "" if notes else " Give image files, folders of them, or patterns such as 'photos/**/*.jpg'."
    )


def _make_query(request: ExplainRequest, image_model: ImageModel) -> ClassQuery:
    """Return the classes to explain and the cache key; raise ValueError for classes that the model cannot show."""
    classes = indexes(request.classes, image_model.labels) if request.classes is not None else None
    shown = image_model.labels if classes is None or request.all_classes else [image_model.labels[k] for k in classes]
    for label in shown:
        if label.endswith("\0"):
            raise ValueError(
                f"{display(request.model)}: its class {display(label)} ends in NUL, which an .npz of maps cannot hold; "
                f"rename the class, or name those to show with --classes"
            )
    smallest = image_model.check_native() if request.native else None
    top = request.most_shown(image_model.multi_label)
    key = digest(
        [VERSION, __version__, torch.__version__.partition("+")[0], LOADER, BOX_GRID],
        _identity(image_model),
        [classes, top if classes is None else None, request.all_classes, request.box, request.batch_size],
        [request.native, request.plain, *(["multi-label"] if image_model.multi_label else [])],
        str(image_model.device) if image_model.device.type == "cpu" else torch.cuda.get_device_name(image_model.device),
    )
    options = request.all_classes, request.threshold, key, request.plain, smallest, parse_bytes(request.memory)
    return ClassQuery(classes, top, *options)


def _identity(image_model: ImageModel) -> list[Any]:
    """Return what identifies a model: its content, since a file can change under the same name."""
    content = hashlib.sha256()
    for name, tensor in sorted(image_model.model.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    # repr shows layers without weights, such as the pool of the head, whose definition may be the user's
    model, user_pools = image_model.model, own_pools(pools_in(image_model.model))
    facts = [repr(model), content.hexdigest(), list(image_model.labels), image_model.preprocessing.to_json()]
    return [*facts, user_pools] if user_pools else facts


@contextmanager
def _progress(bars: Bars, task: str, total: int, verb: str, folder: ExplainFolder) -> Iterator[Callable[[int], None]]:
    """Yield the function that shows how many pictures are done; a stopped run says how many were."""
    update, done = bars(task), 0

    def progress(now: int) -> None:
        nonlocal done
        done = now
        update(now, total)

    with stoppable(
        lambda: (
            f"Stopped: {done:,} of {total:,} pictures {verb}, kept in {display(folder.out)}. The same command goes on "
            f"from here."
        )
    ):
        yield progress


def _run_map_pass(
    request: ExplainRequest,
    image_model: ImageModel,
    query: ClassQuery,
    paths: Sequence[Path],
    folder: ExplainFolder,
    bars: Bars,
) -> PassResult:
    for name in ("explained.json", "index.html"):  # of an earlier run: outdated from here on
        (folder.out / name).unlink(missing_ok=True)
    with _progress(bars, "Looking", len(paths), "looked at", folder) as progress:
        result = run_map_pass(image_model, query, paths, request.batch_size, folder, progress, bars)
    if result.from_cache:
        bars.log(f"{result.from_cache:,} of {len(paths):,} pictures had been looked at before.")
    return result


def _draw_maps(
    request: ExplainRequest, image_model: ImageModel, result: PassResult, folder: ExplainFolder, bars: Bars
) -> dict[str, str]:
    """Draw what the options ask for; return the reason for each picture that could not be drawn, by its path."""
    side = draw_maps.thumbnail_side(min(result.pictures, explain_page.MOST)) if request.html else None
    if not request.drawings and not side:
        return {}
    rows = (row for row in folder.rows(result.batches) if "error" not in row)
    with _progress(bars, "Drawing", result.pictures, "drawn", folder) as progress:
        style, ranges = (request.how, request.alpha, request.drawings), image_model.preprocessing.ranges
        return draw_maps.draw(folder, rows, result.largest or 1.0, *style, side, progress, ranges)


def _write_results(
    request: ExplainRequest,
    image_model: ImageModel,
    query: ClassQuery,
    result: PassResult,
    inputs: InputFiles,
    folder: ExplainFolder,
    undrawn: dict[str, str],
) -> None:
    """Write explained.json, and index.html if it is asked for."""
    head = {
        "schema": 3,
        "model": display(request.model),
        "gapstone": __version__,
        "labels": list(image_model.labels),
        **({"multi_label": True} if image_model.multi_label else {}),
        "largest": result.largest or 1.0,
        "options": {
            "classes": query.classes,
            "top": None if query.classes else query.top,
            "all": request.all_classes,
            "box": request.box,
            "how": request.how,
            "alpha": request.alpha,
            "native": request.native,
            "plain": request.plain,
        },
        "missing": [display(pattern) for pattern in inputs.missing],
    }
    rows = (
        explain_json.public_row(row, image_model.labels, request.drawings, undrawn)
        for row in folder.rows(result.batches)
    )
    explain_json.write(folder.out / "explained.json", head, rows)
    if request.html:
        explain_page.write(folder, head, result, undrawn)
