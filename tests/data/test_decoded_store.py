"""Preprocessing and the store of decoded images."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from gapstone.data import decoded_store as store_module
from gapstone.data.choose_size import choose_size
from gapstone.data.decoded_store import Store, StoreError, build, moments
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import Preprocessing
from tests.marks import slow_but

Make = Callable[..., Path]


def plain(channels: int = 3, size: tuple[int, int] = (24, 32), stored: tuple[int, int] | None = None) -> Preprocessing:
    return Preprocessing(channels, size, stored or size, (0.5,) * channels, (0.25,) * channels)


def test_fit_crops_to_shape_and_never_squeezes() -> None:
    p = plain(size=(20, 20))
    tall = np.zeros((60, 20, 3), np.uint8)
    tall[20:40] = 255  # the middle third is what remains
    assert p.fit(tall).shape == (20, 20, 3)
    assert p.fit(tall).min() == 255
    same = np.arange(20 * 20 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 20, 3)
    assert p.fit(same) is same
    assert p.fit(np.zeros((2, 30_000, 1), np.uint8)).shape == (20, 20, 3)
    assert plain(1, (16, 16)).fit(np.full((1, 1, 3), 7, np.uint8)).tolist() == np.full((16, 16, 1), 7).tolist()


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((200, 200, 1), np.uint8)
    stripes[:, ::2] = 255
    small = plain(1, (20, 20)).fit(stripes)
    assert np.abs(small.astype(int) - 127).max() < 20  # nearest neighbour would give all black or all white


def test_centre_and_normalise() -> None:
    p = Preprocessing(3, (4, 4), (6, 8), (0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    batch = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
    seen = p.centre(batch)
    assert np.array_equal(seen, batch[:, 1:5, 2:6])
    out = p.normalise(torch.from_numpy(seen.copy()))
    assert out.shape == (5, 3, 4, 4)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    expected = (seen / 255 - np.array(p.mean)) / np.array(p.std)
    assert np.abs(out.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-5
    with pytest.raises(ValueError, match=r"expected torch.uint8 \(N, H, W, 3\)"):
        p.normalise(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="smaller than"):
        p.centre(batch[:, :3])


def test_json_there_and_back() -> None:
    p = Preprocessing(3, (4, 4), (6, 8), (0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    assert Preprocessing.from_json(json.loads(json.dumps(p.to_json()))) == p


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 17),
        ("channels", True),
        ("channels", "3"),
        ("size", [4]),
        ("size", [0, 4]),
        ("size", [4.0, 4]),
        ("size", [10**9, 10**9]),
        ("size", "44"),
        ("stored", [2, 8]),
        ("mean", [0.5]),
        ("mean", [float("nan")] * 3),
        ("mean", ["a", "b", "c"]),
        ("std", [0, 1, 1]),
        ("std", [float("inf")] * 3),
        ("std", None),
    ],
)
def test_json_from_anywhere_is_checked(field: str, value: object) -> None:
    fields: dict[str, Any] = {**plain(size=(4, 4), stored=(6, 8)).to_json(), field: value}
    with pytest.raises(ValueError, match=f"preprocessing: .*{field}"):
        Preprocessing.from_json(fields)


def test_json_with_other_fields_is_refused() -> None:
    for fields in (None, [], {}, {**plain().to_json(), "extra": 1}):
        with pytest.raises(ValueError, match="expected the fields"):
            Preprocessing.from_json(fields)


class Sizes(NamedTuple):
    """As much of a scan as `choose` looks at."""

    counts: dict[tuple[int, int], int]

    def size_counts(self) -> dict[tuple[int, int], int]:
        return self.counts


@pytest.mark.parametrize(
    ("counts", "given", "size", "stored"),
    [
        ({(8, 8): 9}, None, (16, 16), (16, 16)),
        ({(28, 28): 9}, None, (28, 28), (28, 28)),
        ({(40, 20): 9}, None, (20, 40), (20, 40)),
        ({(128, 128): 9}, None, (112, 112), (128, 128)),
        ({(640, 480): 5, (300, 400): 4}, None, (224, 224), (256, 256)),
        ({(30, 30): 5, (40, 30): 5}, None, (64, 64), (64, 64)),
        ({(640, 480): 5}, "96", (96, 96), (110, 110)),
        ({(640, 480): 5}, "96x128", (96, 128), (110, 146)),
        ({(640, 480): 5}, "32", (32, 32), (32, 32)),
    ],
)
def test_the_size_chosen(
    counts: dict[tuple[int, int], int], given: str | None, size: tuple[int, int], stored: tuple[int, int]
) -> None:
    assert choose_size(open_source("digits"), Sizes(counts), given) == (size, stored)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["", "7", "axb", "5000", "-3", "96x"])
def test_sizes_that_make_no_sense(size: str) -> None:
    with pytest.raises(ValueError, match="expected a number of pixels"):
        choose_size(open_source("digits"), Sizes({}), size)  # type: ignore[arg-type]


def test_a_store_is_what_was_fitted_in_the_order_asked(class_folder: Make, tmp_path: Path) -> None:
    source = open_source(class_folder({"a": 20, "b": 20}))
    chosen = [30, 2, 17]
    p = plain()
    progress: list[tuple[int, int]] = []
    s = build(source, chosen, p, tmp_path / "s", 2, lambda done, count: progress.append((done, count)))
    assert s.images.shape == (3, 24, 32, 3)
    assert type(s.images) is np.ndarray
    for row, i in enumerate(chosen):
        assert np.array_equal(s.images[row], p.fit(source.pixels(i)))
    assert (s.labels.tolist(), s.names[1]) == ([1, 0, 0], source.items[2].name)
    assert s.rows([17, 30]).tolist() == [2, 0]
    with pytest.raises(KeyError, match="item 5"):
        s.rows([17, 5])
    assert progress[-1] == (3, 3)
    again = pickle.loads(pickle.dumps(s))
    assert np.array_equal(again.images, s.images)
    assert len(pickle.dumps(s)) < 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "s"]


def test_rows_are_right_whoever_finishes_first(class_folder: Make, tmp_path: Path) -> None:
    root = class_folder({"a": 20, "b": 20})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), dtype=np.uint8)).save(
        root / "a" / "0.png"
    )
    source, p = open_source(root), plain()
    s = build(source, range(40), p, tmp_path / "s", workers=2)  # the first picture is done long after its neighbours
    for i in (0, 1, 20, 39):
        assert np.array_equal(s.images[i], p.fit(source.pixels(i)))


def test_a_store_is_reused_and_rebuilt_when_it_must(
    class_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folder({"a": 2, "b": 2})
    source = open_source(root)
    first = build(source, range(4), plain(), tmp_path / "s", scan=scan(source))
    written = (tmp_path / "s/images.npy").stat().st_mtime_ns
    with monkeypatch.context() as m:
        m.setattr(store_module, "_write", lambda *a: pytest.fail("decoded again"))
        assert build(source, range(4), plain(), tmp_path / "s", scan=scan(source)).key == first.key
    Image.new("RGB", (64, 48), "red").save(root / "a" / "0.png")
    changed = build(source, range(4), plain(), tmp_path / "s", scan=scan(source))
    assert changed.key != first.key
    assert (tmp_path / "s/images.npy").stat().st_mtime_ns > written
    assert changed.images[0, 0, 0].tolist() == [255, 0, 0]
    # the first one's pages are still its own
    assert first.images[0, 0, 0].tolist() != [255, 0, 0]
    assert build(source, range(4), plain(size=(12, 12)), tmp_path / "s").images.shape == (4, 12, 12, 3)


def test_nothing_half_done_is_left(class_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folder({"a": 2, "b": 2})
    source = open_source(root)
    (root / "b" / "1.png").write_bytes(b"changed since the scan")
    with pytest.raises(StoreError, match=r"b/1\.png: not an image.*Run the same command again"):
        build(source, range(4), plain(), tmp_path / "s")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10, 10, 10))
    with pytest.raises(StoreError, match=r"need 6\.9 kB in .* 10 bytes are free"):
        build(source, range(3), plain(), tmp_path / "s")
    monkeypatch.undo()
    with pytest.raises(StoreError, match="is not a store"):
        build(source, range(3), plain(), root)
    with pytest.raises(StoreError, match="no store"):
        Store.open(tmp_path / "s")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_picture_replaced_after_the_scan_is_not_stored_under_its_old_hash(class_folder: Make, tmp_path: Path) -> None:
    root = class_folder({"a": 2, "b": 2})
    source = open_source(root)
    found = scan(source)
    before = (root / "b" / "1.png").stat()
    Image.new("RGB", (64, 48), "red").save(root / "b" / "1.png")
    os.utime(root / "b" / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and archives do
    with pytest.raises(StoreError, match=r"b/1\.png: it is no longer the file that was looked at.*same command again"):
        build(source, range(4), plain(), tmp_path / "s", scan=found)
    assert not (tmp_path / "s").exists()
    with pytest.raises(ImageError, match="no longer the file"):
        source.pixels(3, sha256=found.facts[3].sha256)
    store = build(source, range(4), plain(), tmp_path / "s", scan=scan(source))
    assert store.images[3, 0, 0].tolist() == [255, 0, 0]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_moments_are_those_of_the_rows_given(tmp_path: Path) -> None:
    source = open_source("digits")
    s = build(source, range(300), plain(1, (8, 8)), tmp_path / "s")
    mean, std = moments(s, np.arange(100))
    expected = s.images[:100] / 255
    assert abs(mean[0] - expected.mean()) < 1e-9
    assert abs(std[0] - expected.std()) < 1e-9
    assert moments(s) != (mean, std)


@pytest.mark.parametrize("way", slow_but(["cut", "flip", "empty", "link", "gone"], "cut", "flip", "gone"))
@pytest.mark.parametrize("name", ["images.npy", "rows.npz", "store.json"])
def test_a_store_that_is_damaged_is_named_and_built_anew(
    class_folder: Make, tmp_path: Path, name: str, way: str
) -> None:
    source = open_source(class_folder({"a": 2, "b": 2}))
    folder = tmp_path / "s"
    first = build(source, range(4), plain(), folder)
    before = first.images.copy()
    path = folder / name
    content = bytearray(path.read_bytes())
    if way == "flip":
        content[-30] ^= 1
        path.write_bytes(bytes(content))
    elif way == "link":
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
    elif way == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if way == "empty" else bytes(content[:-1]))
    said: list[str] = []
    again = build(source, range(4), plain(), folder, log=said.append)
    assert np.array_equal(again.images, before)
    assert np.array_equal(again.labels, first.labels)
    assert len(said) == (not (way == "gone" and name == "store.json"))
    assert all(name in line and line.endswith("made anew.") for line in said)
    assert not path.is_symlink()
    assert not build(source, range(4), plain(), folder, log=said.append).images.flags.writeable
    assert len(said) <= 1


def test_a_file_of_another_store_does_not_fit(class_folder: Make, tmp_path: Path) -> None:
    source = open_source(class_folder({"a": 2, "b": 2}))
    for which, rows in (("s", [0, 1]), ("t", [2, 3])):
        build(source, rows, plain(), tmp_path / which)
    for name in ("images.npy", "rows.npz"):
        (tmp_path / "s" / name).write_bytes((tmp_path / "t" / name).read_bytes())
    said: list[str] = []
    assert build(source, [0, 1], plain(), tmp_path / "s", log=said.append).names == ("a/0.png", "a/1.png")
    assert len(said) == 1


def test_a_damaged_header_of_other_images_is_no_traceback(class_folder: Make, tmp_path: Path, some: Any) -> None:
    source = open_source(class_folder({"a": 1, "b": 1}))
    build(source, [0, 1], plain(), tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "whole")
    path = tmp_path / "s" / "images.npy"
    content = path.read_bytes()
    places = range(6, 100, 3)
    anew = some([6, 48, 96, *places], 3)
    for place in places:
        path.write_bytes(bytes([*content[:place], content[place] ^ 0x2F, *content[place + 1 :]]))
        with suppress(StoreError):  # as the process of a trial does; a header that says the same in other words is one
            assert Store.open(tmp_path / "s").images.shape == (2, 24, 32, 3)
        if place in anew:
            assert len(build(source, [0], plain(), tmp_path / "s").images) == 1
            shutil.copytree(tmp_path / "whole", tmp_path / "s", dirs_exist_ok=True)


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(
    class_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(class_folder({"a": 2, "b": 2}))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"decoded images: .*/s: the disk is full \(\d+.* needed, .* free\)"):
        build(source, range(4), plain(), tmp_path / "s")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_known_fact_that_is_damaged_is_not_believed(class_folder: Make, own_cache: Path) -> None:
    import sqlite3
    from contextlib import closing

    source = open_source(class_folder({"a": 2, "b": 2}))
    first = scan(source, cache=own_cache)
    (file,) = own_cache.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE facts SET facts = replace(facts, '64', '46')")
    assert scan(source, cache=own_cache).facts == first.facts
