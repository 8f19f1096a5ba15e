"""Where gapstone may write, and where it never does."""

import fcntl
import os
from pathlib import Path

import pytest

from gapstone.storage.owned_folder import CHECK, COMPARE, CONVERT, EXPLAIN, LOCK, MARKER, discard, own_file, own_folder
from gapstone.storage.sealed_json import write_sealed

KINDS = pytest.mark.parametrize("kind", [COMPARE, EXPLAIN, CONVERT, CHECK], ids=lambda kind: kind.command)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@KINDS
def test_new_empty_and_own_folders_are_taken(tmp_path, kind):
    out = tmp_path / "runs" / "out"
    for _ in range(2):
        with own_folder(out, kind):
            (out / "mine.txt").write_text("a user's, put there later")
    assert (out / "mine.txt").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    with own_folder(tmp_path / "empty", kind):
        pass


@KINDS
@pytest.mark.parametrize(
    "name", ["results.csv", "a.jpg", "maps/a.png", "trials/notes.txt", ".hidden", "scan.csv", "store/1"]
)
def test_a_folder_that_is_somebody_elses_is_never_written_into(tmp_path, kind, name):
    if kind is CONVERT and name.startswith("store"):
        pytest.skip("what a killed convert of an earlier version has left looks like this")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = content(tmp_path)
    with (
        pytest.raises(
            ValueError, match=rf"--out .* holds '{name.split('/')[0]}', which gapstone {kind.command} did not"
        ),
        own_folder(tmp_path, kind),
    ):
        pass
    assert content(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_another_command_is_refused(tmp_path):
    with own_folder(tmp_path, COMPARE):
        pass
    with pytest.raises(ValueError, match="holds what gapstone compare wrote"), own_folder(tmp_path, EXPLAIN):
        pass


@pytest.mark.parametrize("spoil", ["empty", "text", "gone", "link"])
def test_a_damaged_marker_is_made_anew(tmp_path, spoil):
    said: list[str] = []
    with own_folder(tmp_path, COMPARE):
        (tmp_path / "trials").mkdir()
        (tmp_path / "plan.json").write_text("{}")
    marker = tmp_path / MARKER
    marker.unlink()
    if spoil == "link":
        marker.symlink_to("/etc/hostname")
    elif spoil != "gone":
        marker.write_text("" if spoil == "empty" else "x")
    with own_folder(tmp_path, COMPARE, log=said.append):
        pass
    assert len(said) == (spoil != "gone")
    assert all(".gapstone" in line and "made anew" in line for line in said)
    assert marker.is_file()
    assert not marker.is_symlink()
    marker.unlink()
    (tmp_path / "mine.txt").touch()  # now nobody can tell whose it is
    with pytest.raises(ValueError, match=r"mine\.txt"), own_folder(tmp_path, COMPARE):
        pass


def test_nothing_that_came_to_nothing_is_left(tmp_path):
    def run(out: Path, *names: str) -> None:
        with own_folder(out, COMPARE):
            for name in names:
                (out / name).mkdir()
            raise KeyError

    for names in ((), ("trials", "store")):
        with pytest.raises(KeyError):
            run(tmp_path / "runs" / "out", *names)
        assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError):
        run(tmp_path / "runs" / "out", "trials", "notes")
    assert (tmp_path / "runs" / "out" / MARKER).exists()


@pytest.mark.parametrize("name", [LOCK, MARKER, "plan.json", "results.csv"])
def test_planted_links_are_not_followed(tmp_path, name):
    out, target = tmp_path / "out", tmp_path / "target"
    target.write_text("mine")
    with own_folder(out, COMPARE):
        (out / "trials").mkdir()
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(target)
    if name == LOCK:
        with pytest.raises(ValueError, match=r"\.lock is no regular file.*remove it"), own_folder(out, COMPARE):
            pass
    else:
        with own_folder(out, COMPARE):
            write_sealed(out / "plan.json", {"a": 1}, "plan")
    assert target.read_text() == "mine"


def test_what_stands_where_gapstone_keeps_something_else(tmp_path):
    for number, (make, says) in enumerate(
        (
            (lambda path: path.symlink_to(tmp_path), "is a link.*remove it"),
            (Path.touch, "is a file, where a folder will be written"),
        )
    ):
        out = tmp_path / str(number)
        with own_folder(out, COMPARE):
            make(out / "store")
        with pytest.raises(ValueError, match=f"store {says}"), own_folder(out, COMPARE):
            pass
    out = tmp_path / "b"
    with own_folder(out, COMPARE):
        (out / "plan.json").mkdir()
    with pytest.raises(ValueError, match=r"plan\.json is a folder"), own_folder(out, COMPARE):
        pass


@pytest.mark.parametrize("out", ["", "."])
def test_the_working_folder_is_no_place(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is the working folder itself"), own_folder(Path(out), COMPARE):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_held_and_one_that_is_a_pipe(tmp_path):
    with own_folder(tmp_path, CHECK):
        (tmp_path / LOCK).write_text("not emptied")
        with pytest.raises(ValueError, match="another gapstone check is at work"), own_folder(tmp_path, CHECK):
            pass
    assert (tmp_path / LOCK).read_text() == "not emptied"
    with (tmp_path / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
    (tmp_path / LOCK).unlink()
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(ValueError, match=r"\.lock is a pipe \(FIFO\), where a file"), own_folder(tmp_path, CHECK):
        pass


def test_leavings_are_swept_and_links_among_them_not_followed(tmp_path):
    out, target = tmp_path / "out", tmp_path / "target"
    target.mkdir()
    (target / "mine.txt").touch()
    with own_folder(out, COMPARE):
        for name in (".a.unfinished.json", ".store.1.tmp"):
            (out / name).mkdir()
        (out / ".b.unfinished").symlink_to(target)
    with own_folder(out, COMPARE):
        assert sorted(os.listdir(out)) == [MARKER, LOCK]
    assert (target / "mine.txt").exists()
    discard(out, COMPARE)
    assert not out.exists()


def test_files_that_may_be_replaced(tmp_path):
    path = tmp_path / "model.safetensors"
    own_file(path, "m.safetensors")
    path.touch()
    own_file(path, "m.safetensors")
    path.write_bytes(b'{"__metadata__":{"gapstone":"{}"}}' + bytes(200_000))
    own_file(path, "m.safetensors")
    path.write_bytes(bytes(200_000) + b"gapstone.json")
    own_file(path, "m.safetensors")
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"--out .*model\.safetensors is there already, and gapstone did not write it"):
        own_file(path, "m.safetensors")
    (tmp_path / "link").symlink_to(path)
    for name, says in (("link", "is a link to"), (".", "is a folder"), ("/dev/null", "is a device")):
        with pytest.raises(ValueError, match=says):
            own_file(tmp_path / name, "m.safetensors")
