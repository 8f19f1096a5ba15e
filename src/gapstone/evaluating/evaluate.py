"""evaluate(): open models, choose images, ask each model once about each, and write what was found."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from gapstone.comparing.chosen_metric import check_metric
from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data import scan_report
from gapstone.data.decoded_store import Store, build
from gapstone.data.open_source import check_outside_data, open_source
from gapstone.data.scan import Scan, scan
from gapstone.data.seen_images import unknown_images
from gapstone.data.sources import Source, few
from gapstone.evaluating import evaluation_table
from gapstone.evaluating.class_matching import match_classes
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.evaluating.evaluated_model import evaluated_model, trained_on
from gapstone.evaluating.evaluation_page import write_evaluation
from gapstone.evaluating.gather_evaluation import AnsweredModel, gather
from gapstone.evaluating.measured import short_names
from gapstone.evaluating.tested_images import TestedImages, choose_images
from gapstone.images.cropping import cropping_note
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import ImageModel, open_model, takes_weights
from gapstone.runtime.interrupts import stoppable
from gapstone.statistics.metrics import Metric
from gapstone.storage.owned_folder import EVALUATE, check_folder, own_folder
from gapstone.training.training_data import pick_device


@dataclass(frozen=True)
class Opened:
    """The models and the images, before any is asked."""

    models: tuple[ImageModel, ...]
    names: tuple[str, ...]
    """As they are shown."""
    source: Source
    scan: Scan
    classes: tuple[NDArray[np.int64], ...]
    """Of each model, its number of each class of DATA."""
    tested: TestedImages
    remarks: tuple[str, ...]


def evaluate(
    request: EvaluateRequest, out: Path, console: Console | None = None, command: str = "", as_json: bool = False
) -> dict[str, Any]:
    """Ask models about labelled images, compare them, and write evaluated.json, report.html and predictions into `out`.

        >>> evaluate(EvaluateRequest(("old.safetensors", "new.safetensors"), "photos/"), Path("runs/new"))

    After Ctrl-C or a kill the same call goes on where it was. Returns the results, as in evaluated.json.

    Raises:
        ValueError: a request, models, images or a folder that do not fit together.
    """
    console = console or Terminal(stderr=as_json)
    request = request.checked()
    check_outside_data(out, request.data)
    check_folder(out, EVALUATE)
    idle = f"Evaluating {count_noun(len(request.models), 'model')}"
    with (
        stoppable("Stopped before any image was answered. The same command starts again.") as section,
        ExitStack() as stack,
        Bars(console, idle=idle) as bars,
    ):
        opened = _open(request, bars)
        section.message = f"Stopped; what is done is kept in {display(out)}. The same command goes on from there."
        stack.enter_context(own_folder(out, EVALUATE, log=bars.log))
        scan_report.write(opened.scan, out)
        evaluation = _ask(request, opened, out, bars)
        with bars.during("Metrics" if request.quick else "Metrics, and milliseconds per image"):
            results = gather(request, opened.source, opened.scan, opened.tested, evaluation, command, opened.remarks)
        with bars.during("Writing the report"):
            page = write_evaluation(out, opened.source, evaluation, results)
        shutil.rmtree(out / "stores")
    evaluation_table.show(results, page, console, as_json)
    return results


def _open(request: EvaluateRequest, bars: Bars) -> Opened:
    """Raises ValueError for models and images that do not fit together; nothing is written."""
    device, models = pick_device(request.device), []
    of_network = [name for name in request.models if isinstance(name, str) and takes_weights(name)]
    if request.weights is not None and len(of_network) != 1:
        raise ValueError(
            f"--weights {display(request.weights)} goes with one timm:NAME or network's name, and here are "
            f"{len(of_network)}."
        )
    for one in request.models:
        if isinstance(one, str):
            with bars.during(f"Opening {one}"):
                one = open_model(one, request.weights if one in of_network else None, device)
        models.append(one)
    names = [display(name) for name in request.names] or short_names([display(one.name) for one in models])
    multi_label = several_labels(names, [one.multi_label for one in models])
    # a model of several labels per image says that DATA's may have several, too
    source = open_source(request.data, request.group, request.group_pattern, request.multi_label or multi_label, bars)
    if source.multi_label and not multi_label:
        raise ValueError(
            f"DATA {display(source.given)} has several labels per image, and {few(names, quote=False)} "
            f"{'answers' if len(names) == 1 else 'answer'} one class for each: give models that were trained on "
            "several labels per image (gapstone train on such DATA), or DATA with one label each."
        )
    matched = [match_classes(source.classes, one.labels, name) for one, name in zip(models, names, strict=True)]
    progress = bars("Checking images")
    found = scan(source, workers=request.workers, progress=progress, threshold=request.duplicate_threshold)
    for one in models:
        found.check_channels(one.preprocessing.channels)
    seen = [(name, trained_on(one)) for name, one in zip(names, models, strict=True)]
    tested = choose_images(request, source, found, seen)
    if isinstance(request.metric, Metric):
        classes = min(len(one.labels) for one in models)
        check_metric(request.metric, source.labels, [tested.rows], classes, len(models), bars.log)
    remarks = [*filter(None, (note for _, note in matched)), *tested.remarks]
    remarks += [unknown_images(name) for name, images in seen if not images.complete]
    bars.log(
        f"{count_noun(len(tested.rows), 'image')} of {count_noun(len(source.classes), 'class', 'classes')} to test on, "
        f"{tested.described}."
    )
    for remark in [*source.hints, *found.hints, *remarks]:
        bars.log(remark)
    return Opened(tuple(models), tuple(names), source, found, tuple(k for k, _ in matched), tested, tuple(remarks))


def several_labels(names: Sequence[str], multi_label: Sequence[bool]) -> bool:
    """Whether the models answer several labels per image. Raises ValueError if some do and some do not."""
    if len(set(multi_label)) > 1:
        one, other = (names[multi_label.index(value)] for value in (True, False))
        raise ValueError(
            f"{one} answers any number of classes of an image, {other} one: they cannot be compared. Evaluate each by "
            "itself."
        )
    return multi_label[0]


def _ask(request: EvaluateRequest, opened: Opened, out: Path, bars: Bars) -> list[AnsweredModel]:
    """Every model about every image; what is done stays in OUT/kept."""
    (out / "stores").mkdir(exist_ok=True)
    evaluations = []
    for one, name, classes in zip(opened.models, opened.names, opened.classes, strict=True):
        ranges = one.preprocessing.ranges.or_else(opened.scan.ranges)
        preprocessing = replace(one.preprocessing, ranges=ranges)
        store = _store(request, opened, preprocessing, out, bars)
        how = request.precision, request.batch_size, bars(f"Asking {name}")
        rows = np.arange(len(store))
        model = evaluated_model(one, store, rows, classes, preprocessing, *how)
        logits = model.answers(out / "kept", bars.log)
        robust = None
        if not request.quick:
            moving = bars(f"Moving and resizing images for {name}")
            robust = replace(model, progress=moving).robustness(out / "kept", bars.log)
            moving(1, 1)
        note = cropping_note(preprocessing, opened.scan.size_counts())
        numbers = classes if model.columns is None else np.arange(len(classes))
        evaluations.append(AnsweredModel(name, model, numbers, logits, robust, note))
    return evaluations


def _store(request: EvaluateRequest, opened: Opened, preprocessing: Preprocessing, out: Path, bars: Bars) -> Store:
    """The images decoded for a model; models that see them alike share them."""
    seen = replace(preprocessing, mean=(0.0,) * preprocessing.channels, std=(1.0,) * preprocessing.channels)
    folder = out / "stores" / hashlib.sha256(json.dumps(seen.to_json(), sort_keys=True).encode()).hexdigest()[:8]
    return build(
        opened.source, opened.tested.rows, preprocessing, folder, request.workers, bars("Decoding images"),
        scan=opened.scan, log=bars.log,
    )  # fmt: skip
