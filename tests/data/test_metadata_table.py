"""Folders of images with metadata.csv or metadata.jsonl, as Hugging Face's imagefolder has them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data.open_source import open_source
from gapstone.data.sources import DataError


def pictures(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), k, np.uint8)).save(folder / name)


def write(file: Path, rows: list[Mapping[str, object]]) -> None:
    """As .csv or as .jsonl."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


ENDINGS = pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])


@ENDINGS
def test_one_file_for_all(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "1.png", "in/2.png", "3.png")
    rows = [("1.png", "cat", 7), ("in/2.png", "dog", 7), ("3.png", "cat", 8)]
    write(tmp_path / name, [{"file_name": f, "label": label, "patient": p} for f, label, p in rows])
    s = open_source(tmp_path, group="patient")
    assert (s.kind, s.classes, s.labels.tolist()) == ("metadata", ("cat", "dog"), [0, 1, 0])
    assert [item.name for item in s.items] == ["1.png", "in/2.png", "3.png"]
    assert s.pixels(1)[0, 0, 0] == 1
    assert s.grouping is not None
    assert s.grouping.names == ("7", "7", "8")


@ENDINGS
def test_one_file_in_each_split(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "train/1.png", "train/2.png", "validation/1.png")
    write(tmp_path / "train" / name, [{"file_name": f"{k}.png", "species": "ab"[k - 1]} for k in (1, 2)])
    write(tmp_path / "validation" / name, [{"species": "a", "file_name": "1.png"}])  # columns in another order
    s = open_source(tmp_path)
    assert [(item.name, item.split, item.labels) for item in s.items] == [
        ("train/1.png", "train", (0,)), ("train/2.png", "train", (1,)), ("validation/1.png", "val", (0,)),
    ]  # fmt: skip
    assert s.pixels(2)[0, 0, 0] == 2


def test_lists_of_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "1.png", "2.png", "3.png")
    labels: list[list[str]] = [["cat", "dog"], [], ["dog"]]
    write(tmp_path / "metadata.jsonl", [{"file_name": f"{k + 1}.png", "label": of} for k, of in enumerate(labels)])
    s = open_source(tmp_path)
    assert s.multi_label
    assert [item.labels for item in s.items] == [(0, 1), (), (1,)]


@ENDINGS
def test_class_folders_say_the_labels_where_the_metadata_does_not(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "cat/1.png", "dog/2.png")
    write(tmp_path / name, [{"file_name": "cat/1.png", "caption": "a cat"}, {"file_name": "dog/2.png", "caption": "b"}])
    assert open_source(tmp_path).kind == "folder"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metadata.jsonl", '{"file_name": "1.png", "label": "a"}\n{"file_name"', r"metadata.jsonl, line 2 is no JSON"),
        ("metadata.jsonl", "[1]\n", "line 1 is no object"),
        (
            "metadata.jsonl",
            '{"image": "1.png", "label": "a"}\n',
            "metadata.jsonl has no column file_name; it has image",
        ),
        ("metadata.csv", "path,label\n1.png,a\n", "metadata.csv has no column file_name; it has path, label"),
        ("metadata.csv", "file_name,caption\n1.png,a\n", "its first line must name the columns"),
        ("metadata.jsonl", "", "has no column file_name; it has none"),
        ("metadata.jsonl", '{"file_name": "1.png", "label": ["a|b"]}', r"line 1: a list holds 'a\|b'"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path: Path, name: str, text: str, says: str) -> None:
    pictures(tmp_path, "1.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        open_source(tmp_path)


def test_only_some_splits_have_metadata(tmp_path: Path) -> None:
    pictures(tmp_path, "train/1.png", "test/1.png")
    write(tmp_path / "train/metadata.csv", [{"file_name": "1.png", "label": "a"}])
    with pytest.raises(DataError, match=r"train has a metadata file, test has none"):
        open_source(tmp_path)
