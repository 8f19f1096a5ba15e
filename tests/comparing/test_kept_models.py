"""The model file of a comparison: which trial it is, and that it is that trial's head on the frozen backbone."""

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import gapstone as gs
from gapstone.comparing import kept_models, trial_files, trials
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_pass import run_feature_pass
from gapstone.comparing.finished_trials import FinishedTrial
from gapstone.comparing.kept_models import (
    best_trial,
    describe,
    entry,
    files_to_keep,
    is_written,
    put_first,
    stored_weights,
    write_models,
)
from gapstone.comparing.trials import train_on_cache
from gapstone.evaluating.train_model import train_model
from gapstone.models.trained_on import NOTHING
from gapstone.storage.sealed_json import digests, write_sealed
from tests.comparing.small_comparison import planned_comparison


def finished(head, seed, test, *validation, multi_label=False):
    best = 1 + int(np.argmax(validation)) if validation else 1
    history = {"validation_accuracy": list(validation), "validation_loss": list(validation), "best_epoch": best}
    facts = {"test_accuracy": test, "history": history}
    return SimpleNamespace(
        trial=SimpleNamespace(id=f"{head}{seed}", head=head, seed=seed, fold=None, multi_label=multi_label), facts=facts
    )


def test_the_head_by_its_test_accuracy_the_seed_by_validation():
    gap = [finished("gap", 0, 0.9, 0.5, 0.6), finished("gap", 1, 0.7, 0.4, 0.9, 0.3)]
    fc = [finished("fc", 0, 0.95, 0.99), finished("fc", 1, 0.5, 0.2)]

    def accuracy(one):
        return one.facts["test_accuracy"]

    assert best_trial([fc, gap], accuracy) is gap[1]
    assert best_trial([fc, [], [gap[0]]], accuracy) is gap[0]
    assert best_trial([fc, gap], lambda one: -accuracy(one)) is fc[0]
    assert best_trial([[finished("gap", 0, 0.5), finished("gap", 1, 0.5)]], accuracy).trial.seed == 0  # no validation
    assert best_trial([[], []], accuracy) is None
    model = entry("model.safetensors", gap[1])
    assert (model["trial"], model["seed"], model["test_accuracy"]) == ("gap1", 1, 0.7)
    assert describe(model) == "gap, seed 1 (the best on validation images): test accuracy 70.0 %"
    assert "fold 2" in describe(model | {"fold": 2})


