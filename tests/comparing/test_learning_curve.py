"""Accuracy against labelled images: nested parts, one family of tests, and who overtakes whom."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from gapstone.comparing import run_comparison
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_pass import run_feature_pass
from gapstone.comparing.finished_trials import by_head, missing
from gapstone.comparing.labelled_subset import labelled_share, labelled_subset
from gapstone.comparing.learning_curve import IN_ALL, curve_results, labelled, overtaking, parse_curve
from gapstone.comparing.plan import plan_comparison
from gapstone.comparing.trial_files import read
from gapstone.comparing.trials import run
from gapstone.console.progress import Bars, duration
from gapstone.statistics.compare_pairs import compare_pairs, holm
from gapstone.statistics.unit import Unit
from gapstone.training.training_data import TrainOptions
from tests.comparing.small_comparison import planned_comparison

LABELS = np.repeat([0, 1, 2], [60, 40, 7])


def parts(seed=0):
    order = np.random.default_rng(9).permutation(len(LABELS))
    return np.sort(order[:90]), np.sort(order[90:])


def test_parts_are_nested_and_hold_so_many_of_each_class():
    train, validation = parts()
    before: tuple[set[int], set[int]] = (set(), set())
    for per_class in (1, 2, 5, 10, 30, 50, 1000):
        chosen = labelled_subset(train, validation, LABELS, per_class, seed=3)
        assert set(chosen[0]) <= set(train)
        assert set(chosen[1]) <= set(validation)
        counts = np.bincount(LABELS[np.concatenate(chosen)], minlength=3)
        assert counts.tolist() == [min(per_class, 60), min(per_class, 40), min(per_class, 7)]
        assert np.bincount(LABELS[chosen[0]], minlength=3).min() >= 1
        assert all(small <= set(large) for small, large in zip(before, chosen, strict=True))
        before = set(chosen[0]), set(chosen[1])
    assert before == (set(train), set(validation))


def test_a_part_depends_on_the_seed_alone():
    train, validation = parts()
    first, again, other = (labelled_subset(train, validation, LABELS, 10, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_as_many_are_for_validation_as_of_all_images():
    labels = np.zeros(1000, int)
    train, validation = np.arange(900), np.arange(900, 1000)
    for per_class, held in ((1, 0), (2, 1), (5, 1), (10, 1), (30, 3), (100, 10), (999, 100)):
        chosen = labelled_subset(train, validation, labels, per_class, seed=0)
        assert [len(part) for part in chosen] == [per_class - held, held]
    nothing_held = labelled_subset(train, validation[:0], labels, 30, seed=0)
    assert [len(part) for part in nothing_held] == [30, 0]


@pytest.mark.parametrize("grouped", [False, True])
def test_parts_of_images_with_several_labels_are_nested_and_have_each_classs_share(grouped):
    rng = np.random.default_rng(0)
    shares = np.array([0.6, 0.3, 0.1, 0.03])
    labels = rng.random((660, 4)) < shares
    groups = np.arange(660) // 3 if grouped else None
    rows = rng.permutation(660 // 3)[:, None] * 3 + np.arange(3)
    train, validation = np.sort(rows[:180].ravel()), np.sort(rows[180:].ravel())
    before: tuple[set[int], set[int]] = (set(), set())
    for count in (1, 2, 7, 30, 100, 101, 333, 660, 1000):
        chosen = labelled_share(train, validation, labels, count, 3, groups)
        assert sum(map(len, chosen)) == min(count, 660)
        assert len(chosen[1]) == min(round(count * 120 / 660), 120) or count == 2
        assert set(chosen[0]) <= set(train)
        assert set(chosen[1]) <= set(validation)
        assert all(small <= set(large) for small, large in zip(before, chosen, strict=True))
        if count >= 30 and not grouped:  # at random, 100 images miss the most frequent class by 5 and more
            missed = np.abs(labels[chosen[0]].sum(0) - len(chosen[0]) * labels[train].mean(0))
            assert missed.max() < 3
            assert labels[chosen[0]].any(0).all()
        before = set(chosen[0]), set(chosen[1])
    assert before == (set(train), set(validation))
    again, other = (labelled_share(train, validation, labels, 100, seed, groups) for seed in (3, 4))
    assert np.array_equal(again[0], labelled_share(train, validation, labels, 100, 3, groups)[0])
    assert not np.array_equal(again[0], other[0])
    if grouped:  # at most one group of each half, or of each of its halves, is cut
        cut = np.bincount(again[0] // 3)
        assert ((cut > 0) & (cut < 3)).sum() <= 3


@pytest.mark.parametrize(("text", "points"), [("5,10,30,all", (5, 10, 30)), ("100, 5,5", (5, 100)), ("1", (1,))])
def test_points(text, points):
    assert parse_curve(text) == points


@pytest.mark.parametrize("text", ["", "all", "0", "-5", "5,", "5;10", "5.5", "many", "²"])
def test_points_that_are_none(text):
    with pytest.raises(ValueError, match="give numbers of labelled images of each class"):
        parse_curve(text)


def scores(rng, *accuracies):
    """Five seeds and 400 images, which are as hard for every head."""
    hard = rng.random(400)
    return [{seed: hard < accuracy + rng.normal(0, 0.004) for seed in range(5)} for accuracy in accuracies]


def test_points_and_heads_are_one_family():
    rng = np.random.default_rng(0)
    right = [dict(zip("abc", scores(rng, 0.60, 0.60, 0.50), strict=True)),
             dict(zip("abc", scores(rng, 0.70, 0.71, 0.70), strict=True)),
             dict(zip("abc", scores(rng, 0.80, 0.80, 0.88), strict=True))]  # fmt: skip
    found = curve_results([(5, 15), (30, 90), (None, 300)], right, "a", Unit(), 0.95)
    assert [point["per_class"] for point in found["points"]] == [5, 30, None]
    (alone,) = compare_pairs({head: right[0][head] for head in "ac"}, "a")  # as the comparison itself does
    mine = next(pair for pair in found["pairs"] if (pair["per_class"], pair["a"]) == (5, "c"))
    assert all(mine[key] == alone[key] for key in ("difference", "ci95", "p", "b", "repeats"))
    p = [pair["p"] for pair in found["pairs"]]
    assert len(p) == 6
    assert [pair["p_holm"] for pair in found["pairs"]] == holm(p)
    verdicts = {(pair["a"], pair["per_class"]): pair["verdict"] for pair in found["pairs"]}
    assert (verdicts["c", 5], verdicts["c", 30], verdicts["c", None]) == ("worse", "cannot tell", "better")
    (sentence,) = found["findings"]
    assert sentence.startswith("c overtakes a: −1")
    assert "with 5 labelled images of each class, +" in sentence
    assert sentence.endswith("with all.")
    for head in found["heads"]:
        for at, stat in zip(right, head["score"], strict=True):
            assert stat["mean"] == pytest.approx(np.mean([at[head["head"]][seed] for seed in range(5)]))
            low, high = stat["ci95"]
            assert high - low > 0.05  # other images, too: of five seeds alone it would be 0.01


def test_another_look_is_paid_for():
    rng = np.random.default_rng(0)
    whole = dict(zip("ab", scores(rng, 0.80, 0.814), strict=True))
    found = [curve_results([(None, 300)], [whole], "a", Unit(), 0.95, look)["pairs"][0] for look in (1, 2, 3)]
    assert found[0]["p_holm"] == found[2]["p_holm"]
    assert [pair["verdict"] == "better" for pair in found] == [found[0]["p"] < 0.05 / k**2 for k in (1, 2, 3)]
    assert found[0]["verdict"] != found[2]["verdict"]


def test_missing_trials_leave_gaps():
    rng = np.random.default_rng(0)
    whole = dict(zip("ab", scores(rng, 0.8, 0.7), strict=True))
    found = curve_results([(5, 10), (None, 100)], [{"a": {}, "b": whole["b"]}, whole], "a", Unit(), 0.95)
    assert [pair["per_class"] for pair in found["pairs"]] == [None]
    assert found["heads"][0]["score"][0] == {"mean": None, "ci95": None, "values": []}
    one = curve_results(
        [(5, 10), (None, 100)], [{"a": {0: whole["a"][0]}, "b": {0: whole["b"][0]}}, whole], "a", Unit(), 0.95
    )
    assert one["pairs"][0]["verdict"] == "cannot tell"
    assert one["heads"][0]["score"][0]["ci95"] is None


def test_the_baseline_may_overtake():
    words = [(5, "better", 3.0), (30, "cannot tell", 0.4), (None, "worse", -2.0)]
    unit = {"unit": "percentage points", "digits": 1}
    pairs = [{"per_class": n, "a": "fc", "verdict": word, "difference": points} | unit for n, word, points in words]
    assert overtaking(pairs, "gap") == [
        "gap overtakes fc: −3.0 percentage points with 5 labelled images of each class, +2.0 with all."
    ]
    (said,) = overtaking(pairs, "gap", IN_ALL)
    assert said == "gap overtakes fc: −3.0 percentage points with 5 labelled images, +2.0 with all."
    assert overtaking(pairs[:2], "gap") == []


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The plan of a comparison with a curve, of small noisy pictures on a frozen backbone."""
    out = tmp_path_factory.mktemp("curve")
    return planned_comparison(out, ("gap", "gmp"), 2, curve="3,6,500,all"), out


