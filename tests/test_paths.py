"""Paths that are not what they should be are refused in a sentence at once by every command, which leaves nothing."""

import errno
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gapstone as gs
from gapstone.bench.run_bench import bench
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.run_comparison import compare
from gapstone.console.options import results_folder
from gapstone.console.terminal import Terminal
from gapstone.converting.conversion import ConvertRequest
from gapstone.converting.convert import convert
from gapstone.data.check_data import check
from gapstone.data.open_source import open_source
from gapstone.evaluating.train_model import train_model
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest as Explaining
from gapstone.export.export_model import export
from gapstone.images.load import ImageError, load
from gapstone.images.preprocessing import Preprocessing
from gapstone.inspecting.inspect_command import inspect_model
from gapstone.maps.open_model import open_model
from gapstone.models.backbone_weights import read_weights
from gapstone.storage.atomic import write_atomic
from gapstone.storage.paths import (
    PathError,
    check_input,
    open_input,
    output_file,
    output_folder,
    path_in_errors,
    sentence,
)
from gapstone.training.training_data import TrainOptions

KINDS = ["fifo", "socket", "/dev/zero", "/dev/random", "folder", "link to fifo", "link to /dev/zero", "dangling link"]


def made(kind: str, path: Path) -> Path:
    """Something under `path` that is no regular file; a device can only be linked to."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path may have 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)  # the file stays
        finally:
            os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to fifo":
        os.mkfifo(path.with_name("fifo"))
        path.symlink_to("fifo")
    else:
        path.symlink_to(kind.removeprefix("link to "))
    return path


READERS = {
    "data.csv": lambda path: open_source(path),
    "data.npz": lambda path: open_source(path),
    "train-images-idx3-ubyte": lambda path: open_source(path.parent),
    "train-images-idx3-ubyte.gz": lambda path: open_source(path.parent),
    "image.png": lambda path: load(path),
    "model.safetensors": lambda path: open_model(str(path)),
    "weights.safetensors": lambda path: read_weights(path, "resnet18"),
    "timm.safetensors": lambda path: open_model("vgg16", path),
    "boxes.csv": lambda path: CompareRequest(TrainOptions("digits"), boxes=path).checked(),
    "start.safetensors": lambda path: CompareRequest(TrainOptions("digits"), weights=path).checked(),
    "inspected.safetensors": lambda path: inspect_model(str(path)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_no_input_but_a_regular_file(name, kind, tmp_path):
    made(kind, tmp_path / name)
    if "images" in name:
        (tmp_path / name.replace("images-idx3", "labels-idx1")).write_bytes(b"\0\0\x08\x01\0\0\0\x01\0")
    began = time.monotonic()
    with pytest.raises(ValueError) as refused:  # noqa: PT011  each room has its own
        READERS[name](tmp_path / name)
    assert time.monotonic() - began < 5
    said = str(refused.value)
    assert "\n" not in said.split("DATA is one of")[0].strip()
    expected = ("pipe", "socket", "device", "folder", "does not exist", "no such file", "class folders")
    assert any(word in said for word in expected), said


def test_a_pipe_that_takes_a_files_place_does_not_block(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr("gapstone.storage.paths.check_input", lambda what, path: None)
    with pytest.raises(PathError, match="pipe"):
        open_input("--boxes x", tmp_path / "x")


def test_a_class_folder_with_a_pipe_lists_it(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for k in range(2):
            Image.fromarray(np.full((9, 9), 40 * k + ord(label), np.uint8)).save(tmp_path / label / f"{k}.png")
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "b/zero.jpg").symlink_to("/dev/zero")
    found = check(str(tmp_path), tmp_path.parent / "out")
    assert dict(found.unreadable) == dict.fromkeys(
        ("a/pipe.png", "b/zero.jpg"), "not a regular file (a pipe, socket or device)"
    )
    with pytest.raises(ImageError):
        load(tmp_path / "a/pipe.png")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    gs.Classifier("nin", "gap", ("a", "b"), Preprocessing(1, (16, 16), (16, 16), (0.5,), (0.25,))).save(path)
    return path


FILE_WRITERS = {
    "train": lambda path, model: train_model(CompareRequest(TrainOptions("digits"), ("gap",), 1), 0, path),
    "convert": lambda path, model: convert(ConvertRequest(str(model), "gap", "digits", path)),
    "export.onnx": lambda path, model: export(str(model), onnx=path),
    "export.pt2": lambda path, model: export(str(model), pt2=path),
    "inspect.png": lambda path, model: inspect_model(str(model), picture=path),
    "bench": lambda path, model: bench(Terminal(), 1, out=path, only="whole"),
}
FOLDER_WRITERS = {
    "compare": lambda path, model: compare(CompareRequest(TrainOptions("digits"), ("gap", "gmp"), seeds=1), path),
    "check": lambda path, model: check("digits", path),
    "explain": lambda path, model: explain_files(Explaining(str(model), (str(model.parent / "*.png"),)), path),
}


def untouched(path):
    """What changes when something is written there; when it was looked at last is no matter."""
    facts = os.lstat(path)
    return facts.st_mode, facts.st_ino, facts.st_size, facts.st_mtime_ns


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "dangling link"])
@pytest.mark.parametrize("command", FILE_WRITERS)
def test_no_output_over_a_device_or_folder(command, kind, model, tmp_path):
    path = made(kind, tmp_path / f"out{Path(command).suffix or '.x'}")
    before = untouched(path), sorted(os.listdir(tmp_path))
    with pytest.raises(PathError, match=r"is a (folder|pipe|socket|device)"):
        FILE_WRITERS[command](path, model)
    assert (untouched(path), sorted(os.listdir(tmp_path))) == before


@pytest.mark.parametrize("command", FILE_WRITERS)
def test_a_folder_that_is_missing_or_a_file(command, model, tmp_path):
    (tmp_path / "file").touch()
    name = f"out{Path(command).suffix or '.x'}"
    for parent in ("nowhere", "file", "file/deeper"):
        with pytest.raises(PathError, match=r"there is no folder|not a folder"):
            FILE_WRITERS[command](tmp_path / parent / name, model)
    with pytest.raises(PathError, match="too long"):
        FILE_WRITERS[command](tmp_path / f"{'x' * 300}{Path(command).suffix or '.x'}", model)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("command", FOLDER_WRITERS)
def test_a_folder_of_results_that_cannot_be(command, model, tmp_path):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for out, says in (
        ("file", "is a file; name a folder"),
        ("pipe", "is a pipe"),
        ("file/deeper/out", "file is a file, not a folder"),
        ("link", "link to a folder that does not exist"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(PathError, match=says):
            FOLDER_WRITERS[command](tmp_path / out, model)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]


@pytest.mark.parametrize(
    ("command", "name", "kind"),
    [
        ("compare", "results.json", "folder"),
        ("compare", "report.html", "folder"),
        ("compare", "predictions.csv", "fifo"),
        ("compare", ".lock", "fifo"),
        ("compare", "plan.json", "/dev/zero"),
        ("compare", "trials", "file"),
        ("compare", "store", "fifo"),
        ("check", "scan.csv", "folder"),
        ("explain", "explained.json", "folder"),
        ("explain", "maps", "file"),
    ],
)
def test_names_in_a_folder_of_results_that_are_taken(command, name, kind, model, tmp_path):
    if kind == "file":
        (tmp_path / name).touch()
    else:
        made(kind, tmp_path / name)
    with pytest.raises(PathError, match=rf"{name} is .* where a (file|folder) will be written"):
        FOLDER_WRITERS[command](tmp_path, model)
    assert os.listdir(tmp_path) == [name]


def test_a_folder_beside_the_model_that_convert_needs(model, tmp_path):
    (tmp_path / ".out.x.parts").touch()
    with pytest.raises(PathError, match="name a folder"):
        FILE_WRITERS["convert"](tmp_path / "out.x", model)


def test_a_null_in_a_name():
    for call in (
        lambda: check_input("DATA", "a\0b"),
        lambda: output_file("--out", Path("a\0b"), "m"),
        lambda: output_folder("--out", Path("a\0b")),
    ):
        with pytest.raises(ValueError, match="possible"):
            call()


def test_an_empty_name():
    with pytest.raises(ValueError, match="is empty"):
        open_source("")


def test_one_name_for_the_results_of_the_same_data():
    def name(given):
        folder = results_folder("check", given)
        assert folder.parent == Path("runs")
        return folder.name.removeprefix("check-")

    assert name("photos/My roses.csv") == "My-roses"
    assert name("flowers/") == name("./flowers") == name("flowers/../flowers") == "flowers"
    assert name("timm:resnet50") == "timm-resnet50"
    assert name("/") == name("...") == "data"
    assert name("\x1b[31mred\n") == "x1b-31mred-n"
    assert len(name("한" * 300).encode()) <= 200


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full ("),
        (errno.EDQUOT, "your quota on this disk is used up"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "input/output"),
    ],
)
def test_what_the_system_refuses_is_a_sentence_with_the_path(number, says, tmp_path):
    with pytest.raises(OSError, match=str(number)) as caught, path_in_errors(tmp_path / "x\x1by", needed=5_000_000):
        raise OSError(number, os.strerror(number))
    said = sentence(caught.value)
    assert says in said
    assert said.startswith(f"{tmp_path}/x\\x1by: ")
    assert said.endswith(".")
    assert ("5.0 MB are needed" in said) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert (" are free" in said) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_a_full_disk_names_the_file_that_was_meant(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="28") as caught:
        write_atomic(tmp_path / "results.json", b"x" * 2_000_000)
    assert f"{tmp_path}/results.json: the disk is full (2.0 MB are needed, " in sentence(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_gone_is_named_as_it_was_given(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "nowhere/results.json", b"x")
    assert sentence(caught.value) == f"{tmp_path}/nowhere/results.json: there is no such file or folder."


def test_a_message_of_our_own_stays():
    assert sentence(OSError("--port 80: taken")) == "--port 80: taken"
