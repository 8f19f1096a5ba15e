"""Trials on images of several labels: on a frozen backbone and of a whole network, from DATA to the model's file."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import gapstone as gs
from gapstone.commands import training_commands
from gapstone.comparing import trial_files, trials
from gapstone.comparing.compare_request import HEADS, CompareRequest
from gapstone.comparing.feature_pass import run_feature_pass
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.head_results import head_results
from gapstone.comparing.kept_models import _save
from gapstone.comparing.plan import plan_comparison
from gapstone.models.trained_on import NOTHING
from gapstone.training.training_data import TrainOptions
from tests.comparing.small_comparison import write_data


def planned(out, **options):
    """Of pictures in which squares of three colours may be."""
    write_data(out)
    random = np.random.default_rng(0)
    labels = random.random((90, 3)) < [0.5, 0.4, 0.3]
    images = random.integers(0, 100, (90, 16, 16, 3)).astype(np.uint8)
    for k, at in enumerate((0, 5, 10)):
        images[labels[:, k], at : at + 5, at : at + 5, k] = 250
    np.savez(out / "data.npz", images=images, labels=labels)
    rows = [f"image #{i},{k},{5 * k},{5 * k},{5 * k + 5},{5 * k + 5}" for i, k in np.argwhere(labels)]
    (out / "boxes.csv").write_text("\n".join(["path,class,x0,y0,x1,y1", *rows]), "utf-8")
    choices = TrainOptions(str(out / "data.npz"), batch_size=16, **options)
    weights, boxes = out / "weights.safetensors", out / "boxes.csv"
    asked = CompareRequest(choices, ("gap",), 1, weights=weights, boxes=boxes, quick=True)
    (out / "trials").mkdir()
    return plan_comparison(asked.checked(), out, lambda text: None, lambda name: lambda done, total: None)


def test_a_head_on_a_frozen_backbone(tmp_path):
    plan = planned(tmp_path, epochs=6)
    cache = run_feature_pass(plan.feature_pass, plan.prepared.store.folder, tmp_path / "kept", lambda done, total: None)
    store, (trial,) = plan.prepared.store, plan.trials
    assert trial.multi_label
    assert trial.id != replace(trial, multi_label=False).id
    facts, arrays = trial_files.read(trials.run(trial, store, tmp_path / "trials", cache=cache))
    assert average_precision_score(store.labels[trial.test], np.exp(arrays["log_probabilities"])) > 0.75
    # the model's file answers as the trial did
    state = trial_files.read_stored(tmp_path / "trials" / trial.id, facts)
    _save(store.folder, tmp_path, [(trial, state, "m.safetensors", NOTHING)], lambda file: None)
    model = gs.load(tmp_path / "m.safetensors")
    assert model.multi_label
    found = model.predict([store.images[row] for row in trial.test])
    np.testing.assert_allclose(found, np.exp(arrays["log_probabilities"]), atol=2e-3)  # maps in half precision
    assert trials.cached_predictor(trial, cache, store.labels).explain(trial.test[:1]).multi_label
    # where its maps look, of each class of each test image
    labels = store.labels[trial.test]
    assert facts["localisation"]["pictures"] == len(arrays["found"]) == labels.sum()
    found = np.zeros(labels.shape)
    found[labels] = arrays["pointed"]
    entry = head_results(plan, "gap", [FinishedTrial(trial, facts, arrays)], {}, None)["localisation"]
    assert [one["class"] for one in entry["classes"]] == list(trial.labels)
    assert [one["images"] for one in entry["classes"]] == labels.sum(0).tolist()
    assert [one["pointing"] for one in entry["classes"]] == pytest.approx(found.sum(0) / labels.sum(0))
    assert entry["gt_known"]["values"] == [facts["localisation"]["gt_known"]]


def test_default_heads_leave_out_what_cannot_answer_several(tmp_path):
    """The command without --heads works; a head that was asked for is refused, not left out."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 16, 16), np.uint8), rng.random((60, 3)) < 0.4
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    options = TrainOptions(str(tmp_path / "data.npz"), backbone="nin", epochs=1, precision="float32")
    said = []

    def plan(**more):
        request = CompareRequest(options, seeds=2, **more).checked()
        (tmp_path / "out").mkdir(exist_ok=True)
        return plan_comparison(request, tmp_path / "out", said.append, lambda name: lambda done, total: None)

    with pytest.raises(ValueError, match=r"head 'nin' rectifies"):
        plan(heads=("gap", "nin"))
    with pytest.raises(ValueError, match=r"head 'nin' rectifies"):
        plan(baseline="nin")
    # the command's own default is this one
    assert inspect.signature(training_commands.compare).parameters["heads"].default == ",".join(HEADS)
    assert plan().request.heads == ("gap", "gmp", "fc")  # fc:grid=4 is fc on maps as small as these
    assert any("Left out of the default heads: nin," in one for one in said)
