"""Heads fitted to several labels per image: each class's logistic regression is scikit-learn's; and what is refused."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

import gapstone as gs
from gapstone.fitting import finetune as module
from gapstone.fitting.finetune import LastStage, finetune
from gapstone.fitting.fit_head import fit_head
from gapstone.fitting.logistic import logistic, nll
from tests.fitting.world import classifier


def some(n=500, d=6, seed=0):
    """Features of images that have each of three classes by itself: often, rarely, very rarely."""
    random = np.random.default_rng(seed)
    labels = random.random((n, 3)) < [0.5, 0.2, 0.04]
    x = random.standard_normal((n, d)) + 1.5 * labels @ np.eye(3, d)
    return (x * np.linspace(0.1, 20, d) + 5).astype(np.float32), labels


def colours(count, seed):
    """(count, 3, 16, 16), and whether each is reddish, greenish, bluish; as floats, as BCEWithLogitsLoss takes them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.5, 0.2])
    x = torch.randn(count, 3, 16, 16, generator=generator) + 0.8 * labels[:, :, None, None]
    return x, labels.float()


def test_each_class_is_scikit_learns_logistic_regression():
    x, labels = some()
    fitted = logistic(x, labels, some(seed=1))
    z = (x - x.mean(0)) / x.std(0)
    for k in range(3):
        oracle = LogisticRegression(C=1 / (fitted.penalty * len(x)), tol=1e-8).fit(z, labels[:, k])
        np.testing.assert_allclose(fitted(x)[:, k], oracle.decision_function(z), atol=0.05)
    # the penalty with the least loss of all classes together on the other images
    other, truth = some(seed=1)
    assert nll(fitted(other), truth) == pytest.approx(
        sum(len(other) * log_loss(truth[:, k], 1 / (1 + np.exp(-fitted(other)[:, k]))) for k in range(3))
    )


def test_few_images_choose_by_folds_even_if_a_fold_has_none_of_a_class():
    x, labels = some(n=120)
    labels[:, 2] = False
    labels[7, 2] = True
    fitted = logistic(x, labels, (x[:10], labels[:10]))
    assert np.isfinite(fitted.weight).all()
    assert average_precision_score(labels[:, 0], fitted(x)[:, 0]) > 0.8


@pytest.fixture(scope="module")
def old():
    return classifier()


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_a_classifier_becomes_multi_label(old, method, tmp_path):
    x, labels = colours(300, 1)
    new = fit_head(old, (x, labels), "gap", method, validation=colours(250, 3))
    assert new.multi_label
    assert not old.multi_label
    other, truth = colours(300, 2)
    logits = new(other).detach().numpy()
    assert average_precision_score(truth, logits) > 0.9
    assert ((logits >= 0) == (truth.numpy() == 1)).mean() > 0.85
    loss = log_loss(truth[:, 2], 1 / (1 + np.exp(-logits[:, 2])))
    assert loss < 0.7 * log_loss(truth[:, 2], np.full(300, 0.2))  # rare classes have probabilities that fit, too
    assert gs.load(new.save(tmp_path / "m.safetensors")).multi_label
    one = fit_head(new, (x[:60], labels[:60].argmax(1)), "gap", method, validation=(x[:9], labels[:9].argmax(1)))
    assert not one.multi_label


def test_the_last_block_ends_with_the_least_loss(old):
    data, held = colours(64, 1), colours(64, 3)
    new = fit_head(old, data, "gap", "ridge", validation=held, finetune=1)
    start = fit_head(old, data, "gap", "ridge", validation=held)

    def loss(model):
        return torch.nn.functional.binary_cross_entropy_with_logits(model(held[0]), held[1]).item()

    assert new.multi_label
    assert loss(new) < loss(start)


@pytest.mark.parametrize(("several", "best"), [(True, 2), (False, 1)])
def test_which_epoch_of_the_last_block_is_best(old, several, best, monkeypatch):
    script = iter([(0.5, 1.0), (0.9, 0.8), (0.4, 0.5)])
    monkeypatch.setattr(module, "_evaluate", lambda model, data, device: next(script))
    labels = np.zeros((2, 3), bool) if several else np.zeros(2, np.int64)
    stage = LastStage(old.features.before_last(torch.zeros(2, 3, 16, 16)).detach().numpy(), labels)
    assert finetune(copy.deepcopy(old), stage, stage, epochs=2).best == best


def test_distil_keeps_what_the_model_answers(old):
    data = colours(64, 1)
    assert not fit_head(old, data, "gap", "distil", validation=data).multi_label
    several = fit_head(old, data, "gap", "ridge", validation=data)
    assert fit_head(several, data, "gmp", "distil", validation=data).multi_label


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, y: (x, y[:, :2]), r"labels are \(64, 2\), a column for each class, and there are 3 classes"),
        (lambda x, y: (x, y * 0.5), r"expected \(n,\) whole numbers, .* or \(n, K\) of 0 and 1"),
        (lambda x, y: (x, y * torch.tensor([1, 1, 0])), r"'blue' \(none\): these classes are of none, or of all"),
        (lambda x, y: (x, torch.cat([y[:, :2], torch.ones(64, 1)], 1)), r"'blue' \(all\)"),
    ],
)
def test_labels_that_nothing_can_be_fitted_to(old, change, reason):
    x, labels = colours(64, 1)
    with pytest.raises(ValueError, match=reason):
        fit_head(old, change(x, labels), "gap", validation=(x, labels))


def test_validation_has_labels_of_the_same_kind(old):
    x, labels = colours(64, 1)
    with pytest.raises(ValueError, match="give both one class for each image, or both"):
        fit_head(old, (x, labels), "gap", validation=(x, labels.argmax(1)))
