"""examples/onnx_client.py gives the answers of `gapstone predict`, with neither gapstone nor torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gapstone.export.export_model import export

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
CLIENT = Path(__file__).parents[2] / "examples" / "onnx_client.py"


@pytest.mark.parametrize("channels", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_the_client_answers_as_predict(make, real_images, tmp_path, channels):
    photos = sorted((real_images("microcontrollers") / "val").rglob("*.jpg"))[:3]
    assert len(photos) == 3
    opened = make(size=(40, 48), stored=(45, 55), channels=channels)
    export_quietly(opened.model.save(tmp_path / "m.safetensors"), tmp_path / "m.onnx")
    alone = "import sys; sys.modules['torch'] = sys.modules['gapstone'] = None; sys.argv = sys.argv[1:]"
    code = f"{alone}; exec({CLIENT.read_text()!r})"
    run = subprocess.run(
        [sys.executable, "-c", code, str(CLIENT), str(tmp_path / "m.onnx"), *map(str, photos)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answers = json.loads(run.stdout)["images"]
    expected = opened.model.predict(photos)
    for answer, probabilities in zip(answers, expected, strict=True):
        for label, p in zip(opened.labels, probabilities, strict=True):
            assert answer["probabilities"][label] == pytest.approx(float(p), abs=1e-4)
        assert answer["label"] == opened.labels[int(probabilities.argmax())]


def export_quietly(model, file):
    from rich.console import Console

    with open(os.devnull, "w") as nowhere:
        export(str(model), file, console=Console(file=nowhere))
