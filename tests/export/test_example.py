"""examples/onnx_client.py gives the answers of `gapstone predict`, with neither gapstone nor torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gapstone.export.export_model import export
from gapstone.export.file_metadata import _recipe
from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import Resizing
from gapstone.nets.zoo import stored_size

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
CLIENT = Path(__file__).parents[2] / "examples" / "onnx_client.py"


@pytest.mark.parametrize("channels", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_the_client_answers_as_predict(make, real_images, tmp_path, channels):
    photos = sorted((real_images("microcontrollers") / "val").rglob("*.jpg"))[:3]
    assert len(photos) == 3
    opened = make(size=(40, 48), stored=(45, 55), channels=channels)
    opened.model.multi_label = channels == 1  # one of several labels, too
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
        if opened.model.multi_label:
            order = probabilities.argsort(descending=True).tolist()
            assert answer["labels"] == [opened.labels[k] for k in order if probabilities[k] >= 0.5]
        else:
            assert answer["label"] == opened.labels[int(probabilities.argmax())]


@pytest.mark.parametrize(("size", "share"), [((40, 40), 0.9), ((40, 48), 0.875), ((33, 33), 1.0)])
@pytest.mark.parametrize("crop", ["exact", "whole pixels", "whole pixels down", "squash"])
def test_the_client_prepares_every_picture_as_the_model_expects(crop, size, share):
    """The numbers, and where they lie in the picture: the metadata says how, and the sentences say the same."""
    client: dict[str, Any] = {"__name__": "client"}
    exec(CLIENT.read_text("utf-8"), client)
    resizing = Resizing("bilinear" if crop == "squash" else "bicubic", crop)
    p = Preprocessing(3, size, stored_size(size, share), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), resizing=resizing)
    for height, width in ((61, 90), (90, 61), (101, 100), (44, 44)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found, scale, corner = client["prepare"](Image.fromarray(pixels), json.loads(json.dumps(p.to_json())))
        expected = p.normalise(torch.from_numpy(p.centre(p.fit(pixels)[None]).copy()))
        assert np.allclose(found, expected.numpy(), atol=1e-5)
        assert (*scale, *corner) == pytest.approx((*p.seen(height, width).scale, *p.seen(height, width).origin))
    said = " ".join(_recipe(p))
    assert ("box=part" in said) == (crop == "exact")
    assert ("CenterCrop" in said) == (crop != "exact")
    assert resizing.filter.upper() in said


def export_quietly(model, file):
    from rich.console import Console

    with open(os.devnull, "w") as nowhere:
        export(str(model), file, console=Console(file=nowhere))
