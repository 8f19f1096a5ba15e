"""Opens sources that are shards of a WebDataset: .tar files with KEY.jpg beside KEY.cls or KEY.json.

Images are read where they lie, nothing is unpacked. Of the shards' names (train-000000.tar, or train/000000.tar) each
one's split is known.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gapstone.console.formatting import count_noun, display
from gapstone.data.array_source import label_arrays
from gapstone.data.file_names import composed
from gapstone.data.groups import NOTHING_ASKED, AskedColumns, kept_columns
from gapstone.data.label_forms import SEPARATOR, FoundLabels, cell_labels
from gapstone.data.shard_files import place_of, shard_files, shard_splits
from gapstone.data.sources import DataError, Item, Source, SplitName, few, unique
from gapstone.data.table_columns import OTHER_WORDS
from gapstone.images.load import Encoded
from gapstone.storage.paths import open_input

_IMAGES = frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "avif", "jp2", "heic"])
ENDING = ".tar"
_NAMES = "classnames.txt"
"""A file beside the shards, with a line for the name of each class."""
_LABELS = ("label", "cls", *OTHER_WORDS["label"][0], *OTHER_WORDS["label"][1])
_LARGEST_TEXT = 1 << 20
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How files begin that gzip, bzip2, xz and zstd wrote: in those, an image has no place of its own."""


