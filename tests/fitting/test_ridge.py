"""Sums that add up, and what is solved from them, against scikit-learn and formulas written out."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Theirs

from gapstone.fitting.ridge import PENALTIES, Ridge


def some(n=300, d=12, k=4, seed=0):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d)) * random.uniform(0.1, 5, d) + random.uniform(-20, 20, d)
    return x, x @ random.standard_normal((d, k)) * 0.3 + random.standard_normal((n, k))


def unit(x):
    return np.cov(x, rowvar=False, bias=True).trace() / x.shape[1]


def test_the_same_answer_as_scikit_learn():
    x, y = some()
    for penalty in (1e-4, 0.1, 10.0):
        ours = Ridge.of(x, y).solve(penalty)
        theirs = Theirs(alpha=penalty * len(x) * unit(x)).fit(x, y)
        np.testing.assert_allclose(ours.weight, theirs.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ours.bias, theirs.intercept_, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(ours(x), theirs.predict(x), rtol=1e-6, atol=1e-7)


def test_halves_equal_the_whole():
    x, y = some(n=10_001, d=40)  # more than one chunk, and no whole number of them
    x = x.astype(np.float32)
    whole = Ridge.of(x, y)
    parts = Ridge.of(x[:3000], y[:3000]) + Ridge.of(x[3000:3001], y[3000:3001]) + Ridge.of(x[3001:], y[3001:])
    for name in ("xx", "xy", "x", "y", "yy"):
        a, b = np.asarray(getattr(parts, name)), np.asarray(getattr(whole, name))
        assert np.abs(a - b).max() <= 1e-10 * np.abs(b).max()
    assert parts.count == whole.count == len(x)
    a, b = parts.solve(), whole.solve()
    assert a.penalty == b.penalty
    assert np.abs(a.weight - b.weight).max() <= 1e-10 * np.abs(b.weight).max()
    assert np.abs(a(x) - b(x)).max() <= 1e-10 * np.abs(b(x)).max()


def test_nothing_added_changes_nothing():
    x, y = some()
    sums = Ridge.of(x, y)
    again = sums + Ridge.empty(x.shape[1], y.shape[1])
    np.testing.assert_array_equal(again.xx, sums.xx)
    np.testing.assert_array_equal(again.solve().weight, sums.solve().weight)


def test_the_penalty_has_the_least_generalised_cross_validation_error():
    x, y = some(n=60, d=40, k=3)  # few rows: the choice matters

    def error(penalty):
        n, centred = len(x), x - x.mean(0)
        alpha = penalty * n * unit(x)
        hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(x.shape[1]), centred.T)
        residual = (y - y.mean(0)) - hat @ (y - y.mean(0))
        return n * (residual**2).sum() / (n - 1 - hat.trace()) ** 2

    errors = [error(penalty) for penalty in PENALTIES]
    best = int(np.argmin(errors))
    assert 0 < best < len(PENALTIES) - 1
    assert Ridge.of(x, y).solve().penalty == PENALTIES[best]


def test_fewer_images_than_features():
    x, y = some(n=8, d=30, k=2)
    fitted = Ridge.of(x, y).solve()
    assert np.isfinite(fitted.weight).all()
    assert np.abs(fitted.weight).max() < 10


def test_what_cannot_be_is_said():
    x, y = some()
    with pytest.raises(ValueError, match=r"expected \(n, D\) and \(n, K\)"):
        Ridge.of(x, y[:-1])
    with pytest.raises(ValueError, match="1 of the features are not finite"):
        Ridge.of(np.where(np.arange(x.size).reshape(x.shape) == 5, np.nan, x), y)
    with pytest.raises(ValueError, match="must be alike"):
        Ridge.of(x, y) + Ridge.of(x, y[:, :2])
    with pytest.raises(ValueError, match="1 rows; at least 2"):
        Ridge.of(x[:1], y[:1]).solve()
    with pytest.raises(ValueError, match="expected a number above 0"):
        Ridge.of(x, y).solve(0)
    with pytest.raises(ValueError, match="every feature is the same"):
        Ridge.of(np.ones((5, 3)), y[:5]).solve()
