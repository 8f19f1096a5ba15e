"""Independent oracles for every formula; simulated error rates for what the formulas promise together."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from gapstone.comparing.report.number_text import compared
from gapstone.statistics.calibration import calibration
from gapstone.statistics.collapsed_seeds import collapsed_seeds, collapses
from gapstone.statistics.compare_pairs import compare_pairs, holm, interval, look_level, share_interval, verdict
from gapstone.statistics.difference import Components, ErrorDistribution, corrected_t, crossed, mean_squares
from gapstone.statistics.sample_size import minimum_detectable, needs
from gapstone.statistics.unit import Unit

# --- oracles


@pytest.mark.slow  # quick: as written down, below
def test_mean_squares_against_statsmodels() -> None:
    import pandas as pd
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(1)
    d = rng.integers(-1, 2, (4, 9)) + rng.normal(size=(4, 1)) + rng.normal(size=9)
    seed, image = np.indices(d.shape)
    table = pd.DataFrame({"d": d.ravel(), "seed": seed.ravel(), "image": image.ravel()})
    oracle = anova_lm(smf.ols("d ~ C(seed) + C(image)", table).fit())["mean_sq"]
    assert mean_squares(d) == pytest.approx((oracle["C(seed)"], oracle["C(image)"], oracle["Residual"]))


@pytest.mark.slow
def test_components_against_statsmodels_mixed_model() -> None:
    """Where no component is at its limit of 0, those of a balanced analysis of variance are the REML estimates."""
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    rng = np.random.default_rng(3)
    d = rng.normal(size=(6, 15)) + 1.5 * rng.normal(size=(6, 1)) + 1.5 * rng.normal(size=15)
    seed, image = np.indices(d.shape)
    table = pd.DataFrame({"d": d.ravel(), "seed": seed.ravel(), "image": image.ravel(), "all": 1})
    random = {"seed": "0 + C(seed)", "image": "0 + C(image)"}
    fit = MixedLM.from_formula("d ~ 1", table, groups="all", vc_formula=random).fit(reml=True)
    by_seed, by_image, residual = mean_squares(d)
    expected = {"seed": (by_seed - residual) / 15, "image": (by_image - residual) / 6}
    for name, value in zip(fit.model.exog_vc.names, fit.vcomp, strict=True):
        assert value == pytest.approx(expected[name], rel=2e-3)
    assert fit.scale == pytest.approx(residual, rel=1e-3)
    # and so is the error of the mean, but for the two images that are added
    assert fit.bse_fe["Intercept"] ** 2 == pytest.approx(
        crossed(d, 0 * d).error.standard_error ** 2 - 2 / 17**2, rel=1e-3
    )


def test_doubt_against_two_million_draws() -> None:
    rng = np.random.default_rng(0)
    for repeats, by_repeat, by_image in ((2, 1.0, 1.0), (3, 0.2, 1.0), (5, 1.0, 0.3), (10, 1.0, 1.0)):
        error = ErrorDistribution(by_repeat, repeats, by_image, 400)
        drawn = np.abs(by_repeat * rng.standard_t(repeats - 1, 2_000_000) + by_image * rng.standard_t(399, 2_000_000))
        for level in (0.2, 0.05, 0.01):
            assert np.mean(drawn > error.quantile(level)) == pytest.approx(level, rel=0.02)


def test_doubt_with_one_source_is_student_s_t() -> None:
    for repeats in (2, 3, 5, 40, 200):
        for distance in (0.1, 1.0, 2.5, 30.0):
            alone = ErrorDistribution(1.0, repeats, 0.0, 10**6).tail_probability(distance)
            assert alone == pytest.approx(2 * stats.t.sf(distance, repeats - 1), rel=1e-3, abs=1e-12)
    assert ErrorDistribution(0, 5, 2.0, 30).tail_probability(3) == pytest.approx(2 * stats.t.sf(1.5, 29))
    assert ErrorDistribution(0.3, 5, 2.0, 30).quantile(0.05) == pytest.approx(
        ErrorDistribution(3, 5, 20, 30).quantile(0.05) / 10
    )


def test_corrected_t_on_scikit_learn_s_documented_example() -> None:
    """Its "Statistical comparison of models using grid search" prints t 0.750 (p 0.227), uncorrected t 2.611."""
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(random_state=0, kernel=kernel), x, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )
    d = rbf - linear
    assert stats.ttest_1samp(d, 0).statistic == pytest.approx(2.611, abs=5e-4)
    estimate = corrected_t(rbf, linear, train=90, test=10)
    assert estimate.difference / estimate.error.by_repeat == pytest.approx(0.750, abs=5e-4)
    plain = replace(estimate, error=replace(estimate.error, by_image=0.0))  # without the two images that we add
    assert plain.p / 2 == pytest.approx(0.2275, abs=1e-4)  # printed as 0.227


def test_mean_squares_and_holm_as_they_are_written_down() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(size=(4, 9)) + rng.normal(size=(4, 1)) + rng.normal(size=9)
    by_seed, by_image = d.mean(1, keepdims=True), d.mean(0, keepdims=True)
    rest = d - by_seed - by_image + d.mean()
    expected = 9 * by_seed.var(ddof=1), 4 * by_image.var(ddof=1), (rest**2).sum() / (3 * 8)
    assert mean_squares(d) == pytest.approx(expected)
    for count in (1, 2, 7, 30):
        ps = rng.random(count) ** 3
        order = np.argsort(ps)
        adjusted = np.empty(count)
        adjusted[order] = np.minimum(np.maximum.accumulate(ps[order] * np.arange(count, 0, -1)), 1)
        np.testing.assert_allclose(holm(list(ps)), adjusted, rtol=1e-12)
    assert holm([]) == []


@pytest.mark.slow  # quick: as written down, above
def test_holm_against_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 30):
        ps = rng.random(count) ** 3
        np.testing.assert_allclose(holm(list(ps)), multipletests(ps, method="holm")[1], rtol=1e-12)


def test_interval_against_scipy() -> None:
    values = [0.91, 0.93, 0.90, 0.95]
    mean, bounds = interval(values)
    oracle = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(values))
    assert bounds == pytest.approx((oracle.low, oracle.high))
    assert interval([0.5]) == (0.5, None)
    assert interval([0.5, 0.5, 0.5]) == (0.5, (0.5, 0.5))


def test_an_interval_ends_where_its_numbers_end_and_says_nothing_where_it_covers_all_of_them() -> None:
    mean, bounds = interval([0.96, 0.99, 1.0], within=(0, 1))
    assert bounds is not None
    assert (mean - bounds[0], bounds[1]) == (pytest.approx(0.0517, abs=1e-3), 1)
    assert interval([0.01, 0.5, 0.99], within=(0, 1)) == (0.5, None)  # ±121.7
    assert interval([1.0, 5.0, 9.0], within=(0, np.inf))[1] == (0, pytest.approx(5 + 4.3027 * 4 / 3**0.5, rel=1e-3))


def test_two_seeds_have_a_range_and_no_interval() -> None:
    """A customer read: "a true difference of 233.8 points would have been found"."""
    images = np.arange(200)
    correct = {
        "fc": {0: images % 10 < 9, 1: images % 10 < 4},
        "gap": {0: images % 10 < 3, 1: images % 10 < 9},
        "gmp": {0: images % 10 < 8, 1: images % 10 < 4},
    }
    gap, gmp = compare_pairs(correct, "fc")
    for pair, ends in ((gap, [-60, 50]), (gmp, [-10, 0])):
        assert (pair["verdict"], pair["ci95"], pair["ci95_together"]) == ("cannot tell", None, None)
        assert pair["detectable"] is None
        assert pair["range"] == pytest.approx(ends)
        assert pair["advice"] == "Two seeds cannot show how far the result depends on the seed: take 5."
        assert "1 degree of freedom between" in pair["method"]
    assert gap["difference"] == pytest.approx(-5)


def test_two_seeds_that_agree_may_still_decide() -> None:
    images = np.arange(400)
    correct = {"fc": {0: images % 10 < 5, 1: images % 10 < 5}, "gap": {0: images % 10 < 9, 1: images % 10 < 9}}
    (pair,) = compare_pairs(correct, "fc")
    assert pair["verdict"] == "better"
    assert "better than fc: +40.0 percentage points (+40.0 to +40.0 in 2 trials each, Holm" in compared(pair)


def test_no_number_is_ever_outside_its_range() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        for images in (2, 7, 60):
            rates = rng.random((3, seeds, 1))  # seeds that differ as widely as they can
            correct = {f"h{i}": dict(enumerate(rng.random((seeds, images)) < rates[i])) for i in range(3)}
            for folds in (None, dict.fromkeys(range(seeds), (3 * images, images))):
                for pair in compare_pairs(correct, "h0", folds=folds):
                    numbers = [*(pair["ci95"] or []), *(pair["ci95_together"] or []), *pair["range"]]
                    numbers += [pair["difference"], pair["detectable"] or 0]
                    assert all(-100 <= number <= 100 for number in numbers), pair
                    said = re.findall(r"([\d.]+) percentage points", f"{pair['advice']} {compared(pair)}")
                    assert all(float(number) <= 100 for number in said), pair


def test_calibration_against_scikit_learn() -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 4)) * 3
    labels = rng.integers(0, 4, 300)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = calibration(logits, labels)
    assert found["nll"] == pytest.approx(log_loss(labels, p))
    if "scale_by_half" in inspect.signature(brier_score_loss).parameters:  # before, of two classes alone
        assert found["brier"] == pytest.approx(brier_score_loss(labels, p, scale_by_half=False))
    assert found["brier"] == pytest.approx(float(((p - np.eye(p.shape[1])[labels]) ** 2).sum(1).mean()))
    # the slow and plain way
    ece, right = 0.0, p.argmax(1) == labels
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        here = (p.max(1) > low) & (p.max(1) <= high)
        if here.any():
            ece += here.mean() * abs(right[here].mean() - p.max(1)[here].mean())
    assert found["ece"] == pytest.approx(ece)
    bins = found["bins"]
    assert sum(bins["count"]) == 300
    assert len(bins["edges"]) == 16
    assert [value is None for value in bins["accuracy"]] == [count == 0 for count in bins["count"]]


def test_calibration_at_the_edges() -> None:
    sure = calibration([[1e4, -1e4], [-3e38, 3e38]], [0, 1])
    assert (sure["nll"], sure["brier"], sure["ece"]) == (0, 0, 0)
    assert sure["bins"]["count"][-1] == 2
    wrong = calibration([[1e4, -1e4]], [1])
    assert (wrong["nll"], wrong["brier"], wrong["ece"]) == (2e4, 2, 1)
    even = calibration(np.zeros((5, 2)), np.zeros(5))  # a confidence of exactly 0.5 is no edge of 15 bins
    assert even["bins"]["count"][7] == 5
    assert calibration(np.zeros((5, 2)), np.zeros(5), bins=10)["bins"]["count"][4] == 5  # here it is, and goes below
    for logits, labels in (([[np.nan, 0]], [0]), (np.zeros((0, 2)), []), ([[0, 1]], [0, 1])):
        with pytest.raises(ValueError, match="calibration"):
            calibration(logits, labels)


# --- edges of the crossed design


def test_heads_that_always_agree() -> None:
    same = np.ones((3, 50))
    estimate = crossed(same, same)
    assert (estimate.difference, estimate.p) == (0, 1)
    low, high = estimate.interval()
    # 50 images of agreement still allow for disagreement on 3 / 50 of all images ("rule of three")
    assert high == pytest.approx(0.055, abs=0.003)
    assert low == -high
    for seeds, images, word in ((5, 780, "cannot tell"), (5, 790, "equivalent"), (4, 5000, "cannot tell")):
        rows = dict(enumerate(np.ones((seeds, images))))
        assert compare_pairs({"a": rows, "b": rows}, "b")[0]["verdict"] == word


def test_one_head_is_always_right_and_the_other_never() -> None:
    estimate = crossed(np.ones((2, 20)), np.zeros((2, 20)))
    assert estimate.difference == 1
    assert estimate.p < 1e-6
    assert estimate.interval()[1] == 1


def test_one_net_image_is_no_finding_and_the_sign_test_agrees() -> None:
    """Heads that differ on k images, always the same way: significant from k = 6 on, as the exact sign test says."""
    for differ, significant in ((1, False), (5, False), (6, True), (12, True)):
        a, b = np.ones((5, 400)), np.ones((5, 400))
        b[:, :differ] = 0
        assert (crossed(a, b).p < 0.05) == significant
        assert (stats.binomtest(differ, differ).pvalue < 0.05) == significant


def test_exchange_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((4, 60)) < 0.8, rng.random((4, 60)) < 0.7
    there, back = crossed(a, b), crossed(b, a)
    assert (there.difference, there.p) == pytest.approx((-back.difference, back.p))
    rows, columns = rng.permutation(4), rng.permutation(60)
    moved = crossed(a[rows][:, columns], b[rows][:, columns])
    assert (there.difference, there.p) == pytest.approx((moved.difference, moved.p))
    assert there.interval() == pytest.approx(moved.interval())


@pytest.mark.parametrize(("a", "b"), [((1, 5), (1, 5)), ((2, 5), (2, 6)), ((5,), (5,)), ((2, 1), (2, 1))])
def test_crossed_refuses_what_it_cannot_do(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="crossed"):
        crossed(np.zeros(a), np.zeros(b))


def test_two_images_and_two_seeds_do_not_break_it() -> None:
    for a in ([[1, 0], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]):
        estimate = crossed(a, [[0, 0], [0, 0]])
        assert np.isfinite([estimate.p, *estimate.interval()]).all()


# --- verdicts and advice


def test_verdict() -> None:
    assert verdict(0.01, 0.04, 0.005) == "better"
    assert verdict(-0.01, 0.04, 0.005) == "worse"
    assert verdict(0.01, 0.06, 0.005) == "cannot tell"
    assert verdict(0.0, 1.0, 0.005, equivalence=(-0.004, 0.004)) == "equivalent"
    assert verdict(0.002, 0.01, 0.005, equivalence=(0.001, 0.004)) == "equivalent"  # there, but too small to matter
    assert verdict(0.0, 1.0, 0.005, equivalence=(-0.02, 0.02)) == "cannot tell"
    assert verdict(0.0, 1.0, 0.005) == verdict(None, None, 0.005) == "cannot tell"


def heads(**rates: float) -> dict[str, dict[int, NDArray[np.bool_]]]:
    rng = np.random.default_rng(0)
    return {name: {seed: rng.random(400) < rate for seed in range(4)} for name, rate in rates.items()}


def test_pairs_have_what_the_schema_promises() -> None:
    pairs = compare_pairs(heads(fc=0.7, gap=0.9, gmp=0.71), "fc")
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("gap", "fc"), ("gmp", "fc")]
    assert [pair["verdict"] for pair in pairs] == ["better", "cannot tell"]
    assert pairs[0]["advice"] is None
    assert "images" in pairs[1]["advice"]
    assert pairs[0]["p_holm"] == pytest.approx(2 * pairs[0]["p"])
    assert pairs[0]["ci95"][0] < pairs[0]["difference"] < pairs[0]["ci95"][1]
    assert "4 seeds × 400 images" in pairs[0]["method"]
    gap, fc = (np.stack(list(heads(fc=0.7, gap=0.9)[head].values())) for head in ("gap", "fc"))
    assert sum(pairs[0]["variance"].values()) == pytest.approx(
        1e4 * crossed(gap, fc).error.standard_error ** 2, rel=0.4
    )


def test_failed_seeds_leave_the_common_ones() -> None:
    correct = heads(fc=0.7, gap=0.9, gmp=0.9)
    del correct["gap"][0], correct["fc"][3]
    pair = compare_pairs(correct, "fc")[0]
    assert pair["repeats"] == 2
    expected = np.mean([correct["gap"][s].mean() - correct["fc"][s].mean() for s in (1, 2)])
    assert pair["difference"] == pytest.approx(100 * expected)


def test_one_seed_cannot_tell_and_no_seed_neither() -> None:
    correct = heads(fc=0.1, gap=0.9, gmp=0.9, gem=0.9)
    correct["gap"] = {0: correct["gap"][0]}
    correct["gmp"] = {7: correct["gmp"][0]}
    one, none, four = compare_pairs(correct, "fc")
    assert (one["verdict"], one["ci95"], one["p"], one["p_holm"]) == ("cannot tell", None, None, None)
    assert one["difference"] > 70
    assert one["advice"].startswith("One seed cannot show")
    assert none["difference"] is None
    assert "No seed finished" in none["advice"]
    assert four["p_holm"] == four["p"]  # what could not be tested is not counted
    assert compare_pairs({"fc": correct["fc"]}, "fc") == []


def test_one_image_cannot_tell_either() -> None:
    """One picture with boxes, or a test folder of one image."""
    correct = {
        name: {seed: right[:1] for seed, right in seeds.items()} for name, seeds in heads(fc=0.5, gap=0.9).items()
    }
    pair = compare_pairs(correct, "fc")[0]
    assert (pair["verdict"], pair["ci95"], pair["p"], pair["p_holm"]) == ("cannot tell", None, None, None)
    assert pair["repeats"] == 4
    expected = np.mean([right[0] for right in correct["gap"].values()]) - np.mean(
        [right[0] for right in correct["fc"].values()]
    )
    assert pair["difference"] == pytest.approx(100 * expected)
    assert "two test images are needed" in pair["method"]
    assert "One test image cannot" in pair["advice"]


def test_folds() -> None:
    correct = heads(fc=0.7, gap=0.9)
    folds = dict.fromkeys(range(4), (1200, 400))
    pair = compare_pairs(correct, "fc", folds=folds)[0]
    gap, fc = ([right.mean() for right in correct[head].values()] for head in ("gap", "fc"))
    expected = corrected_t(gap, fc, 1200, 400)
    assert (pair["p"], pair["verdict"]) == (expected.p, "better")
    assert "Nadeau–Bengio" in pair["method"]
    same = compare_pairs({"fc": correct["fc"], "gap": correct["fc"]}, "fc", folds=folds)[0]
    assert (same["p"], same["difference"]) == (1, 0)
    close = compare_pairs(heads(fc=0.7, gap=0.71), "fc", folds=folds)[0]
    assert "images (now 1,600), in as many folds" in close["advice"]
    with pytest.raises(ValueError, match="2 or more"):
        corrected_t([0.5], [0.5], 1, 1)


def test_significant_before_holm_only_is_noted() -> None:
    rng = np.random.default_rng(4)
    base = rng.random((5, 300)) < 0.8
    slight = base.copy()
    slight[:, :7] = ~base[:, :7] | True
    correct = {"fc": base, "a": slight, **{f"h{i}": rng.random((5, 300)) < 0.8 for i in range(12)}}
    pairs = compare_pairs({name: dict(enumerate(rows)) for name, rows in correct.items()}, "fc")
    for pair in pairs:
        left_out = not pair["ci95"][0] <= 0 <= pair["ci95"][1]
        assert (pair["note"] is not None) == (left_out and pair["verdict"] in ("cannot tell", "equivalent"))


def test_intervals_for_all_heads_together_are_those_of_the_level_shared() -> None:
    correct = heads(fc=0.7, gap=0.9, gmp=0.71, nin=0.7)
    pairs = compare_pairs(correct, "fc")
    for pair in pairs:
        estimate = crossed(*(np.stack(list(correct[head].values())) for head in (pair["a"], "fc")))
        assert pair["ci95"] == pytest.approx([100 * end for end in estimate.interval(0.95)])
        assert pair["ci95_together"] == pytest.approx([100 * end for end in estimate.interval(1 - 0.05 / 3)])


def test_where_holm_decides_the_interval_for_all_ends_at_zero() -> None:
    """Holm's adjustment finds more than intervals of Bonferroni's show."""
    base = np.tile(np.random.default_rng(1).random(400) < 0.7, (5, 1))
    slight, large = base.copy(), base.copy()
    wrong = np.flatnonzero(~base[0])
    slight[:, wrong[:6]] = True
    large[:, wrong] = True
    named = {"fc": base, "a": slight, **{f"h{i}": large for i in range(3)}}
    pair = compare_pairs({head: dict(enumerate(rows)) for head, rows in named.items()}, "fc")[0]
    assert pair["verdict"] == "better"
    assert pair["p"] * 4 > 0.05  # by itself, among four
    assert pair["ci95_together"][0] == 0 < pair["ci95_together"][1]


def test_a_seed_that_collapses_is_named_and_keeps_heads_from_being_equivalent() -> None:
    rng = np.random.default_rng(2)
    base = np.tile(rng.random(20_000) < 0.9, (6, 1))
    fallen = base.copy()
    same = compare_pairs({"fc": dict(enumerate(base)), "gap": dict(enumerate(fallen))}, "fc")[0]
    assert (same["verdict"], same["collapsed"]) == ("equivalent", [])
    fallen[4] = rng.random(20_000) < 0.1
    right = {"fc": dict(enumerate(base)), "gap": dict(enumerate(fallen))}
    pair = compare_pairs(right, "fc")[0]
    assert (pair["verdict"], pair["collapsed"]) == ("cannot tell", ["gap"])
    (entry,) = collapses({head: {s: float(r.mean()) for s, r in rows.items()} for head, rows in right.items()}, "seed")
    assert (entry["head"], entry["seed"]) == ("gap", 4)
    assert entry["sentence"].startswith("gap, seed 4, collapsed: ")
    assert "All numbers of gap count it." in entry["sentence"]


def test_seeds_that_differ_as_seeds_do_did_not_collapse() -> None:
    rng = np.random.default_rng(3)
    for spread in (0.001, 0.01, 0.03):
        named = 0
        for _ in range(300):
            accuracy = {head: dict(enumerate(0.85 + spread * rng.normal(size=5))) for head in "abcde"}
            named += bool(collapsed_seeds(accuracy))
        assert named <= 6, (spread, named)
    assert collapsed_seeds({"a": {0: 0.9, 1: 0.1}}) == {}  # of two nobody knows which is the usual one
    assert collapsed_seeds({"a": {0: 0.9, 1: 0.84, 2: 0.9}, "b": {}}) == {"a": [1]}


def test_later_looks_pay() -> None:
    correct = heads(fc=0.70, gap=0.765)
    words, intervals = [], []
    for look in (1, 2, 3):
        (pair,) = compare_pairs(correct, "fc", look=look)
        assert 0.0125 < pair["p_holm"] < 0.05
        words.append(pair["verdict"])
        intervals.append(pair["ci95"])
    assert words == ["better", "cannot tell", "cannot tell"]
    assert intervals[0] == intervals[1] == intervals[2]
    assert [look_level(look) for look in (1, 2, 3)] == pytest.approx([0.05, 0.0125, 0.05 / 9])


def test_the_interval_of_one_accuracy_is_wilsons_where_seeds_agree() -> None:
    """Every seed gives the same answers: as many answers as images, whose interval is known."""
    for right, images in ((45, 50), (300, 1000)):
        row = np.arange(images) < right
        low, high = share_interval([row] * 4) or (0, 0)
        oracle = stats.binomtest(right, images).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.006)  # t instead of z, n − 1
    for row in (np.ones(40), np.zeros(40)):
        low, high = share_interval([row] * 3) or (0, 0)
        oracle = stats.binomtest(int(row.sum()), 40).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((oracle.low, oracle.high))
    assert share_interval([np.ones(40)] * 2) is None
    assert share_interval([np.ones(1)] * 5) is None


def test_the_interval_of_one_accuracy_over_folds() -> None:
    folds = [(80, 20)] * 5
    right = [np.arange(20) < k for k in (18, 17, 19, 18, 18)]
    low, high = share_interval(right, folds=folds) or (0, 0)
    error = corrected_t([r.mean() for r in right], np.zeros(5), 80, 20).error.by_repeat
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * error, rel=0.35)
    assert low < 0.9 < high < 1


# --- simulated: what the numbers promise together


def simulate(
    gap: float, seeds: int, images: int, repetitions: int, accuracy: float = 0.9, seed_sd: float = 0.15
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two heads whose true accuracies differ by `gap`: (repetitions, seeds, images), right or wrong.

    Images are hard or easy (2 in logits, and 1 for each head on its own), seeds good or bad, and both meet (0.5).
    """
    rng = np.random.default_rng(0)
    common = rng.normal(0, 2, (repetitions, 1, images))
    spread = rng.normal(0, np.sqrt(2**2 + 1 + seed_sd**2 + 0.5**2), 200_000)

    def head(target: float) -> NDArray[np.float32]:
        low, high = -10.0, 20.0
        for _ in range(40):  # the mean logit that gives this accuracy
            middle = (low + high) / 2
            low, high = (middle, high) if expit(middle + spread).mean() < target else (low, middle)
        own = rng.normal(0, 1, (repetitions, 1, images)) + rng.normal(0, seed_sd, (repetitions, seeds, 1))
        logit = low + common + own + rng.normal(0, 0.5, (repetitions, seeds, images))
        return np.asarray(rng.random(logit.shape) < expit(logit), np.float32)

    return head(accuracy), head(accuracy - gap)


