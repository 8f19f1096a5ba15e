"""A program that is stopped at any call to the disk: what is read afterwards is right, and nothing is damaged."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapstone.comparing import trial_files
from gapstone.data import decoded_store
from gapstone.data.sources import Item, Source
from gapstone.explaining.explain_folder import ExplainFolder
from gapstone.images.preprocessing import Preprocessing
from gapstone.storage import owned_folder, resumable_rows
from gapstone.storage.atomic import write_atomic
from gapstone.storage.owned_folder import COMPARE, own_folder
from gapstone.storage.resumable_rows import compute_rows
from gapstone.storage.sealed_json import DamagedError, read_sealed, sha256, write_sealed
from tests.stopping_disk import HOW, Disk, every_stop, stopping

ROWS, STEP = 4, 2
PREPROCESSING = Preprocessing(1, (6, 6), (6, 6), (0.5,), (0.25,))


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """The disk of these tests is a model; a real one takes milliseconds for each."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(resumable_rows, "SYNC", 1)  # a note after every batch


def rows(first: int, last: int) -> torch.Tensor:
    return torch.arange(first, last)[:, None].float() * torch.ones(3) + 1


class Making:
    """Counts what is made."""

    def __init__(self, stop: int = ROWS) -> None:
        self.asked: list[int] = []
        self.stop = stop

    def __call__(self, first: int, last: int) -> torch.Tensor:
        if first >= self.stop:
            raise KeyboardInterrupt
        self.asked.append(first)
        return rows(first, last)


def half(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        compute_rows(folder, "maps", 0, ROWS, Making(2), STEP)


def rows_deleted(folder: Path) -> None:
    """The large file is gone, its hidden note is not."""
    compute_rows(folder, "maps", 0, ROWS, rows, STEP)
    next(folder.glob("*.npy")).unlink()


def half_deleted(folder: Path) -> None:
    half(folder)
    next(folder.glob(".*.part")).unlink()


BEFORE = {"nothing": lambda _: None, "half": half, "rows deleted": rows_deleted, "half deleted": half_deleted}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("before", BEFORE)
def test_rows_that_are_kept(tmp_path, before, how):
    """After any stop the next run makes the rest, the same rows as ever; no note speaks of rows that are not there, and
    no more is made again than since the last note."""
    folder, making, noted = tmp_path / "out", Making(), [0]
    written = resumable_rows.write_sealed

    def noting(path: Path, facts: dict[str, Any], name: str) -> None:
        written(path, facts, name)
        noted.append(facts["rows"])

    def action() -> None:
        making.asked.clear()
        noted[:] = [0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resumable_rows, "write_sealed", noting)
            compute_rows(folder, "maps", 0, ROWS, making, STEP)

    for number, call in every_stop(folder, lambda: BEFORE[before](folder), action, how):
        stopped, said, again = f"{before}, {how} at call {number}, {call}", [], Making()
        array = compute_rows(folder, "maps", 0, ROWS, again, STEP, log=said.append)
        assert np.array_equal(array, rows(0, ROWS)), stopped
        assert said == [], stopped
        assert all(first >= noted[-1] for first in again.asked), f"{stopped}: {again.asked} after {noted}"
        assert {path.suffix for path in folder.iterdir()} == {".npy", ".rows", ".lock"}, stopped


def test_what_makes_no_rows_or_too_few_is_told(tmp_path):
    with pytest.raises(ValueError, match="no rows to keep"):
        compute_rows(tmp_path, "maps", 0, 0, rows, STEP)
    with pytest.raises(ValueError, match=r"make\(0, 2\) gave 3 rows"):
        compute_rows(tmp_path, "maps", 0, ROWS, lambda first, last: rows(first, last + 1), STEP)
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.parametrize("how", ["killed", "power cut, names lost"])
def test_rows_of_a_damaged_file(tmp_path, how):
    """They are made anew, whenever that is stopped."""

    def damaged() -> None:
        compute_rows(folder, "maps", 0, ROWS, rows, STEP)
        path = next(folder.glob("*.npy"))
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    def made() -> None:
        compute_rows(folder, "maps", 0, ROWS, rows, STEP)

    folder = tmp_path / "out"
    for number, call in every_stop(folder, damaged, made, how):
        array = compute_rows(folder, "maps", 0, ROWS, rows, STEP)
        assert np.array_equal(array, rows(0, ROWS)), f"{how} at call {number}, {call}"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("old", [None, b"old content"])
def test_a_file_is_the_old_one_or_the_new_one(tmp_path, how, old):
    folder = tmp_path / "out"
    path = folder / "results.json"

    def before() -> None:
        if old is not None:
            path.write_bytes(old)

    found = []
    for number, call in every_stop(folder, before, lambda: write_atomic(path, b"new content"), how):
        content = path.read_bytes() if path.exists() else None
        assert content in (old, b"new content"), f"{how} at call {number}, {call}"
        found.append(content)
    assert old in found


def stored(folder: Path) -> None:
    decoded_store.build(source(2), np.arange(4), PREPROCESSING, folder / "store")


def tried(folder: Path) -> None:
    trial_files.write_trial("abc", {"seed": 1}, {"test": np.arange(3)}, folder, None)


WRITERS = {
    "results.json": lambda folder: write_atomic(folder / "results.json", b"new content"),
    "abc/trial.json": tried,
    "store/store.json": stored,
    "maps-*.npy": lambda folder: compute_rows(folder, "maps", 0, ROWS, rows, STEP),
}


@pytest.mark.parametrize("name", WRITERS)
def test_when_it_returns_it_is_on_disk(tmp_path, name):
    """A power cut right after it: with its name."""
    disk = Disk(tmp_path, "power cut, names lost")
    with stopping(disk, 10**6):
        WRITERS[name](tmp_path)
        disk.stop()
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix != ".lock")
    (path,) = tmp_path.glob(name)
    content = path.read_bytes()
    disk.begin_again()
    assert path.read_bytes() == content
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix != ".lock") == written


