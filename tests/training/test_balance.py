"""Classes of unequal size: weights are scikit-learn's, draws are even, and a network learns the rare class."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from gapstone.training.balance import balance_weights, class_weights, drawn_evenly
from gapstone.training.loop import TrainSettings, batches, predict, train
from gapstone.training.losses import accuracy

from .test_loop import Pictures, model

LABELS = np.repeat([0, 1, 3], [90, 9, 1])  # none of class 2


def test_weights_are_those_of_scikit_learn():
    weights = class_weights(LABELS, 4)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    assert weights[[0, 1, 3]].tolist() == pytest.approx(expected.tolist())
    assert weights[2] == 0
    assert weights[LABELS].sum() == pytest.approx(len(LABELS))
    assert balance_weights("none", LABELS, 4) is None


def test_each_class_is_drawn_as_often_and_no_image_twice_more_than_another():
    rows, random = np.arange(1000, 1100), np.random.default_rng(0)
    most = set()
    for _ in range(20):
        drawn = drawn_evenly(rows, LABELS, random)
        assert len(drawn) == len(rows)
        classes = np.bincount(LABELS[drawn - 1000], minlength=4)
        assert sorted(classes.tolist()) == [0, 33, 33, 34]
        most.add(int(classes.argmax()))
        times = np.bincount(drawn - 1000, minlength=100)
        for k in (0, 1, 3):
            assert np.ptp(times[k == LABELS]) <= 1
    assert most == {0, 1, 3}  # the odd one goes to any class
    assert not np.array_equal(drawn_evenly(rows, LABELS, random), drawn_evenly(rows, LABELS, random))


def test_an_epoch_has_the_images_that_their_weights_say():
    pictures, rows = Pictures(), np.arange(40)
    weights = np.where(np.arange(len(pictures.labels)) % 2, 3.0, 0.0)
    weights[1] = 6
    settings = TrainSettings(batch_size=8)
    seen = torch.cat([x for x, _ in batches(model("gap"), pictures, rows, settings, 0, 1, None, weights)])
    every = torch.cat([x for x, _ in batches(model("gap"), pictures, rows, settings, 0, 1)])
    assert len(seen) == len(every) == 40
    number = [int(np.flatnonzero([torch.equal(x, y) for y in _plain(pictures, rows)])[0]) for x in seen]
    times = np.bincount(number, minlength=40)
    assert times[::2].max() == 0
    assert times[1] in (3, 4)
    assert set(times[3::2].tolist()) <= {1, 2}
    assert times.sum() == 40


def _plain(pictures, rows):
    return [model("gap").preprocessing.normalise(torch.from_numpy(pictures.images[row][None]))[0] for row in rows]


def test_weighted_accuracy_is_balanced_accuracy():
    labels = torch.tensor([0, 0, 0, 1])
    logits = F.one_hot(torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]])).double()
    weights = class_weights(labels.numpy(), 2)
    assert accuracy(logits, labels, weights).tolist() == pytest.approx([0.5, (2 / 3 + 1) / 2])
    assert accuracy(logits, labels).tolist() == [0.75, 0.75]


@pytest.mark.parametrize("balance", ["loss", "sampler"])
def test_a_rare_class_is_learned_and_validation_counts_it(balance):
    pictures = Pictures()
    by_class = [np.flatnonzero(pictures.labels == k) for k in range(3)]
    rows = np.concatenate([by_class[0][:60], by_class[1][:60], by_class[2][:2]])
    held = np.concatenate([by_class[0][60:80], by_class[1][60:80], by_class[2][2:6]])
    rare, settings = by_class[2][6:46], TrainSettings(epochs=4, batch_size=16)
    recall, histories = [], []
    for each in ("none", balance):
        trained = model("gap")
        histories.append(train(trained, pictures, rows, held, replace(settings, balance=each)))
        recall.append((predict(trained, pictures, rare).argmax(1) == 2).double().mean())
    assert recall[1] > recall[0] + 0.2
    logits, labels = predict(trained, pictures, held), torch.from_numpy(pictures.labels[held])
    weights = class_weights(pictures.labels[rows], 3)
    best = histories[1].best_epoch - 1
    assert histories[1].validation_loss[best] == pytest.approx(F.cross_entropy(logits, labels, weights).item())
    assert histories[1].validation_accuracy[best] == accuracy(logits, labels, weights)
