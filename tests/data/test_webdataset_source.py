"""Shards of a WebDataset: read where they lie, split by their names."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data.decoded_store import build
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.sources import DataError
from gapstone.images.preprocessing import Preprocessing

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 8, 9, 3), np.uint8)


def png(k: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGES[k]).save(file, "png")
    return file.getvalue()


def shard(path: Path, members: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            content = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(*numbers: int) -> dict[str, bytes | str]:
    return {
        name: data
        for k in numbers
        for name, data in ((f"a/{k:04}.png", png(k)), (f"a/{k:04}.cls", str(k % 2)), (f"a/{k:04}.txt", "a caption"))
    }


def test_a_shard(tmp_path: Path) -> None:
    s = open_source(shard(tmp_path / "d.tar", samples(0, 1, 2)))
    assert (s.kind, s.classes, s.labels.tolist()) == ("webdataset", ("0", "1"), [0, 1, 0])
    assert [item.name for item in s.items] == [f"d.tar/a/{k:04}.png" for k in range(3)]
    assert all(np.array_equal(s.pixels(k), IMAGES[k]) for k in range(3))


def test_shards_are_as_the_files_in_them(tmp_path: Path) -> None:
    """The scan and the store see the same bytes; what cannot be decoded is listed."""
    for k in range(4):
        (tmp_path / "files" / str(k % 2)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / str(k % 2) / f"{k}.png").write_bytes(png(k))
    shard(tmp_path / "shards/000.tar", samples(0, 2))
    shard(tmp_path / "shards/001.tar", samples(1, 3) | {"a/0009.png": "no image", "a/0009.cls": "1"})
    s, files = open_source(tmp_path / "shards"), open_source(tmp_path / "files")
    found, of_files = scan(s, cache=None, workers=1), scan(files, cache=None, workers=1)
    assert found.facts[:4] == of_files.facts
    assert [name for name, _ in found.unreadable] == ["001.tar/a/0009.png"]
    stored = Preprocessing(3, (8, 8), (8, 8), (0.5,) * 3, (0.25,) * 3)
    stores = [
        build(a, range(4), stored, tmp_path / f"s{k}", 1, scan=b)
        for k, (a, b) in enumerate([(s, found), (files, of_files)])
    ]
    assert np.array_equal(stores[0].images, stores[1].images)


@pytest.mark.parametrize("name", ["{}-000000.tar", "{}/000000.tar", "flowers-{}-{{0..1}}.tar"])
def test_splits_of_shards(tmp_path: Path, name: str) -> None:
    shard(tmp_path / name.format("train"), samples(0, 1, 2))
    shard(tmp_path / name.format("test"), samples(3, 4))
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    s = open_source(tmp_path)
    assert (s.splits, s.classes) == (("train", "test"), ("cat", "dog"))
    assert [item.split for item in s.items] == ["test"] * 2 + ["train"] * 3


def test_labels_and_groups_in_json(tmp_path: Path) -> None:
    fields = [{"class": "cat", "patient": 0}, {"class": "dog", "patient": 0}, {"class": "cat", "patient": 8}]
    members = {
        f"{k}.{end}": data for k, one in enumerate(fields) for end, data in (("png", png(k)), ("json", json.dumps(one)))
    }
    s = open_source(shard(tmp_path / "d.tar", members | {"9.png": png(4)}), group="patient")
    assert (s.classes, s.notes) == (("cat", "dog"), ("1 image without a label (.cls or .json) left out",))
    assert s.grouping is not None
    assert s.grouping.names == ("0", "0", "8")


@pytest.mark.parametrize("label", [[["cat"]], [["cat"], "dog"], {"id": 3}, [{"id": 3}]])
def test_labels_of_another_form_in_json(tmp_path: Path, label: object) -> None:
    members = {"1.png": png(1), "1.json": '{"label": "cat"}', "2.png": png(2), "2.json": json.dumps({"label": label})}
    with pytest.raises(DataError, match=r"the label of d\.tar/2 is .*; expected a number, a text, or a list of these"):
        open_source(shard(tmp_path / "d.tar", members))


@pytest.mark.parametrize("labels", [[["cat"], ["cat", "dog"], []], ["cat", "cat|dog", ""], [[1, 0], [1, 1], [0, 0]]])
def test_several_labels_in_json(tmp_path: Path, labels: list[object]) -> None:
    members = {
        f"{k}.{end}": data
        for k, one in enumerate(labels)
        for end, data in (("json", json.dumps({"label": one})), ("png", png(k)))
    }
    s = open_source(shard(tmp_path / "d.tar", members))
    assert s.multi_label
    assert s.labels.tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"cat/1.png": png(0), "dog/2.png": png(1)}, "has to be unpacked"),
        ({}, "it has nothing"),
        ({"1.png": png(0), "1.json": "{"}, r"d.tar/1.json.* is no JSON"),
        ({"1.left.png": png(0), "1.right.png": png(1), "1.cls": "0"}, "has 2 images, 'left.png', 'right.png'"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path: Path, members: dict[str, bytes | str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(shard(tmp_path / "d.tar", members))


def test_damaged_and_packed_shards(tmp_path: Path) -> None:
    path = shard(tmp_path / "d.tar", samples(0, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + 40])
    with pytest.raises(DataError, match="cannot be read as"):
        open_source(path)
    path.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(DataError, match="It is packed"):
        open_source(path)
    shard(tmp_path / "train-0.tar", samples(0))
    shard(tmp_path / "test-0.tar", samples(1))
    with pytest.raises(DataError, match="but not those of"):
        open_source(tmp_path)


def test_class_folders_with_an_archive_beside_them_are_class_folders(tmp_path: Path) -> None:
    for k in range(2):
        (tmp_path / "cd"[k]).mkdir()
        (tmp_path / "cd"[k] / "1.png").write_bytes(png(k))
    shard(tmp_path / "backup.tar", samples(0))
    assert open_source(tmp_path).kind == "folder"


def test_an_image_that_changed_since_the_scan(tmp_path: Path) -> None:
    path = shard(tmp_path / "d.tar", samples(0, 1))
    s = open_source(path)
    place = s.file(1)
    assert isinstance(place, tuple)
    with path.open("r+b") as file:
        file.truncate(place[1] + 3)
    with pytest.raises(ValueError, match="no longer the file"):
        s.pixels(1)
