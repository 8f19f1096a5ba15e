"""`open_source` lists the classes and images of DATA, whichever of its forms it has."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gapstone.console.formatting import display
from gapstone.data import (
    array_source,
    arrow_source,
    class_folders,
    dataset_source,
    frame_source,
    idx_files,
    metadata_table,
    npz_source,
    table_sources,
    webdataset_source,
)
from gapstone.data.file_names import similar_names
from gapstone.data.groups import AskedColumns, check_options, with_groups
from gapstone.data.python_objects import described, form_of, splits_of
from gapstone.data.sample_weights import with_weights
from gapstone.data.shard_files import holds_shards
from gapstone.data.sources import FORMS, DataError, Source, few


def open_source(
    data: object,
    group: str | None = None,
    group_pattern: str | None = None,
    multi_label: bool = False,
    start_progress: Callable[[str], Callable[[int, int], None]] = lambda what: lambda done, total: None,
    augmented: object = None,
    sample_weight: str | None = None,
) -> Source:
    """Recognise the form of DATA, and list its classes and images; `Source.kind` is the form.

    ```python
    open_source("digits").kind                # 'digits'
    open_source("photos/").classes            # ('cat', 'dog')
    open_source("labels.csv").splits          # ('train', 'test')
    open_source("labels.csv", group="patient").grouping.described     # '120 groups by --group patient, of 1 to 30 …'
    ```

    Args:
        data: what the command line calls DATA; or arrays, a DataFrame, a Dataset (`gapstone.data.python_objects`).
        group: the column of a table (or the array of an .npz file) that says which images belong together.
        group_pattern: a regular expression that finds the same in each path below DATA: "patient_([0-9]+)".
        multi_label: an image may have several labels, or none, also where nothing in DATA shows it: a file that is in
            several class folders, or in several rows of a table, is then one image with all of their labels.
        start_progress: called with what is done, for a Dataset, whose items are read here; returns `progress`.
        augmented: of a Dataset, the same one with random transforms (of several, that of train); training draws from
            it.
        sample_weight: the column of a table (or the array of an .npz file) that says how much an image counts in
            training.

    Raises:
        DataError: DATA cannot be used; the message names the forms if DATA has none of them.
        ValueError: a pattern that is none, or both ways to name groups.
    """
    check_options(group, group_pattern)
    given, form = described(data), form_of(data)
    asked = AskedColumns(group, sample_weight)
    if augmented is not None and form != "dataset":
        raise DataError(f"augmented= goes with a Dataset as data, whose images it has, and data is {display(given)!r}.")
    if form == "path":
        source = _open(given, asked, multi_label)
    elif form == "dataset":
        progress = start_progress("Reading the Dataset")
        source = dataset_source.open_dataset(given, data, multi_label, progress, augmented)
    elif form == "arrow":
        source = arrow_source.open_hf_dataset(given, data, asked, multi_label)
    elif form == "frame":
        source = frame_source.open_frame(given, data, asked, multi_label)
    else:
        source = array_source.open_objects(given, _named_arrays(data), asked, multi_label)
    source = with_groups(with_weights(source, sample_weight), group, group_pattern)
    similar = [" and ".join(repr(name) for name in group) for group in similar_names(source.classes)]
    if not similar:
        return source
    note = (
        f"classes that differ only in case, blanks, separators or leading zeros count as different: "
        f"{few(similar, quote=False)}; if they mean one, rename them alike"
    )
    return replace(source, notes=(*source.notes, note))


def _open(given: str, asked: AskedColumns, multi_label: bool) -> Source:
    if not given.strip():
        raise DataError(
            f"DATA {given!r} is empty: an empty path would be the working folder; write . to mean it.\n{FORMS}"
        )
    if given == "digits":
        _refuse_several(given, "digits", multi_label)
        source = table_sources.digits()
        if Path("digits").exists():
            note = "these are the built-in digits; for the file or folder of that name, write ./digits"
            source = replace(source, notes=(*source.notes, note))
        return source
    path = Path(given).expanduser()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as e:
        raise DataError(f"DATA {display(given)!r} is no possible path: {e}\n{FORMS}") from e
    if not exists:
        raise DataError(f"DATA {display(given)!r} does not exist (looked in {display(Path.cwd())}).\n{FORMS}")
    if is_folder:
        try:
            if idx_files.holds_idx(path):
                _refuse_several(given, "idx", multi_label)
                return idx_files.open_idx(given, path)
            if holds_shards(path, webdataset_source.ENDING):
                return webdataset_source.open_webdataset(given, path, asked, multi_label)
            if arrow_source.holds_saved_dataset(path):
                return arrow_source.open_saved_dataset(given, path, asked, multi_label)
            if holds_shards(path, arrow_source.PARQUET):
                return arrow_source.open_parquet(given, path, asked, multi_label)
            if (table := metadata_table.find_table(given, path)) is not None:
                return table_sources.open_table(table, asked, multi_label)
            return class_folders.open_folder(given, path, multi_label)
        except PermissionError as e:
            raise DataError(f"DATA {display(given)!r}: no permission to read {display(str(e.filename))}") from e
    if path.suffix.lower() in (".csv", ".tsv"):
        return table_sources.open_csv(given, path, asked, multi_label)
    if path.suffix.lower() == ".npz":
        return npz_source.open_npz(given, path, asked, multi_label)
    if path.suffix.lower() == arrow_source.PARQUET:
        return arrow_source.open_parquet(given, path, asked, multi_label)
    if path.suffix.lower() == ".tar":
        return webdataset_source.open_webdataset(given, path, asked, multi_label)
    raise DataError(
        f"DATA {display(given)!r} is a file that is none of .csv, .npz, .parquet and .tar.{_hint(path)}\n{FORMS}"
    )


def _named_arrays(data: Any) -> Mapping[str, Any]:
    """(images, labels), or a dictionary of such pairs by split, as a dictionary of arrays."""
    if isinstance(data, tuple):
        return {"images": data[0], "labels": data[1]}
    if not all(isinstance(part, tuple) for part in data.values()):
        return {str(name): value for name, value in data.items()}
    return {
        f"{split}_{name}" if split else name: array
        for split, part in splits_of(data).items()
        for name, array in zip(("images", "labels"), part, strict=True)
    }


def _refuse_several(given: str, kind: str, multi_label: bool) -> None:
    if multi_label:
        raise DataError(
            f"Several labels per image are asked for (--multi-label, or a model that answers several), and DATA "
            f"{display(given)!r} ({kind}) has one for each by its form: give a CSV, an .npz, or class folders "
            "with links."
        )


def _hint(path: Path) -> str:
    name = path.name.lower()
    if "idx" in name and "ubyte" in name:
        return f" It is one of a set of idx files: give their folder, {display(path.parent)!r}."
    if name.endswith((".zip", ".gz", ".tgz", ".7z", ".rar")):
        return " Unpack the archive first and give the folder."
    if name.endswith((".pkl", ".pickle", ".h5", ".mat")):
        return " Save it as .npz: np.savez('data.npz', images=images, labels=labels)."
    if name.endswith(".npy"):
        return (
            " Of all images, save it as .npz: np.savez('data.npz', images=images, labels=labels). One image is not "
            "enough: give the folder that holds one sub-folder per class."
        )
    if name.endswith((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp")):
        return " One image is not enough: give the folder that holds one sub-folder per class."
    return ""


def check_outside_data(out: Path, data: object) -> None:
    """Raises ValueError if results in the folder `out` would become images, or classes, of DATA."""
    if not isinstance(data, str | os.PathLike):
        return
    folder = Path(data).expanduser()
    if data != "digits" and folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"--out {display(out)} lies inside DATA {display(folder)}: its files would become part of the data; choose "
            f"another."
        )
