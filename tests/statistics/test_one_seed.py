"""Models of one training each: intervals of images, paired differences, temperature; against published forms."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax

from gapstone.statistics import one_seed
from gapstone.statistics.metrics import METRICS, agreement
from gapstone.statistics.one_seed import compare_models, image_interval
from gapstone.statistics.temperature import best_temperature
from gapstone.statistics.unit import BRIER, NATS, Unit


@pytest.mark.parametrize(("right", "images"), [(90, 100), (0, 7), (360, 360), (1, 2), (499, 1000)])
def test_of_accuracy_it_is_wilsons_interval(right, images):
    values = np.r_[np.ones(right), np.zeros(images - right)]
    # its ends are the shares p that lie z standard errors of p from the one that was seen
    z2, share = 1.959963984540054**2, right / images
    expected = sorted(np.roots([1 + z2 / images, -2 * share - z2 / images, share**2]).real)
    assert image_interval(values, Unit()) == pytest.approx(expected, abs=1e-7)


def test_of_other_metrics_it_is_students():
    values = np.array([0.1, 0.7, 0.4, 1.2])
    half = 3.182446 * values.std(ddof=1) / 2  # t of 3 degrees of freedom, 97.5 %
    assert image_interval(values, NATS) == pytest.approx((max(0, 0.6 - half), 0.6 + half), abs=1e-6)
    assert image_interval(values + 1.5, BRIER)[1] == 2.0
    assert image_interval(values[:1], NATS) is None


def test_a_rare_class_that_is_all_right_is_not_certain():
    labels = np.r_[np.zeros(150, int), np.ones(3, int)]
    answers = np.r_[np.ones(5, int), np.zeros(145, int), np.ones(3, int)]
    metric = METRICS["balanced_accuracy"]
    values = metric.values(labels, np.eye(2)[answers])
    low, high = image_interval(values, metric.unit, agreement(metric, labels))
    assert low < 0.7  # three of three say: 44 % or more
    assert high > 0.99
    assert image_interval(values, metric.unit)[0] > 0.9  # what it would be without


def test_of_accuracy_the_difference_is_bonett_and_prices():
    random = np.random.default_rng(0)
    a, b = random.random(200) < 0.8, random.random(200) < 0.7
    (pair,) = compare_models({"a": a.astype(float), "b": b.astype(float)}, Unit())
    assert pair.difference == pytest.approx(b.mean() - a.mean())
    won, lost = (int((b & ~a).sum()) + 1) / 202, (int((a & ~b).sum()) + 1) / 202
    half = 1.971957 * np.sqrt((won + lost - (won - lost) ** 2) / 202)  # t of 199 degrees of freedom
    assert pair.interval == pytest.approx((won - lost - half, won - lost + half), abs=1e-6)


def test_words():
    one = np.ones(2000)
    worse = np.r_[np.zeros(100), np.ones(1900)]
    (same,) = compare_models({"a": one, "b": one}, Unit())
    assert (same.verdict, same.identical, same.difference) == ("equivalent", True, 0)
    (pair,) = compare_models({"a": one, "b": worse}, Unit())
    assert (pair.verdict, pair.identical, round(pair.difference, 6)) == ("worse", False, -0.05)
    (pair,) = compare_models({"a": one, "b": worse}, NATS)
    assert pair.verdict == "better"  # lower is better
    (few,) = compare_models({"a": one[:50], "b": one[:50]}, Unit())
    assert few.verdict == "cannot tell"  # 50 images that agree are few


def test_several_models_are_adjusted():
    random = np.random.default_rng(1)
    values = {
        name: (random.random(300) < share).astype(float)
        for name, share in zip("abcd", (0.7, 0.8, 0.75, 0.7), strict=True)
    }
    pairs = compare_models(values, Unit())
    assert [pair.name for pair in pairs] == ["b", "c", "d"]
    ps = sorted(pair.p for pair in pairs)
    assert sorted(pair.p_holm for pair in pairs)[0] == pytest.approx(min(1, 3 * ps[0]))
    for pair in pairs:
        (alone,) = compare_models({"a": values["a"], pair.name: values[pair.name]}, Unit())
        assert alone.interval == pair.interval
        assert pair.together[0] < pair.interval[0]
        assert pair.interval[1] < pair.together[1]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"\[3, 4\] values; expected as many of each"):
        compare_models({"a": np.ones(3), "b": np.ones(4)}, Unit())


def test_temperature():
    random = np.random.default_rng(2)
    logits = random.normal(0, 2, (500, 4))
    labels = np.array([random.choice(4, p=np.exp(row)) for row in log_softmax(logits, 1)])
    found, nll = best_temperature(3 * logits, labels)
    assert 2.5 < found < 3.5  # too sure by a factor of 3

    def of(temperature):
        return -log_softmax(3 * logits / temperature, 1)[np.arange(500), labels].mean()

    assert nll == pytest.approx(of(found))
    assert nll <= min(of(found * 1.01), of(found / 1.01))
    sure, nothing = best_temperature(np.array([[4.0, 0.0], [4.0, 0.0]]), np.array([0, 0]))  # all right: ever sharper
    assert 1 / 20 <= sure < 0.2
    assert nothing == pytest.approx(0, abs=1e-9)
    assert best_temperature(np.zeros((2, 2)), np.array([0, 1])) == (1.0, pytest.approx(np.log(2)))


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "nll", "brier"])
def test_intervals_cover_and_equal_models_are_told_apart_as_often_as_said(metric):
    """benchmarks/one_seed_promises.py has the whole table."""
    from benchmarks.one_seed_promises import simulate

    covered, false = simulate(metric, (360,) * 3, sharp=2.0, rounds=600, seed=0)
    assert covered > 0.93
    assert false < 0.07


def test_groups_are_what_is_counted():
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    ease = np.repeat(random.random(40), 10)  # of a patient
    a, b = (random.random(400) < ease).astype(float), (random.random(400) < ease).astype(float)
    rest = (a - b - (a - b).mean()).reshape(40, 10).sum(1)
    square = one_seed._mean_square(a - b, groups)[0]
    assert square == pytest.approx((rest**2).sum() / 400**2 * 40 / 39, rel=1e-9)
    low, high = image_interval(a, Unit(), groups=groups)
    alone = image_interval(a, Unit())
    assert high - low > 1.5 * (alone[1] - alone[0])
    (pair,) = compare_models({"a": a, "b": b}, Unit(), groups=groups)
    (each,) = compare_models({"a": a, "b": b}, Unit(), groups=np.arange(400))
    (plain,) = compare_models({"a": a, "b": b}, Unit())
    assert each.interval == pytest.approx(plain.interval, rel=2e-3)  # n − 1 for n
    assert pair.difference == plain.difference
    assert image_interval(a, Unit(), groups=np.zeros(400, int)) is None


def test_groups_that_agree_on_everything_count_as_one_image_each():
    groups = np.repeat(np.arange(20), 10)
    (pair,) = compare_models({"a": np.ones(200), "b": np.ones(200)}, Unit(), groups=groups)
    (few,) = compare_models({"a": np.ones(20), "b": np.ones(20)}, Unit())
    assert pair.interval == pytest.approx(few.interval)
    low, high = image_interval(np.ones(200), Unit(), groups=groups)
    assert low == pytest.approx(1 / (1 + 2.0930**2 / 20), abs=1e-4)  # t of 19 degrees of freedom
    assert high == 1


@pytest.mark.slow
def test_by_group_it_is_the_clustered_error_of_statsmodels():
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    random = np.random.default_rng(4)
    groups, d = np.sort(random.integers(0, 30, 300)), random.normal(size=300)
    fit = regression.OLS(d, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert one_seed._mean_square(d, groups)[0] == pytest.approx(fit.bse[0] ** 2, rel=1e-9)


def test_few_images_that_weigh_most_are_known_poorly():
    d = np.zeros(100)
    d[:2] = 30.0, 10.0  # of a class that two images have
    several = compare_models({"a": np.zeros(100), "b": d / 100}, Unit())[0]
    strata = np.array([2, 98])
    weighted = compare_models({"a": np.zeros(100), "b": d / 100}, Unit(), strata=strata)[0]
    # the variance of the part of two images doubles, that of 98 grows by 1/97, each as much as 1 / n says
    factor = (2 / 2 + 98 / 97 / 98) / (1 / 2 + 1 / 98)
    assert one_seed._of_small(strata) == pytest.approx(factor)
    # Σ d⁴ / n over (Σ d² / n)²: the kurtosis around the mean, and 2 / (κ − 1) of the images
    away = (d - d.mean()) ** 2
    freedom = 100 * 2 / ((away**2).mean() / away.mean() ** 2 - 1) - 1
    variance = 100 * np.var(d / 100) * factor + 200 * np.mean(d / 100) ** 2 / 102 + 2
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance) / 102
    assert weighted.interval == pytest.approx((d.sum() / 100 / 102 - half, d.sum() / 100 / 102 + half))
    assert weighted.p > several.p
    values = np.tile([1.0, 0.5], 50)
    low, high = image_interval(values, Unit(), strata=np.array([3, 97]))
    plain = image_interval(values, Unit())
    assert low < plain[0]
    assert high > plain[1]
    assert image_interval(values, Unit(), at_most=10.0)[0] < low
