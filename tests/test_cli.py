"""The commands as a person types them."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.command_line import gapstone
from tests.schemas import check_refuses_damage

pytestmark = pytest.mark.xdist_group("command line")


def test_help_lists_every_command():
    said = gapstone("--help")
    assert said.returncode == 0
    for command in (
        "compare",
        "report",
        "check",
        "train",
        "predict",
        "explain",
        "inspect",
        "convert",
        "export",
        "serve",
        "doctor",
    ):
        assert command in said.stdout
    assert gapstone("--version").stdout.startswith("gapstone 0.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compare", "nowhere"), "does not exist"),
        (("compare", "digits", "--heads", "gapp"), "Did you mean 'gap'"),
        (("compare", "digits", "--backbone", "resnet19"), "did you mean resnet18"),
        (("compare", "digits", "--size", "4"), "size '4'"),
        (("compare", "digits", "--backbone", "resnet18", "--pretrained"), "timm:resnet18"),
        (("train", "digits", "--backbone", "timm:resnet18", "--pretrained", "--from-scratch"), "--from-scratch and"),
        (("train", "digits", "--out", "no/such/folder/m.safetensors"), "no folder"),
        (("train", "digits", "--head", "gap,fc"), "head 'gap,fc'"),
        (("predict", "m.safetensors", "x.png"), "m.safetensors"),
        (("report", "."), "no results.json"),
    ],
)
def test_mistakes_are_one_line(arguments, says, tmp_path):
    said = gapstone(*arguments, cwd=tmp_path)
    assert said.returncode == 1
    assert says in said.stderr
    before = said.stderr.partition("gapstone: ")[0]
    assert all(line.startswith("Loading PyTorch") for line in before.splitlines()), said.stderr
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"
    assert "Traceback" not in said.stderr + said.stdout


def test_a_choice_that_is_none_is_named_with_those_that_are():
    said = gapstone("compare", "digits", "--balance", "both")
    assert said.returncode == 2
    assert "'--balance': 'both' is not one of 'none', 'loss', 'sampler'." in said.stderr


@pytest.mark.slow  # quick: evaluating/test_train_model.py, explaining/test_explain_files.py
def test_train_then_predict(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # long temporary paths stay whole
    model = tmp_path / "digits.safetensors"
    said = gapstone("train", "digits", "--head", "gap", "--epochs", "5", "--out", model)
    assert said.returncode == 0, said.stderr
    assert "Test accuracy" in said.stdout
    digits = load_digits()
    for i in range(3):
        Image.fromarray((digits.images[i] * 15.9).astype("uint8")).save(tmp_path / f"{digits.target[i]}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = gapstone("predict", model, *(tmp_path / f"{k}.png" for k in range(3)), "--json")
    assert said.returncode == 0, said.stderr
    answers = json.loads(said.stdout)
    check_refuses_damage("predict", answers)
    assert [row["label"] for row in answers["images"]] == ["0", "1", "2"]
    for row in answers["images"]:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    for none in (tmp_path / "none.png", "none.png"):
        said = gapstone("predict", model, tmp_path / "1.png", tmp_path / "broken.png", none)
        assert said.returncode == 1, said.stderr
        assert said.stdout.count("no prediction") == 2
        assert "broken.png" in said.stdout
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "command",
    [("check", "digits"), pytest.param(("train", "digits", "--epochs", "1", "--limit", "100"), marks=pytest.mark.slow)],
)
def test_names_that_are_no_utf8_are_printed(tmp_path, command):
    out = os.path.join(tmp_path, os.fsdecode(b"b\xff.safetensors"))
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # what Python does on most terminals
    said = gapstone(*command, "--out", out, env=strict)
    assert said.returncode == 0, said.stderr
    assert "b\\xff.safetensors" in said.stdout
    said = gapstone("report", os.path.dirname(out) + "/none\udcff", env=strict)
    assert "none\\xff holds no finished comparison" in said.stderr


def test_check_writes_what_it_found(tmp_path):
    said = gapstone("check", "digits", "--out", tmp_path / "found")
    assert said.returncode == 0, said.stderr
    assert "1,797" in said.stdout
    assert {p.name for p in (tmp_path / "found").iterdir()} == {
        "scan.json", "scan.txt", "scan.csv", ".gapstone", ".lock",
    }  # fmt: skip


def test_help_says_what_is_chosen_where_nothing_is_given():
    """In square brackets the terminal's markup would swallow it."""
    said = gapstone("train", "--help", env=os.environ | {"COLUMNS": "300"}).stdout
    assert "(default: nin for small images; for photos" in said


def test_a_process_of_its_own_ends_at_once_with_its_code_and_all_it_said(tmp_path):
    """Nothing is taken apart at its end, and no temporary file is left: handlers of others run."""
    code = f"""
import atexit, pathlib, sys, gapstone.__main__ as own
main, sys.argv = own.main, ["gapstone", *sys.argv[1:]]
def other_libraries():
    atexit.register(pathlib.Path({str(tmp_path / "ended")!r}).touch)
    return main()
own.main = other_libraries
own.program()
"""
    for arguments, expected, said in ((["--version"], 0, "gapstone "), (["report", tmp_path / "none"], 1, "holds no")):
        call = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(call, capture_output=True, text=True)
        assert done.returncode == expected, done.stderr
        assert said in done.stdout + done.stderr
        assert (tmp_path / "ended").exists()
        (tmp_path / "ended").unlink()
