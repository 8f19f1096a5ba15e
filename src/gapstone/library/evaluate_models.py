"""`gs.evaluate`: how good models are on labelled images."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gapstone.console.options import results_folder
from gapstone.data.python_objects import described
from gapstone.evaluating.evaluate import evaluate as run
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.library.evaluation import Evaluation
from gapstone.library.given_arguments import Data, given_data, given_path
from gapstone.library.python_words import console_of, errors_in_python
from gapstone.maps.open_model import ImageModel, as_image_model
from gapstone.models.classifier import Classifier
from gapstone.models.of_comparison import model_of
from gapstone.statistics.own_metric import Function
from gapstone.training.training_data import pick_device

GivenModel = str | os.PathLike[str] | Classifier | ImageModel
"""A model by its file or name, or one that is open."""


def evaluate(
    models: GivenModel | Sequence[GivenModel] | Mapping[str, GivenModel],
    data: Data,
    *,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    metric: str | Function | None = None,
    groups: str | None = None,
    group_pattern: str | None = None,
    multi_label: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
    head: str | None = None,
    weights: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
    duplicates: Literal["group", "drop", "keep"] = "group",
    duplicate_threshold: float | None = None,
    quick: bool = False,
    workers: int | None = None,
) -> Evaluation:
    """Say how good models are on labelled images; several are compared with the first, image by image.

    Examples:
        >>> gs.evaluate("photos.safetensors", "photos/").models[0].accuracy
        … % …
        >>> found = gs.evaluate({"old": old, "new": "new.safetensors"}, "photos/", metric="macro_f1")
        >>> found.verdict, found.pairs["new"].interval
        ('…', …)

    Nothing is trained. Images that a model's file says it was trained on are left out. The same call again, after
    Ctrl-C or a crash, goes on where it was, and gives the same numbers as the command `gapstone evaluate`.

    Args:
        models: one or several: a file that gapstone wrote, the folder of a comparison, `timm:NAME`, `hf:FOLDER`, a
            `gs.Classifier`, or what `gs.open_model` returns; by names of your own, `{"old": …, "new": …}`.
        data: labelled images, as `gs.compare` takes them; their classes are called as the models'.
        split: which part of `data`; `auto`: test, or val where it gives no test images, or all where it gives neither.
        metric: what decides between models: `accuracy`, `balanced_accuracy`, `auroc`, … or a function of labels (n,)
            and probabilities (n, K). None: accuracy, and balanced accuracy of very unequal classes.
        groups: the column that says which images belong together, such as those of one patient.
        group_pattern: a regular expression that finds the same in the images' paths.
        multi_label: an image may have several labels, also where nothing in `data` shows it.
        out: the folder of the results; None: `runs/evaluate-NAME`.
        progress: show bars, lines and the table of results; errors are raised in any case.
        head: of a comparison's folder, the head whose model is meant; None: the best.
        weights: a file of weights, of the one model that is a network's name.
        limit: at most so many images.
        batch_size: images in a forward pass.
        precision: `bfloat16` is faster on some machines and less exact.
        device: `auto`: a GPU if there is one.
        duplicates: pictures that are there more than once: counted as one group, one of each used, or kept.
        duplicate_threshold: likeness (correlation, 0.8 to 1) from which two pictures are one.
        quick: no image is moved or resized, and the models are not timed.
        workers: processes that read images; None: one per core.

    Returns:
        The results. They stay in `out`: `gs.Evaluation.open(out)`.

    Raises:
        ValueError: arguments, models, images or a folder that do not fit together; says what to do.
        ModelFileError: a file that is no model; a ValueError.
    """
    folder = Path(out) if out is not None else results_folder("evaluate", described(data))
    console = console_of(progress)
    with errors_in_python():
        named = models if isinstance(models, Mapping) else None
        several = list(named.values()) if named is not None else _listed(models)
        found = tuple(open_given(one, head, device) for one in several)
        alike = [one.name for one in found if isinstance(one, ImageModel)]
        if named is None and len(set(alike)) < len(alike):
            raise ValueError(
                f"models: two are called {max(alike, key=alike.count)!r}: give them names, {{'old': …, 'new': …}}."
            )
        request = EvaluateRequest(
            found, given_data(data), split, metric, limit,
            given_path(weights), device, precision, batch_size, workers, duplicates,
            duplicate_threshold, groups, group_pattern, multi_label, quick, tuple(named or ()),
        )  # fmt: skip
        run(request, folder, console)
    return Evaluation.open(folder)


def open_given(model: GivenModel, head: str | None, device: str) -> str | ImageModel:
    """A model's name, or the model on that device; what is given stays as it is.

    Raises:
        TypeError: it is no model.
    """
    if isinstance(model, str | os.PathLike):
        return model_of(os.fspath(model), head)
    if head is not None:
        raise ValueError(f"head={head!r} goes with the folder of a comparison, and the model is open already.")
    if isinstance(model, Classifier):
        model = as_image_model(model, f"{model.head.spec} on {model.backbone}")
    if not isinstance(model, ImageModel):
        raise TypeError(
            f"models: {type(model).__name__} has no labels and no preprocessing: give a file, a gs.Classifier, or what "
            f"gs.open_model returns."
        )
    place = pick_device(device)
    if model.device.type == place.partition(":")[0]:
        return model
    return ImageModel(
        model.name, copy.deepcopy(model.model).to(place), model.labels, model.preprocessing, model.multi_label
    )


def _listed(models: Any) -> list[GivenModel]:
    return list(models) if isinstance(models, list | tuple) else [models]
