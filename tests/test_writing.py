"""Files that appear whole or not at all."""

import fnmatch

import pytest

from gapstone.whole import UNFINISHED, whole, write_whole


def test_it_appears_at_the_end(tmp_path):
    path = tmp_path / "results.npz"
    with whole(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
        assert unfinished.suffix == ".npz"  # some writers go by it
        assert fnmatch.fnmatch(unfinished.name, UNFINISHED)
    assert [file.name for file in tmp_path.iterdir()] == ["results.npz"]
    assert path.read_text() == "new"


def test_after_an_error_the_old_one_stands_alone(tmp_path):
    path = tmp_path / "results.json"
    write_whole(path, b"old")

    def stopped():
        with whole(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    assert path.read_bytes() == b"old"


def test_the_longest_name_that_there_may_be(tmp_path):
    path = tmp_path / f"{'a' * 250}.json"
    write_whole(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_two_at_once_do_not_meet(tmp_path):
    path = tmp_path / "results.json"
    with whole(path) as one, whole(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # renamed last
