"""What an exported model of several labels says of itself, and on which images int8 is calibrated and measured."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gapstone.export import int8
from gapstone.export.file_metadata import SIGMOID, SOFTMAX, file_metadata, texts


@pytest.fixture(scope="module")
def several(make):
    opened = make(head="gap", size=(16, 16), channels=1, labels=("c", "a", "b"))
    opened.model.multi_label = True
    return replace(opened, multi_label=True)


def test_the_file_says_how_logits_become_probabilities(several):
    facts = file_metadata(several)
    assert facts["preprocessing"]["recipe"][-1] == SIGMOID
    assert texts(facts)["multi_label"] == "true"
    one = file_metadata(replace(several, multi_label=False))
    assert one["preprocessing"]["recipe"][-1] == SOFTMAX
    assert "multi_label" not in one


def test_int8_is_measured_on_the_labels_by_name(several, tmp_path):
    random, rows = np.random.default_rng(0), ["path,label"]
    for i in range(60):
        Image.fromarray(random.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'|'.join(name for k, name in enumerate('abc') if i % (k + 2) == 0)}")
    (tmp_path / "d.csv").write_text("\n".join(rows))
    images = int8.choose_images(several, str(tmp_path / "d.csv"))
    for row, labels in enumerate(images.labels):
        number = int(images.source.items[row].name.removesuffix(".png"))
        assert labels.tolist() == [number % 4 == 0, number % 2 == 0, number % 3 == 0]
    with pytest.raises(ValueError, match="has any number of classes, and the model predicts one class for each image"):
        int8.choose_images(replace(several, multi_label=False), str(tmp_path / "d.csv"))


def test_calibration_takes_rare_classes_and_images_of_none_first():
    labels = np.zeros((1000, 3), bool)
    labels[:700, 0] = labels[600:700, 1] = labels[690:700, 2] = True
    chosen = int8._calibration_rows(np.arange(1000), labels)
    assert len(chosen) == int8.CALIBRATED
    counts = np.column_stack([labels, ~labels.any(1)])[chosen].sum(0)
    assert counts[2] == 10
    assert counts.min() >= 10
    assert counts[3] >= 30
