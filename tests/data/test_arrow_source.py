"""Parquet files, folders of save_to_disk and Datasets of Hugging Face: as the files whose bytes they hold."""

import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'gapstone[datasets]'")
pq = pytest.importorskip("pyarrow.parquet")

from gapstone.data.decoded_store import build  # noqa: E402
from gapstone.data.open_source import open_source  # noqa: E402
from gapstone.data.scan import scan  # noqa: E402
from gapstone.data.sources import DataError, Source  # noqa: E402
from gapstone.images.preprocessing import Preprocessing  # noqa: E402

HAS_DATASETS = importlib.util.find_spec("datasets") is not None
needs_datasets = pytest.mark.skipif(not HAS_DATASETS, reason="needs Hugging Face's datasets: pip install datasets")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), np.uint8)
CLASS_LABEL = {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"}


def png(k: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[k]).save(file, "png")
    return file.getvalue()


def images(numbers: Sequence[int] = range(6)) -> Any:
    return pa.array([{"bytes": png(k), "path": f"{k}.png"} for k in numbers])


def table(features: dict[str, Any] | None = None, **columns: Any) -> Any:
    """A table as `datasets` writes it, with its notes on the columns."""
    arrow = pa.table(
        {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    )
    if features is None:
        return arrow
    return arrow.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def labelled(numbers: Sequence[int] = range(6), **more: Any) -> Any:
    return table(
        {"image": {"_type": "Image"}, "label": CLASS_LABEL},
        image=images(numbers),
        label=[k % 2 for k in numbers],
        **more,
    )


def parquet(path: Path, arrow: Any, rows: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow, path, row_group_size=rows)
    return path


def saved(folder: Path, arrow: Any, rows: int = 4) -> Path:
    """As save_to_disk writes it."""
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, arrow.schema) as out,
    ):
        out.write_table(arrow, max_chunksize=rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return folder


WRITERS = pytest.mark.parametrize(
    "write", [lambda at, t: parquet(at / "d.parquet", t), lambda at, t: saved(at / "d", t)], ids=["parquet", "saved"]
)
Write = Callable[[Path, Any], Path]


def same_bytes(source: Source, order: Sequence[int] = range(6)) -> bool:
    return [source.file(k) for k in range(len(source))] == [png(k) for k in order]


@WRITERS
def test_the_same_as_the_files(tmp_path: Path, write: Write) -> None:
    s = open_source(write(tmp_path, labelled()))
    assert (s.classes, s.labels.tolist(), s.splits, s.notes) == (("cat", "dog"), [0, 1] * 3, (), ())
    assert [item.name.rpartition("/")[2] for item in s.items] == [f"{k}.png" for k in range(6)]
    assert same_bytes(s)
    assert all(np.array_equal(s.pixels(k), PIXELS[k]) for k in (5, 0, 3))


def test_scan_and_store_see_the_same_as_of_files(tmp_path: Path) -> None:
    """What cannot be decoded is listed."""
    cells = [{"bytes": data, "path": f"{k}.png"} for k, data in enumerate([*map(png, range(4)), b"no image", None])]
    features = {"image": {"_type": "Image"}, "label": CLASS_LABEL}
    s = open_source(parquet(tmp_path / "d.parquet", table(features, image=pa.array(cells), label=[0, 0, 1, 1, 0, 1])))
    for k in range(4):
        (tmp_path / "files" / f"{k // 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / f"{k // 2}" / f"{k}.png").write_bytes(png(k))
    files = open_source(tmp_path / "files")
    found, of_files = (scan(each, cache=None, workers=1) for each in (s, files))
    assert found.facts[:4] == of_files.facts
    assert [name for name, _ in found.unreadable] == ["d.parquet/4.png", "d.parquet/5.png"]
    stored = Preprocessing(3, (8, 8), (8, 8), (0.5,) * 3, (0.25,) * 3)
    stores = [
        build(each, range(4), stored, tmp_path / f"s{k}", 1, scan=of)
        for k, (each, of) in enumerate([(s, found), (files, of_files)])
    ]
    assert np.array_equal(stores[0].images, stores[1].images)


@WRITERS
def test_groups(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, labelled(patient=["a", "a", "b", "b", None, "c"]))
    s = open_source(path, group="patient")
    assert s.grouping is not None
    assert s.grouping.names == ("a", "a", "b", "b", None, "c")
    with pytest.raises(
        DataError, match=r"no column 'person'; it has label, patient|no column 'person'; it has patient"
    ):
        open_source(path, group="person")


@pytest.mark.parametrize("name", ["data/{}-00000-of-00001.parquet", "{}/0000.parquet"])
def test_splits_by_the_names_of_parquet_files(tmp_path: Path, name: str) -> None:
    for split, numbers in (("train", range(4)), ("validation", [4]), ("test", [5])):
        parquet(tmp_path / name.format(split), labelled(numbers))
    (tmp_path / "README.md").write_text("about")
    s = open_source(tmp_path)
    assert (s.kind, s.splits) == ("parquet", ("train", "val", "test"))
    assert [item.split for item in s.items if item.name.endswith("4.png")] == ["val"]
    assert {item.name.rpartition("/")[2] for item in s.items} == {f"{k}.png" for k in range(6)}


def test_splits_of_a_saved_dictionary(tmp_path: Path) -> None:
    for split, numbers in (("train", range(4)), ("test", [4, 5])):
        saved(tmp_path / "d" / split, labelled(numbers))
    (tmp_path / "d/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    s = open_source(tmp_path / "d")
    assert [item.split for item in s.items] == ["train"] * 4 + ["test"] * 2
    assert np.array_equal(s.pixels(5), PIXELS[5])


def test_a_column_split(tmp_path: Path) -> None:
    s = open_source(parquet(tmp_path / "d.parquet", labelled(split=["train"] * 4 + ["valid"] * 2)))
    assert s.splits == ("train", "val")


@WRITERS
def test_several_labels_in_lists(tmp_path: Path, write: Write) -> None:
    several = {"feature": CLASS_LABEL, "_type": "List"}
    labels = [[0, 1], [], [1], [0], [2, 0], [1]]
    s = open_source(write(tmp_path, table({"image": {"_type": "Image"}, "tags": several}, image=images(), tags=labels)))
    assert s.multi_label
    assert (s.classes, [item.labels for item in s.items]) == (
        ("cat", "dog", "fox"),
        [(0, 1), (), (1,), (0,), (0, 2), (1,)],
    )
    assert "lists in the column 'tags'" in s.hints[0]


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        ([CLASS_LABEL], [[0, 1], [], [1], [0], [0], [1]]),  # as datasets wrote lists before version 4
        ({"feature": CLASS_LABEL, "_type": "Sequence"}, [[0, 1], [], [1], [0], [0], [1]]),
        (None, [["cat", "dog"], [], ["dog"], ["cat"], ["cat"], ["dog"]]),
        (None, ["cat|dog", "", "dog", "cat", "cat", "dog"]),
        (None, [[1, 1], [0, 0], [0, 1], [1, 0], [1, 0], [0, 1]]),
    ],
)
def test_several_labels_in_other_forms(tmp_path: Path, feature: Any, labels: list[Any]) -> None:
    features = None if feature is None else {"image": {"_type": "Image"}, "label": feature}
    s = open_source(parquet(tmp_path / "d.parquet", table(features, image=images(), label=labels)))
    assert s.multi_label
    assert [item.labels for item in s.items] == [(0, 1), (), (1,), (0,), (0,), (1,)]


def test_parquet_that_datasets_did_not_write(tmp_path: Path) -> None:
    """Bytes alone, and labels as text or numbers, under the usual other names."""
    arrow = table(img=pa.array([png(k) for k in range(6)]), species=["b", "a"] * 3, width=[9] * 6)
    s = open_source(parquet(tmp_path / "d.parquet", arrow))
    assert (s.classes, s.labels.tolist()) == (("a", "b"), [1, 0] * 3)
    assert s.notes == ("columns read: 'img' as image, 'species' as label",)
    assert s.items[2].name == "d.parquet #2"
    numbers = open_source(parquet(tmp_path / "n.parquet", table(image=images(), label=[10, 9] * 3)))
    assert numbers.classes == ("9", "10")


def test_classes_numbered_differently_are_matched_by_name(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", labelled(range(4)))
    other = {"image": {"_type": "Image"}, "label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
    parquet(tmp_path / "test.parquet", table(other, image=images([4, 5]), label=[0, 1]))
    s = open_source(tmp_path)
    assert {item.name.rpartition("/")[2]: s.classes[item.labels[0]] for item in s.items if item.split == "test"} == {
        "4.png": "dog", "5.png": "cat",
    }  # fmt: skip


@WRITERS
def test_images_without_a_label_are_left_out(tmp_path: Path, write: Write) -> None:
    features = {"image": {"_type": "Image"}, "label": CLASS_LABEL}
    s = open_source(write(tmp_path, table(features, image=images(), label=[-1, 1, 0, None, 0, 1])))
    assert s.notes == ("2 images without a label left out",)
    assert same_bytes(s, [1, 2, 4, 5])


def test_images_that_are_files(tmp_path: Path) -> None:
    """A table may hold paths instead of bytes; they are relative to it."""
    for k in range(6):
        (tmp_path / f"{k}.png").write_bytes(png(k))
    paths = pa.array([{"bytes": None, "path": f"{k}.png"} for k in range(6)], images().type)
    s = open_source(parquet(tmp_path / "d.parquet", table(image=paths, label=["a", "b"] * 3)))
    assert all(np.array_equal(s.pixels(k), PIXELS[k]) for k in range(6))


def two_labels(kind: str) -> Any:
    columns = {"image": images(), f"fine_{kind}": [0, 1] * 3, f"coarse_{kind}": [0] * 6}
    return table({f"fine_{kind}": CLASS_LABEL, f"coarse_{kind}": CLASS_LABEL}, **columns)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: two_labels("label"), "is 'fine_label' or 'coarse_label' the label. Keep one of them"),
        (lambda: table(image=images(), label=[[0], [1]] * 3), "lists, each with one label"),
        (lambda: table(image=images()), "no column of labels .*; it has image"),
        (lambda: table(label=["a", "b"]), "no column of images .*; it has label"),
        (lambda: table(a=images(), b=images(), label=["a", "b"] * 3), "is 'a' or 'b' the image"),
        (lambda: labelled([]), "has no rows"),
        (lambda: table({"label": CLASS_LABEL}, image=images(), label=[0, 1, 2, 3, 0, 1]), "has 3, of 3 classes"),
    ],
)
@WRITERS
def test_tables_that_cannot_be_used(tmp_path: Path, write: Write, make: Callable[[], Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(write(tmp_path, make()))


def test_damaged_files(tmp_path: Path) -> None:
    path = parquet(tmp_path / "d.parquet", labelled())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"d.parquet cannot be read: "):
        open_source(path)
    folder = saved(tmp_path / "d", labelled())
    (folder / "data-00000-of-00001.arrow").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"data-00000-of-00001.arrow cannot be read"):
        open_source(folder)
    for state in ("[]", '{"_data_files": 3}', '{"_data_files": [3]}', '{"_data_files": [{"filename": "../a.arrow"}]}',
                  '{"_data_files": [{"filename": 3}]}'):  # fmt: skip
        (folder / "state.json").write_text(state)
        with pytest.raises(DataError, match=r"state\.json is none that save_to_disk writes"):
            open_source(folder)


def test_a_part_with_other_columns(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", labelled(range(4)))
    parquet(tmp_path / "test.parquet", table(image=images([4, 5])))
    with pytest.raises(DataError, match=r"train.parquet has other columns than test.parquet|no column of labels"):
        open_source(tmp_path)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "d.parquet", labelled())
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(DataError, match=r"needs pyarrow to be read: pip install 'gapstone\[datasets\]'"):
        open_source(path)


def test_only_blocks_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and names are read without a single image; then one group of rows at a time."""
    path, read = parquet(tmp_path / "d.parquet", labelled(), rows=2), []
    whole, group = pq.ParquetFile.read, pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda f, columns, **k: read.append(columns) or whole(f, columns=columns, **k)
    )
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda f, i, **k: read.append(i) or group(f, i, **k))
    s = open_source(path)
    assert sorted(read) == [["image.path"], ["label"]]
    for k in range(6):
        s.file(k)
    assert read[2:] == [0, 1, 2]


# --- Datasets in memory


def dataset(numbers: Sequence[int] = range(6), **more: Any) -> Any:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
        | {name: datasets.Value("string") for name in more}
    )
    columns = {"image": [{"bytes": png(k), "path": f"{k}.png"} for k in numbers], "label": [k % 2 for k in numbers]}
    return datasets.Dataset.from_dict(columns | more, features=features)


@needs_datasets
def test_a_dataset() -> None:
    s = open_source(dataset())
    assert (s.kind, s.given, s.classes) == ("arrow", "a Hugging Face Dataset of 6 images", ("cat", "dog"))
    assert same_bytes(s)


@needs_datasets
def test_rows_that_were_selected() -> None:
    s = open_source(dataset().select([5, 0, 2, 3]))
    assert s.labels.tolist() == [1, 0, 0, 1]
    assert same_bytes(s, [5, 0, 2, 3])


@needs_datasets
def test_a_dictionary_of_datasets_with_groups() -> None:
    import datasets

    parts = datasets.DatasetDict(
        train=dataset(range(4), patient=list("aabb")), test=dataset([4, 5], patient=list("cd"))
    )
    s = open_source(parts, group="patient")
    assert [item.split for item in s.items] == ["train"] * 4 + ["test"] * 2
    assert s.items[4].name == "test/4.png"
    assert s.grouping is not None
    assert s.grouping.names == tuple("aabbcd")


@needs_datasets
def test_a_transform_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dataset().with_transform(lambda batch: pytest.fail("the transform was called"))
    s = open_source(changed)
    assert "the transform of the Dataset is not used" in s.notes[0]
    assert np.array_equal(s.pixels(1), PIXELS[1])


@needs_datasets
def test_what_datasets_itself_writes(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    dataset().select([1, 0, 4]).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=dataset(range(4)), test=dataset([4, 5])).save_to_disk(tmp_path / "two")
    dataset().to_parquet(tmp_path / "d.parquet")
    one, two, file = (open_source(tmp_path / name) for name in ("one", "two", "d.parquet"))
    assert [one.pixels(k).tolist() for k in range(3)] == [PIXELS[k].tolist() for k in (1, 0, 4)]
    assert two.splits == ("train", "test")
    assert all(np.array_equal(each.pixels(k), PIXELS[k]) for each in (two, file) for k in range(6))