@pytest.mark.parametrize("how", HOW)
def test_sealed_files(tmp_path, how):
    folder = tmp_path / "out"
    path = folder / "plan.json"
    for number, call in every_stop(
        folder, lambda: write_sealed(path, {"n": 1}, "plan"), lambda: write_sealed(path, {"n": 2}, "plan"), how
    ):
        assert read_sealed(path, "plan")["n"] in (1, 2), f"{how} at call {number}, {call}"


@pytest.mark.parametrize("how", HOW)
def test_trials_appear_whole_or_not_at_all(tmp_path, how):
    folder = tmp_path / "out"
    arrays = {"test": np.arange(3)}

    def write() -> None:
        trial_files.write_trial("abc", {"seed": 1}, arrays, folder / "trials", None)

    for number, call in every_stop(folder, lambda: None, write, how):
        try:
            facts, read = trial_files.read(folder / "trials" / "abc")
        except FileNotFoundError:
            pass
        else:
            assert facts["seed"] == 1, f"{how} at call {number}, {call}"
            assert np.array_equal(read["test"], arrays["test"])
        trial_files.write_trial("abc", {"seed": 1}, arrays, folder / "trials", None)
        assert trial_files.read(folder / "trials" / "abc")[0]["seed"] == 1


def source(level: int) -> Source:
    items = [Item(f"{i}", (i % 2,), None, None, i) for i in range(4)]
    return Source("digits", "digits", ("a", "b"), items, array=np.full((4, 6, 6, 1), level, np.uint8))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("other", [False, True], ids=["first", "in place of another"])
def test_decoded_images(tmp_path, how, other):
    """What can be opened is whole, and what `build` gives is what was asked for; nothing is called damaged."""
    folder = tmp_path / "out"

    def build(level: int, say: list[str]) -> decoded_store.Store:
        return decoded_store.build(source(level), np.arange(4), PREPROCESSING, folder / "store", log=say.append)

    for number, call in every_stop(folder, lambda: other and build(1, []) and None, lambda: build(2, []) and None, how):
        said: list[str] = []
        made = build(2, said)
        assert np.array_equal(made.images, np.full((4, 6, 6, 1), 2)), f"{how} at call {number}, {call}"
        assert said == [], f"{how} at call {number}, {call}"
        owned_folder._remove_matching(folder, COMPARE.temporary)
        assert [path.name for path in folder.iterdir()] == ["store"]


@pytest.mark.parametrize("how", HOW)
def test_records_of_explained_pictures(tmp_path, how):
    """A record speaks of files that are there; a picture that was noted and not drawn is drawn."""
    folder = tmp_path / "out"

    def look(out: ExplainFolder) -> None:
        if out.checked_record("batch") is None:
            out.write_file(out.maps / "a.npz", b"maps")
            out.write_record("batch", {"rows": [1], "files": {"a.npz": sha256(b"maps")}})
        if not out.has_drawn(out.maps / "a.png", "key"):
            out.write_drawing(out.maps / "a.png", "key", b"picture")

    for number, call in every_stop(
        folder, lambda: ExplainFolder(folder) and None, lambda: look(ExplainFolder(folder)), how
    ):
        stopped = f"{how} at call {number}, {call}"
        out = ExplainFolder(folder)
        record = out.checked_record("batch")
        assert out.damaged == [], stopped
        assert record is None or (out.maps / "a.npz").read_bytes() == b"maps", stopped
        look(out)
        assert (out.maps / "a.png").read_bytes() == b"picture", stopped


@pytest.mark.parametrize("how", HOW)
def test_a_folder_is_taken_again_after_any_stop(tmp_path, how):
    folder = tmp_path / "out"

    def work() -> None:
        with own_folder(folder / "runs", COMPARE):
            write_sealed(folder / "runs" / "plan.json", {"n": 1}, "plan")

    for number, call in every_stop(folder, lambda: None, work, how):
        try:
            work()
        except (ValueError, DamagedError) as error:
            pytest.fail(f"{how} at call {number}, {call}: {error}")
        assert sorted(path.name for path in (folder / "runs").iterdir()) == [".gapstone", ".lock", "plan.json"]


def test_the_model_of_a_disk_itself(tmp_path):
    """What it promises: content as of the last fsync, names as of the last one of the folder."""

    def write(path: Path) -> None:
        file = path.open("wb")
        file.write(b"12345")
        file.flush()
        os.fsync(file.fileno())
        file.write(b"67890")
        file.flush()
        path.rename(path.with_name("b"))
        path.with_name("c").mkdir()

    calls = ["write", "flush", "fsync", "write", "flush", "rename", "mkdir"]
    new, half, whole, moved = {"a": b""}, {"a": b"12345"}, {"a": b"1234567890"}, {"b": b"1234567890"}
    expected = {
        "killed": [new, new, half, half, half, whole, moved],
        "power cut": [new, new, new, half, half, half, {"b": b"12345"}],
        "power cut, names lost": [{}] * 7,
    }
    folder = tmp_path / "out"
    for how, contents in expected.items():
        found = []
        for _, call in every_stop(folder, lambda: None, lambda: write(folder / "a"), how):
            found.append((call, {one.name: one.read_bytes() for one in folder.iterdir()}))
        assert found == list(zip(calls, contents, strict=True)), how
