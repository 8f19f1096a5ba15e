"""Quantisation: on which images it is calibrated and measured, what it costs, and that it says so."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits

from gapstone.export import int8
from gapstone.export.export_model import export
from gapstone.export.to_onnx import read_onnx
from gapstone.maps.open_model import open_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def model(make, tmp_path_factory):
    """Trained for three seconds on the first 1,000 digits."""
    # a label more, and in another order than the data's: answers are compared by name
    labels = ("none", *map(str, reversed(range(10))))
    opened = make(head="gap", size=(16, 16), channels=1, labels=labels)
    network = opened.model.train()
    digits = load_digits()
    pixels = torch.from_numpy(np.kron(digits.images[:1000] * 15.9, np.ones((2, 2))).astype(np.uint8))[..., None]
    images = opened.preprocessing.normalise(pixels)
    target = torch.tensor([labels.index(str(k)) for k in digits.target[:1000]])
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        some = torch.randint(0, 1000, (64,), generator=generator)
        torch.nn.functional.cross_entropy(network(images[some]), target[some]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.save(tmp_path_factory.mktemp("int8") / "digits.safetensors")


@pytest.mark.slow
def test_export_with_int8(model, tmp_path):
    said = Console(file=io.StringIO(), width=250)
    export(str(model), tmp_path / "d.onnx", int8=True, data="digits", console=said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.int8.onnx", "d.onnx"]
    text = said.file.getvalue()
    assert "d.int8.onnx: " in text
    assert "Calibrated on 128 others" in text
    assert "on 346 images" in text

    before, after = (onnx.load(tmp_path / name) for name in ("d.onnx", "d.int8.onnx"))
    facts = {entry.key: entry.value for entry in after.metadata_props}
    assert "128 images" in facts.pop("int8")
    assert facts == {entry.key: entry.value for entry in before.metadata_props}
    assert {node.domain for node in after.graph.node} == {""}
    kinds = [node.op_type for node in after.graph.node]
    assert kinds.count("QuantizeLinear") > 5
    assert not {node.op_type for node in before.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    assert [output.name for output in after.graph.output] == ["logits", "maps"]

    opened = open_model(str(model))
    images = int8.choose_images(opened, "digits")
    cost = int8.cost(tmp_path / "d.onnx", tmp_path / "d.int8.onnx", opened, images)
    assert cost.images == 346
    assert cost.right_before > 250, "the float model is right for most"
    assert abs(cost.right_after - cost.right_before) < 40
    assert cost.right_after == cost.right_before - cost.lost + cost.won
    assert 290 < cost.same <= 346
    assert 0 < cost.maps < 0.5
    assert cost.bytes_after < cost.bytes_before
    assert re.match(r"int8 [\d.]+ ms \(quartiles [\d.]+ to [\d.]+\), float [\d.]+ ms \(", cost.paces)
    assert f"{100 * cost.right_before / 346:.1f} % before, {100 * cost.right_after / 346:.1f} % after" in text

    # maps still add up to the logits: the head was left in float
    run = read_onnx(tmp_path / "d.int8.onnx")
    logits, maps = run(torch.randn(2, 1, 16, 16).numpy())
    bias = opened.model.head.classifier[-1].bias.detach().numpy()
    np.testing.assert_allclose(maps.sum((2, 3)) + bias, logits, atol=1e-3)


def test_the_accuracy_is_the_models(model):
    """The float side of the report, against PyTorch on the same images."""
    opened = open_model(str(model))
    images = int8.choose_images(opened, "digits")
    pictures = [images.source.pixels(int(row)) for row in images.held_out]
    answers = opened.model.predict(pictures).argmax(1).numpy()
    right = int(
        (
            np.array(opened.labels)[answers] == np.array(images.source.classes)[images.source.labels[images.held_out]]
        ).sum()
    )
    assert int((answers == images.labels[images.held_out]).sum()) == right


def test_calibration_and_measurement_share_no_image(model):
    images = int8.choose_images(open_model(str(model)), "digits")
    assert len(images.calibration) == int8.CALIBRATED
    assert len(images.held_out) == 346
    assert not set(images.calibration) & set(images.held_out)
    counts = np.bincount(images.source.labels[images.calibration], minlength=10)
    assert counts.min() >= 12, "every class is there, and as often as the others"
    again = int8.choose_images(open_model(str(model)), "digits")
    assert np.array_equal(images.calibration, again.calibration)


def test_the_verdict_is_plain():
    cost = int8.QuantisationCost(200, 100, 190, 180, 12, 2, 185, 0.03, 4_000, 1_000, "int8 1 ms, float 2 ms")
    assert "LESS ACCURATE" in cost.verdict
    assert "95.0 % before, 90.0 % after, on 200 images (12 lost, 2 won); 92.5 %" in cost.verdict
    assert "as accurate" in replace(cost, right_after=190, lost=1, won=1).verdict
    assert "no harm" in replace(cost, right_after=191, lost=0, won=1).verdict