def rate(test: Callable[[NDArray[np.float32], NDArray[np.float32]], bool], *heads: NDArray[np.float32]) -> float:
    return float(np.mean([test(a, b) for a, b in zip(*heads, strict=True)]))


def mcnemar(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    only_a, only_b = int(((a[0] - b[0]) > 0).sum()), int(((a[0] - b[0]) < 0).sum())
    return bool(stats.binomtest(only_a, only_a + only_b).pvalue < 0.05) if only_a + only_b else False


def bootstrap(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Over images, of the mean over seeds; by its normal limit."""
    d = (a - b).mean(0)
    return bool(abs(d.mean()) > 1.96 * d.std() / np.sqrt(len(d)))


def paired_t(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    d = (a - b).mean(1)
    return bool(abs(d.mean()) > stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))


def found(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return crossed(a, b).p < 0.05


def test_equal_heads_are_told_apart_in_five_of_a_hundred() -> None:
    """Over 4,000 runs: crossed 4.2 %; McNemar on one seed 25, bootstrap over images 23, paired t over seeds 6.5."""
    equal = simulate(0, seeds=5, images=500, repetitions=800, seed_sd=0.3)
    assert 0.02 < rate(found, *equal) < 0.06
    assert rate(bootstrap, *equal) > 0.15
    assert rate(mcnemar, *equal) > 0.15
    assert rate(paired_t, *equal) > 0.06


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.98])
@pytest.mark.parametrize(("seeds", "images"), [(2, 500), (3, 200), (5, 100), (5, 500), (10, 300), (3, 2000)])
def test_false_findings_stay_at_their_level_everywhere(
    seeds: int, images: int, accuracy: float, seed_sd: float
) -> None:
    """3,000 repetitions have a standard error of 0.4 points at 5 %."""
    equal = simulate(0, seeds, images, 3000 if images < 1000 else 1000, accuracy, seed_sd)
    assert rate(found, *equal) < 0.06


@pytest.mark.slow
def test_intervals_cover_and_power_is_as_foretold() -> None:
    gap = 0.04
    heads = simulate(gap, seeds=5, images=500, repetitions=800)
    estimates = [crossed(a, b) for a, b in zip(*heads, strict=True)]
    covered = np.mean([low <= gap <= high for low, high in (e.interval() for e in estimates)])
    assert 0.93 < covered < 0.985
    parts = [e.components for e in estimates if e.components]
    typical = Components(*(float(np.mean([getattr(c, k) for c in parts])) for k in ("seed", "image", "residual")))
    power = np.mean([e.p < 0.05 for e in estimates])
    needed = minimum_detectable(typical, 5, 500, power=float(power))
    assert needed == pytest.approx(gap, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("accuracy", "images"), [(0.9, 20_000), (0.995, 3000)])
def test_heads_at_the_margin_are_seldom_called_equivalent(accuracy: float, images: int) -> None:
    """True difference exactly the margin of 0.5 points: at most 2.5 % are called equivalent; equal heads often are."""

    def equivalent(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
        estimate = crossed(a, b)
        return (
            verdict(estimate.difference, estimate.p, 0.005, equivalence=estimate.equivalence_interval()) == "equivalent"
        )

    assert rate(equivalent, *simulate(0.005, 5, images, 120, accuracy, seed_sd=0.02)) <= 0.06
    assert rate(equivalent, *simulate(0.0, 5, images, 60, accuracy, seed_sd=0.02)) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.98])
@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (5, 100), (5, 360), (10, 2000)])
def test_the_interval_of_one_accuracy_covers_it(seeds: int, images: int, accuracy: float, seed_sd: float) -> None:
    rows, _ = simulate(0, seeds, images, 500 if images < 1000 else 200, accuracy, seed_sd)
    ends = [share_interval(list(right)) or (1, 0) for right in rows]
    assert np.mean([low <= accuracy <= high for low, high in ends]) > 0.92
    assert all(0 <= low <= right.mean() <= high <= 1 for (low, high), right in zip(ends, rows, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("images", "seed_sd"), [(360, 0.15), (360, 0.4), (360, 0.8), (1000, 0.4)])
def test_looking_again_makes_no_findings(images: int, seed_sd: float) -> None:
    """5, then 10, then 20 seeds of equal heads. 400 repetitions have a standard error of 1.1 points at 5 %."""
    equal = simulate(0, 20, images, 400, seed_sd=seed_sd)
    ps = [[crossed(a[:n], b[:n]).p for n in (5, 10, 20)] for a, b in zip(*equal, strict=True)]
    careless = np.mean([min(p) < 0.05 for p in ps])
    assert careless > 0.06
    assert np.mean([any(p < look_level(look) for look, p in enumerate(row, 1)) for row in ps]) < 0.075


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05])
@pytest.mark.parametrize(("images", "seed_sd"), [(200, 0.1), (200, 0.3), (600, 0.2)])
def test_plans_keep_their_promise(images: int, seed_sd: float, gap: float) -> None:
    """A comparison says what would show a difference of 2 or 5 points, or equivalence within 5; then that is done."""
    first = simulate(gap, 5, images, 120, seed_sd=seed_sd)
    kept, count = 0, 0
    for a, b in zip(*first, strict=True):
        estimate = crossed(a, b)
        asked = next((need for need in needs(estimate, Unit(margin=0.05)) if need.difference == gap), None)
        if asked is None or asked.seeds is None or asked.images is None or asked.seeds * asked.images > 200_000:
            continue
        for x, y in zip(*simulate(gap, asked.seeds, asked.images, 4, seed_sd=seed_sd), strict=True):
            again = crossed(x, y)
            word = verdict(again.difference, again.p, 0.05 if not gap else 0.001, 0.05, again.equivalence_interval())
            kept += word == ("equivalent" if not gap else "better")
            count += 1
    assert count >= 50
    assert kept / count > 0.72, (kept, count)