def test_of_several_labels_the_seed_has_the_least_validation_loss():
    trials = [finished("gap", seed, 0.9, loss, multi_label=True) for seed, loss in enumerate((0.6, 0.2, 0.4))]
    assert best_trial([trials], lambda one: 0.0) is trials[1]
    assert best_trial([[finished("gap", 0, 0.9, multi_label=True)]], lambda one: 0.0).trial.seed == 0


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The plan of a comparison of small noisy pictures on a frozen backbone, its features, and its folder."""
    out = tmp_path_factory.mktemp("comparison")
    plan = planned_comparison(out, ("gap", "fc:8"), 2, {"epochs": 3})
    cache = run_feature_pass(plan.feature_pass, plan.prepared.store.folder, out / "kept", lambda done, total: None)
    return plan, cache, out


@pytest.mark.parametrize("head", [0, 1])
def test_it_is_the_trials_head_on_the_frozen_backbone(comparison, head):
    plan, cache, out = comparison
    assert plan.prepared.frozen  # trained weights: nothing else was asked for
    trial, store = plan.trials[head], plan.prepared.store
    path = out / kept_models.FOLDER / "mine.safetensors"
    seen = plan.prepared.trained_on(trial.train, trial.validation)
    # the backbone of the first serves the second
    other = plan.trials[1 - head], cache, "other.safetensors", NOTHING
    write_models(store.folder, out, [other, (trial, cache, path.name, seen)])
    assert gs.load(path.with_name("other.safetensors")).head.spec == other[0].head
    put_first(path.name, out)
    assert (out / kept_models.FILE).read_bytes() == path.read_bytes()
    model = gs.load(path)
    predictor, *_ = train_on_cache(trial, cache, store.labels)
    for name, tensor in predictor.head.state_dict().items():
        assert torch.equal(tensor, model.head.state_dict()[name]), name
    backbone = load_file(out / "weights.safetensors")
    for name, tensor in model.features.state_dict().items():
        assert torch.equal(tensor, backbone[f"features.{name}"]), name
    assert len(model.trained_on.hashes) == len(trial.train) + len(trial.validation)
    assert not model.trained_on.contains(plan.prepared.scan.content_hashes()[plan.prepared.used[trial.test]]).any()
    mine = model.predict(list(store.images[trial.test]))
    theirs = predictor.logits(trial.test).softmax(1)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0.02)  # the features are stored in half precision


def test_train_gives_the_same_model(comparison, tmp_path):
    """Head, seed and data alike; the comparison has other heads and seeds beside them."""
    plan, cache, out = comparison
    trial = replace(plan.trials[3], threads=1)
    assert (trial.head, trial.seed) == ("fc:8", 1)
    predictor, _, choice = train_on_cache(trial, cache, plan.prepared.store.labels)
    console, path = Console(file=io.StringIO(), width=1000), tmp_path / "model.safetensors"
    alone = CompareRequest(plan.request.choices, ("fc:8",), 1, weights=out / "weights.safetensors", quick=True)
    train_model(alone, 1, path, console)
    model = gs.load(path)
    assert (model.labels, model.preprocessing) == (trial.labels, trial.preprocessing)
    for part, expected in ((model.head, predictor.head), (model.features, trial.build().features)):
        assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in part.state_dict().items())
    said = f"learning rate {choice.learning_rate:g}, weight decay {choice.weight_decay:g} and epoch {choice.epoch} of 3"
    accuracy = (predictor.logits(trial.test).argmax(1).numpy() == predictor.labels[trial.test]).mean()
    tested = rf"Test accuracy {100 * accuracy:.1f} % \(95 % CI .*\) on {len(trial.test)} images never trained on"
    assert re.search(f"{tested}; {re.escape(said)}", console.file.getvalue())


def test_a_trial_stores_its_head_if_it_is_small(comparison, tmp_path, monkeypatch):
    plan, cache, _ = comparison
    trial, store = plan.trials[1], plan.prepared.store
    threads = torch.get_num_threads()
    folder = trials.run(trial, store, tmp_path / "trials", None, cache)
    best, said = FinishedTrial(trial, *trial_files.read(folder)), []
    expected = train_on_cache(trial, cache, store.labels)[0].head.state_dict()
    stored = stored_weights(best, tmp_path, said.append)
    kept_models._save(store.folder, tmp_path, [(trial, stored, "model.safetensors", NOTHING)], said.append)
    found = gs.load(tmp_path / "model.safetensors").head.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    said.clear()
    (folder / trial_files.HEAD).write_bytes(b"other weights")
    assert stored_weights(best, tmp_path, said.append) is None
    assert said == [f"{folder / trial_files.HEAD} does not fit its digest: made anew."]
    for each, number in ((trial, 100), (replace(trial, test_only=True), 1 << 20)):  # too large; of a curve
        monkeypatch.setattr(trial_files, "MOST_STORED", number)
        folder = trials.run(each, store, tmp_path / "none" / "trials", None, cache)
        assert stored_weights(FinishedTrial(each, *trial_files.read(folder)), tmp_path / "none", said.append) is None
        assert not (folder / trial_files.HEAD).exists()
    assert len(said) == 1
    torch.set_num_threads(threads)


def test_which_are_kept():
    gap = [finished("gap", 0, 0.9, 0.5), finished("gap", 1, 0.7, 0.9)]
    same = [finished("fc:8,8", 0, 0.9, 0.5)]
    done = {"gap": gap, "fc:8,8": same, "fc:8/8": [finished("fc:8/8", 0, 0.1)], "gmp": []}
    assert files_to_keep(done, "best") == {
        "gap.safetensors": gap[1],
        "fc-8,8.safetensors": same[0],
        "fc-8-8.safetensors": done["fc:8/8"][0],
    }
    alike = files_to_keep({"fc:8": same, "fc/8": same}, "best")
    assert list(alike) == ["fc-8.safetensors", "fc-8-.safetensors"]
    every = files_to_keep({"gap": gap}, "all")
    assert list(every) == ["gap-seed1.safetensors", "gap-seed0.safetensors"]  # the best first
    assert files_to_keep(done, "none") == {}


def test_it_is_written_once(tmp_path):
    """By what the index beside it says, which a model of another trial, or a changed file, does not fit."""
    one, other = (SimpleNamespace(trial=SimpleNamespace(id=name)) for name in ("one", "other"))
    folder, file = tmp_path / kept_models.FOLDER, "gap.safetensors"
    assert not is_written(file, one, tmp_path)
    folder.mkdir()
    (folder / file).write_bytes(b"a model")
    assert not is_written(file, one, tmp_path)
    index = {"trials": {file: "one"}, "files": digests(folder, [file])}
    write_sealed(folder / kept_models.INDEX, index, "models")
    assert is_written(file, one, tmp_path)
    assert not is_written(file, other, tmp_path)
    (folder / file).write_bytes(b"another")
    assert not is_written(file, one, tmp_path)
    (folder / file).unlink()
    assert not is_written(file, one, tmp_path)
    (folder / kept_models.INDEX).write_text("{")
    assert not is_written(file, one, tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_the_best_is_another_head_later(tmp_path, monkeypatch, links):
    """The file of the first best stays what it is when OUT/model.safetensors becomes another's."""
    if not links:
        monkeypatch.setattr(kept_models.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    folder = tmp_path / kept_models.FOLDER
    folder.mkdir()
    for name in ("gap", "fc"):
        (folder / name).write_text(name)
    for name in ("gap", "fc", "gap"):
        put_first(name, tmp_path)
        assert (tmp_path / kept_models.FILE).read_text() == name
    assert [(folder / name).read_text() for name in ("gap", "fc")] == ["gap", "fc"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept_models.FILE, kept_models.FOLDER]


def test_weights_of_whole_networks_stay_until_they_are_written(tmp_path):
    """Of a head's trials that have ended, the best one's; all go once the models are there."""
    facts = [{"history": {"validation_accuracy": [accuracy], "best_epoch": 1}} for accuracy in (0.5, 0.9, 0.9)]
    trials_of = [SimpleNamespace(id=str(number), multi_label=False) for number in range(3)]

    def there():
        return [trial.id for trial in trials_of if (tmp_path / "trials" / trial.id / trial_files.WEIGHTS).exists()]

    for trial in trials_of:
        (tmp_path / "trials" / trial.id).mkdir(parents=True)
        (tmp_path / "trials" / trial.id / trial_files.WEIGHTS).write_bytes(b"weights")
    kept_models.prune_weights(tmp_path, list(zip(trials_of, facts, strict=True)))
    assert there() == ["1"]  # of equals the first
    kept_models.drop_weights(tmp_path, trials_of)
    assert there() == []