@dataclass
class _Sample:
    """The files of one key."""

    name: str
    split: SplitName | None
    images: dict[str, Encoded] = field(default_factory=dict)
    """By the end of its name: "jpg"."""
    cls: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What its .json says."""

    @property
    def label(self) -> Any:
        """Its label, as text or as the .json has it; None if nothing says it."""
        if self.cls is not None:
            return self.cls
        return next((self.fields[name] for name in _LABELS if self.fields.get(name) is not None), None)


def open_webdataset(given: str, path: Path, asked: AskedColumns = NOTHING_ASKED, multi_label: bool = False) -> Source:
    """Open one shard or a folder of shards.

    `Source.columns` has the fields of the .json files that are `asked` for, and those that look like groups.
    """
    what = f"DATA {display(given)!r}"
    shards = shard_files(path, ENDING)
    splits = shard_splits(what, shards)
    samples = [sample for shard in shards for sample in _samples(what, path, shard, splits[shard])]
    labelled = [sample for sample in samples if sample.images and sample.label is not None]
    if not labelled:
        raise DataError(
            f"{what} has no image with a label beside it: expected KEY.jpg with KEY.cls (a number or a name), or with "
            f"KEY.json that has one of the fields {', '.join(_LABELS[:4])}, …; it has {_shown(samples)}. A packed "
            "folder of class folders has to be unpacked."
        )
    pictures = [_picture(what, sample) for sample in labelled]
    found, notes = _labels(what, path, labelled, multi_label)
    classes, sets, label_notes = found.numbered()
    names = unique([f"{sample.name}.{ending}" for sample, (ending, _) in zip(labelled, pictures, strict=True)])
    items = [
        Item(name, labels, sample.split, None, row)
        for row, (name, labels, sample) in enumerate(zip(names, sets, labelled, strict=True))
    ]
    if unlabelled := sum(bool(sample.images) for sample in samples) - len(labelled):
        notes.append(f"{count_noun(unlabelled, 'image')} without a label (.cls or .json) left out")
    return Source(
        given,
        "webdataset",
        classes,
        items,
        (*notes, *label_notes),
        encoded=[place for _, place in pictures],
        columns=_columns(given, labelled, asked),
        multi_label=found.why is not None,
        hints=(*found.told(), *found.hints),
    )


def _samples(what: str, path: Path, shard: Path, split: SplitName | None) -> Iterator[_Sample]:
    """The samples of a shard: neighbouring files whose names are the same up to the first dot."""
    place = place_of(path, shard)
    sample: _Sample | None = None
    try:
        with open_input(f"{what}: {display(place)}", shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            end = os.fstat(file.fileno()).st_size
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                key, dot, ending = base.partition(".")
                if not member.isreg() or member.sparse is not None or not key or not dot:
                    continue
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError("its end is missing")
                name = f"{place}/{folder}{'/' if folder else ''}{key}"
                if sample is None or sample.name != name:
                    if sample is not None:
                        yield sample
                    sample = _Sample(name, split)
                _add(what, archive, member, sample, ending, str(shard))
    except (tarfile.TarError, EOFError) as error:
        with open_input(display(place), shard) as file:
            packed = " It is packed: unpack it first (gunzip)." if file.read(6).startswith(_PACKED) else ""
        raise DataError(f"{what}: {display(place)} cannot be read as .tar ({display(str(error))}).{packed}") from error
    if sample is not None:
        yield sample


def _add(
    what: str, archive: tarfile.TarFile, member: tarfile.TarInfo, sample: _Sample, ending: str, shard: str
) -> None:
    kind = ending.lower().rpartition(".")[2]
    if kind in _IMAGES:
        sample.images[ending] = (shard, member.offset_data, member.size)
    elif ending.lower() in ("cls", "json"):
        file = archive.extractfile(member)
        assert file is not None
        text = file.read(_LARGEST_TEXT).decode("utf-8", "replace").strip()
        if ending.lower() == "cls":
            sample.cls = text
            return
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{what}: {display(f'{sample.name}.json')} is no JSON ({error}).") from error
        sample.fields = fields if isinstance(fields, dict) else {"label": fields}


def _picture(what: str, sample: _Sample) -> tuple[str, Encoded]:
    """(the end of its name, where it is)."""
    if len(sample.images) > 1:
        raise DataError(
            f"{what}: {display(sample.name)} has {len(sample.images)} images, {few(list(sample.images))}; expected one "
            "for each label."
        )
    return next(iter(sample.images.items()))


def _labels(what: str, path: Path, samples: Sequence[_Sample], multi_label: bool) -> tuple[FoundLabels, list[str]]:
    values = [sample.label for sample in samples]
    for sample, value in zip(samples, values, strict=True):
        if any(isinstance(each, list | dict) for each in (value if isinstance(value, list) else [value])):
            raise DataError(
                f"{what}: the label of {display(sample.name)} is {display(json.dumps(value), 60)}; expected a number, "
                "a text, or a list of these."
            )
    sizes = {len(value) if isinstance(value, list) else 0 for value in values}
    if sizes != {0} and len(sizes) == 1 and all(set(value) <= {0, 1} for value in values):
        return label_arrays(what, len(values), np.asarray(values), None, multi_label), []
    texts = [SEPARATOR.join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
    names, notes = _class_names(path), []
    if names and all(text.isdecimal() and int(text) < len(names) for text in texts):
        texts = [names[int(text)] for text in texts]
        notes.append(f"the names of the classes are those in {_NAMES}")
    place = "image {}"
    return cell_labels(what, list(enumerate(texts)), multi_label, place), notes


def _class_names(path: Path) -> list[str]:
    """The names in a file beside the shards, or beside their folder; none if there is no such file."""
    folder = path if path.is_dir() else path.parent
    for file in (folder / _NAMES, folder.parent / _NAMES):
        if file.is_file() and file.stat().st_size < _LARGEST_TEXT:
            return [line.strip() for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
    return []


def _columns(given: str, samples: Sequence[_Sample], asked: AskedColumns) -> dict[str, list[str]]:
    fields = list(dict.fromkeys(str(name) for sample in samples for name in sample.fields))
    kept = kept_columns(display(given), [name.lower() for name in fields], asked)
    return {
        name.lower(): [_cell(sample.fields.get(name)) for sample in samples] for name in fields if name.lower() in kept
    }


def _cell(value: object) -> str:
    return "" if value is None else composed(str(value).strip())


def _shown(samples: Sequence[_Sample]) -> str:
    return few([f"{display(sample.name)}.{'/'.join(sample.images) or '…'}" for sample in samples], 3) or "nothing"
