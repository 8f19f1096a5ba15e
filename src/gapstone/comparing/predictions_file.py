"""OUT/predictions.npz and predictions.csv: what every trial predicts for every test image (docs/results.md).

A row is one test image in one trial. The file is written a trial at a time, as the probabilities of all of them may be
larger than memory.
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.plan import ComparisonPlan
from gapstone.statistics.labels import Labels, class_sets, is_multi_label
from gapstone.storage.atomic import atomic_file
from gapstone.storage.csv_file import write_csv

MOST_IN_CSV = 1_000_000
"""Probabilities, 8 MB as text: with more the CSV has the predictions alone."""


def write_predictions(out: Path, plan: ComparisonPlan, done: dict[str, list[FinishedTrial]]) -> None:
    """Write both files of the finished trials, in the order of the heads."""
    finished = [one for head in plan.request.heads for one in done[head]]
    _write_npz(out / "predictions.npz", plan, finished)
    numbers = sum(len(one.arrays["test"]) for one in finished) * len(plan.prepared.labels)
    write_csv(out / "predictions.csv", _rows(plan, finished, all_classes=numbers <= MOST_IN_CSV))


def _rows(plan: ComparisonPlan, finished: Sequence[FinishedTrial], all_classes: bool) -> Iterator[list[Any]]:
    names, labels, classes = plan.prepared.store.names, plan.prepared.store.labels, plan.prepared.labels
    stored = [one.log_probabilities() if all_classes else None for one in finished]
    all_classes = bool(stored) and all(one is not None for one in stored)
    probabilities_of = [f"p({label})" for label in classes] if all_classes else []
    confidence = [] if plan.multi_label else ["confidence"]
    yield ["image", "label", "head", "seed", "prediction", *confidence, "correct", *probabilities_of]
    for one, logs in zip(finished, stored, strict=True):
        rows, right = one.arrays["test"], one.correct(labels).astype(int).tolist()
        true, said = (_written(classes, of) for of in (labels[rows], one.arrays["answer"]))
        sure = [] if plan.multi_label else [f"{p:.4f}" for p in one.arrays["confidence"].tolist()]
        for place, row in enumerate(rows.tolist()):
            several = [] if logs is None or not all_classes else np.exp(logs[place].astype(np.float64)).tolist()
            yield [names[row], true[place], one.trial.head, one.trial.seed, said[place], *sure[place : place + 1],
                   right[place], *(f"{p:.6g}" for p in several)]  # fmt: skip


def _written(classes: Sequence[str], labels: Labels) -> list[str]:
    """The name of each image's class, of several those of all, with | between them, as DATA may have them."""
    return ["|".join(classes[k] for k in several) for several in class_sets(labels)]


def _write_npz(path: Path, plan: ComparisonPlan, finished: Sequence[FinishedTrial]) -> None:
    store, classes = plan.prepared.store, plan.prepared.labels
    tested = [np.asarray(one.arrays["test"], np.int64) for one in finished]
    rows = np.concatenate(tested) if tested else np.zeros(0, np.int64)
    images, image = np.unique(rows, return_inverse=True)
    trials = [one.trial for one in finished]
    arrays: dict[str, NDArray[Any]] = {
        "classes": texts(classes),
        "images": texts([store.names[row] for row in images]),
        "labels": _in_form(store.labels[images]),
        "trials": texts([trial.id for trial in trials]),
        "heads": texts([trial.head for trial in trials]),
        "seeds": np.array([trial.seed for trial in trials], np.int32),
        "folds": np.array([-1 if trial.fold is None else trial.fold for trial in trials], np.int32),
        "trial": np.repeat(np.arange(len(trials), dtype=np.int32), [len(one) for one in tested]),
        "image": image.astype(np.int32),
        "label": _in_form(store.labels[rows]),
        "prediction": _in_form(_together(finished, "answer", store.labels[:0])),
    }
    if not plan.multi_label:
        arrays["confidence"] = _together(finished, "confidence", np.zeros(0)).astype("f4")
    with atomic_file(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        if len(classes) and finished and finished[0].log_probabilities() is not None:
            with archive.open("log_probabilities.npy", "w", force_zip64=True) as file:
                _write_log_probabilities(file, finished, (len(rows), len(classes)))


def _together(finished: Sequence[FinishedTrial], key: str, empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([one.arrays[key] for one in finished] or [empty])


def _in_form(labels: Labels) -> NDArray[Any]:
    """Labels or answers as they are written: numbers of classes, or a yes or no for each class."""
    return labels if is_multi_label(labels) else labels.astype(np.int32)


def _write_log_probabilities(file: IO[bytes], finished: Sequence[FinishedTrial], shape: tuple[int, int]) -> None:
    header = {"descr": npy.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
    for one in finished:
        array = one.log_probabilities()
        assert array is not None, "all trials of a plan test as many images"
        file.write(np.ascontiguousarray(array, np.float32).tobytes())


def texts(names: Sequence[str]) -> NDArray[np.str_]:
    """Names as an array that NumPy reads again."""
    # a name that is not UTF-8 is held as lone surrogates, which NumPy's arrays cannot be read with
    return np.array([name.encode("utf-8", "backslashreplace").decode() for name in names], np.str_)
