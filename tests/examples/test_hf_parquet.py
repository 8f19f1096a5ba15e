"""examples/hf_parquet.py on parquet files of digits, and the same images as a Dataset, on disk and as parquet."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import gapstone as gs

datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets: pip install datasets")
EXAMPLE = Path(__file__).parents[2] / "examples" / "hf_parquet.py"
OPTIONS: dict[str, Any] = {"heads": ["gap"], "seeds": 1, "epochs": 1, "quick": True, "keep": "none", "progress": False}


def digits(rows: slice) -> Any:
    """Of each of ten classes some images."""
    images, labels = load_digits(return_X_y=True)
    cells = []
    for k in np.concatenate([np.flatnonzero(labels == k)[rows] for k in range(10)]):
        file = io.BytesIO()
        Image.fromarray(np.rint(images[k].reshape(8, 8) * (255 / 16)).astype(np.uint8)).save(file, "png")
        cells.append(({"bytes": file.getvalue(), "path": f"{k}.png"}, int(labels[k])))
    names = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))})
    return datasets.Dataset.from_dict({"image": [i for i, _ in cells], "label": [k for _, k in cells]}, features=names)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    both = datasets.DatasetDict(train=digits(slice(0, 8)), test=digits(slice(8, 10)))
    (tmp_path / "files").mkdir()
    for split, part in both.items():
        part.to_parquet(tmp_path / "files" / f"{split}.parquet")
    return both


def test_the_example(parts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("hf_parquet", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main("files/train.parquet", "files/test.parquet")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["gap", "gem"]
    (out,) = Path("runs").iterdir()
    facts = gs.Comparison.open(out).results["data"]
    assert (facts["kind"], facts["classes"], facts["test"]) == ("arrow", list("01234"), 10)


@pytest.mark.slow
def test_a_dataset_on_disk_and_in_memory_give_the_same_numbers(parts: Any, tmp_path: Path) -> None:
    parts.save_to_disk(tmp_path / "saved")
    metrics = []
    for name, data in (("memory", parts), ("saved", tmp_path / "saved"), ("parquet", tmp_path / "files")):
        results = gs.compare(data, **OPTIONS, out=tmp_path / f"of-{name}").results
        in_order = {split: results["data"][split] for split in ("train", "validation", "test")}
        metrics.append((in_order, results["heads"][0]["metrics"]))
    assert metrics[0][0]["test"] == 20
    assert metrics[1:] == metrics[:1] * 2
