"""Logistic regression: the optimum it says, in the features' own units, λ chosen as it says."""

import numpy as np
import pytest
from scipy.optimize import minimize

from gapstone.fitting import logistic as module
from gapstone.fitting.logistic import PENALTIES, logistic


def some(n=600, d=8, k=3, seed=0, apart=1.2):
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, n)
    centres = np.random.default_rng(99).standard_normal((k, d)) * apart
    x = (centres[labels] + random.standard_normal((n, d))) * np.linspace(0.01, 50, d) + np.linspace(-100, 100, d)
    return x.astype(np.float32), labels


def objective(parameters, x, labels, penalty, k):
    """λ/2 |W|² on standardised features, written out in float64."""
    d = x.shape[1]
    z = (x - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    weight, bias = parameters[: k * d].reshape(k, d), parameters[k * d :]
    logits = z @ weight.T + bias
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return -logs[np.arange(len(labels)), labels].mean() + penalty / 2 * (weight**2).sum()


@pytest.mark.parametrize("k", [2, 3])
def test_it_is_the_optimum(k):
    x, labels = some(k=k)
    fitted = logistic(x, labels, some(k=k, seed=1))
    spread, mean = x.std(0, dtype=float), x.mean(0, dtype=float)
    ours = np.concatenate([(fitted.weight * spread).ravel(), fitted.bias + fitted.weight @ mean])
    best = minimize(objective, np.zeros(k * (x.shape[1] + 1)), (x, labels, fitted.penalty, k), options={"maxiter": 500})
    assert objective(ours, x, labels, fitted.penalty, k) <= best.fun + 1e-3
    assert best.fun < 0.9 * np.log(k)  # it learned something


@pytest.mark.parametrize("k", [2, 3])
def test_a_strong_penalty_is_as_strong_as_it_says(k):
    x, labels = some(k=k)
    z = ((x - x.mean(0, dtype=float)) / x.std(0, dtype=float)).astype(np.float32)
    (weight, _), *_ = module._path(z, labels, np.array([1.0]), k)
    best = minimize(objective, np.zeros(k * (x.shape[1] + 1)), (x, labels, 1.0, k), options={"maxiter": 500})
    np.testing.assert_allclose(weight.ravel(), best.x[: weight.size], atol=0.02 * np.abs(weight).max())


def test_the_penalty_is_the_best_on_held_out_images():
    x, labels = some(n=120, d=30, apart=0.5)
    other, truth = some(n=1000, d=30, apart=0.5, seed=1)
    fitted = logistic(x, labels, (other, truth))

    def nll(linear):
        logits = linear(other)
        logits = logits - logits.max(1, keepdims=True)
        return -(logits[np.arange(len(truth)), truth] - np.log(np.exp(logits).sum(1))).mean()

    mean, spread = x.mean(0, dtype=float), x.std(0, dtype=float)
    z, w = (x - mean) / spread, (other - mean) / spread
    each = [nll(lambda _, a=a, b=b: w @ a.T + b) for a, b in module._path(z.astype(np.float32), labels, PENALTIES, 3)]
    assert 0 < int(np.argmin(each)) < len(PENALTIES) - 1
    assert fitted.penalty == PENALTIES[int(np.argmin(each))]
    assert nll(fitted) == pytest.approx(min(each), rel=1e-3)


def test_few_held_out_images_do_not_decide():
    x, labels = some(n=100, d=30, apart=0.5)
    one, two = (some(n=20, d=30, apart=0.5, seed=seed) for seed in (1, 2))
    assert logistic(x, labels, one).penalty == logistic(x, labels, two).penalty == logistic(x, labels).penalty
    many, _ = some(n=module.ENOUGH, d=30, apart=0.5, seed=3)
    by_chance = np.random.default_rng(4).integers(0, 3, len(many))  # saying little is best
    assert logistic(x, labels, (many, by_chance)).penalty == PENALTIES[0] > logistic(x, labels).penalty


def test_one_image_per_class():
    x, labels = some(n=600, k=3)
    rows = [int(np.flatnonzero(labels == k)[0]) for k in range(3)]
    fitted = logistic(x[rows], labels[rows])
    assert (fitted(x[rows]).argmax(1) == labels[rows]).all()
    assert np.isfinite(fitted.weight).all()


def test_a_rare_class_is_always_trained_on():
    x, labels = some(n=50, k=3)
    keep = np.r_[np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:1]]
    fitted = logistic(x[keep], labels[keep])
    assert fitted.weight.shape[0] == 3


def test_a_constant_feature_has_no_weight():
    x, labels = some()
    x[:, 3] = 7.25
    fitted = logistic(x, labels, some(seed=1))
    assert (fitted.weight[:, 3] == 0).all()
    assert (fitted(x).argmax(1) == labels).mean() > 0.6


def test_half_precision_and_memory_maps(tmp_path):
    x, labels = some()
    x = x / 100
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    kept = np.load(tmp_path / "x.npy", mmap_mode="r")
    a, b = logistic(kept, labels), logistic(x.astype(np.float16).astype(np.float32), labels)
    np.testing.assert_allclose(a.weight, b.weight, rtol=1e-5)
