"""--tune: each candidate is the training it would be alone, and validation images choose, no others."""

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from rich.console import Console

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.run_comparison import compare
from gapstone.comparing.trials import Start, Trial
from gapstone.comparing.tune_network import tune_network
from gapstone.comparing.tuning import TuningGrid, tuned_network
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.loop import TrainingError, TrainSettings, seeded, train
from gapstone.training.training_data import TrainOptions
from tests.schemas import check

TRAIN, VALIDATION, TEST = np.arange(32), np.arange(32, 48), np.arange(48, 60)
SETTINGS = TrainSettings(epochs=2, batch_size=16)
GRID = TuningGrid((0.001, 0.1), (0.0, 5e-4))


@dataclass
class Squares:
    """Pictures of 8 px whose class is the colour of a square."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def drawn(cls) -> "Squares":
        images = np.random.default_rng(0).integers(0, 120, (60, 8, 8, 3)).astype(np.uint8)
        labels = np.arange(60) % 3
        for image, label in zip(images, labels, strict=True):
            image[2:6, 2:6, label] = 250
        return cls(images, labels)


def build() -> Classifier:
    half = Preprocessing(3, (8, 8), (8, 8), (0.5,) * 3, (0.25,) * 3)
    return seeded(0, "cpu", "nin", "gap", ("a", "b", "c"), half)


def tuned(pictures=None, validation=VALIDATION, grid=GRID, **more):
    return tune_network(build, pictures or Squares.drawn(), TRAIN, validation, SETTINGS, grid, 0, **more)


def test_the_least_validation_loss_is_what_the_network_ends_with():
    seen = []
    model, history, choice = tuned(after_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == list(range(1, 2 * len(GRID.points) + 1))
    rate, decay, least = min(choice.candidates, key=lambda candidate: candidate[2])
    assert (choice.learning_rate, choice.weight_decay, choice.chosen) == (rate, decay, True)
    assert [candidate[:2] for candidate in choice.candidates] == GRID.points
    assert rate == 0.1  # at 0.001 nothing is learned in two epochs
    alone, settings = build(), replace(SETTINGS, learning_rate=rate, weight_decay=decay)
    expected = train(alone, Squares.drawn(), TRAIN, VALIDATION, settings)
    assert expected.validation_loss[expected.best_epoch - 1] == least
    assert (history.validation_loss, choice.epoch) == (expected.validation_loss, expected.best_epoch)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_no_choice_moves_with_test_images_or_their_labels():
    other = Squares.drawn()
    other.images[TEST], other.labels[TEST] = 7, 0
    assert tuned(other)[2] == (before := tuned()[2])
    other.labels[VALIDATION] = (other.labels[VALIDATION] + 1) % 3
    assert tuned(other)[2] != before


def test_candidates_that_overflow_are_left_out():
    choice = tuned(grid=TuningGrid((1e12, 0.1), (0.0,)))[2]
    assert choice.candidates[0] == (1e12, 0.0, None)
    assert choice.learning_rate == 0.1
    with pytest.raises(TrainingError, match="learning rate"):
        tuned(grid=TuningGrid((1e12, 1e13), (0.0,)))


def test_without_validation_images_there_is_one_candidate():
    choice = tuned(validation=VALIDATION[:0])[2]
    assert (choice.candidates, choice.chosen, choice.epoch) == ([(0.05, 5e-4, None)], False, SETTINGS.epochs)


def test_what_the_user_gives_is_the_only_candidate():
    digits = TrainOptions("digits")
    assert tuned_network(digits, SETTINGS) == TuningGrid((0.015, 0.05, 0.15), (5e-5, 5e-4))
    assert tuned_network(replace(digits, learning_rate=0.05), SETTINGS) == TuningGrid((0.05,), (5e-5, 5e-4))
    assert tuned_network(replace(digits, weight_decay=0.0), replace(SETTINGS, weight_decay=0.0)).weight_decays == (0.0,)


def test_ids_of_trials_without_it_stay():
    half = Preprocessing(3, (8, 8), (8, 8), (0.5,) * 3, (0.25,) * 3)
    rows = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "shown": TEST}
    plain = Trial("nin", False, "gap", ("a", "b", "c"), half, SETTINGS, 0, None, 1, "cpu", "0" * 16, **rows)
    tuned = replace(plain, tuning=GRID)
    assert tuned.id not in (plain.id, replace(plain, tuning=TuningGrid((0.1,), (0.0,))).id)
    assert (plain.trainings, tuned.trainings, replace(tuned, validation=VALIDATION[:0]).trainings) == (1, 4, 1)
    frozen = Start("0" * 16, map_dtype="float16")
    assert replace(tuned, start=frozen).trainings == 1  # all candidates together
    assert replace(tuned, start=Start("0" * 16)).trainings == 4


@pytest.mark.slow
def test_a_comparison_says_first_what_it_costs(tmp_path):
    said = io.StringIO()
    request = CompareRequest(TrainOptions("digits", limit=120, epochs=2), ("gap", "gmp"), 2, tune=True, quick=True)
    results = compare(request.checked(), tmp_path / "out", Console(file=said, width=500), "gapstone compare …")
    assert "each trained 6 times (--tune: 3 learning rates × 2 weight decays)" in said.getvalue()
    check("results", results)
    settings = results["settings"]
    assert (settings["tuning"]["learning_rates"], settings["learning_rate"]) == ([0.015, 0.05, 0.15], None)
    assert {trial["learning_rate"] for trial in results["trials"]} <= {0.015, 0.05, 0.15}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "rates 0.015, 0.05, 0.15" in page
    assert "Early stopping ends a trial" in page
