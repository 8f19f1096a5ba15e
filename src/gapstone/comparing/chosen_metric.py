"""The metric that decides the verdicts: from what the user gave, and whether these data have it."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.trial_measures import MOST_PROBABILITIES
from gapstone.console.formatting import display
from gapstone.statistics.labels import Labels, is_multi_label
from gapstone.statistics.metrics import METRICS, MULTI_LABEL, Metric, find_metric, metric_names
from gapstone.statistics.multi_label_metrics import counted
from gapstone.statistics.own_metric import Function, check_own, own_metric
from gapstone.storage.paths import check_input

Asked = str | Function | Metric | None
"""A name, FILE.py:FUNCTION, a function of labels and probabilities; None: chosen by how many images classes have."""
RANKS = ("auroc", "average_precision")


def asked_metric(asked: Asked) -> Metric | None:
    """The metric that was asked for. Raises ValueError if there is none such."""
    if asked is None or isinstance(asked, Metric):
        return asked
    if isinstance(asked, str) and ":" not in asked:  # whether it is for labels of this form is known with the data
        return find_metric(asked, multi_label=asked in MULTI_LABEL and asked not in METRICS)
    return own_metric(*_loaded(asked)) if isinstance(asked, str) else own_metric(asked)


def _loaded(text: str) -> tuple[Function, bytes]:
    """The function that FILE.py:FUNCTION names, and the code of its file."""
    file, _, name = text.rpartition(":")
    path = Path(file).expanduser()
    check_input(f"--metric {display(file)}", path)
    code = path.read_bytes()
    module_name = f"gapstone_metric_{hashlib.sha256(code).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path.absolute())
    if spec is None or spec.loader is None:
        raise ValueError(f"--metric {display(text)}: {display(file)} is no Python file; give FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # as dataclasses in it need
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(
            f"--metric {display(text)}: {display(file)} cannot be imported: {type(error).__name__}: "
            f"{display(str(error))}."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        has = f"it has {', '.join(map(display, found))}" if found else "it has none"
        raise ValueError(f"--metric {display(text)}: {display(file)} has no function {display(name)!r}; {has}.")
    return function, code


def check_metric(
    metric: Metric,
    labels: Labels,
    parts: Sequence[NDArray[np.int64]],
    classes: int,
    trials: int,
    log: Callable[[str], None],
) -> None:
    """See before anything is trained that the metric can be computed.

    Args:
        metric: what decides.
        labels: of all images.
        parts: the test images of each fold, or of all seeds.
        classes: their number.
        trials: their number.
        log: is told if a function of one's own takes long.

    Raises:
        ValueError: it cannot.
    """
    if metric.name.startswith("top") and classes <= int(metric.name[3:]):
        raise ValueError(
            f"--metric {metric.name} of {classes} classes is always 100 %: give one of fewer, or another metric."
        )
    multi_label = is_multi_label(labels)
    for rows in parts:
        part = labels[rows]
        where = "a fold has" if len(parts) > 1 else "there are"
        if not multi_label and metric.name in RANKS and len(np.unique(part)) < 2:
            raise ValueError(
                f"--metric {metric.name} ranks the images of one class against those of others, and {where} test "
                "images of one class only: take another metric."
            )
        if multi_label and (metric.by_class or metric.name == "micro_f1") and not counted(np.asarray(part, bool)).any():
            raise ValueError(
                f"--metric {metric.name} needs test images with a class and some without it, and {where} none such of "
                "any class: add images, or take --metric accuracy."
            )
    names = metric_names(classes, multi_label)
    images = max(map(len, parts))
    if images * classes > MOST_PROBABILITIES and metric.name not in names:
        raise ValueError(
            f"--metric {metric.words} needs the probabilities of all classes, which are not stored of {images:,} test "
            f"images × {classes:,} classes (more than {MOST_PROBABILITIES:,}): give one of {', '.join(names)}."
        )
    if metric.digest is not None:
        times = [check_own(metric, labels[rows], classes, max(1, trials // len(parts))) for rows in parts]
        if times[0] is not None:
            log(times[0])
