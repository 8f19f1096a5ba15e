"""One pass, kept: the same rows after a stop; other facts, another file."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gapstone.storage import resumable_rows
from gapstone.storage.paths import sentence
from gapstone.storage.resumable_rows import RowsError, compute_rows


def rows(first, last):
    return torch.arange(first, last)[:, None].float() * torch.ones(3)


def test_rows_are_made_once_and_read_back(tmp_path):
    asked = []

    def make(first, last):
        asked.append((first, last))
        return rows(first, last)

    for _ in range(2):
        array = compute_rows(tmp_path, "maps", {"a": 1}, 10, make, 4)
        assert np.array_equal(array, rows(0, 10))
        assert not array.flags.writeable
    assert asked == [(0, 4), (4, 8), (8, 10)]
    compute_rows(tmp_path, "maps", {"a": 2}, 10, make, 4)
    assert len(asked) == 6
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_a_stopped_pass_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_rows, "SYNC", 1)
    asked = []

    def make(first, last):
        if first == 6 and not asked.count(6):
            asked.append(6)
            raise KeyboardInterrupt
        asked.append(first)
        return rows(first, last)

    with pytest.raises(KeyboardInterrupt):
        compute_rows(tmp_path, "maps", 0, 10, make, 2)
    assert not list(tmp_path.glob("*.npy"))
    assert np.array_equal(compute_rows(tmp_path, "maps", 0, 10, make, 2), rows(0, 10))
    assert asked == [0, 2, 4, 6, 6, 8]


def test_a_note_whose_rows_are_gone_is_not_believed(tmp_path, monkeypatch):
    def until(stop):
        def make(first, last):
            if first >= stop:
                raise KeyboardInterrupt
            return rows(first, last) + 1

        return make

    monkeypatch.setattr(resumable_rows, "SYNC", 1)
    with pytest.raises(KeyboardInterrupt):
        compute_rows(tmp_path, "maps", 0, 10, until(8), 2)
    next(tmp_path.glob(".*.part")).unlink()  # the large file is deleted, its hidden note of a byte is not
    monkeypatch.setattr(resumable_rows, "SYNC", 1 << 30)
    with pytest.raises(KeyboardInterrupt):
        compute_rows(tmp_path, "maps", 0, 10, until(4), 2)
    assert np.array_equal(compute_rows(tmp_path, "maps", 0, 10, until(10), 2), rows(0, 10) + 1)


@pytest.mark.parametrize("made_again", [False, True])
def test_a_kill_when_all_is_made_leaves_what_is_right(tmp_path, monkeypatch, made_again):
    """Before or after the rename; and, if the rows are then deleted, in the middle of the next pass."""
    monkeypatch.setattr(resumable_rows, "SYNC", 1)
    done = Path.replace

    def killed(path, target):
        if path.suffix == ".part":
            if made_again:
                done(path, target)
            raise KeyboardInterrupt
        return done(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        compute_rows(tmp_path, "maps", 0, 10, rows, 2)
    monkeypatch.setattr(Path, "replace", done)
    monkeypatch.setattr(resumable_rows, "SYNC", 1 << 30)
    for path in tmp_path.glob("*.npy"):
        path.unlink()

    def stopped(first, last):
        if first == 4:
            raise KeyboardInterrupt
        return rows(first, last)

    if made_again:
        with pytest.raises(KeyboardInterrupt):
            compute_rows(tmp_path, "maps", 0, 10, stopped, 2)
    assert np.array_equal(compute_rows(tmp_path, "maps", 0, 10, rows, 2), rows(0, 10))
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".rows", ".lock"}


def test_half_precision_is_kept_where_it_fits_and_refused_where_not(tmp_path):
    assert compute_rows(tmp_path, "half", 0, 4, rows, 4, torch.float16).dtype == np.float16
    with pytest.raises(RowsError, match="values up to 3e\\+05 do not fit into half precision"):
        compute_rows(tmp_path, "large", 0, 4, lambda a, b: rows(a, b) * 1e5, 4, torch.float16)
    with pytest.raises(RowsError, match="NaN or infinity"):
        compute_rows(tmp_path, "none", 0, 4, lambda a, b: rows(a, b) * torch.nan, 4, torch.float16)


def test_a_full_disk_is_told_before(tmp_path):
    with pytest.raises(RowsError, match="are free"):
        compute_rows(tmp_path, "huge", 0, 10**13, lambda a, b: torch.zeros(b - a, 100), 4)


def spoil(path, way):
    content = bytearray(path.read_bytes())
    if way == "cut":
        path.write_bytes(bytes(content[:-1]))
    elif way == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "link":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")
    else:
        path.unlink()


@pytest.mark.parametrize("way", ["cut", "flip", "empty", "link", "gone"])
@pytest.mark.parametrize("which", ["maps-*.npy", ".maps-*.rows"])
def test_rows_that_are_damaged_are_named_and_made_anew(tmp_path, way, which):
    compute_rows(tmp_path, "maps", 0, 10, rows, 4)
    (path,) = tmp_path.glob(which)
    spoil(path, way)
    said = []
    array = compute_rows(tmp_path, "maps", 0, 10, lambda first, last: rows(first, last), 4, log=said.append)
    assert np.array_equal(array, rows(0, 10))
    assert len(said) == (0 if way == "gone" and path.suffix == ".npy" else 1)
    assert all("maps-" in line and line.endswith("made anew.") for line in said)
    assert compute_rows(tmp_path, "maps", 0, 10, lambda *_: pytest.fail("made again"), 4).shape == (10, 3)


@pytest.mark.parametrize("way", ["cut", "flip", "empty", "link", "gone"])
@pytest.mark.parametrize("which", [".maps-*.part", ".maps-*.rows"])
def test_a_half_made_pass_that_is_damaged_begins_anew(tmp_path, monkeypatch, way, which):
    monkeypatch.setattr(resumable_rows, "SYNC", 1)

    def stopped(first, last):
        if first == 6:
            raise KeyboardInterrupt
        return rows(first, last)

    with pytest.raises(KeyboardInterrupt):
        compute_rows(tmp_path, "maps", 0, 10, stopped, 2)
    (path,) = tmp_path.glob(which)
    spoil(path, way)
    said = []
    assert np.array_equal(compute_rows(tmp_path, "maps", 0, 10, rows, 2, log=said.append), rows(0, 10))
    assert len(said) == (way != "gone")


def test_one_files_rows_do_not_fit_another(tmp_path):
    for about in (1, 2):
        compute_rows(tmp_path, "maps", about, 10, lambda first, last: rows(first, last) * about, 4)  # noqa: B023
    one, two = sorted(tmp_path.glob("*.npy"))
    aside = tmp_path / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    said = []
    for about in (1, 2):
        make = partial(lambda scale, first, last: rows(first, last) * scale, about)
        array = compute_rows(tmp_path, "maps", about, 10, make, 4, log=said.append)
        assert np.array_equal(array, rows(0, 10) * about)
    assert len(said) == 2


def test_a_full_disk_is_told_with_the_path_and_the_sizes(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="28") as caught:
        compute_rows(tmp_path, "maps", 0, 10, rows, 2)
    assert re.match(rf"{tmp_path}/\.maps-\w+\.part: the disk is full \(.* are free\)", sentence(caught.value))


def test_a_disk_that_fills_up_leaves_what_was_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_rows, "SYNC", 1)
    write, asked = resumable_rows.write_sealed, []

    def full(path, facts, name):
        if facts["rows"] > 4:
            raise OSError(28, "No space left on device", str(path))
        write(path, facts, name)

    monkeypatch.setattr(resumable_rows, "write_sealed", full)
    with pytest.raises(OSError, match="No space left"):
        compute_rows(tmp_path, "maps", 0, 10, rows, 2)
    monkeypatch.setattr(resumable_rows, "write_sealed", write)

    def make(first, last):
        asked.append(first)
        return rows(first, last)

    assert np.array_equal(compute_rows(tmp_path, "maps", 0, 10, make, 2), rows(0, 10))
    assert asked == [4, 6, 8]
