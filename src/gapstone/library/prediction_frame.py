"""OUT/predictions.npz as a pandas DataFrame."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display
from gapstone.library.tables import pandas
from gapstone.statistics.labels import Labels, class_sets, is_multi_label

if TYPE_CHECKING:
    import pandas as pd

NEEDED = {"classes", "images", "heads", "seeds", "folds", "trial", "image", "label", "prediction"}


def prediction_frame(path: Path, head: str | None, probabilities: bool) -> "pd.DataFrame":
    """A row for each test image and trial, of one head or of all. Raises ValueError for a file that cannot be read."""
    make = pandas().DataFrame
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # NumPy leaves a damaged one open
            arrays = {name: stored[name] for name in stored.files if probabilities or name != "log_probabilities"}
            missing = {"classes", "images", "heads", "seeds", "folds", "trial", "image", "label", "prediction"} - set(
                arrays
            )
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{display(path)} cannot be read ({error}): the same comparison again writes it anew, without training."
        ) from error
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


def _names(classes: Sequence[str], labels: Labels) -> NDArray[Any]:
    """The class of each image by its name; several with | between them, as DATA may have them."""
    if not is_multi_label(labels):
        return np.array(classes)[labels]
    return np.array(["|".join(classes[k] for k in several) for several in class_sets(labels)])
