"""A real comparison on real files: names in any script, a broken file, a head that fails; everything it writes."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.run_comparison import compare, report
from gapstone.comparing.verdict import SHORT, sentences
from gapstone.console.progress import duration
from gapstone.statistics.metrics import METRICS
from gapstone.storage.csv_file import cell
from gapstone.training.training_data import TrainOptions
from tests.schemas import check, check_refuses_damage

CLASSES = ("고양이", "قطة", "<b>three</b>")
SCHEMA = (Path(__file__).parents[2] / "docs" / "results.md").read_text("utf-8")


def keys(table):
    """The names in the first column."""
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)", row)}


def quiet():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three of the handwritten digits as PNG files, a sub-folder per class, and a file that is no image."""
    folder = tmp_path_factory.mktemp("my photos")
    digits = load_digits()
    for number, name in enumerate(CLASSES):
        (folder / name.replace("/", "∕")).mkdir()
        for i, image in enumerate(digits.images[digits.target == number][:50]):
            picture = Image.fromarray((image * 15).astype(np.uint8))
            picture.save(folder / name.replace("/", "∕") / f"a picture {i}.png")
    (folder / CLASSES[0] / "page.png").write_text("<html>404</html>")
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    request = CompareRequest(
        TrainOptions(str(folder), epochs=2, batch_size=16, precision="float32"), ("gap", "fc", "lse"), 2, baseline="fc"
    )
    return out, compare(request, out, quiet(), "gapstone compare …")


def test_it_counts_what_it_leaves_out(run):
    _, results = run
    assert results["scan"]["files"] == 151
    assert [entry["name"] for entry in results["scan"]["unreadable"]] == ["고양이/page.png"]
    assert results["scan"]["excluded"] == 1
    data = results["data"]
    assert data["train"] + data["validation"] + data["test"] == 150
    assert data["classes"][1] == "قطة" or "قطة" in data["classes"]
    assert sum(data["counts"]["test"]) == data["test"] == 40


def test_results_hold_every_documented_key(run):
    _, results = run
    top, per_head = SCHEMA.partition("## Several labels per image")[0].split("`heads[]`:")
    assert set(results) == keys(top[top.index("schema 5") :])
    head_keys = set(results["heads"][0])
    assert head_keys == keys(per_head)
    documented = set(re.findall(r"`(\w+)`", SCHEMA))
    for part in (results["data"], results["settings"], results["pairs"][0], results["trials"][0], results["scan"]):
        assert set(part) <= documented, set(part) - documented
    for head in results["heads"]:
        assert set(head) == head_keys
        for key in ("train_accuracy", "test_accuracy", "generalisation_gap", "nll", "brier", "ece", "shift_accuracy"):
            stat = head[key]
            assert len(stat["values"]) == 2
            assert stat["ci95"] is None or stat["ci95"][0] <= stat["mean"] <= stat["ci95"][1]
    assert {pair["a"] for pair in results["pairs"]} == {"gap", "lse"}
    for pair in results["pairs"]:
        assert pair["b"] == "fc"
        assert {"difference", "ci95", "p", "p_holm", "verdict", "advice", "method"} <= set(pair)


def test_the_files_are_as_their_schemas_say(run):
    out, _ = run
    for name in ("results", "scan"):
        check_refuses_damage(name, json.loads((out / f"{name}.json").read_text("utf-8")))


def test_numbers_agree_with_each_other(run):
    out, results = run
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for head in results["heads"]:
        for seed, accuracy in enumerate(head["test_accuracy"]["values"]):
            mine = [row for row in rows if row["head"] == head["head"] and row["seed"] == str(seed)]
            assert len(mine) == results["data"]["test"]
            assert np.mean([row["correct"] == "1" for row in mine]) == pytest.approx(accuracy)
            assert all((row["label"] == row["prediction"]) == (row["correct"] == "1") for row in mine)
        assert np.trace(head["confusion"]) / np.sum(head["confusion"]) == pytest.approx(head["test_accuracy"]["mean"])
        assert head["sizes"]["accuracy"][1] == pytest.approx(head["test_accuracy"]["mean"])
        assert head["shift"]["accuracy"][0] == pytest.approx(head["test_accuracy"]["mean"])
        gap = head["train_accuracy"]["mean"] - head["test_accuracy"]["mean"]
        assert head["generalisation_gap"]["mean"] == pytest.approx(gap)
    moved = {pair["a"]: pair["difference"] for pair in results["shift_pairs"]}
    kept = {head["head"]: head["shift_accuracy"]["mean"] for head in results["heads"]}
    assert moved["lse"] == pytest.approx(100 * (kept["lse"] - kept["fc"]), abs=1e-3)
    pair = next(pair for pair in results["pairs"] if pair["a"] == "gap")
    means = {head["head"]: head["test_accuracy"]["mean"] for head in results["heads"]}
    assert pair["difference"] == pytest.approx(100 * (means["gap"] - means["fc"]))
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(results["trials"]) == 6


