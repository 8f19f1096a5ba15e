"""What a scan finds, and that it leaves everything as it was."""

import csv
import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data import scan_report
from gapstone.data.check_data import check
from gapstone.data.image_info_cache import _digest
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from tests.schemas import check_refuses_damage

Make = Callable[..., Path]
Find = Callable[[str], Path]


def fingerprint(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file's content, size and time of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (content, status.st_size, status.st_mtime_ns)
    return found


def test_every_awkward_file_is_loaded_or_listed_and_none_is_touched(real_images: Find, tmp_path: Path) -> None:
    folder = real_images("awkward")
    before = fingerprint(folder)
    source = open_source(folder)
    found = scan(source, workers=2)
    assert fingerprint(folder) == before
    with open(folder / "TABLE.csv", encoding="utf-8", newline="") as f:
        loads = {row["file"]: row["load"] == "ok" for row in csv.DictReader(f)}
    loads["broken/truncated_jpeg.jpg"] = True  # it lacks the second byte of its end marker, and no pixel
    bad = dict(found.unreadable)
    assert all(bad.values())
    for name in found.names:
        assert (name not in bad) == loads.get(name, False), name  # the licences' texts are not in the table
    assert int(found.readable.sum()) == 82
    scan_report.write(found, tmp_path)
    with open(tmp_path / "scan.csv", encoding="utf-8", newline="") as f:
        assert len(list(csv.DictReader(f))) == len(source)
    # the same a second time, now from the cache
    again = scan(source, workers=1)
    assert again.to_json() == found.to_json()


def test_conflicts_are_found_and_left_out(real_images: Find) -> None:
    found = scan(open_source(real_images("flowers128") / "conflicting_labels"))
    assert len(found.conflicts) == 4
    assert len(found.excluded) == 8
    assert all(set(c["labels"]) == {"rose", "tulip"} for c in found.to_json()["conflicts"])
    assert "4 pictures, 8 files" in scan_report.text(found)


def test_a_folder_with_everything_wrong(class_folder: Make, picture: Callable[..., np.ndarray]) -> None:
    root = class_folder({"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2}, 120, 160)
    (root / "train/cat/page.png").write_bytes(b"<!DOCTYPE html><html>")
    (root / "train/cat/empty.jpg").write_bytes(b"")
    shutil.copy(root / "train/cat/0.png", root / "test/cat/copy.png")
    shutil.copy(root / "train/dog/1.png", root / "train/cat/wrong.png")
    with Image.open(root / "train/dog/2.png") as image:
        image.resize((120, 90)).save(root / "test/dog/smaller.jpg", quality=70)
    # the same pixels in another file format, and gray saved as RGB
    with Image.open(root / "test/dog/0.png") as image:
        image.save(root / "test/dog/same.bmp")
    found = scan(open_source(root), workers=2)
    at = {name: i for i, name in enumerate(found.names)}
    assert [n for n, _ in found.unreadable] == ["train/cat/empty.jpg", "train/cat/page.png"]
    assert found.conflicts == [[at["train/cat/wrong.png"], at["train/dog/1.png"]]]
    assert sorted(map(sorted, found.exact_duplicates)) == sorted(
        [
            sorted([at["train/cat/0.png"], at["test/cat/copy.png"]]),
            found.conflicts[0],
            sorted([at["test/dog/0.png"], at["test/dog/same.bmp"]]),
        ]
    )
    assert [sorted(found.names[i] for i in g) for g in found.near_duplicates] == [
        ["test/dog/smaller.jpg", "train/dog/2.png"]
    ]
    assert len(found.across_splits) == 2
    assert len(found.excluded) == 4
    assert found.class_counts() == {"train": [4, 3], "test": [3, 4]}
    assert found.group[at["train/dog/2.png"]] == found.group[at["test/dog/smaller.jpg"]]
    entry = json.loads(json.dumps(found.to_json()))
    check_refuses_damage("scan", entry)
    assert set(entry) == {
        "files",
        "readable",
        "unreadable",
        "exact_duplicates",
        "near_duplicates",
        "conflicts",
        "across_splits",
        "excluded",
        "sizes",
        "modes",
        "ranges",
        "notes",
        "groups",
        "refused",
    }
    assert (entry["files"], entry["readable"], entry["excluded"]) == (18, 16, 4)
    assert entry["sizes"]["160x120"] == 15
    assert {frozenset(a["splits"]) for a in entry["across_splits"]} == {frozenset({"train", "test"})}


def test_gray_in_fact_counts_as_gray(class_folder: Make) -> None:
    root = class_folder({"a": 2, "b": 2})
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.convert("L").convert("RGB").save(path)
    assert scan(open_source(root)).channels == 1
    Image.new("RGB", (48, 64), (1, 2, 3)).save(root / "a" / "colour.png")
    assert scan(open_source(root)).channels == 3


def test_hostile_names_reach_every_output(class_folder: Make, tmp_path: Path) -> None:
    root = class_folder({"한국어": 2, "عربي": 2})
    folder = os.fsencode(root / "عربي")
    shutil.copy(root / "عربي" / "0.png", os.path.join(folder, b"\xff\n\x1b[31m.png"))
    (root / "عربي" / "=1+1.png").write_bytes(b"")
    found = scan(open_source(root))
    scan_report.write(found, tmp_path / "out")
    text = (tmp_path / "out" / "scan.txt").read_text("utf-8")
    assert "\\xff\\n\\x1b[31m.png" in text
    assert "\x1b" not in text
    json.loads((tmp_path / "out" / "scan.json").read_text("utf-8"))


def test_a_file_that_hangs_costs_its_time_limit_only(class_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folder({"a": 2, "b": 2})
    # sitecustomize runs in the workers only: a decoder that never ends for one size of picture
    (root.parent / "site").mkdir()
    (root.parent / "site" / "sitecustomize.py").write_text(
        "import time\nfrom PIL import ImageFile\nload = ImageFile.ImageFile.load\n"
        "def slow(self):\n    if self.size == (7, 7):\n        time.sleep(60)\n    return load(self)\n"
        "ImageFile.ImageFile.load = slow\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(root.parent / "site"))
    Image.new("RGB", (7, 7)).save(root / "a" / "hang.png")
    found = scan(open_source(root), time_limit=2)
    assert found.unreadable == [("a/hang.png", "took longer than 2 s and was stopped")]
    assert int(found.readable.sum()) == 4


def test_the_cache_is_used_shared_and_never_needed(
    class_folder: Make, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folder({"a": 6, "b": 6})
    source = open_source(root)
    first = scan(source)
    (file,) = own_cache.glob("*.sqlite")
    with sqlite3.connect(file) as db:
        rows = db.execute("SELECT key, facts, pixels, thumbnail FROM facts").fetchall()
        assert len(rows) == 12
        for key, facts, *more in rows:
            facts = facts.replace("RGB", "CMYK")
            row = facts, _digest(key, facts, *more), key
            db.execute("UPDATE facts SET facts = ?, digest = ? WHERE key = ?", row)
    db.close()
    assert set(scan(source).mode_counts()) == {"CMYK"}  # from the cache
    with sqlite3.connect(file) as db:  # a row whose digest does not fit is decoded anew
        db.execute("UPDATE facts SET facts = replace(facts, 'CMYK', 'RGBA')")
    db.close()
    assert set(scan(source).mode_counts()) == {"RGB"}
    # two at once, on a damaged cache
    file.write_bytes(b"no database at all" * 100)
    results = []
    threads = [threading.Thread(target=lambda: results.append(scan(source, workers=1))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [r.to_json()["readable"] for r in results] == [12, 12]
    # a folder that cannot be one
    (tmp_path / "file").write_text("x")
    noted = scan(source, cache=tmp_path / "file" / "cache")
    assert any("cannot be used" in n for n in noted.notes)
    assert noted.facts == first.facts
    assert scan(source, cache=None).notes == first.notes


def test_progress_and_arrays() -> None:
    seen: list[tuple[int, int]] = []
    found = scan(open_source("digits"), progress=lambda done, count: seen.append((done, count)))
    assert seen[-1] == (1797, 1797)
    assert (found.channels, found.files, len(found.excluded)) == (1, 1797, 0)
    assert found.near_duplicates == []
    assert list(found.size_counts()) == [(8, 8)]


def test_check_shows_what_is_there_more_than_once(
    class_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folder({"train/a": 4, "train/<b>": 4, "test/a": 2, "test/<b>": 2}, 120, 160)
    with Image.open(root / "train/a/0.png") as image:
        image.resize((120, 90)).save(root / "test/a/near.jpg", quality=60)
    shutil.copy(root / "train/a/1.png", root / "train/<b>/wrong.png")
    out = tmp_path / "out"
    found = check(str(root), out)
    assert f"{out / 'scan.html'} shows the duplicates" in capsys.readouterr().out
    page = (out / "scan.html").read_text("utf-8")
    assert "<script" not in page
    assert "<b>/" not in page.replace("</b>", "")
    assert page.count("<img") == page.count("data:image/jpeg;base64,") == 4
    first, second = page.split("<section")[1:3]
    assert "2 files, the same pixels, under two labels" in first
    assert "2 files, nearly the same, in test and train" in second
    (likeness,) = re.findall(r"· (0\.9\d{3})", second)
    # the number is the one that the threshold is compared with
    assert len(check(str(root), out, threshold=float(likeness) - 0.001).near_duplicates) == 1
    assert check(str(root), out, threshold=min(1.0, float(likeness) + 0.001)).near_duplicates == []
    assert found.near_duplicates != []
    (root / "train/<b>/wrong.png").unlink()
    (root / "test/a/near.jpg").unlink()
    check(str(root), out)
    assert not (out / "scan.html").exists()  # of an earlier state of DATA


def test_check_writes_beside_the_data_never_into_it(
    class_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folder({"a": 3, "b [red]x": 3})
    monkeypatch.chdir(tmp_path)
    check(str(root))
    said = capsys.readouterr().out
    assert "6 files in 2 classes" in said
    assert "b [red]x" in said
    written = sorted(p.name for p in (tmp_path / "runs/check-data").glob("[!.]*"))
    assert written == ["scan.csv", "scan.json", "scan.txt"]
    for out in (root, root / "out", root / "a" / ".." / "out"):
        with pytest.raises(ValueError, match="lies inside DATA"):
            check(str(root), out)
    assert not (root / "out").exists()


def test_check_says_what_compare_would_refuse(tmp_path: Path) -> None:
    """A class of a single image: there is nothing to test on."""
    from gapstone.data.split import DataSplitError, split

    rng = np.random.default_rng(0)
    for name, count in (("many", 12), ("one", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    source = open_source(str(tmp_path / "data"))
    with pytest.raises(DataSplitError) as compared:
        split(source, scan(source))
    found = check(str(tmp_path / "data"), tmp_path / "out")
    assert found.refused == str(compared.value)
    assert "'one' (" in found.refused
    written = (tmp_path / "out" / "scan.txt").read_text("utf-8")
    assert f"cannot be compared as it is: {found.refused}" in written
    assert "nothing has to be left out" not in written
    assert json.loads((tmp_path / "out" / "scan.json").read_text("utf-8"))["refused"] == found.refused
