"""The edges of what a comparison says: Holm in the advice, components that come out negative, pooled reliability."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from gapstone.comparing import head_results, trial_measures
from gapstone.comparing import verdict as verdicts
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.worst_images import worst_images
from gapstone.statistics import difference
from gapstone.statistics.calibration import calibration
from gapstone.statistics.compare_pairs import compare_pairs, holm, interval, verdict
from gapstone.statistics.difference import (
    AGREEMENT,
    FOR_EQUIVALENCE,
    Components,
    ErrorDistribution,
    Estimate,
    corrected_t,
    crossed,
)
from gapstone.statistics.metrics import METRICS
from gapstone.statistics.sample_size import (
    MOST_IMAGES,
    POWER,
    Need,
    advise,
    detectable,
    minimum_detectable,
    needs,
    note,
)
from gapstone.statistics.unit import Unit


def estimate(value: float, seeds: int, images: int, **parts: float) -> Estimate:
    components = Components(**({"seed": 0.0, "image": 0.0, "residual": 0.0} | parts))
    return Estimate(value, components.error(seeds, images), components)


# ---- advice


def need(of: float, found: list[Need]) -> Need:
    return next(one for one in found if one.difference == of)


@pytest.mark.parametrize("tests", [1, 2, 3])
def test_seeds_asked_for_find_the_difference_at_the_level_that_holm_leaves(tests):
    seen = estimate(0.01, 5, 10_000, seed=0.0001)
    asked = need(0.01, needs(seen, Unit(), tests=tests))
    assert asked.images == 10_000
    assert asked.seeds is not None
    at = {
        seeds: minimum_detectable(seen.cautious(), seeds, 10_000, 0.05 / tests)
        for seeds in (asked.seeds - 1, asked.seeds)
    }
    assert at[asked.seeds] <= 0.01 < at[asked.seeds - 1]
    assert f"about {asked.seeds} seeds (now 5) on these 10,000 test images" in advise(seen, 5, Unit(), tests=tests)


def test_more_heads_ask_for_more_seeds():
    seen = estimate(0.01, 5, 10_000, seed=0.0001)
    asked = [need(0.01, needs(seen, Unit(), tests=tests)).seeds for tests in (1, 2, 4)]
    assert None not in asked
    assert asked == sorted(set(asked))


def test_differences_that_would_have_shown_are_not_planned_for():
    seen = estimate(0.0, 5, 2000, residual=0.1)
    assert 0.01 < detectable(seen.error, 0.05) < 0.02
    assert [one.difference for one in needs(seen, Unit())] == [0.01, 0.005, 0.0]
    many = estimate(0.0, 5, 500_000, residual=0.1)
    assert [one.difference for one in needs(many, Unit(margin=0.0005))] == [0.0]
    assert advise(many, 5, Unit(margin=0.0005)).startswith("To show that there is none beyond ±0.05: about ")
    assert (
        advise(many, 5, Unit(margin=0.00001))
        == "To show that there is none beyond ±0.001 would take more than one could afford."
    )


@pytest.mark.parametrize("folds", [False, True])
def test_the_pairs_of_a_comparison_are_advised_for_their_number_and_the_next_look(folds):
    """Of two heads and of nine: the same numbers, another level."""
    random = np.random.default_rng(5)

    def right(rate: float) -> dict[int, np.ndarray]:
        return {seed: random.random(400) < rate for seed in range(4)}

    fc, gap = right(0.80), right(0.82)
    others = {f"h{i}": right(0.8) for i in range(8)}
    parts = dict.fromkeys(range(4), (1200, 400)) if folds else None
    few = compare_pairs({"fc": fc, "gap": gap}, "fc", folds=parts)[0]
    again = compare_pairs({"fc": fc, "gap": gap}, "fc", folds=parts, look=2)[0]
    many = compare_pairs({"fc": fc, "gap": gap, **others}, "fc", folds=parts)[0]
    assert few["verdict"] == again["verdict"] == many["verdict"] == "cannot tell"
    assert few["p"] == again["p"] == many["p"]
    if folds:
        means = [[one.mean() for one in head.values()] for head in (gap, fc)]
        found = corrected_t(*means, 1200, 400)
    else:
        found = crossed(np.stack(list(gap.values())), np.stack(list(fc.values())))
    for pair, tests, look in ((few, 1, 1), (again, 1, 2), (many, 9, 1)):
        assert pair["advice"] == advise(found, 4, Unit(), 0.05 / (look + 1) ** 2, tests, parts)
        assert pair["detectable"] == pytest.approx(100 * detectable(found.error, 0.05 / look**2 / tests))
    assert len({pair["advice"] for pair in (few, again, many)}) == 3


def test_equivalence_is_asked_at_the_full_level():
    """Holm is for findings: whether heads are equivalent is read from the interval."""
    seen = estimate(0.0, 5, 5000, residual=0.1)
    one, twelve = (needs(seen, Unit(), tests=tests)[-1] for tests in (1, 12))
    assert one == twelve
    assert one.images == 5000
    assert one.seeds is not None
    for seeds, enough in ((one.seeds, True), (one.seeds - 1, False)):
        error = seen.cautious().error(seeds, 5000, FOR_EQUIVALENCE)
        # the interval lies within ±0.5 for 80 % of the differences that such a comparison of equal heads may show
        assert (error.quantile(0.05) + error.quantile(0.2) <= 0.005) == enough


def test_plans_allow_for_seeds_that_differ_more_than_these():
    """Of five seeds that differ by nothing beyond chance."""
    seen = estimate(0.0, 5, 1000, residual=0.1)
    upper = 0.1 * 4 / stats.chi2.ppf(0.2, 4)
    assert seen.cautious() == Components(pytest.approx((upper - 0.1) / 1000), 0.0, 0.1)
    assert seen.cautious().error(5, 1000).by_repeat == pytest.approx(np.sqrt(upper / 5000))
    with pytest.raises(ValueError, match="folds"):
        Estimate(0.0, seen.error).cautious()


def test_images_asked_for_are_the_fewest_that_do():
    seen = estimate(0.01, 5, 500, image=0.05)
    asked = need(0.01, needs(seen, Unit()))
    assert asked.seeds == 5
    assert asked.images is not None
    assert minimum_detectable(seen.cautious(), 5, asked.images) <= 0.01
    assert minimum_detectable(seen.cautious(), 5, asked.images - 1) > 0.01
    assert f"about {float(f'{asked.images:.2g}'):,.0f} test images (now 500) with 5 seeds" in advise(seen, 5, Unit())


def test_what_nobody_can_afford_is_not_advised():
    hopeless = estimate(0.0, 5, 2000, seed=10.0)
    assert [one[1:] for one in needs(hopeless, Unit())] == [(None, None)] * 5
    assert advise(hopeless, 5, Unit()) == (
        "No number of seeds and test images that one could afford would show a true difference of 5 percentage points."
    )


def test_folds_ask_for_images_by_the_square():
    error = ErrorDistribution(0.004, 5, 0.0, 1000)
    folds = dict.fromkeys(range(5), (800, 200))
    wide = ErrorDistribution(0.004 * np.sqrt(4 / stats.chi2.ppf(0.2, 4)), 5, 0.0, 1000)
    found = needs(Estimate(0.01, error), Unit(), folds=True)
    assert need(0.01, found) == (0.01, 5, round(1000 * (detectable(wide, 0.05) / 0.01) ** 2))
    assert "images (now 1,000), in as many folds" in advise(Estimate(0.01, error), 5, Unit(), folds=folds)
    far = advise(Estimate(0.00001, error), 5, Unit(margin=0.00002), folds=folds)
    assert "that there is none" not in far  # more than one could afford
    assert 1000 * (wide.quantile(0.05) / 0.00002) ** 2 > MOST_IMAGES


def test_what_is_detectable_is_both_errors():
    error = ErrorDistribution(0.0, 5, 0.01, 10**6)
    assert detectable(error, 0.05) == pytest.approx((1.95996 + 0.84162) * 0.01, rel=1e-3)
    assert POWER == 0.8


def test_few_trials_are_told_apart():
    assert advise(None, 1, Unit()).startswith("One seed cannot show")
    assert advise(estimate(0.01, 2, 500, image=0.05), 2, Unit()).endswith("take 5.")
    assert "One test image" in advise(None, 2, Unit())
    assert "No fold finished" in advise(None, 0, Unit(), folds={})
    assert "One fold" in advise(None, 1, Unit(), folds={})


def test_notes_are_for_intervals_that_leave_out_zero():
    seen = estimate(0.01, 5, 500, image=0.05)
    assert "Holm" in str(note("cannot tell", (0.001, 0.02), seen, 3, Unit()))
    assert note("equivalent", (0.001, 0.004), seen, 3, Unit())
    assert note("better", (0.001, 0.02), seen, 3, Unit()) is None
    for bounds in ((0.0, 0.02), (-0.02, 0.0), (-0.01, 0.01), None):
        assert note("cannot tell", bounds, seen, 3, Unit()) is None
    assert note("cannot tell", (0.001, 0.02), None, 3, Unit()) is None


def test_a_note_says_why_heads_are_not_called_equivalent():
    inside = (-0.004, 0.003)
    few, many = estimate(0.0, 4, 500), estimate(0.0, 5, 500)
    assert "takes 5 seeds" in str(note("cannot tell", inside, few, 1, Unit()))
    assert "so few test images" in str(note("cannot tell", inside, many, 1, Unit()))
    assert "a seed of fc collapsed" in str(note("cannot tell", inside, many, 1, Unit(), ["fc"]))
    assert note("equivalent", inside, many, 1, Unit()) is None


# ---- verdicts


def test_verdicts_at_their_limits():
    assert verdict(0.0, 0.01, 0.005, equivalence=(-0.005, 0.005)) == "equivalent"
    assert verdict(0.0, 1.0, 0.005, equivalence=(-0.0051, 0.005)) == "cannot tell"
    assert verdict(0.0, 1.0, 0.005, equivalence=(-0.005, 0.0051)) == "cannot tell"
    assert verdict(0.01, 0.05, 0.005) == "cannot tell"  # at the level itself
    assert verdict(0.01, 0.0499, 0.005) == "better"
    assert verdict(0.01, None, 0.005) == verdict(None, 0.01, 0.005) == "cannot tell"


def test_equivalence_takes_five_seeds_and_two_images_more():
    four, five = estimate(0.001, 4, 700), estimate(0.001, 5, 700)
    assert four.equivalence_interval() is None
    low, high = five.equivalence_interval() or (0, 0)
    assert low + high == pytest.approx(0.002)
    error = ErrorDistribution(0.0, 5, 2 / 702, 700)  # four images
    assert high - 0.001 == pytest.approx(error.quantile(0.05), rel=1e-4)
    assert five.interval()[1] - 0.001 == pytest.approx(error.quantile(0.05) / np.sqrt(2), rel=1e-4)


def test_holm_keeps_the_order_and_one():
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_an_interval_needs_three():
    assert interval([0.9, 0.9])[1] is None
    mean, bounds = interval([0.8, 0.9, 0.85], 0.5)
    assert bounds is not None
    assert bounds[1] - mean == pytest.approx(stats.t.ppf(0.75, 2) * 0.05 / np.sqrt(3))


# ---- components


def test_a_component_that_comes_out_negative_counts_as_none():
    """Images whose two seeds cancel: less between the images than in the rest."""
    d = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    found = crossed(d, 0 * d)
    assert found.components == Components(0.0, 0.0, pytest.approx(8 / 3))
    assert found.error.by_image == pytest.approx(np.sqrt(AGREEMENT) / 6)
    assert found.error.by_repeat == 0
    # and the other way: rows that differ less than the rest
    other = crossed(d.T, 0 * d.T)
    assert other.components == Components(0.0, 0.0, pytest.approx(8 / 3))
    assert min(other.components.shares(4, 2).values()) == 0


def test_doubt_of_a_negative_component_is_that_of_none():
    assert difference._by_image(-1.0, 10, 2) == difference._by_image(0.0, 10, 2) == pytest.approx(np.sqrt(2) / 12)
    assert difference._by_image(0.5, 10, 2) == pytest.approx(np.sqrt(0.05 + 2 / 144))
    error = Components(0.02, 0.5, 0.1).error(4, 10)
    assert error.by_repeat == pytest.approx(np.sqrt(0.02 / 4 + 0.1 / 40))
    assert (error.repeats, error.images) == (4, 10)


def test_intervals_end_where_differences_do():
    wide = Estimate(0.9, ErrorDistribution(0.5, 2, 0.1, 10))
    assert wide.interval() == (-1.0, 1.0)
    assert ErrorDistribution(0.5, 2, 0.1, 10).tail_probability(0) == 1.0


def test_folds_of_unlike_size_count_each_by_its_own():
    a, b = [0.9, 0.8, 0.85], [0.85, 0.8, 0.8]
    found = corrected_t(a, b, [90, 80, 100], [10, 20, 10])
    ratio = np.mean([10 / 90, 20 / 80, 10 / 100])
    assert found.error.by_repeat == pytest.approx(np.sqrt((1 / 3 + ratio) * np.var(np.subtract(a, b), ddof=1)))
    assert (found.error.repeats, found.error.images) == (3, 40)
    assert corrected_t(a, b, 90, 10, images=25).error.images == 25


def test_two_folds_are_enough_and_one_is_not():
    assert corrected_t([0.9, 0.8], [0.8, 0.8], 90, 10).error.repeats == 2
    for a, b in (([0.9], [0.8]), ([0.9, 0.8], [0.8]), ([[0.9, 0.8]], [[0.8, 0.8]])):
        with pytest.raises(ValueError, match="one accuracy per fold, 2 or more"):
            corrected_t(a, b, 90, 10)


# ---- reliability


def test_reliability_is_pooled_by_how_many_answers_a_bin_has():
    one = {"edges": [0, 0.5, 1], "confidence": [0.4, 0.9], "accuracy": [0.0, 1.0], "count": [1, 9]}
    two = {"edges": [0, 0.5, 1], "confidence": [None, 0.6], "accuracy": [None, 0.0], "count": [0, 1]}
    pooled = head_results._pooled([one, two])
    assert pooled["count"] == [1, 10]
    assert pooled["confidence"] == pytest.approx([0.4, 0.87])
    assert pooled["accuracy"] == pytest.approx([0.0, 0.9])
    assert pooled["edges"] == [0, 0.5, 1]
    assert head_results._pooled([two, two])["accuracy"] == [None, 0.0]


def test_pooled_reliability_is_that_of_all_answers_together():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(90, 3)) * 2, random.integers(0, 3, 90)
    cuts = [slice(0, 7), slice(7, 60), slice(60, 90)]
    pooled = head_results._pooled([calibration(logits[cut], labels[cut])["bins"] for cut in cuts])
    whole = calibration(logits, labels)["bins"]
    assert pooled["count"] == whole["count"]
    for key in ("confidence", "accuracy"):
        assert [value is None for value in pooled[key]] == [value is None for value in whole[key]]
        found, expected = ([value or 0.0 for value in bins[key]] for bins in (pooled, whole))
        assert found == pytest.approx(expected)


# ---- what is measured


def test_shifts_and_sizes_that_are_tried():
    assert trial_measures.shift_pixels((8, 64)) == [1, 2]
    assert trial_measures.shift_pixels((32, 32)) == [1, 2, 3, 4]
    assert trial_measures.shift_pixels((224, 224)) == [1, 15, 28]
    assert [size for size, _ in trial_measures.resized((32, 20))] == [(24, 15), (32, 20), (40, 25), (48, 30)]
    assert [change.size for _, change in trial_measures.resized((32, 20))] == [(24, 15), None, (40, 25), (48, 30)]


def test_of_many_test_images_some_are_drawn_once():
    assert [trial_measures.most_for_robustness(size) for size in ((32, 32), (64, 500), (65, 65))] == [2000, 2000, 500]
    most = 500
    few = np.arange(most)
    assert trial_measures.robust(few, most) is few
    some = trial_measures.robust(np.arange(10, most + 12), most)
    assert len(some) == most
    assert len(set(some.tolist())) == most
    assert some.tolist() == sorted(some.tolist())
    assert np.array_equal(some, trial_measures.robust(np.arange(10, most + 12), most))


def asked(fixed: bool, size: tuple[int, int] | None = None) -> Any:
    """A model that takes images of at least 6 pixels a side, or of one size alone."""
    return SimpleNamespace(
        preprocessing=SimpleNamespace(size=(8, 10)),
        only_size=(8, 10) if fixed or size else None,
        accepts=lambda tried: min(tried) >= 6,
        labels=np.array([0, 1]),
        logits=lambda rows, _=None: torch.eye(2)[np.asarray(rows)],
    )


def test_sizes_that_a_model_takes():
    for one in (asked(True), asked(False, (4, 5))):
        assert trial_measures.accepts(one, (8, 10))
        assert not trial_measures.accepts(one, (10, 8))
        assert not trial_measures.accepts(one, (80, 100))
    assert trial_measures.accepts(asked(False), (6, 6))
    assert not trial_measures.accepts(asked(False), (5, 60))


def test_accuracy_at_other_sizes():
    rows = np.array([0, 1])
    found = trial_measures.sizes(asked(True), rows)
    assert found["accuracy"] == [None, 1.0, None, None]
    assert found["note"] == "takes only 8×10"
    assert trial_measures.sizes(asked(False), rows) == {
        "scale": [0.75, 1.0, 1.25, 1.5],
        "input": [[6, 8], [8, 10], [10, 12], [12, 15]],
        "accuracy": [1.0, 1.0, 1.0, 1.0],
        "note": None,
    }


def test_accuracy_when_images_move():
    """The first image is right however it moves, the second never."""
    one = asked(False)
    one.labels = np.array([0, 0])
    found, right = trial_measures.shifts(one, np.array([0, 1]), [1, 2])
    assert found == {"accuracy": [0.5, 0.5, 0.5], "same_answer": [1.0, 1.0, 1.0]}
    assert right.tolist() == [1.0, 0.0]


# ---- what is said


def test_lists_of_heads():
    assert verdicts.listed(["a"]) == "a"
    assert verdicts.listed(["a", "b"]) == "a and b"
    assert verdicts.listed(["a", "b", "c"]) == "a, b and c"


def pair(a: str, said: str, points: float | None) -> dict[str, Any]:
    ends = {"ci95": [1.0, 3.0], "ci95_together": [0.5, 3.5], "range": [0.8, 3.1]}
    unit = {"unit": "percentage points", "digits": 1, "margin": 0.5}
    return {"a": a, "verdict": said, "difference": points, "p": 0.01, "repeats": 5} | ends | unit


def results_of(pairs=(), shifted=(), **accuracy: float | None) -> dict[str, Any]:
    heads = [{"head": name, "test_accuracy": {"mean": mean}} for name, mean in accuracy.items()]
    metrics = [METRICS["accuracy"].to_json()]
    shared = {"settings": {"baseline": "fc", "folds": None}, "metrics": metrics, "collapsed": []}
    return {"heads": heads, "pairs": list(pairs), "shift_pairs": list(shifted)} | shared


def test_findings_come_strongest_first():
    pairs = [
        pair("x", "better", 1.0),
        pair("z", "cannot tell", None),
        pair("y", "better", 2.0),
        pair("w", "worse", -9.0),
    ]
    _, details = verdicts.sentences(results_of(pairs, fc=0.9, x=0.9, y=0.9, z=0.9, w=0.8))
    assert [said.partition(":")[0] for said in details[:3]] == ["w", "y", "x"]
    assert details[3].startswith("z does not differ detectably from fc")


def test_what_is_said_where_little_can_be():
    assert "nothing to compare" in verdicts.sentences(results_of(fc=None, gap=None))[0]
    first, more = verdicts.sentences(results_of(fc=None, gap=0.9))
    assert "No trial of the baseline" in first
    assert more[0].endswith("the baseline is fc.")
    assert "fc reaches an accuracy of 90.0 %" in verdicts.sentences(results_of(fc=0.9, gap=None))[0]
    same, moved = [pair("gap", "equivalent", 0.1)], "On shifted test images"
    _, details = verdicts.sentences(results_of(same, [pair("gap", "better", 2.0)], fc=0.9, gap=0.9))
    assert any(said.startswith(f"{moved}, gap is better than fc") for said in details)
    unsure = [pair("gap", "equivalent", 0.1), pair("gap", "cannot tell", 2.0)]
    _, details = verdicts.sentences(results_of(same, unsure, fc=0.9, gap=0.9))
    assert not any(moved in said for said in details)


def test_the_worst_images_were_wrong():
    labels = np.array([0, 1, 0, 1])
    store = SimpleNamespace(labels=labels, names=("a", "b", "c", "d"), images=np.zeros((4, 2, 2, 1), np.uint8))
    prepared = SimpleNamespace(store=store, labels=("no", "yes"), preprocessing=SimpleNamespace(centre=lambda x: x))

    def done(answer: list[int], confidence: list[float]) -> FinishedTrial:
        arrays = {"test": np.arange(4), "answer": np.array(answer), "confidence": np.array(confidence, np.float32)}
        return FinishedTrial(SimpleNamespace(), {}, arrays)  # type: ignore[arg-type]

    by_head = {
        "gap": [done([0, 0, 1, 1], [0.9, 0.6, 0.9, 0.8]), done([0, 1, 1, 1], [0.9, 0.6, 0.5, 0.8])],
        "fc": [done([0, 0, 0, 1], [0.9, 0.55, 0.9, 0.8])],
    }
    pictures, worst = worst_images(SimpleNamespace(prepared=prepared, multi_label=False), by_head)  # type: ignore[arg-type]
    assert [one["name"] for one in worst] == ["c", "b"]  # surest first, and none that was always right
    assert len(pictures) == 2
    assert worst[0]["wrong"] == {"gap": 1.0, "fc": 0.0}
    assert worst[1]["wrong"] == {"gap": 0.5, "fc": 1.0}
    assert worst[0]["predictions"] == {"gap": "yes", "fc": "no"}
    assert worst[0]["confidence"]["gap"] == pytest.approx(0.7)


def finished(seed: int, accuracy: float, takes_only: str | None = None) -> FinishedTrial:
    """A trial of a head with two classes."""
    bins = {"edges": [0, 1], "confidence": [0.5], "accuracy": [accuracy], "count": [4]}
    numbers = dict.fromkeys(("nll", "brier", "ece", "peak_memory_mb", "generalisation_gap", "train_accuracy"), 0.5)
    facts = numbers | {
        "seed": seed,
        "test_accuracy": accuracy,
        "parameters": 7,
        "head_parameters": 2,
        "macs": 9,
        "takes_only": takes_only,
        "shift": {"pixels": [0, 1], "accuracy": [accuracy, accuracy / 2], "same_answer": [1.0, 0.5]},
        "sizes": {"scale": [1.0, 1.5], "accuracy": [accuracy, None]},
        "robustness_images": 4,
        "bins": bins,
        "history": {"train_loss": [1.0, 0.5], "validation_accuracy": [0.1, 0.2], "seconds": 3.0},
        "confusion": [[1, 0], [seed, 2]],
        "localisation": None,
        "additive": True,
    }
    right = round(10 * accuracy)
    answer = (np.arange(10) < right).astype(int)
    arrays = {
        "test": np.arange(10),
        "answer": answer,
        "log_probabilities": np.log(np.where(np.eye(2)[answer] == 1, 0.75, 0.25)).astype(np.float32),
        "shifted": np.full(10, accuracy / 2),
    }
    trial = SimpleNamespace(id=str(seed), seed=seed, head="gap", robust=np.arange(10))
    return FinishedTrial(trial, facts, arrays)  # type: ignore[arg-type]


def test_a_head_of_which_no_trial_finished_and_one_of_which_two_did():
    trials = [SimpleNamespace(id="0", seed=0, head="gap"), SimpleNamespace(id="1", seed=1, head="fc")]
    store = SimpleNamespace(labels=np.ones(10, int))
    request = SimpleNamespace(folds=None)
    source = SimpleNamespace(grouping=None)
    prepared = SimpleNamespace(store=store, labels=("no", "yes"), groups=np.arange(10), source=source)
    plan: Any = SimpleNamespace(
        trials=trials,
        request=request,
        prepared=prepared,
        metric=(METRICS["balanced_accuracy"], None),
        multi_label=False,
    )
    none = head_results.head_results(plan, "gap", [], {"0": "killed", "1": "full"}, None)
    assert none["failed"] == [{"seed": 0, "reason": "killed"}]
    for key in ("input", "parameters", "shift", "sizes", "reliability", "confusion", "confused", "localisation"):
        assert none[key] is None
    assert none["curves"] == []
    assert none["test_accuracy"] == {"mean": None, "ci95": None, "values": []}
    two = head_results.head_results(plan, "gap", [finished(0, 0.8), finished(1, 0.6)], {}, {"cpu": 1.0})
    assert two["failed"] == []
    assert (two["input"], two["parameters"], two["ms_per_image"]) == ("any", 7, {"cpu": 1.0})
    assert two["test_accuracy"]["mean"] == pytest.approx(0.7)
    assert two["metrics"]["accuracy"] == two["test_accuracy"]
    assert next(iter(two["metrics"])) == "balanced_accuracy"  # the deciding one first
    assert two["metrics"]["balanced_accuracy"]["values"] == pytest.approx([0.8, 0.6])  # all are of one class
    assert two["metrics"]["auroc"] == {"mean": None, "ci95": None, "values": []}  # ... which none lies above
    assert two["metrics"]["nll"]["values"] == pytest.approx([-np.log(0.75**k * 0.25 ** (1 - k)) for k in (0.8, 0.6)])
    assert [(recall["images"], recall["mean"]) for recall in two["recall"]] == [(0, None), (10, pytest.approx(0.7))]
    assert two["shift_accuracy"]["values"] == pytest.approx([0.4, 0.3])  # of moved images alone
    assert two["shift"]["accuracy"] == pytest.approx([0.7, 0.35])
    assert two["sizes"]["accuracy"] == [pytest.approx(0.7), None]
    assert two["confusion"] == [[2, 0], [1, 4]]
    assert [(one["true"], one["predicted"], one["count"]) for one in two["confused"]] == [("yes", "no", 1)]
    assert two["curves"][0]["epoch"] == [1, 2]
    assert head_results.head_results(plan, "gap", [finished(0, 0.8, "28×28")], {}, None)["input"] == "28×28"
