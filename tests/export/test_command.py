"""`gapstone export` as the command line calls it: what it writes, what it says, and what it leaves behind."""

import io
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gapstone.export import torch_pools
from gapstone.export.export_model import export
from gapstone.export.to_onnx import read_onnx
from gapstone.export.to_pt2 import read_pt2
from gapstone.export.verify import ExportError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def said():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def model(make, tmp_path_factory):
    return make().model.save(tmp_path_factory.mktemp("model") / "m.safetensors")


def test_writes_both_and_says_so(model, tmp_path, said, capfd, monkeypatch):
    (tmp_path / "a.onnx").write_text("an older one of gapstone's")
    export(str(model), tmp_path / "a.onnx", tmp_path / "a.pt2", console=said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.pt2"]
    assert capfd.readouterr() == ("", "")  # torch's exporter is quiet
    text = said.file.getvalue()
    for part in (
        "a.onnx: ",
        "a.pt2: ",
        "opset 18",
        "1×3×28×28",
        "3×3×28×28",
        "2×3×28×42",
        "any size from 1×1 px",
        "K = 3",
    ):
        assert part in text, part
    images = torch.randn(1, 3, 40, 31).numpy()
    for a, b in zip(read_onnx(tmp_path / "a.onnx")(images), read_pt2(tmp_path / "a.pt2")(images), strict=True):
        assert abs(a - b).max() < 1e-5


@pytest.mark.slow
def test_a_file_that_is_wrong_is_not_kept(model, tmp_path, said, monkeypatch):
    """A wrong formula in what is exported: found by comparing with the model, not with itself."""
    monkeypatch.setattr(torch_pools, "_mean", lambda x: (x.mean((2, 3)), x / (x.shape[2] * x.shape[2])))
    old = tmp_path / "a.onnx"
    old.write_text("an older one of gapstone's")
    with pytest.raises(ExportError, match=r"maps on images 2×3×28×42 in ONNX Runtime differ .* by 0\.\d"):
        export(str(model), old, console=said)
    with pytest.raises(ExportError, match=r"in torch\.export differ"):
        export(str(model), None, tmp_path / "a.pt2", console=said)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.onnx", "an older one of gapstone's")]


def test_a_crash_leaves_nothing(model, tmp_path, said, monkeypatch):
    def crash(*_arguments, **_named):
        raise RuntimeError("no more memory")

    monkeypatch.setattr(torch.onnx, "export", crash)
    with pytest.raises(ExportError, match=r"cannot write this network \(no more memory\)"):
        export(str(model), tmp_path / "a.onnx", console=said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "--onnx model.onnx"),
        ({"onnx": "."}, "is a folder"),
        ({"onnx": "none/a.onnx"}, "there is no folder none"),
        ({"onnx": "a.pt"}, "must end in .onnx, such as a.onnx"),
        ({"pt2": "a.onnx"}, "must end in .pt2"),
        ({"onnx": "a.onnx", "opset": 17}, "--opset 17: must be from 18"),
        ({"onnx": "a.onnx", "opset": 99}, "--opset 99"),
        ({"onnx": "a.onnx", "int8": True}, "--int8 needs"),
        ({"pt2": "a.pt2", "int8": True, "data": "digits"}, "--int8 needs"),
        ({"onnx": "a.onnx", "data": "digits"}, "with --int8 only"),
        ({"onnx": "a.onnx", "int8": True, "data": "digits"}, "no label '0' .nor 9 more.*arduino"),
    ],
)
def test_mistakes_are_found_before_the_work(model, options, says, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    options = {key: Path(value) if key in ("onnx", "pt2") else value for key, value in options.items()}
    with pytest.raises(ValueError, match=says):
        export(str(model), **options, console=said)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_error_says_what_to_install(model, tmp_path, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'gapstone\[onnx\]'"):
        export(str(model), tmp_path / "a.onnx", console=said)
