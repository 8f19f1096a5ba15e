"""`gapstone convert`: fit another head on a trained model and measure both models on held-out images."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from gapstone.console.formatting import display, format_size
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.converting.before_and_after import Correct, Paired
from gapstone.converting.conversion import Converted, ConvertRequest, document
from gapstone.converting.convert_table import print_table
from gapstone.converting.convertible import ConvertibleModel, open_convertible
from gapstone.converting.model_measures import MOST_MOVED, Change, correct_answers, model_costs, moves
from gapstone.converting.model_views import ModelViews, model_views
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.open_source import open_source
from gapstone.fitting.fit_head import check_fit_request, fit
from gapstone.fitting.fitting_data import OnDisk
from gapstone.heads import Head, parse
from gapstone.maps.open_model import ImageModel
from gapstone.models.backbone_weights import digest
from gapstone.models.classifier import Classifier
from gapstone.nets import map_size
from gapstone.pooling import pools_in
from gapstone.pools.digest import own_pools
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import CONVERT, check_folder, discard, own_file, own_folder
from gapstone.training.training_data import at_least, pick_device

PARTS = "what is kept beside --out:"


def convert(request: ConvertRequest, as_json: bool = False, console: Console | None = None) -> Converted:
    """Fit a head to the model's features of DATA, compare it with the old one on test images, save it to `request.out`.

        >>> convert(ConvertRequest("fc.safetensors", "gap", "photos/", Path("gap.safetensors"), finetune=10))

    DATA is split as `gapstone train` splits it. If the model was trained on this DATA, the test images are new to it;
    the validation images too, if `seed` is that of the training. With another seed the model was trained on most of the
    validation images, on which λ and the best epoch are chosen. If the classes of DATA are those of the model, in any
    order, the labels stay; otherwise the new model has the classes of DATA. With `native`, images are neither cropped
    nor resized; images that the network cannot take so are left out, with a message. The results of slow steps are kept
    beside `out` until the end, so that the same command resumes after Ctrl-C.

    Args:
        request: what to convert, and how.
        as_json: print JSON instead of a table.
        console: where messages go.

    Returns:
        The fitted model and all measurements.

    Raises:
        ValueError: arguments that do not fit together, before any work; also as `open_model`, `open_source`, `split`,
            `fit_head`.
    """
    console = console or Terminal(stderr=as_json)
    began = time.perf_counter()
    out, spec = own_file(request.out, "model.safetensors"), str(parse(request.head))
    if request.data is None:
        raise ValueError(
            "--data is missing: without images to fit it to, a new head predicts by chance. Labelled images in any "
            f"form of DATA; or, to train it yourself, gs.swap_head(model, {spec!r}) in Python."
        )
    check_fit_request(spec, request.method, request.finetune)
    at_least(0, seed=request.seed)
    check_threshold(request.duplicate_threshold)
    at_least(1, batch_size=request.batch_size)
    if request.native and request.finetune:
        raise ValueError(
            f"--native and --finetune {request.finetune}: the last stage is trained on maps of one size, and images as "
            f"they are make maps of many. Leave one of the two out."
        )
    folder = out.with_name(f".{out.name}.parts")
    check_folder(folder, CONVERT, PARTS)
    with (
        stoppable("Stopped; the new model is not written yet. The same command goes on.") as section,
        Bars(console, idle=f"Converting to {spec}") as bars,
    ):
        with bars.during(f"Opening {request.model}"):
            model = _open(request, spec)
        section.message = lambda: (
            f"Stopped; {display(out)} is not written yet"
            + (f", what is done is kept in {display(folder)}. The same command goes on from there."
               if folder.exists() else ". The same command starts again.")
        )  # fmt: skip
        with _resumable_folder(folder, bars):
            converted = _convert(request, request.data, spec, model, folder, bars, began)
            new = converted.fitted.model
            assert isinstance(new, Classifier)
            new.trained_on = converted.trained_on
            new.cpu().save(out)
            section.message = f"Stopped; the model is written: {display(out)}"
    if as_json:  # in ASCII: safe whatever the terminal's encoding
        print(json.dumps(document(converted, new), indent=1, allow_nan=False))
    else:
        print_table(converted, console)
        bars.log(f"Model: {display(out)}")
    return converted


@contextmanager
def _resumable_folder(folder: Path, bars: Bars) -> Iterator[None]:
    """Own the folder of partial results. It stays after Ctrl-C or a machine error, so that the command can resume."""
    with own_folder(folder, CONVERT, PARTS, bars.log):
        try:
            yield
        except ValueError:  # the data is at fault: a second run cannot do better
            discard(folder, CONVERT)
            raise
        except Exception:
            if any((folder / name).exists() for name in CONVERT.folders):
                bars.log(f"What is done is kept in {display(folder)}: the same command goes on from there.")
            raise
        discard(folder, CONVERT)


def _open(request: ConvertRequest, spec: str) -> ConvertibleModel:
    """Open the model. Raises ValueError, before any work, if it cannot be converted as requested."""
    model = open_convertible(request.model, request.weights, pick_device(request.device))
    if request.method == "distil" and model.whole is not model.trunk:
        raise ValueError(f"--method distil needs a model of gapstone's; take logistic for {model.name}.")
    if request.native:
        _check_native(request, model, spec)
    if request.finetune:
        model.trunk.features.last_modules()  # raises for a network without a last stage
    return model


def _convert(
    request: ConvertRequest, data: str, spec: str, model: ConvertibleModel, folder: Path, bars: Bars, began: float
) -> Converted:
    images, labels, same_classes = _images(request, data, model, folder, bars)
    split = images.split
    about = {"model": digest(model.trunk), "images": images.key, "preprocessing": model.preprocessing.to_json()}
    if user_pools := own_pools([*pools_in(model.whole), *parse(spec).recipe.pools]):
        about["own pools"] = user_pools
    device = next(model.trunk.parameters()).device

    def cached(rows: NDArray[np.int64], part: str) -> OnDisk:
        progress, cache = bars(f"Looking at {part} images"), folder / "kept"
        return OnDisk(images.view, images.labels, rows, device, cache, about, request.batch_size, progress, bars.log)

    fitted = fit(
        model.trunk, cached(split.train, "training"), spec, request.method,
        held_out=cached(split.validation, "validation") if len(split.validation) else None,
        labels=None if same_classes else labels, finetune=request.finetune, seed=request.seed, start_progress=bars,
    )  # fmt: skip
    new = fitted.model
    assert isinstance(new, Classifier)

    def test(tested: nn.Module, rows: NDArray[np.int64], task: str, change: Change | None = None) -> Correct:
        progress = bars(f"Testing {task}")
        view = images.view if tested is new else images.before
        whose = "the model after" if tested is new else "the model before"
        return correct_answers(tested, view, rows, images.labels[rows], request.batch_size, progress, change, whose)

    correct = test(new, split.test, "after")
    moved_rows = np.sort(np.random.default_rng(0).permutation(split.test)[:MOST_MOVED])
    distance, changes = moves(model.preprocessing.size)

    def moved_accuracy(tested: nn.Module, task: str) -> float:
        return float(np.mean([test(tested, moved_rows, f"{task}, moved", change) for change in changes]))

    # not for images that are resized only before: so many pixels are a larger share of a smaller image
    moved_before = same_classes and images.before is images.view
    return Converted(
        request=request,
        fitted=fitted,
        split=split,
        trained_on=images.trained_on,
        before=model_costs(model.whole, model.trunk, model.head, model.smallest, model.only_size),
        after=model_costs(new, new, new.head.spec, *ImageModel("", new, new.labels, new.preprocessing).input_sizes),
        correct=correct,
        paired=Paired.of(test(model.whole, split.test, "before"), correct, images.tested) if same_classes else None,
        distance=distance,
        moved=(moved_accuracy(model.whole, "before") if moved_before else None, moved_accuracy(new, "after")),
        seconds=time.perf_counter() - began,
    )


def _images(
    request: ConvertRequest, data: str, model: ConvertibleModel, folder: Path, bars: Bars
) -> tuple[ModelViews, tuple[str, ...], bool]:
    """Views of DATA, the labels of the new model, and whether they are those of the old one.

    Raises ValueError if the old head's logits are to be fitted and DATA has other classes.
    """
    # with one label each, if the model takes several
    source = open_source(data, request.group, request.group_pattern, model.multi_label)
    same_kind = source.multi_label == model.multi_label
    same_classes = same_kind and set(source.classes) == set(model.labels)
    labels = model.labels if same_classes else source.classes
    if request.method == "distil" and not same_kind:
        raise ValueError(
            f"--method distil keeps what the model answers, which is {_kind(model.multi_label)}; DATA has "
            f"{_kind(source.multi_label)}: take logistic."
        )
    if request.method == "distil" and not same_classes:
        raise ValueError(
            f"--method distil keeps the classes of the model ({_few(model.labels)}); DATA has {_few(source.classes)}: "
            f"take logistic."
        )
    images = model_views(source, labels, model, folder, request, bars)
    if not same_kind:
        bars.log(
            f"The model answers {_kind(model.multi_label)}, and DATA has {_kind(source.multi_label)}: the new model is "
            f"as DATA is, and there is no accuracy before to compare with."
        )
    elif not same_classes:
        bars.log(
            f"The classes of DATA ({_few(source.classes)}) are not those of the model ({_few(model.labels)}): the new "
            f"model has those of DATA, and there is no accuracy before to compare with."
        )
    return images, labels, same_classes


def _check_native(request: ConvertRequest, model: ConvertibleModel, spec: str) -> None:
    """Raises ValueError if the new head takes one size only, or an old head whose logits are needed."""
    features, preprocessing = model.trunk.features, model.preprocessing
    size = map_size(features, preprocessing.channels, preprocessing.size)
    model.trunk.check_native(Head(spec, features.channels, len(model.labels), size))
    if request.method == "distil" and model.only_size is not None:
        raise ValueError(
            f"--method distil asks the old head, {model.head}, which takes only {format_size(model.only_size)}: leave "
            f"--native out, or take logistic."
        )


def _kind(multi_label: bool) -> str:
    return "any number of classes for each image" if multi_label else "one class for each image"


def _few(names: tuple[str, ...]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(display(name, 60) for name in names[:3]) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )
