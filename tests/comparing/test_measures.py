"""Shifts, sizes and costs, on models whose answers are known."""

import ctypes
import gc
import threading

import numpy as np
import pytest
import torch

from gapstone.comparing import trial_measures
from gapstone.comparing.predictor import ModelPredictor
from gapstone.images.preprocessing import Preprocessing
from gapstone.images.shift import shifted
from gapstone.models.classifier import Classifier
from gapstone.models.model_cost import cost

PREPROCESSING = Preprocessing(1, (16, 16), (16, 16), (0.5,), (0.25,))


def model(head):
    torch.manual_seed(0)
    return Classifier("nin", head, ("a", "b", "c"), PREPROCESSING).eval()


class Pictures:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, 20)


def test_shift_pixels():
    assert trial_measures.shift_pixels((32, 32)) == [1, 2, 3, 4]
    assert trial_measures.shift_pixels((8, 8)) == [1, 2]
    assert trial_measures.shift_pixels((224, 300))[-1] == 28
    assert trial_measures.shift_pixels((1024, 1024)) == [1, 65, 128]
    assert len(trial_measures.shift_pixels((64, 64))) == 6


def test_shifts_are_measured_against_the_unshifted_answer():
    rows = np.arange(20)
    found, right = trial_measures.shifts(ModelPredictor(model("gap"), Pictures), rows, [1, 2])
    assert right.shape == (20,)
    assert right.mean() == pytest.approx(np.mean(found["accuracy"][1:]), abs=1e-6)
    assert found["same_answer"][0] == 1
    assert len(found["accuracy"]) == 3
    # by hand, for one distance
    images = PREPROCESSING.normalise(torch.from_numpy(Pictures.images))
    net = model("gap")
    with torch.inference_mode():
        still = net(images).argmax(1)
        moves = [net(shifted(images, *move)).argmax(1) for move in ((0, 2), (0, -2), (2, 0), (-2, 0))]
    labels = torch.from_numpy(Pictures.labels)
    assert found["same_answer"][2] == pytest.approx(torch.stack(moves).eq(still).double().mean().item())
    assert found["accuracy"][2] == pytest.approx(torch.stack(moves).eq(labels).double().mean().item())


def test_a_fixed_head_has_no_accuracy_at_other_sizes():
    rows = np.arange(20)
    fixed = trial_measures.sizes(ModelPredictor(model("fc"), Pictures), rows)
    assert [a is None for a in fixed["accuracy"]] == [True, False, True, True]
    assert fixed["note"] == "takes only 16×16"
    free = trial_measures.sizes(ModelPredictor(model("gap"), Pictures), rows)
    assert None not in free["accuracy"]
    assert free["note"] is None
    assert free["input"] == [[12, 12], [16, 16], [20, 20], [24, 24]]


@pytest.mark.slow
def test_networks_that_take_few_sizes_are_not_asked_for_others():
    pytest.importorskip("timm")
    picky = Preprocessing(3, (64, 64), (64, 64), (0.5,) * 3, (0.25,) * 3)
    net = Classifier("timm:hrnet_w18_small", "gap", ("a", "b"), picky)
    assert [
        trial_measures.accepts(ModelPredictor(net, Pictures), size) for size in ((64, 64), (96, 96), (48, 48), (80, 80))
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_memory_counts_what_is_held_and_not_what_is_mapped(tmp_path, monkeypatch):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros(2**26, np.uint8))
    with trial_measures.PeakMemory("cpu") as peak:
        assert np.load(path, mmap_mode="r").sum() == 0  # every page of 64 MB is read
    assert peak.mb < 30
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what tests before this one freed is else used again, and no new page is held
    looked, own_mb = threading.Event(), trial_measures._own_mb

    def look():
        mb = own_mb()
        if threading.current_thread() is not threading.main_thread():
            looked.set()
        return mb

    monkeypatch.setattr(trial_measures, "_own_mb", look)
    with trial_measures.PeakMemory("cpu") as peak:
        held = np.ones(2**26, np.uint8)
        for _ in range(2):  # the first look may have begun before
            looked.clear()
            assert looked.wait(60)
        del held
    assert 60 < peak.mb < 90


def test_costs_are_counted():
    found = cost(model("gap"))
    trunk = 16 * 16 * (9 * 16 + 16 * 16) + 8 * 8 * (9 * 16 * 32 + 32 * 32) + 4 * 4 * (9 * 32 * 64 + 64 * 64)
    assert found["macs"] == trunk + 64 * 3
    assert found["head_parameters"] == 64 * 3 + 3
    assert found["parameters"] > found["head_parameters"]


def test_answers():
    answers = trial_measures.Answers.of(torch.tensor([[2.0, 0.0], [0.0, 1000.0]]))
    assert answers.answer.tolist() == [0, 1]
    assert answers.confidence == pytest.approx([0.8808, 1.0], abs=1e-4)
