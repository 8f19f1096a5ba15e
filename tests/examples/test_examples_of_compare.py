"""The scripts and the notebook in examples/ run as they are, but for their size."""

import csv
import runpy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gapstone as gs

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"seeds": 2, "epochs": 1, "quick": True, "workers": 1, "progress": False}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`run("own_head.py", "photos/")`: what it prints, and what its comparison found."""
    compare, found = gs.compare, []

    def small(data, **arguments):
        found.append(compare(data, **arguments | SMALL))
        return found[-1]

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(gs, "compare", small)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out, found[-1]

    return run


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """scans.csv, of 60 small images of 15 patients, in two classes and folders."""
    folder, random = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    rows = []
    for number in range(60):
        label = ("benign", "malign")[number // 4 % 2]
        pixels = random.integers(0, 120, (24, 24), np.uint8)
        pixels[6:18, 6:18] += np.uint8(60 * (label == "malign"))
        path = folder / label / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append([path.relative_to(folder), label, number // 4])
    with (folder / "scans.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *rows])
    return folder


def test_own_head(run, scans):
    said, result = run("own_head.py", str(scans))
    assert result.heads.names() == ["gap", "gated", "fc"]
    assert str(result.pairs["gated"]) in said
    with Image.open(result.out / "maps.png") as picture:
        assert picture.width > 500


def test_patients(run, scans):
    said, result = run("patients.py", str(scans / "scans.csv"))
    assert (result.metric, result.results["data"]["groups"]["by"]) == ("auroc", "--group patient")
    assert f"gmp: AUROC {result['gmp'].score.short()}" in said
    assert (result.out / "auroc.svg").read_text("utf-8").count("<svg") == 1


def test_own_dataset(run, scans):
    said, result = run("own_dataset.py", str(scans))
    assert result.verdict in said
    assert result.results["settings"]["augment"] == "random transforms of the user's own, drawn anew in each epoch"
    assert (result.out / "gap.safetensors").exists()


@pytest.fixture
def trained_by_others(tmp_path, monkeypatch, capsys):
    """What a script prints that trains by another library: one epoch, and the test images are not moved."""
    evaluate, random = gs.evaluate, np.random.default_rng(0)
    for number in range(15):
        path = tmp_path / "photos" / ("red", "green", "blue")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 48, 3), np.uint8)).save(path)

    def run(name):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(gs, "evaluate", lambda *given: evaluate(*given, quick=True, progress=False))
        monkeypatch.setattr(sys, "argv", [name, "photos"])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        assert set(gs.load("photos.safetensors").labels) == {"red", "green", "blue"}
        return capsys.readouterr().out

    return run


@pytest.mark.filterwarnings("ignore")  # what the libraries deprecate in each other
def test_lightning(trained_by_others, monkeypatch):
    lightning = pytest.importorskip("lightning")
    monkeypatch.setattr(lightning, "Trainer", partial(lightning.Trainer, enable_progress_bar=False))
    assert "gem:p=learned on resnet18: accuracy" in trained_by_others("lightning_module.py")


@pytest.mark.filterwarnings("ignore")
def test_hf_trainer(trained_by_others):
    for name in ("transformers", "accelerate", "datasets"):
        pytest.importorskip(name)
    assert "gem:p=learned on resnet18: accuracy" in trained_by_others("hf_trainer.py")


def test_the_notebook(tmp_path):
    """In a kernel of its own; its pictures are there, and the table is shown once."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "compare.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = {cell.source.splitlines()[-1]: cell.outputs[-1]["data"] for cell in cells}
    result = gs.Comparison.open(tmp_path / "runs/notebook")
    assert result.verdict in shown["result"]["text/html"]
    assert shown["result"]["text/plain"].splitlines()[:-1] == repr(result).splitlines()[:-1]
    assert all(result["gap"].accuracy.short() not in output["data"]["text/plain"] for output in cells[0].outputs[:-1])
    assert "image/png" in shown['result.plot("shift")']
    assert "image/png" in shown["result.maps(3)"]
    assert shown["result.pairs.frame()"]["text/html"].count("<tr") == 3


def test_they_are_short():
    for path in EXAMPLES.glob("*.py"):
        if "client" not in path.name:
            assert path.read_text("utf-8").count("\n") < 40, path
