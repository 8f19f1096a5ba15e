"""Comparisons of several labels per image: results, remarks, files and page; nothing is trained here."""

import csv
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn import metrics as oracle

from gapstone.comparing import predictions_file, result_files, trial_measures
from gapstone.comparing.boxed_images import BoxedImages
from gapstone.comparing.chosen_metric import asked_metric, check_metric
from gapstone.comparing.class_results import class_results
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.gather_results import _objects
from gapstone.comparing.head_results import head_results
from gapstone.comparing.map_localisation import SCORES
from gapstone.comparing.remarks import remarks
from gapstone.comparing.report import report_page, report_pictures, report_terminal
from gapstone.comparing.report.report_pictures import _classes
from gapstone.comparing.shown_images import shown_images
from gapstone.comparing.tested_values import boxed, pairs_of, stat_of
from gapstone.comparing.verdict import sentences
from gapstone.statistics.metrics import MULTI_LABEL
from tests.comparing import fake_several
from tests.comparing.fake_results import save
from tests.schemas import check, validator

CLASSES = ("cat", "dog", "<b>fox</b>", "rare")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("several")
    return fake_several.make(folder, CLASSES, heads=("gap", "fc"), seeds=3, images=150), folder


def planned() -> tuple[Any, dict[str, list[FinishedTrial]]]:
    labels = fake_several.drawn_labels(np.random.default_rng(0), 200, 4)
    labels[100:, 3] = False
    labels[100:102, 3] = True  # two test images of a class
    plan = fake_several.plan_of(labels, CLASSES, ("gap", "fc"), MULTI_LABEL["average_precision"])
    return plan, fake_several.trials_of(plan, seeds=3)


def test_results_fit_their_schema(made: tuple[dict[str, Any], Path]) -> None:
    results = made[0] | {"models": [], "curve": None, "localisation": None, "localisation_pairs": []}
    results |= {"files": {}, "sealed": "0" * 64}
    whole = _with_what_is_missing(results)
    check("results", whole)
    first, *others = whole["heads"]
    for key in ("classes", "shift_balanced_accuracy", "train_average_precision", "constant"):
        damaged = whole | {"heads": [{name: value for name, value in first.items() if name != key}, *others]}
        assert not validator("results").is_valid(damaged), key
    for key in ("multi_label", "uncounted"):
        data = {name: value for name, value in whole["data"].items() if name != key}
        assert not validator("results").is_valid(whole | {"data": data}), key


def _with_what_is_missing(results: dict[str, Any]) -> dict[str, Any]:
    """What `fake_results` leaves out of results of one label, too."""
    data = {"caution": None, "groups": None, "kind": "csv"}
    settings = {"frozen": False, "weights": None, "weights_digest": None}
    scan = {"groups": None, "refused": None, "ranges": {}}
    return results | {
        "data": data | results["data"] | {"kind": "csv"},
        "settings": settings | results["settings"],
        "scan": results["scan"] | scan,
    }


def test_each_class_as_scikit_learn_has_it() -> None:
    plan, done = planned()
    found = class_results(plan, done["gap"])
    labels = plan.prepared.store.labels[100:]
    for k, entry in enumerate(found):
        answers = [one.arrays["answer"][:, k] for one in done["gap"]]
        assert entry["images"] == labels[:, k].sum()
        assert entry["found"] == sum((a & labels[:, k]).sum() for a in answers)
        assert entry["missed"] == sum((~a & labels[:, k]).sum() for a in answers)
        assert entry["false"] == sum((a & ~labels[:, k]).sum() for a in answers)
        p = [np.exp(one.arrays["log_probabilities"][:, k].astype(float)) for one in done["gap"]]
        for name, score, of in (
            ("recall", oracle.recall_score, answers),
            ("precision", oracle.precision_score, answers),
            ("f1", oracle.f1_score, answers),
            ("average_precision", oracle.average_precision_score, p),
            ("auroc", oracle.roc_auc_score, p),
        ):
            assert entry[name]["values"] == pytest.approx([score(labels[:, k], one) for one in of]), name
    few = [entry["images"] < 5 for entry in found]
    assert [entry["average_precision"]["ci95"] is None for entry in found] == few
    assert (few[0], few[-1]) == (False, True)
    low, high = found[0]["average_precision"]["ci95"]
    assert low < found[0]["average_precision"]["mean"] < high
    assert found[0]["recall"]["ci95"] is not None


