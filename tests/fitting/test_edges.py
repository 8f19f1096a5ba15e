"""The guards and edges of fitting: rows that do not fit together, and which λ is taken."""

import numpy as np
import pytest
import sklearn.linear_model  # noqa: F401  of libraries it writes into the environment, when it is first imported
import torch

import gapstone as gs
from gapstone.fitting import logistic as fitted
from gapstone.fitting.ridge import Ridge
from tests.fitting.world import classifier, images

X, Y = np.random.default_rng(0).normal(size=(12, 3)), np.eye(2)[np.arange(12) % 2]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X[:, 0], Y, "expected"),
        (X, Y[:, 0], "expected"),
        (X[:5], Y, "n alike"),
        (np.where(X > 1, np.nan, X), Y, "of the features are not finite"),
        (X, np.where(Y > 0, np.inf, 0), "of the targets are not finite"),
    ],
)
def test_rows_that_make_no_sums(x, y, words):
    with pytest.raises(ValueError, match=words):
        Ridge.of(x, y)


def test_sums_of_other_shapes_do_not_add_up():
    sums = Ridge.of(X, Y)
    assert (sums + Ridge.of(X, Y)).count == 24
    with pytest.raises(ValueError, match="must be alike"):
        _ = sums + Ridge.of(X[:, :2], Y)
    with pytest.raises(ValueError, match="must be alike"):
        _ = sums + Ridge.of(X, Y[:, :1])


@pytest.mark.parametrize("penalty", [0, -1.0, np.inf, np.nan])
def test_penalties_that_are_none(penalty):
    with pytest.raises(ValueError, match="above 0"):
        Ridge.of(X, Y).solve(penalty)


def test_what_nothing_can_be_learned_from():
    with pytest.raises(ValueError, match="1 rows; at least 2"):
        Ridge.of(X[:1], Y[:1]).solve()
    assert Ridge.of(X[:2], Y[:2]).solve(1.0).weight.shape == (2, 3)
    with pytest.raises(ValueError, match="every feature is the same"):
        Ridge.of(np.ones((4, 3)), Y[:4]).solve()


def test_many_rows_in_parts_are_as_one(monkeypatch):
    whole = Ridge.of(X, Y)
    monkeypatch.setattr("gapstone.fitting.ridge.ROWS", 5)
    parts = Ridge.of(X, Y)
    assert parts.count == whole.count == 12
    np.testing.assert_allclose(parts.xx, whole.xx)
    np.testing.assert_allclose(parts.solve(0.1).weight, whole.solve(0.1).weight)


def test_the_penalty_of_the_least_generalised_error():
    """n RSS / (n − 1 − degrees of freedom)², worked out by solving for every λ."""
    random = np.random.default_rng(1)
    x = random.normal(size=(40, 5))
    y = x @ random.normal(size=(5, 2)) + 2 * random.normal(size=(40, 2))
    total = Ridge.of(x, y)
    centred = x - x.mean(0)
    unit = np.trace(centred.T @ centred) / 40 / 5
    errors = []
    from gapstone.fitting.ridge import PENALTIES

    for penalty in PENALTIES:
        hat = centred @ np.linalg.solve(centred.T @ centred / 40 + penalty * unit * np.eye(5), centred.T / 40)
        left = ((y - y.mean(0) - hat @ (y - y.mean(0))) ** 2).sum()
        errors.append(40 * left / (40 - 1 - np.trace(hat)) ** 2)
    assert total.solve().penalty == PENALTIES[int(np.argmin(errors))]


# ---- logistic regression


def features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return (random.normal(size=(count, 4)) + 0.5 * labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("count", [fitted.ENOUGH - 1, fitted.ENOUGH])
def test_enough_held_out_images_choose_the_penalty_themselves(count, monkeypatch):
    asked = []
    layer = np.zeros((2, 4)), np.zeros(2)
    monkeypatch.setattr(fitted, "_by_folds", lambda *_: asked.append("folds") or 2)
    monkeypatch.setattr(fitted, "_path", lambda *_: iter([layer] * 3))
    monkeypatch.setattr(fitted, "_by_held_out", lambda *_: asked.append("held out") or (*layer, 0.5))
    found = fitted.logistic(*features(40, 0), features(count, 1))
    assert found.penalty == (0.5 if count >= fitted.ENOUGH else fitted.PENALTIES[2])
    assert asked == (["held out"] if count >= fitted.ENOUGH else ["folds"])


@pytest.mark.parametrize(
    ("errors", "tried"),
    [
        ([3.0, 2.0, 1.0, 2.0, 3.0, 0.0], 5),  # worse twice in a row
        ([3.0, 2.0, 2.0, 2.0, 0.0], 4),  # no better is as bad
        ([3.0, 4.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0], 10),  # to and fro: to the end
        ([3.0, 4.0, 5.0, 1.0], 3),
    ],
)
def test_the_path_ends_where_it_gets_no_better_twice(errors, tried, monkeypatch):
    given = iter(errors)
    monkeypatch.setattr(fitted, "nll", lambda *_: next(given))
    monkeypatch.setattr(
        fitted, "_path", lambda *_: ((np.full((2, 1), float(k)), np.zeros(2)) for k in range(len(fitted.PENALTIES)))
    )
    steps = []
    weight, _, penalty = fitted._by_held_out(
        np.zeros((2, 1), np.float32),
        np.arange(2),
        np.zeros((2, 1), np.float32),
        np.arange(2),
        lambda a, b: steps.append(a),
    )
    assert len(steps) == tried + 1  # and once to say that it is over
    best = int(np.argmin(errors[:tried]))
    assert penalty == fitted.PENALTIES[best]
    assert weight[0, 0] == best


def test_folds_hold_out_some_of_every_class_that_can_spare_one():
    labels = np.array([0] * 7 + [1] * 2 + [2])
    fold = fitted._folds(labels)
    assert fold[-1] == -1
    assert sorted(np.bincount(fold[:7], minlength=fitted.FOLDS)) == [1, 1, 1, 2, 2]
    assert sorted(fold[7:9].tolist()) == [0, 1]


def test_a_constant_feature_has_no_weight():
    x, y = features(60, 0)
    x[:, 2] = 7.0
    assert not fitted.logistic(x, y).weight[:, 2].any()


@pytest.mark.parametrize("method", ["logistic", "ridge"])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_images_whose_features_are_not_finite(method, part):
    """Of held-out images too: they choose the penalty, and their accuracy is told."""
    model, (x, y) = classifier(), images(60, seed=1)
    bad = x * torch.nan
    data, held_out = (bad, x) if part == "training" else (x, bad)
    with pytest.raises(ValueError, match="features of 60 of 60 images are not finite"):
        gs.fit_head(model, (data, y), "gap", method=method, validation=(held_out, y))
