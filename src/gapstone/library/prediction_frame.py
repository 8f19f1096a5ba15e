"""OUT/predictions.npz, of a comparison and of an evaluation, as a pandas DataFrame."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.evaluating.class_matching import match_classes
from gapstone.library.tables import pandas
from gapstone.statistics.labels import Labels, class_sets, is_multi_label

if TYPE_CHECKING:
    import pandas as pd

NEEDED = {"classes", "images", "heads", "seeds", "folds", "trial", "image", "label", "prediction"}


def prediction_frame(path: Path, head: str | None, probabilities: bool) -> "pd.DataFrame":
    """A row for each test image and trial, of one head or of all. Raises ValueError for a file that cannot be read."""
    make = pandas().DataFrame
    unread = set() if probabilities else {"log_probabilities"}
    arrays = _read(path, NEEDED, unread, "the same comparison again writes it anew, without training")
    trial = arrays["trial"]
    rows = np.flatnonzero(arrays["heads"][trial] == head) if head is not None else np.arange(len(trial))
    trial = trial[rows]
    classes = arrays["classes"].tolist()
    label, prediction = arrays["label"][rows], arrays["prediction"][rows]
    columns: dict[str, Any] = {
        "image": arrays["images"][arrays["image"][rows]],
        "label": _names(classes, label),
        "head": arrays["heads"][trial],
    }
    folds = arrays["folds"][trial]
    columns |= {"fold": folds} if (folds >= 0).any() else {"seed": arrays["seeds"][trial]}
    columns["prediction"] = _names(classes, prediction)
    if "confidence" in arrays:
        columns["confidence"] = arrays["confidence"][rows]
    columns["correct"] = (label == prediction).all(1) if is_multi_label(label) else label == prediction
    if probabilities:
        if "log_probabilities" not in arrays:
            raise ValueError(f"{display(path)} has no probabilities: trials of an earlier version did not keep them.")
        columns |= {
            f"p({name})": np.exp(column)
            for name, column in zip(classes, arrays["log_probabilities"][rows].T, strict=True)
        }
    return make(columns)


def evaluated_frame(
    path: Path, names: Sequence[str], classes: Sequence[str], model: str | None, probabilities: bool
) -> "pd.DataFrame":
    """A row for each tested image and model, of one model or of all; `classes` are DATA's.

    Raises ValueError for a file that cannot be read.
    """
    frame = pandas()
    needed = {
        "images",
        "labels",
        *(f"{what}_{k}" for what in ("classes", "log_probabilities") for k in range(len(names))),
    }
    arrays = _read(path, needed, set(), "the same evaluation again writes it anew")
    parts = [
        frame.DataFrame(_answers(arrays, number, name, classes, probabilities))
        for number, name in enumerate(names)
        if model in (None, name)
    ]
    return frame.concat(parts, ignore_index=True)


def _answers(
    arrays: dict[str, NDArray[Any]], number: int, name: str, of_data: Sequence[str], probabilities: bool
) -> dict[str, Any]:
    """The columns of one model."""
    labels, classes = arrays["labels"], arrays[f"classes_{number}"].tolist()
    logs = arrays[f"log_probabilities_{number}"]
    several = is_multi_label(labels)
    # of logarithms: what is 0.5 to the last bit is answered, and exp(log(0.5)) is less
    answer: Labels = logs >= np.log(0.5, dtype=logs.dtype) if several else logs.argmax(1)
    p = np.exp(logs.astype(np.float64))
    if several:  # its columns are DATA's classes
        true, correct = _names(classes, labels), (answer == labels).all(1)
    else:
        own = dict(zip(of_data, match_classes(of_data, classes, name)[0].tolist(), strict=True))  # spelled otherwise
        true, correct = labels, answer == [own[label] for label in labels.tolist()]
    columns = {"image": arrays["images"], "label": true, "model": name, "prediction": _names(classes, answer)}
    columns |= {} if several else {"confidence": p.max(1)}
    columns["correct"] = correct
    return columns | ({f"p({one})": p[:, k] for k, one in enumerate(classes)} if probabilities else {})


def _read(path: Path, needed: set[str], unread: set[str], again: str) -> dict[str, NDArray[Any]]:
    """Raises ValueError for a file that cannot be read; `again` says what to do."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # NumPy leaves a damaged one open
            arrays = {name: stored[name] for name in stored.files if name not in unread}
        if missing := needed - set(arrays):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{display(path)} cannot be read ({error}): {again}.") from error
    return arrays


def _names(classes: Sequence[str], labels: Labels) -> NDArray[Any]:
    """The class of each image by its name; several with | between them, as DATA may have them."""
    if not is_multi_label(labels):
        return np.array(classes)[labels]
    return np.array(["|".join(classes[k] for k in several) for several in class_sets(labels)])