def test_every_point_has_trials_of_its_own(planned):
    plan, _ = planned
    assert list(plan.curve) == [3, 6]  # 500: all there are
    assert len({trial.id for trial in plan.all_trials}) == len(plan.all_trials) == 12
    for per_class, trials in plan.curve.items():
        for part, whole in zip(trials, plan.trials, strict=True):
            assert (part.head, part.seed) == (whole.head, whole.seed)
            assert np.array_equal(part.test, whole.test)
            assert labelled(part) == 3 * per_class
            assert part.settings.epochs == part.settings.patience == 24
    rows = [{row for part in (trial.train, trial.validation) for row in part} for trial in plan.all_trials[:12:4]]
    assert rows[1] < rows[2] < rows[0]


def test_a_point_measures_the_test_images_and_is_read_again(planned):
    plan, out = planned
    assert plan.feature_pass is not None
    store = plan.prepared.store
    cache = run_feature_pass(plan.feature_pass, store.folder, out / "kept", lambda done, total: None)
    trial = plan.curve[6][0]
    run(trial, store, out / "trials", cache=cache)
    facts, arrays = read(out / "trials" / trial.id)
    assert set(arrays) == {"test", "answer", "confidence", "log_probabilities"}
    assert facts["test_accuracy"] == (arrays["answer"] == store.labels[trial.test]).mean()
    assert facts["tuning"]["chosen"]
    said: list[str] = []
    absent = missing(plan, out, said.append)
    assert len(absent) == 11
    assert trial.id not in {one.id for one in absent}
    right = by_head(plan.request.heads, plan.curve[6], out)
    assert [len(right[head]) for head in ("gap", "gmp")] == [1, 0]


