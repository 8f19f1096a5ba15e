"""Test images that are not independent: the variance by group against statsmodels, and what verdicts promise."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.groups_promises import drawn
from gapstone.comparing.learning_curve import curve_results
from gapstone.statistics.by_group import Groups, by_group, evenness, too_few
from gapstone.statistics.compare_pairs import compare_pairs, share_interval, share_stat
from gapstone.statistics.difference import corrected_t, crossed, mean_squares
from gapstone.statistics.metric_values import one_hot
from gapstone.statistics.metrics import METRICS, agreement
from gapstone.statistics.unit import POINTS

Rows = NDArray[np.float64]


def made(seeds: int = 5, images: int = 120, groups: int = 24) -> tuple[Rows, Rows, NDArray[np.int64]]:
    """Two heads, right or wrong, on images in unequal groups that share a difficulty."""
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(0, groups, images))
    hard = rng.normal(size=groups)[group] + rng.normal(size=images)
    heads = [(hard + rng.normal(size=(seeds, images)) < limit).astype(float) for limit in (1.0, 0.6)]
    return heads[0], heads[1], group


# --- oracles


def test_one_seed_is_the_clustered_sandwich() -> None:
    a, b, group = made()
    for row in a - b:
        sums = [(row[group == g] - row.mean()).sum() for g in np.unique(group)]
        z = by_group(row[None], group)[0]
        assert z.mean() == pytest.approx(row.mean(), abs=1e-15)
        count = len(sums)
        assert z.var(ddof=0) / count == pytest.approx(np.square(sums).sum() / 120**2, rel=1e-12)


@pytest.mark.slow  # importing statsmodels takes seconds
def test_one_seed_against_statsmodels_clustered_covariance() -> None:
    import statsmodels.api as sm

    a, b, group = made()
    for row in a - b:
        how = {"groups": group, "use_correction": False}
        fit = sm.OLS(row, np.ones(len(row))).fit(cov_type="cluster", cov_kwds=how)
        z = by_group(row[None], group)[0]
        assert z.var(ddof=0) / len(z) == pytest.approx(fit.bse[0] ** 2, rel=1e-12)


def test_any_metric_is_its_jackknife_by_group() -> None:
    """n / G times what a group's weight does to the metric, by finite differences over the images' weights."""
    rng = np.random.default_rng(1)
    labels, answers = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    group = rng.integers(0, 9, 60)
    weight, step = np.ones(60), 1e-6
    recall = lambda w: np.mean(  # noqa: E731
        [w[(labels == k) & (answers == k)].sum() / w[labels == k].sum() for k in range(3)]
    )
    values = METRICS["balanced_accuracy"].values(labels, one_hot(answers, 3))
    z = by_group(values[None], group)[0]
    for g in range(9):
        slope = (recall(weight + step * (group == g)) - recall(weight - step * (group == g))) / (2 * step)
        assert z[g] == pytest.approx(recall(weight) + 9 * slope, abs=1e-8)


def test_the_error_by_group_the_slow_way() -> None:
    a, b, group = made()
    estimate = crossed(a, b, groups=group)
    d, names = a - b, np.unique(group)
    z = np.array([[row.mean() + len(names) / 120 * (row[group == g] - row.mean()).sum() for g in names] for row in d])
    by_seed, by_column, residual = mean_squares(z)
    sizes = np.array([(group == g).sum() for g in names])
    even = 120**2 / (sizes**2).sum()
    ratio = (by_column / len(names)) / (mean_squares(d)[1] / 120)
    worth = 120 / np.clip(ratio, 1, 120 / even)
    assert estimate.difference == pytest.approx(d.mean(), abs=1e-15)
    assert estimate.error.by_repeat**2 == pytest.approx(by_seed / (5 * len(names)))
    assert estimate.error.by_image**2 == pytest.approx((by_column - residual) / (5 * len(names)) + 2 / (worth + 2) ** 2)
    assert estimate.worth == pytest.approx(worth)
    assert estimate.error.images * estimate.error.evenness == pytest.approx(even)
    assert 24 < estimate.worth < 110


def test_groups_of_one_image_change_nothing_to_the_last_bit() -> None:
    a, b, _ = made()
    assert crossed(a, b, groups=np.random.default_rng(0).permutation(120)) == crossed(a, b)
    correct = {"a": dict(enumerate(a)), "b": dict(enumerate(b))}
    single = Groups(dict.fromkeys(range(5), np.arange(120)))
    assert compare_pairs(correct, "b", groups=single) == compare_pairs(correct, "b")
    assert share_stat(correct["a"], groups=single) == share_stat(correct["a"])


def test_identical_images_count_once() -> None:
    """Every image three times is the comparison of the images themselves."""
    a, b, _ = made()
    once, thrice = crossed(a, b), crossed(np.repeat(a, 3, 1), np.repeat(b, 3, 1), groups=np.repeat(np.arange(120), 3))
    assert thrice.error.standard_error == pytest.approx(once.error.standard_error, rel=1e-12)
    assert thrice.p == pytest.approx(once.p, rel=1e-9)
    plain = share_interval(list(a))
    assert share_interval(list(np.repeat(a, 3, 1)), groups=np.repeat(np.arange(120), 3)) == pytest.approx(plain)


def test_agreement_on_everything_is_that_of_the_groups() -> None:
    """Heads that agree on 100 images of 10 patients have shown as little as on 10 images."""
    alike, group = np.ones((5, 100)), np.repeat(np.arange(10), 10)
    assert crossed(alike, alike, groups=group).error.by_image == crossed(alike[:, :10], alike[:, :10]).error.by_image
    low, high = share_interval(list(alike), groups=group) or (0.0, 0.0)
    assert low == pytest.approx((share_interval(list(alike[:, :10])) or (0.0, 0.0))[0])
    assert high == pytest.approx(1.0)


# --- too few, and what is said


def test_too_few_groups_get_no_interval() -> None:
    a, b, _ = made()
    group = np.arange(120) // 30
    few = too_few(group)
    assert few == "The test images are of 4 groups: from 5 on they show how far the result depends on the group."
    groups = Groups(dict.fromkeys(range(5), group), refused=few)
    correct = {"a": dict(enumerate(a)), "b": dict(enumerate(b))}
    (pair,) = compare_pairs(correct, "b", groups=groups)
    assert pair["verdict"] == "cannot tell"
    assert (pair["ci95"], pair["ci95_together"], pair["p"], pair["detectable"]) == (None,) * 4
    assert pair["difference"] == pytest.approx(100 * (a - b).mean())
    assert pair["advice"] == few
    assert pair["method"] == f"none: {few}"
    assert share_stat(correct["a"], groups=groups)["ci95"] is None
    curve = curve_results([(None, 9)], [correct], "b", POINTS, 0.95, groups=groups)
    assert curve["pairs"][0]["p"] is None
    assert curve["heads"][0]["score"][0]["ci95"] is None


def test_too_few_in_a_class_and_too_unequal() -> None:
    group, labels = np.repeat(np.arange(20), 5), np.repeat([0, 1], [80, 20])
    assert too_few(group) is None
    assert too_few(group, labels) == (
        "The test images of a class are of 4 groups only: from 5 on they show how far the result depends on the group."
    )
    assert too_few(group, np.repeat([0, 1], 50)) is None
    giant = np.r_[np.zeros(90, int), np.arange(10)]
    assert "10 test groups are of so unequal size that they are worth 1.2 equal ones" in (too_few(giant) or "")
    assert evenness(giant) * 10 == pytest.approx(100**2 / (91**2 + 9))


def test_method_and_advice_count_groups() -> None:
    a, b, group = made()
    correct = {"a": dict(enumerate(a)), "b": dict(enumerate(b * 0 + a))}
    correct["a"][1] = b[1]
    groups = Groups(dict.fromkeys(range(5), group))
    (pair,) = compare_pairs(correct, "b", groups=groups)
    assert pair["method"].startswith("crossed seed × group variance, 5 seeds × 24 test groups of 120 images, ")
    assert "test groups" in pair["advice"]
    assert "test images" not in pair["advice"]


def test_folds_are_of_whole_groups() -> None:
    a, b, group = made()
    cut = [np.flatnonzero(group % 5 == fold) for fold in range(5)]
    correct = {name: {k: rows[0][at] for k, at in enumerate(cut)} for name, rows in (("a", a), ("b", b))}
    folds = {k: (120 - len(at), len(at)) for k, at in enumerate(cut)}
    (pair,) = compare_pairs(correct, "b", folds=folds, groups=Groups({k: group[at] for k, at in enumerate(cut)}))
    assert "over 5 folds of whole groups" in pair["method"]
    oracle = corrected_t(*([float(h[0][at].mean()) for at in cut] for h in (a, b)), *zip(*folds.values(), strict=True))
    assert pair["p"] == oracle.p


# --- what verdicts promise


def test_taken_for_independent_groups_make_findings() -> None:
    """Equal heads, 20 images of each patient: by image a third is called different, by group a twentieth at most."""
    rng = np.random.default_rng(0)
    by_image, grouped = [], []
    for _ in range(150):
        (a, b), group = drawn(rng, [0.8, 0.8], 5, 400, 20, 1.0, 0.0)
        by_image.append(crossed(a, b).p < 0.05)
        grouped.append(crossed(a, b, groups=group).p < 0.05)
    assert np.mean(by_image) > 0.2
    assert np.mean(grouped) < 0.07


@pytest.mark.slow
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("images", "each"), [(100, 5), (100, 10), (360, 10), (360, 20), (2000, 20)])
def test_false_findings_and_coverage(images: int, each: int, uneven: bool) -> None:
    """Each setting 150 times: together 1,350 equal heads, whose share has a standard error of 0.6 points at 5 %."""
    false, covered, alone = [], [], []
    for seeds, shared in itertools.product((3, 5, 10), (0.3, 0.7, 1.0)):
        rng = np.random.default_rng(0)
        for _ in range(150 if images < 2000 else 40):
            (a, b, c), group = drawn(rng, [0.9, 0.9, 0.94], seeds, images, each, shared, 1.0, uneven)
            if too_few(group) is not None:
                continue
            false.append(crossed(a, b, groups=group).p < 0.05)
            low, high = crossed(c, a, groups=group).interval()
            covered.append(low <= 0.04 <= high)
            ends = share_interval(list(a), groups=group)
            alone.append(ends is not None and ends[0] <= 0.9 <= ends[1])
    assert np.mean(false) < 0.055
    assert np.mean(covered) > 0.93
    assert np.mean(alone) > (0.93 if not uneven else 0.91)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_metrics_of_classes_by_group(metric: str) -> None:
    """Two classes, 90 and 30 of 120 groups' images in 12 and 8 groups: false findings of equal heads."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        (a, b), group = drawn(rng, [0.85, 0.85], 5, 360, 10, 1.0, 0.0)
        labels = (group >= 24).astype(np.int64)  # a group is of one class
        rows = [
            np.stack(
                [METRICS[metric].values(labels, one_hot(np.where(row > 0, labels, 1 - labels), 2)) for row in head]
            )
            for head in (a, b)
        ]
        found.append(crossed(*rows, agreement(METRICS[metric], labels), group).p < 0.05)
    assert np.mean(found) < 0.06