def test_remarks_and_headline(made: tuple[dict[str, Any], Path]) -> None:
    results = made[0]
    assert "points of mean average precision" in results["verdict"]
    one = {**results, "heads": results["heads"][:1], "pairs": [], "shift_pairs": [], "localisation_pairs": []}
    assert sentences(one)[0].startswith("gap reaches a mean average precision of ")
    data = results["data"] | {"uncounted": ["rare"]}
    assert "No test image, or every one, has 'rare': it does not count" in " ".join(remarks(results | {"data": data}))
    data = results["data"] | {"counts": {"train": [9, 9, 9, 9], "test": [9, 9, 9, 4]}, "test": 90, "train": 90}
    assert "Fewer than 5 test images have, or lack, 'rare'" in " ".join(remarks(results | {"data": data}))


def boxed_trials(images: int, copies: int) -> tuple[Any, dict[str, list[FinishedTrial]]]:
    """Trials that found the object or did not, in so many maps of each image, which all say the same."""
    plan, done = planned()
    test = plan.prepared.splits[0].test[:images]
    objects = tuple(BoxedImages(row, (32, 32), ((1.0, 1.0, 9.0, 9.0),), k) for row in test for k in range(copies))
    rng = np.random.default_rng(2)
    for trials in done.values():
        for one in trials:
            one.trial.objects = objects  # type: ignore[misc]
            one.arrays["found"] = np.repeat(rng.random(images) < 0.6, copies)
            one.arrays["pointed"] = np.repeat(rng.random(images) < 0.7, copies)
    plan.objects = objects
    return plan, done


def test_maps_of_one_image_count_as_one() -> None:
    """Two maps of each image that always agree say what one says: of other images as many are needed."""
    pairs, stats = [], []
    for copies in (1, 2):
        plan, done = boxed_trials(60, copies)
        of = lambda one: one.arrays["found"]  # noqa: E731
        pairs += pairs_of(plan, done, of, 1, rows=boxed)
        stats.append(stat_of(plan, done["gap"], of, rows=boxed))
    once, twice = pairs
    assert "60 images, " in once["method"]
    assert "60 test images of 120 maps, " in twice["method"]
    for key in ("difference", "p", "ci95", "variance", "verdict"):
        assert twice[key] == (once[key] if key == "verdict" else pytest.approx(once[key])), key
    assert stats[1]["mean"] == stats[0]["mean"]
    # 60 answers, not 180: seeds that found the same images show nothing of others
    assert np.ptp(stats[1]["ci95"]) == pytest.approx(np.ptp(stats[0]["ci95"]), rel=0.1)
    # folds are weighed by images, of which maps are no more
    plan.request.folds = 3
    plan.prepared.splits = plan.prepared.splits * 3
    (folds,) = pairs_of(plan, done, of, 1, rows=boxed)
    plan, done = boxed_trials(60, 1)
    plan.request.folds = 3
    plan.prepared.splits = plan.prepared.splits * 3
    assert pairs_of(plan, done, of, 1, rows=boxed)[0]["ci95"] == pytest.approx(folds["ci95"])


