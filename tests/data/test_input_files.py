"""Which files are meant; what is left out is said."""

import os

import pytest

from gapstone.data.input_files import input_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.jpg", "deep/c.PNG", "deep/deeper/d.webp", "odd", "wrong.pictures"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for name in ("labels.csv", "more.CSV", "notes.txt", ".hidden.png", ".DS_Store", "Thumbs.db", ".git/e.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(found):
    return [path.as_posix() for path in found.paths]


def test_a_folder_is_walked_in_order_and_what_is_left_out_is_counted(tree):
    found = input_files(["photos"])
    assert names(found) == [
        "photos/a.jpg",
        "photos/b.png",
        "photos/deep/c.PNG",
        "photos/deep/deeper/d.webp",
        "photos/odd",
        "photos/wrong.pictures",
    ]
    assert found.other == {".csv": 2, ".txt": 1}
    assert found.system == 4
    said = " ".join(found.notes())
    assert "3 files in folders left out, no pictures by their names: .csv 2, .txt 1." in said
    assert "4 hidden or system" in said


def test_what_is_named_itself_is_kept_whatever_it_is(tree):
    given = ["photos/labels.csv", "photos/.hidden.png", "nowhere.png"]
    found = input_files(given)
    assert names(found) == given
    assert not found.notes()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["photos/a.jpg"]),
        ("photos/**/*.[pP][nN][gG]", ["photos/b.png", "photos/deep/c.PNG"]),
        ("photos/?.???", ["photos/a.jpg", "photos/b.png"]),
        ("photos/dee*", ["photos/deep/c.PNG", "photos/deep/deeper/d.webp"]),
        ("photos/deep/**", ["photos/deep/c.PNG", "photos/deep/deeper/d.webp"]),
    ],
)
def test_patterns_that_the_shell_did_not_expand(tree, pattern, expected):
    found = input_files([pattern])
    assert names(found) == expected
    assert not found.missing


def test_a_pattern_without_a_match_is_told(tree):
    found = input_files(["*.gif", "photos/a.jpg"])
    assert found.missing == ["*.gif"]
    assert names(found) == ["photos/a.jpg"]


def test_a_file_called_like_a_pattern_is_that_file(tree):
    (tree / "photo[1].png").write_bytes(b"x")
    (tree / "photo1.png").write_bytes(b"x")
    assert names(input_files(["photo[1].png"])) == ["photo[1].png"]


def test_each_path_once_however_it_is_written(tree):
    found = input_files(
        ["photos/b.png", "photos", "./photos/../photos/a.jpg", str(tree / "photos" / "odd"), "photos/*.png"]
    )
    assert names(found)[0] == "photos/b.png"
    assert len(found.paths) == 6


def test_earlier_results_are_no_pictures(tree):
    (tree / "photos" / "runs" / "one" / ".looked").mkdir(parents=True)
    (tree / "photos" / "runs" / "one" / "maps").mkdir()
    (tree / "photos" / "runs" / "one" / "maps" / "b-0123.png").write_bytes(b"x")
    for given in (["photos"], ["photos/**/*", "photos/*"]):
        found = input_files(given)
        assert not any("0123" in path.name for path in found.paths)
        assert [path.as_posix() for path in found.results] == ["photos/runs/one"]
        assert "photos/runs/one" in " ".join(found.notes())
    assert len(input_files(["photos"]).paths) == 6


def test_results_beside_the_pictures_hide_none_of_them(tree):
    (tree / "photos" / ".looked").mkdir()
    (tree / "photos" / "maps").mkdir()
    (tree / "photos" / "maps" / "a-0123.png").write_bytes(b"x")
    assert len(input_files(["photos"]).paths) == 6


def test_links_back_to_a_folder_above_end(tree):
    (tree / "photos" / "deep" / "back").symlink_to(tree / "photos")
    (tree / "photos" / "deep" / "self.png").symlink_to("self.png")
    found = input_files(["photos"])
    assert "photos/deep/self.png" in names(found)  # loading it says what it is
    assert len(found.paths) == 7


def test_a_closed_folder_is_told(tree, monkeypatch):
    scandir = os.scandir

    def refuse(folder):
        if os.path.basename(folder) == "deep":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # chmod stops nobody who runs the tests as root
    found = input_files(["photos"])
    assert len(found.paths) == 4
    assert "1 folder may not be read: photos/deep." in found.notes()
