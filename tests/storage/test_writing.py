"""Files that appear whole or not at all."""

import fnmatch
import os

import pytest

from gapstone.storage.atomic import UNFINISHED, atomic_file, write_atomic


def test_it_appears_at_the_end(tmp_path):
    path = tmp_path / "results.npz"
    with atomic_file(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
        assert unfinished.suffix == ".npz"  # some writers go by it
        assert fnmatch.fnmatch(unfinished.name, UNFINISHED)
    assert [file.name for file in tmp_path.iterdir()] == ["results.npz"]
    assert path.read_text() == "new"


def test_after_an_error_the_old_one_stands_alone(tmp_path):
    path = tmp_path / "results.json"
    write_atomic(path, b"old")

    def stopped():
        with atomic_file(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    assert path.read_bytes() == b"old"


def test_the_longest_name_that_there_may_be(tmp_path):
    path = tmp_path / f"{'a' * 250}.json"
    write_atomic(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_two_at_once_do_not_meet(tmp_path):
    path = tmp_path / "results.json"
    with atomic_file(path) as one, atomic_file(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # renamed last


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "results.json").symlink_to("mine")
    write_atomic(tmp_path / "results.json", b"{}")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "results.json").is_symlink()


def test_what_waits_under_the_unfinished_name_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".known.unfinished.json").symlink_to("mine")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "results.json", b"{}")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_full_disk_is_told_with_the_name_that_was_meant(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomic(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*results\.json'$") as caught:
        write_atomic(path, b"new")
    assert caught.value.errno == 28
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_content_and_name_are_on_disk_when_it_returns(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr("os.fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), sync(file)))
    write_atomic(tmp_path / "results.json", b"{}")
    assert fnmatch.fnmatch(os.path.basename(synced[0]), UNFINISHED)  # before it has its name
    assert synced[1:] == [os.path.realpath(tmp_path)]