def test_maps_of_the_same_images_add_up_where_they_should(run):
    out, results = run
    with np.load(out / "pictures.npz") as pictures:
        assert pictures["images"].shape == (8, 16, 16, 1)
        assert len(set(pictures["labels"].tolist())) == 3
        for number, head in enumerate(results["heads"]):
            maps, bias, logits = (pictures[f"{key}_{number}"] for key in ("maps", "bias", "logits"))
            off = np.abs(maps.sum((2, 3)) + bias - logits).max()
            assert bool(pictures[f"additive_{number}"]) == (head["head"] != "lse")
            assert (off < 1e-4) == (head["head"] != "lse")
            assert off == pytest.approx(float(pictures[f"gap_{number}"]), abs=1e-4)


def test_the_page_is_one_file_with_the_names_intact(run):
    out, _ = run
    page = (out / "report.html").read_text("utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "고양이" in page
    assert "قطة" in page
    assert "<b>three" not in page
    before = page
    (out / "report.html").unlink()
    report(out, quiet())
    assert (out / "report.html").read_text("utf-8") == before


def test_all_probabilities_are_in_the_predictions_and_metrics_follow_from_them(run):
    out, results = run
    block = re.search(r"```python\n(f = np\.load.*?)```", SCHEMA, re.S)[1]
    found = {}
    exec(block.replace("OUT", str(out)), {"np": np}, found)
    f, probabilities, labels = (found[name] for name in ("f", "probabilities", "labels"))
    gap = next(head for head in results["heads"] if head["head"] == "gap")
    assert probabilities.sum(1) == pytest.approx(1)
    assert (probabilities.argmax(1) == f["prediction"][found["rows"]]).all()
    for name in ("accuracy", "auroc", "nll", "brier"):
        mine = METRICS[name].values(labels, probabilities).mean()
        assert mine == pytest.approx(gap["metrics"][name]["values"][0], abs=1e-12), name
    for name in ("nll", "brier"):
        assert gap["metrics"][name]["values"] == pytest.approx(gap[name]["values"], abs=1e-6)
    assert f["images"][f["image"]].tolist() == [Path(row["image"]).as_posix() for row in predictions(out)]
    assert f["classes"].tolist() == results["data"]["classes"]
    assert set(f["trials"]) == {trial["id"] for trial in results["trials"]}
    classes = results["data"]["classes"]
    for row, logs in zip(predictions(out), f["log_probabilities"], strict=True):
        assert [float(row[f"p({label})"]) for label in classes] == pytest.approx(np.exp(logs), rel=1e-4, abs=1e-30)


def predictions(out):
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return [{cell(key): cell(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_nothing_of_the_users_is_changed(folder, run):
    assert len(list(folder.rglob("*.png"))) == 151
    assert (folder / CLASSES[0] / "page.png").read_text() == "<html>404</html>"


def test_more_seeds_and_heads_train_only_what_is_new(folder, run, tmp_path):
    first, results = run
    before = {trial["id"]: (first / "trials" / trial["id"]).stat().st_mtime_ns for trial in results["trials"]}
    out = tmp_path / "out"
    shutil.copytree(first, out, copy_function=shutil.copy2)
    request = CompareRequest(
        TrainOptions(str(folder), epochs=2, batch_size=16, precision="float32"),
        ("gap", "fc"),
        3,
        baseline="fc",
        metric="nll",
    )
    again = compare(request, out, quiet())
    shared = {trial["id"]: trial for trial in again["trials"]}
    assert len(shared) == 6
    assert len(before.keys() & shared.keys()) == 4
    assert (results["settings"]["look"], again["settings"]["look"]) == (1, 2)
    assert (results["settings"]["metric"], again["settings"]["metric"]) == ("accuracy", "nll")
    assert again["metrics"][0]["name"] == next(iter(again["heads"][0]["metrics"])) == "nll"
    gap, fc = (head["metrics"]["nll"]["mean"] for head in again["heads"])
    pair = again["pairs"][0]
    assert (pair["difference"], pair["unit"], pair["margin"]) == (pytest.approx(gap - fc), "nats", 0.01)
    assert again["settings"]["shift_metric"] == "accuracy"
    assert again["shift_pairs"][0]["unit"] == "percentage points"
    assert again["remarks"][0].startswith("These test images have been compared 2 times in this folder")
    for trial in results["trials"]:
        assert (out / "trials" / trial["id"]).stat().st_mtime_ns == before[trial["id"]], "it was trained again"
        if trial["id"] in shared:
            assert trial["test_accuracy"] == shared[trial["id"]]["test_accuracy"]


def test_a_trial_that_fails_is_told_and_the_others_go_on(folder, tmp_path):
    choices = TrainOptions(str(folder), epochs=2, learning_rate=95.0, batch_size=8, precision="float32")
    output = tmp_path / "said.txt"
    with output.open("w") as file:
        # so large a step makes the wide head's loss no number, and not the small one's
        results = compare(
            CompareRequest(choices, ("nin", "fc:512,512"), 1, quick=True),
            tmp_path / "out",
            Console(file=file, width=100),
        )
    status = {trial["head"]: trial["status"] for trial in results["trials"]}
    assert status == {"nin": "done", "fc:512,512": "failed"}
    failed = results["heads"][1]["failed"]
    assert "learning rate" in failed[0]["reason"]
    check("results", json.loads((tmp_path / "out" / "results.json").read_text("utf-8")))
    assert results["heads"][1]["test_accuracy"]["mean"] is None
    assert "learning rate" in output.read_text()
    assert "learning rate" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_head_too_large_for_the_machine_ends_only_itself(folder, tmp_path):
    choices = TrainOptions(str(folder), epochs=1, precision="float32")
    results = compare(
        CompareRequest(choices, ("fc:1000000,1000000", "gap"), 1, baseline="gap"), tmp_path / "out", quiet()
    )
    assert {trial["head"]: trial["status"] for trial in results["trials"]} == {
        "fc:1000000,1000000": "failed",
        "gap": "done",
    }
    assert "memory" in results["heads"][0]["failed"][0]["reason"]
    assert results["heads"][0]["ms_per_image"] is None
    assert results["heads"][1]["ms_per_image"]["median"] > 0


@pytest.mark.slow  # quick: test_training_data.py (the splits), test_statistics.py
def test_folds(folder, tmp_path):
    choices = TrainOptions(str(folder), epochs=2, precision="float32")
    results = compare(CompareRequest(choices, ("gap", "gmp"), folds=3), tmp_path, quiet())
    assert results["settings"]["folds"] == 3
    assert len(results["trials"]) == 6
    assert results["data"]["test"] == sum(results["data"]["counts"]["test"]) == 150
    assert "Nadeau" in results["pairs"][0]["method"]
    json.dumps(results, allow_nan=False)


def test_wrong_requests_end_before_anything_is_done(folder, tmp_path):
    for request, says in (
        (CompareRequest(TrainOptions("digits"), ("gap", "gap")), "twice"),
        (CompareRequest(TrainOptions("digits"), ("gap",), baseline="fc"), "not among"),
        (CompareRequest(TrainOptions("digits"), ("gap",), metric="f1"), "give one of accuracy, balanced_accuracy"),
        (CompareRequest(TrainOptions("digits"), ()), "empty"),
        (CompareRequest(TrainOptions("digits"), ("gap",), seeds=0), "at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            compare(request, tmp_path / "a", quiet())
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="inside DATA"):
        compare(CompareRequest(TrainOptions(str(folder))), folder / "out", quiet())
    assert not (folder / "out").exists()
    for values, says in (
        ({"epochs": 0}, "at least 1"),
        ({"learning_rate": -1.0}, "more than 0"),
        ({"augment": "x"}, "none"),
    ):
        with pytest.raises(ValueError, match=says):
            TrainOptions("digits", **values)


def test_verdict_in_words():
    def results(moved=(), **verdicts):
        pairs = [
            {
                "a": a,
                "b": "gap",
                "difference": d,
                "ci95": [d - 1, d + 1],
                "ci95_together": [d - 2, d + 2],
                "p": 0.01,
                "range": [d - 0.1, d + 0.1],
                "verdict": v,
                "repeats": 5,
                "unit": "percentage points",
                "digits": 1,
                "margin": 0.5,
            }
            for a, (d, v) in verdicts.items()
        ]
        heads = [{"head": h, "test_accuracy": {"mean": 0.9}} for h in ("gap", *verdicts)]
        settings, metrics = {"baseline": "gap", "folds": None}, [METRICS["accuracy"].to_json()]
        found = {"heads": heads, "pairs": pairs, "shift_pairs": moved, "metrics": metrics, "collapsed": []}
        return found | {"settings": settings}

    assert sentences(results(fc=(-4.0, "worse"), gmp=(2.5, "better"))) == (
        "gmp is better than gap, fc is worse.",
        [
            "fc: −4.0 percentage points (95 % CI −6.0 to −2.0, for both heads together).",
            "gmp: +2.5 percentage points (95 % CI +0.5 to +4.5, for both heads together).",
        ],
    )
    assert sentences(results(fc=(-4.0, "worse"), gmp=(0.1, "cannot tell"))) == (
        "fc is worse than gap: −4.0 percentage points.",
        [
            "This difference: 95 % CI −6.0 to −2.0, for both heads together.",
            "gmp does not differ detectably from gap.",
        ],
    )
    assert sentences(results(fc=(0.1, "cannot tell"))) == ("fc and gap do not differ detectably.", [])
    both = sentences(results(gmp=(0.1, "cannot tell"), nin=(0.1, "equivalent")))
    assert both == (
        "No head differs detectably from gap.",
        ["nin and gap are equivalent (within ±0.5 percentage points).", "gmp does not differ detectably from gap."],
    )
    assert sentences(results(nin=(0.1, "equivalent")))[0] == "nin and gap are equivalent."
    other = results(fc=(-4.0, "worse"))
    other["metrics"] = [METRICS["balanced_accuracy"].to_json()]
    assert sentences(other)[0] == "fc is worse than gap: −4.0 percentage points of balanced accuracy."
    loss = results(fc=(0.25, "worse"))
    loss["metrics"] = [METRICS["nll"].to_json()]
    loss["pairs"][0] |= {"unit": "nats", "digits": 3}
    lower = "fc is worse than gap: +0.250 nats of negative log-likelihood (lower is better)."
    assert sentences(loss) == (lower, ["This difference: 95 % CI −1.750 to +2.250."])
    assert sentences(results()) == ("gap reaches an accuracy of 90.0 %.", ["There is no other head to compare."])
    moved = results(fc=(-9.0, "worse"))["pairs"]
    assert sentences(results(moved, fc=(0.1, "cannot tell")))[1] == [
        "On shifted test images, fc is worse than gap: −9.0 percentage points (95 % CI −11.0 to −7.0)."
    ]
    two = results(fc=(-4.0, "worse"))
    two["pairs"][0] |= {"ci95": None, "ci95_together": None, "repeats": 2}
    assert sentences(two)[1] == ["This difference: −4.1 to −3.9 in 2 seeds: take 5."]
    two["collapsed"] = [{"sentence": "fc, seed 1, collapsed: 11.0 % where …"}]
    assert sentences(two)[1][0].startswith("fc, seed 1, collapsed")
    one = results(fc=(-4.0, "cannot tell"))
    one["pairs"][0] |= {"ci95": None, "p": None, "repeats": 1}
    assert sentences(one)[0] == "1 seed is too few to tell the heads apart."
    # short, however many heads there are
    many = results(**{f"fc_{i}": (-4.0 - i, "worse") for i in range(9)}, gmp=(2.5, "better"))
    assert sentences(many)[0] == "1 head is better than gap, 9 heads are worse."
    assert len(sentences(many)[0]) <= SHORT


def test_durations():
    assert [duration(s) for s in (5, 36.2, 90, 91, 170, 9000)] == [
        "5 seconds",
        "40 seconds",
        "90 seconds",
        "2 minutes",
        "3 minutes",
        "2.5 hours",
    ]


def test_report_of_a_file_names_the_folder(tmp_path):
    (tmp_path / "report.html").write_text("")
    with pytest.raises(ValueError, match=r"report\.html is a file; name the folder of the comparison: what was --out"):
        report(tmp_path / "report.html", quiet())
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"name the folder of the comparison, {tmp_path}\."):
        report(tmp_path / "report.html", quiet())