def test_a_backbone_that_is_trained_has_no_curve(tmp_path):
    request = CompareRequest(TrainOptions("digits"), ("gap",), curve="5,all").checked()
    with pytest.raises(ValueError, match="nin is trained here: add --freeze"):
        plan_comparison(request, tmp_path, lambda text: None, lambda name: lambda done, total: None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="take --seeds"):
        CompareRequest(TrainOptions("digits"), ("gap",), folds=3, curve="5").checked()


def test_a_quick_comparison_is_announced_without_the_timing_of_heads(planned):
    """Its heads are not timed, and what the announcement adds up does not hold their time."""
    plan, out = planned
    batches = dict.fromkeys(plan.request.heads, 0.0)
    plan = replace(plan, measured=plan.measured | {"image_seconds": 0.0, "batch_seconds": batches})
    quick = replace(plan, request=replace(plan.request, quick=True))
    assert run_comparison._speed(quick, {}, out, Bars(Console(file=io.StringIO()))) == {}
    trials, heads = list(plan.all_trials), plan.heads_seconds(plan.all_trials)
    for asked, after in ((plan, run_comparison.AFTER + run_comparison.TIMING), (quick, run_comparison.AFTER)):
        assert f"In all about {duration(heads + after)}" in run_comparison._announce(asked, trials, out)
