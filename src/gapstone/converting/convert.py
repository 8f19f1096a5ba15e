"""`gapstone convert`: another head on a trained model, fitted to images, and what that cost, on images held out."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from gapstone.console.formatting import display, format_size
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.converting.convert_json import document
from gapstone.converting.convert_request import ConvertRequest as ConvertRequest
from gapstone.converting.convert_table import show
from gapstone.converting.converted import Converted
from gapstone.converting.convertible import ConvertibleModel, only, open_convertible
from gapstone.converting.model_measures import MOST_MOVED, Change, correct_answers, model_costs, moves
from gapstone.converting.model_views import ModelViews, model_views
from gapstone.converting.paired_difference import Paired, Right
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.open_source import open_source
from gapstone.fitting.fit_head import check_fit_request, fit
from gapstone.fitting.fitting_data import OnDisk
from gapstone.heads import Head, parse
from gapstone.models.backbone_weights import digest
from gapstone.models.classifier import Classifier
from gapstone.nets import map_size
from gapstone.runtime.interrupts import stoppable
from gapstone.storage.owned_folder import CONVERT, check_folder, discard, own_file, own_folder
from gapstone.training.training_data import at_least, pick_device

PARTS = "what is kept beside --out:"


def convert(request: ConvertRequest, as_json: bool = False, console: Console | None = None) -> Converted:
    """Fit `head` to the model's features of DATA, measure it against the old one on test images, save it to `out`.

        >>> convert(Request("fc.safetensors", "gap", "photos/", Path("gap.safetensors"), finetune=10))

    DATA is split as `gapstone train` splits it: of the same DATA, the test images were never trained on; the validation
    images neither, where `seed` is that of the training. With another, most of them were, and λ and the best epoch are
    chosen on images that the features know by heart. Where its classes are those of the model, in whatever order, the
    labels stay; else the new model has those of DATA. `native` shows every picture as it is, neither cut nor resized;
    those that the network cannot be shown so are left out, and said. What takes time is kept beside `out` until the
    end: after Ctrl-C the same command goes on.

    Raises: ValueError for what does not fit together, before any work; as `open_model`, `open_source`, `split`,
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
            model = _opened(request, spec)
        section.says = lambda: (
            f"Stopped; {display(out)} is not written yet"
            + (f", what is done is kept in {display(folder)}. The same command goes on from there."
               if folder.exists() else ". The same command starts again.")
        )  # fmt: skip
        with _kept(folder, bars):
            converted = _convert(request, request.data, spec, model, folder, bars, began)
            new = converted.fitted.model
            assert isinstance(new, Classifier)
            new.cpu().save(out)
            section.says = f"Stopped; the model is written: {display(out)}"
    if as_json:
        print(
            json.dumps(document(converted, new), indent=1, allow_nan=False)
        )  # ASCII: safe whatever the terminal's encoding
    else:
        show(converted, new, console)
        bars.say(f"Model: {display(out)}")
    return converted


@contextmanager
def _kept(folder: Path, bars: Bars) -> Iterator[None]:
    """The folder of what takes time. After Ctrl-C, or an error of the machine's, the same command goes on with it."""
    with own_folder(folder, CONVERT, PARTS, bars.say):
        try:
            yield
        except ValueError:  # of the data: nothing to go on with
            discard(folder, CONVERT)
            raise
        except Exception:
            if any((folder / name).exists() for name in CONVERT.folders):
                bars.say(f"What is done is kept in {display(folder)}: the same command goes on from there.")
            raise
        discard(folder, CONVERT)


def _opened(request: ConvertRequest, spec: str) -> ConvertibleModel:
    """The model. Raises ValueError where it cannot be converted as asked: before any work."""
    model = open_convertible(request.model, request.weights, pick_device(request.device))
    if request.method == "distil" and model.whole is not model.trunk:
        raise ValueError(f"--method distil needs a model of gapstone's; take logistic for {model.name}.")
    if request.native:
        _check_native(request, model, spec)
    if request.finetune:
        model.trunk.features.last_modules()  # a network without a last stage says so here, before any work
    return model