def test_localisation_on_the_page_and_in_the_terminal(made: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    results, folder = made
    plan, done = boxed_trials(60, 2)
    scores = dict.fromkeys(SCORES, 0.5) | {"top5": None, "tuned": None, "reference": None, "without_evidence": 3}
    scores |= {"tuned_threshold": None, "max_box_acc_threshold": 0.3, "pictures": 120}
    for one in (one for trials in done.values() for one in trials):
        one.facts["localisation"] = scores
    heads = [
        head | {"localisation": head_results(plan, head["head"], done[head["head"]], {}, None)["localisation"]}
        for head in results["heads"]
    ]
    about = _objects(plan, plan.prepared.splits[0].test)
    pairs = pairs_of(plan, done, lambda one: one.arrays["found"], 1, rows=boxed)
    results = results | {"heads": heads, "localisation": about, "localisation_pairs": pairs}
    check("results", _with_what_is_missing(results | {"models": [], "curve": None, "files": {}, "sealed": "0" * 64}))
    with np.load(folder / "pictures.npz") as arrays:
        labels = arrays["labels"]
        boxes = [(0, 1, 2, 3, 4, k) for k in np.flatnonzero(labels[0])] + [(1, 4, 4, 9, 9, 0), (1, 4, 4, 9, 9, 3)]
        np.savez(tmp_path / "pictures.npz", **arrays, boxes=np.array(boxes, float))
    save(tmp_path, results)
    page = report_page.write(tmp_path).read_text("utf-8")
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert (
        "60 test images came with 120 boxes; each of an image’s classes that has boxes is judged by its own map, 120"
        in text
    )
    assert "Answered, at 20 %" in text
    assert "mean of the classes" in text
    assert "Maps are each class’s own" in text
    console = Console(file=io.StringIO(), width=100)
    report_terminal.render(results, console)
    said = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "In % of the 120 maps of classes with boxes, in 60 test images." in said
    assert "minus the mean" not in said
    # on the photo the boxes of all classes, on a map those of its own
    maps, _ = report_pictures.read(tmp_path / "pictures.npz", CLASSES, 2)
    assert maps is not None
    assert len(maps.rows[1].boxes) == 2
    for one in maps.rows[1].cells[0] or ():
        assert len(one.boxes) == (one.label in (CLASSES[0], CLASSES[3])), one.label


@pytest.mark.parametrize(
    ("constant", "said"),
    [
        (
            [{"seed": s, "answers": []} for s in range(3)],
            "gap answers no class for every test image: it has",
        ),
        (
            [{"seed": 1, "answers": list(CLASSES)}],
            "gap, seed 1, answers every class for every test image",
        ),
        ([{"seed": 1, "answers": ["cat", "dog"]}], "gap, seed 1, answers 'cat' and 'dog' for every test image"),
    ],
)
def test_the_same_answer_for_all_images_is_called_that(
    made: tuple[dict[str, Any], Path], constant: list[dict[str, Any]], said: str
) -> None:
    first, *others = made[0]["heads"]
    assert first["constant"] == []
    assert said in " ".join(remarks(made[0] | {"heads": [first | {"constant": constant}, *others]}))


def test_guessing_is_called_that(made: tuple[dict[str, Any], Path]) -> None:
    first, *others = made[0]["heads"]
    bad = first | {"train_average_precision": {"mean": 0.21, "ci95": None, "values": [0.21]}}
    said = " ".join(remarks(made[0] | {"heads": [bad, *others]}))
    assert "gap is hardly better than guessing: 21.0 % mean average precision on the training images" in said


def test_the_page_has_classes_instead_of_confusion(made: tuple[dict[str, Any], Path]) -> None:
    text = report_page.write(made[1]).read_text("utf-8")
    for words in ("mAP", "all right", "found and missed, of the images with it", "Answered classes that stay"):
        assert words in text
    for words in ("<b>fox</b>", "True classes are rows", "always predicting", "softmax"):
        assert words not in text
    assert "&lt;b&gt;fox&lt;/b&gt;" in text


def test_shown_maps_are_of_true_classes_then_of_false_answers() -> None:
    logits = np.array([2.0, -1.0, 1.0, -3.0, 0.5])
    assert _classes(logits, [1, 0], multi_label=True) == [(0, "found"), (1, "missed"), (2, "answered falsely")]
    assert _classes(-np.abs(logits), [], multi_label=True) == [(4, "not answered")]
    assert _classes(logits, [1], multi_label=False) == [(1, "true"), (0, "prediction")]


def test_shown_images_have_the_classes_that_were_shown_least() -> None:
    labels = np.zeros((40, 3), bool)
    labels[:30, 0] = labels[30:35, 1] = labels[35, 2] = True
    shown = labels[shown_images(np.arange(40), labels)]
    assert shown.sum(0).tolist() == [2, 3, 1] or shown[:, 2].sum() == 1
    assert (~shown.any(1)).sum() >= 2
    assert len(shown) == 8


def test_files_of_predictions(tmp_path: Path) -> None:
    plan, done = planned()
    for trials in done.values():
        for one in trials:
            object.__setattr__(one.trial, "fold", None)
    predictions_file.write_predictions(tmp_path, plan, done)
    with np.load(tmp_path / "predictions.npz") as file:
        assert (file["labels"] == plan.prepared.store.labels[100:]).all()
        assert (file["prediction"] == (np.exp(file["log_probabilities"]) >= 0.5)).all()
        assert file["prediction"].shape == (600, 4)
        assert "confidence" not in file
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text("utf-8").splitlines()))
    both = plan.prepared.store.labels[100]
    assert rows[0]["label"] == "|".join(name for name, there in zip(CLASSES, both, strict=True) if there)
    assert {row["correct"] for row in rows} == {"0", "1"}
    assert 0 < float(rows[0]["p(cat)"]) < 1
    for trials in done.values():
        for one in trials:
            one.facts["history"]["best_epoch"] = 3
            one.facts["tuning"] = {"learning_rate": 0.1, "weight_decay": 0.0}
    result_files.write_trials(tmp_path / "results.csv", plan, done)
    row = next(csv.DictReader((tmp_path / "results.csv").read_text("utf-8").splitlines()))
    values = done["gap"][0].values(MULTI_LABEL["average_precision"], plan.prepared.store.labels)
    assert float(row["test_average_precision"]) == pytest.approx(values.mean())
    assert float(row["test_auroc"]) > 0.5


