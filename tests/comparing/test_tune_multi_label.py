"""Heads on cached features of images with several labels: the same steps as torch's, and scikit-learn's minimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from gapstone.comparing.head_copies import HeadCopies
from gapstone.comparing.linear_sgd import LinearDescent
from gapstone.comparing.sample_space import SampleSpace
from gapstone.comparing.trained_inputs import TrainedInputs
from gapstone.comparing.tune_head import tune_head
from gapstone.comparing.tuning import TuningGrid
from gapstone.statistics.labels import indicators
from gapstone.training.balance import class_weights
from gapstone.training.losses import log_odds

from .test_tune_head import (
    CLASSES,
    IMAGES,
    LABELS,
    POINTS,
    SETTINGS,
    TEST,
    TRAIN,
    VALIDATION,
    cached,
    one_by_one,
)

SEVERAL = indicators(LABELS, CLASSES) | (np.random.default_rng(1).random((IMAGES, CLASSES)) < 0.2)
SEVERAL[::7] = False  # and images of no class
UNEQUAL = class_weights(SEVERAL[TRAIN], CLASSES)


@pytest.mark.parametrize("weights", [None, UNEQUAL])
def test_all_candidates_are_each_of_them_by_torchs_sgd(tmp_path, weights):
    predictor, begin = cached(tmp_path, "gap", SEVERAL), log_odds(SEVERAL[TRAIN])
    images = TrainedInputs(predictor, np.arange(IMAGES), whole=False)
    run = LinearDescent(CLASSES, images.scale(TRAIN), POINTS, SETTINGS, len(TRAIN), weights=weights, begin=begin)
    for _ in range(SETTINGS.epochs):
        losses = run.train_epoch(images.batches(images.parts(TRAIN)))
    everything = next(images.batches([np.arange(IMAGES)]))[0]
    for number, point in enumerate(POINTS):
        expected = one_by_one(predictor, images, *point, weights, begin)
        torch.testing.assert_close(run.logits(everything)[number], expected, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("weights", [None, UNEQUAL])
def test_copies_and_the_space_of_the_images_take_the_same_steps(tmp_path, weights):
    predictor, begin = cached(tmp_path, "fc", SEVERAL), log_odds(SEVERAL[TRAIN])
    images, again = (TrainedInputs(predictor, np.arange(IMAGES), whole=False) for _ in range(2))
    facts = POINTS, SETTINGS, len(TRAIN)
    linear = LinearDescent(CLASSES, images.scale(TRAIN), *facts, weights=weights, begin=begin)
    space = SampleSpace(again, TRAIN, again.scale(TRAIN))
    spanned = LinearDescent(CLASSES, space, *facts, weights=weights, begin=begin)
    predictor.head.classifier[-1].bias.data.copy_(begin)
    copies = HeadCopies(predictor.head, images.scale(TRAIN), *facts, False, weights)
    for _ in range(SETTINGS.epochs):
        runs = ((linear, images), (spanned, space), (copies, images))
        losses = [run.train_epoch(read.batches(read.parts(TRAIN))) for run, read in runs]
        torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(losses[2], losses[0], atol=1e-5, rtol=1e-4)
    logits = []
    for run in (linear, spanned, copies):
        run.take(1)(predictor.head)
        logits.append(predictor.logits(TEST))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[2], logits[0], atol=1e-4, rtol=1e-4)


def test_the_chosen_candidate_has_the_least_validation_loss_and_begins_at_the_classes_rates(tmp_path):
    predictor = cached(tmp_path, "gap", SEVERAL)
    history, choice = tune_head(predictor, TRAIN, VALIDATION, SETTINGS, TuningGrid(), seed=0)
    logits, truth = predictor.logits(VALIDATION), SEVERAL[VALIDATION]
    loss = sum(log_loss(truth[:, k], logits[:, k].sigmoid().numpy()) for k in range(CLASSES))
    assert loss == pytest.approx(history.validation_loss[history.best_epoch - 1], rel=1e-5)
    assert loss == pytest.approx(min(c[2] for c in choice.candidates), rel=1e-5)
    right = ((logits.numpy() >= 0) == truth).all(1).mean()
    assert history.validation_accuracy[history.best_epoch - 1] == pytest.approx(right)
    # without a step that does anything, the head answers with the classes' rates, half an image added
    tune_head(predictor, TRAIN, VALIDATION[:0], replace(SETTINGS, learning_rate=1e-9), TuningGrid(), seed=0)
    rates = (SEVERAL[TRAIN].sum(0) + 0.5) / (len(TRAIN) + 1)
    np.testing.assert_allclose(predictor.logits(TEST).sigmoid(), np.tile(rates, (len(TEST), 1)), rtol=1e-4)


def test_many_epochs_end_at_the_minimum_of_one_logistic_regression_for_each_class(tmp_path):
    predictor = cached(tmp_path, "gap", SEVERAL)
    decay, settings = 0.02, replace(SETTINGS, epochs=150, batch_size=len(TRAIN), learning_rate=2.0, weight_decay=0.02)
    images = TrainedInputs(predictor, TRAIN, whole=False)
    x = images.scale(TRAIN)(next(images.batches([TRAIN]))[0].clone()).numpy()
    tune_head(predictor, TRAIN, VALIDATION[:0], settings, TuningGrid(), seed=0)
    logits = predictor.logits(TRAIN)
    for k in range(CLASSES):
        oracle = LogisticRegression(C=1 / (decay * len(TRAIN)), tol=1e-8).fit(x, SEVERAL[TRAIN, k])
        np.testing.assert_allclose(logits[:, k], oracle.decision_function(x), atol=2e-3)
    assert F.binary_cross_entropy_with_logits(logits, torch.from_numpy(SEVERAL[TRAIN]).float()) < 0.69