def _convert(
    request: ConvertRequest, data: str, spec: str, model: ConvertibleModel, folder: Path, bars: Bars, began: float
) -> Converted:
    images, labels, same = _images(request, data, model, folder, bars)
    parts = images.parts
    about = {"model": digest(model.trunk), "images": images.key, "preprocessing": model.preprocessing.to_json()}

    def looked(rows: NDArray[np.int64], what: str) -> OnDisk:
        tell = bars(f"Looking at {what} images")
        return OnDisk(
            images.view,
            images.labels,
            rows,
            _device(model.trunk),
            folder / "kept",
            about,
            request.batch_size,
            tell,
            bars.say,
        )

    fitted = fit(
        model.trunk, looked(parts.train, "training"), spec, request.method,
        held_out=looked(parts.validation, "validation") if len(parts.validation) else None,
        labels=None if same else labels, finetune=request.finetune, seed=request.seed, start_progress=bars,
    )  # fmt: skip
    new = fitted.model
    assert isinstance(new, Classifier)

    def ask(which: nn.Module, rows: NDArray[np.int64], what: str, change: Change | None = None) -> Right:
        tell = bars(f"Testing {what}")
        view = images.view if which is new else images.before
        whose = "the model after" if which is new else "the model before"
        return correct_answers(which, view, rows, images.labels[rows], request.batch_size, tell, change, whose)

    test = ask(new, parts.test, "after")
    some = np.sort(np.random.default_rng(0).permutation(parts.test)[:MOST_MOVED])
    distance, ways = moves(model.preprocessing.size)

    def moved(which: nn.Module, what: str) -> float:
        return float(np.mean([ask(which, some, f"{what}, moved", way) for way in ways]))

    return Converted(
        request=request,
        fitted=fitted,
        parts=parts,
        before=model_costs(model.whole, model.trunk, model.head, model.smallest, model.only),
        after=model_costs(new, new, new.head.spec, new.features.smallest, only(new)),
        test=test,
        paired=Paired.of(ask(model.whole, parts.test, "before"), test) if same else None,
        distance=distance,
        # as many pixels of a resized picture are others than of the picture as it is
        moved=(moved(model.whole, "before") if same and images.before is images.view else None, moved(new, "after")),
        seconds=time.perf_counter() - began,
    )


def _images(
    request: ConvertRequest, data: str, model: ConvertibleModel, folder: Path, bars: Bars
) -> tuple[ModelViews, tuple[str, ...], bool]:
    """DATA as the models see it, the new model's labels, and whether they are the old one's.

    Raises: ValueError where the old head's logits are to be fitted, and DATA has other classes.
    """
    source = open_source(data)
    same = set(source.classes) == set(model.labels)
    labels = model.labels if same else source.classes
    if request.method == "distil" and not same:
        raise ValueError(
            f"--method distil keeps the classes of the model ({_few(model.labels)}); DATA has {_few(source.classes)}: "
            f"take logistic."
        )
    images = model_views(source, labels, model, folder, request, bars)
    if not same:
        bars.say(
            f"The classes of DATA ({_few(source.classes)}) are not those of the model ({_few(model.labels)}): the new "
            f"model has those of DATA, and there is no accuracy before to compare with."
        )
    return images, labels, same


def _check_native(request: ConvertRequest, model: ConvertibleModel, spec: str) -> None:
    """Raises ValueError where the new head, or an old one that is asked, takes one size only."""
    features, preprocessing = model.trunk.features, model.preprocessing
    size = map_size(features, preprocessing.channels, preprocessing.size)
    model.trunk.check_native(Head(spec, features.channels, len(model.labels), size))
    if request.method == "distil" and model.only is not None:
        raise ValueError(
            f"--method distil asks the old head, {model.head}, which takes only {format_size(model.only)}: leave "
            f"--native out, "
            f"or take logistic."
        )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(display(name, 60) for name in names[:3]) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )


def _device(model: nn.Module) -> Any:
    return next(model.parameters()).device