def test_where_probabilities_are_many_the_values_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = fake_several.drawn_labels(np.random.default_rng(0), 80, 3)
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, labels.shape))
    answers = trial_measures.Answers.of(logits, multi_label=True)
    assert answers.logits == pytest.approx(logits.numpy(), rel=1e-5, abs=1e-6)
    whole = answers.stored(labels)
    monkeypatch.setattr(trial_measures, "MOST_PROBABILITIES", 10)
    few = answers.stored(labels)
    assert "log_probabilities" not in few
    test: dict[str, Any] = {"test": np.arange(80)}
    trial: Any = SimpleNamespace(labels=range(3))
    stored, computed = (FinishedTrial(trial, {}, arrays | test) for arrays in (few, whole))
    for metric in MULTI_LABEL.values():
        assert stored.values(metric, labels) == pytest.approx(computed.values(metric, labels)), metric.name
        if metric.of_classes is not None:
            assert stored.of_classes(metric, labels) == pytest.approx(computed.of_classes(metric, labels))
        if metric.worth is not None:
            assert stored.worth(metric, labels) == pytest.approx(computed.worth(metric, labels))


def test_moved_looks_agree_on_the_classes_that_are_answered() -> None:
    before = np.array([[True, False, False], [True, True, False]])
    after = np.array([[True, False, False], [False, True, True]])
    assert trial_measures.same(after, before) == 2 / 4
    assert trial_measures.same(before & False, before & False) == 1
    labels = np.array([[True, False, True], [False, False, True]])
    assert trial_measures.score(labels, labels) == 1
    assert trial_measures.score(labels, ~labels) == 0


def test_metrics_that_the_data_do_not_have_are_refused() -> None:
    empty, nobody = np.zeros((4, 2), bool), lambda _: None
    metric = asked_metric("micro_f1")
    assert metric is MULTI_LABEL["micro_f1"]
    with pytest.raises(ValueError, match="--metric average_precision needs test images with a class and some without"):
        check_metric(MULTI_LABEL["average_precision"], empty, [np.arange(4)], 2, 1, nobody)
    check_metric(MULTI_LABEL["accuracy"], empty, [np.arange(4)], 2, 1, nobody)
    own = asked_metric(lambda labels, p: float((labels & (p > 0.5)).mean()))
    assert own is not None
    check_metric(own, empty, [np.arange(4)], 2, 1, nobody)
