"""Heads on a frozen backbone: what is kept instead of run gives the same heads, the same measures, the same resume."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import gapstone as gs
from gapstone import nets
from gapstone.comparing import feature_pass, frozen_backbone, frozen_pace, head_speed, run_comparison, trial_measures
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_cache import FeatureCache, StoredVector, stored_vectors, vectors_of
from gapstone.comparing.feature_pass import run_feature_pass
from gapstone.comparing.frozen_backbone import backbone, read_in_pieces
from gapstone.comparing.plan import plan_comparison
from gapstone.comparing.predictor import STILL, ModelPredictor
from gapstone.comparing.run_comparison import compare
from gapstone.comparing.trial_files import read
from gapstone.comparing.trials import cached_predictor, measure, train_on_cache
from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.backbone_weights import digest, read_weights
from gapstone.models.classifier import Classifier
from gapstone.training.loop import read_features
from gapstone.training.training_data import TrainOptions
from tests.marks import slow_but

HEADS = ("gap", "gmp", "gem:p=learned", "lse", "avgmax:dropout=0.3", "catavgmax", "nin", "fc:16", "fc:grid=2")


def quiet():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Colour pictures of 32×32, a bright stripe somewhere; its colour is the class."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    labels, images = np.arange(90) % 3, rng.integers(0, 120, (90, 32, 32, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(0, 24, 2)
        image[y : y + 8, x : x + 6, label] = rng.integers(140, 255)
    np.savez(folder / "stripes.npz", images=images, labels=labels, classes=np.array(["red", "green", "blue"]))
    rows = [f"image #{i},1,1,9,9,32,32" for i in range(0, 90, 2)]
    (folder / "boxes.csv").write_text("\n".join(["path,x0,y0,x1,y1,width,height", *rows]))
    return folder / "stripes.npz"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model's file, its batch norms not as they begin."""
    torch.manual_seed(3)
    seen = Preprocessing(3, (32, 32), (32, 32), (0.3, 0.3, 0.3), (0.2, 0.25, 0.3))
    model = Classifier("nin", "gap", ("a", "b"), seen)
    with torch.no_grad():
        model.train()
        for _ in range(20):
            model(torch.randn(16, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "a model.safetensors"
    model.save(path)
    return path


def unwrapped(console):
    return " ".join(console.file.getvalue().split())


def request(data, weights, heads=HEADS, seeds=2, **choices):
    chosen = {"epochs": 3, "batch_size": 16, **choices}
    return CompareRequest(TrainOptions(str(data), **chosen), heads, seeds, weights=weights, freeze=True).checked()


def planned(request, out):
    (out / "trials").mkdir(parents=True, exist_ok=True)
    said = []
    return plan_comparison(request, out, said.append, lambda name: lambda done, total: None), said


def looked(what, out):
    return run_feature_pass(what.feature_pass, what.prepared.store.folder, out / "kept", lambda done, total: None)


@pytest.fixture(scope="module")
def whole(data, weights, tmp_path_factory):
    """Maps kept in float32."""
    out = tmp_path_factory.mktemp("whole")
    what, _ = planned(request(data, weights, precision="float32"), out)
    return what, looked(what, out)


@pytest.fixture(scope="module")
def half(data, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("half")
    what, _ = planned(request(data, weights), out)
    return what, looked(what, out)


class Frozen(Classifier):
    """The same head, with the backbone run in every step, in eval mode and without a gradient."""

    def __init__(self, trial, head):
        super().__init__(trial.backbone, trial.head, trial.labels, trial.preprocessing)
        self.features = backbone(trial).features
        self.head.load_state_dict(head.state_dict())

    def train(self, mode=True):
        super().train(mode)
        self.features.eval()
        return self


def both(what, seen, head):
    """A head trained on what was kept, and the same weights on the backbone, which is run for each image."""
    trial = next(trial for trial in what.trials if (trial.head, trial.seed) == (head, 1))
    kept, history, _ = train_on_cache(trial, seen, what.prepared.store.labels)
    live = Frozen(trial, kept.head)
    return trial, kept, ModelPredictor(live, what.prepared.store, batch_size=16), history


@pytest.mark.parametrize("head", slow_but(HEADS, "gmp", "fc:16"))
def test_a_head_from_kept_maps_is_the_head_on_the_backbone(whole, head):
    what, seen = whole
    trial, kept, live, history = both(what, seen, head)
    assert max(history.validation_accuracy) >= 0.5  # it has learned something: a guess is right in a third
    torch.testing.assert_close(kept.logits(trial.test), live.logits(trial.test), atol=1e-4, rtol=1e-4)
    assert kept.cost() == live.cost()


@pytest.mark.parametrize("head", ["gap", "gmp", "nin", "fc:16"])
def test_half_precision_changes_little(half, head):
    what, seen = half
    trial, kept, live, _ = both(what, seen, head)
    assert seen.maps[STILL].array.dtype == np.float16
    torch.testing.assert_close(kept.logits(trial.test), live.logits(trial.test), atol=2e-2, rtol=2e-2)


def test_the_measures_agree_with_those_of_the_whole_model(whole):
    what, seen = whole
    for head in ("gap", "fc:16", "fc:grid=2"):
        trial, kept, live, _ = both(what, seen, head)
        pixels = trial_measures.shift_pixels(trial.preprocessing.size)
        (moved, right), (expected, wanted) = (trial_measures.shifts(one, trial.test, pixels) for one in (kept, live))
        assert moved == expected
        assert np.array_equal(right, wanted)
        assert trial_measures.sizes(kept, trial.test) == trial_measures.sizes(live, trial.test)
        shown, there = (trial_measures.show(one, trial.shown) for one in (kept, live))
        for key in ("maps", "logits", "placement"):
            # of maps that were computed without batch norms here and with them there
            assert shown[key] == pytest.approx(there[key], abs=1e-5 * max(1.0, np.abs(there[key]).max()))


def test_what_a_head_needs():
    heads = {spec: Head(spec, 4, 2, (3, 3)) for spec in (*HEADS, "gem:8:p=4", "lse:r=learned", "fc")}
    needed = {spec: vectors_of(head) for spec, head in heads.items()}
    assert needed["avgmax:dropout=0.3"] == needed["catavgmax"] == (StoredVector("'mean'"), StoredVector("'max'"))
    assert needed["gem:8:p=4"] == (StoredVector("'gem', p=4.0"),)
    assert [needed[spec] for spec in ("nin", "fc", "fc:grid=2", "gem:p=learned", "lse:r=learned")] == [None] * 5
    for order in (["gap", "catavgmax", "nin", "gem:p=learned"], ["gmp", "gap"]):  # no other pass for another order
        assert [str(vector) for vector in stored_vectors(order)[0]] == ["'max'", "'mean'"]


def test_heads_that_only_pool_keep_no_maps_and_get_the_same_numbers(data, weights, half, tmp_path):
    what, seen = half
    alone, _ = planned(request(data, weights, ("gmp",)), tmp_path)
    only = looked(alone, tmp_path)
    assert len(only.shown.rows) == len(alone.trials[0].shown)
    assert only.maps == {}
    assert sum(kept.path.stat().st_size for kept in only.pooled.values()) < 0.1 * sum(
        kept.path.stat().st_size for kept in seen.maps.values()
    )
    mine = alone.trials[0]
    theirs = next(trial for trial in what.trials if (trial.head, trial.seed) == ("gmp", 0))
    assert mine.id == theirs.id
    a, b = (
        cached_predictor(mine, only, what.prepared.store.labels),
        cached_predictor(theirs, seen, what.prepared.store.labels),
    )
    for change in only.pooled:
        rows = only.pooled[change].rows
        assert torch.equal(a.inputs(rows, change), b.inputs(rows, change))


def test_a_seen_travels_light_and_lies_in_files(half):
    import pickle

    what, seen = half
    again = pickle.loads(pickle.dumps(seen))
    assert isinstance(again, FeatureCache)
    rows = what.trials[0].test
    assert torch.equal(again.maps[STILL][rows], seen.maps[STILL][rows])
    assert len(pickle.dumps(seen)) < 50_000


def test_a_trial_is_named_by_the_weights_and_by_being_frozen(half):
    trial = half[0].trials[0]
    start = trial.start
    assert trial.id == replace(trial, start=replace(start, path=Path("/elsewhere"))).id
    others = [
        replace(trial, start=None),
        replace(trial, start=replace(start, map_dtype=None)),
        replace(trial, start=replace(start, map_dtype="float32")),
        replace(trial, start=replace(start, digest="0" * 16)),
    ]
    assert len({trial.id, *(other.id for other in others)}) == 5


def test_a_quick_trial_moves_and_resizes_nothing(half):
    what, seen = half
    trial = what.trials[0]
    quick = replace(trial, quick=True)
    assert quick.id != trial.id
    assert replace(what, trials=(quick,)).feature_pass.changes == []
    facts, arrays = measure(cached_predictor(quick, seen, what.prepared.store.labels), quick)
    whole_facts, whole_arrays = measure(cached_predictor(trial, seen, what.prepared.store.labels), trial)
    assert (facts["shift"], facts["sizes"], facts["robustness_images"]) == (None, None, 0)
    assert "shifted" in whole_arrays
    assert "shifted" not in arrays
    assert facts["test_accuracy"] == whole_facts["test_accuracy"]


def test_photos_are_moved_in_a_sample_that_their_trials_are_named_by(half):
    """Trials on fewer test images keep the ids that they had when there were up to 2,000."""
    trial = half[0].trials[0]
    photos = replace(trial, preprocessing=replace(trial.preprocessing, size=(96, 96), stored=(96, 96)))
    assert len(replace(photos, test=np.arange(600)).robust) == 500
    assert len(replace(trial, test=np.arange(600)).robust) == 600
    ids = {}
    for most in (500, 2000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trial_measures, "MOST_PHOTOS_FOR_ROBUSTNESS", most)
            ids[most] = [replace(photos, test=np.arange(count)).id for count in (500, 600)]
    assert ids[500][0] == ids[2000][0]
    assert ids[500][1] != ids[2000][1]


def test_large_images_go_through_the_backbone_a_few_at_a_time(monkeypatch, weights):
    """On a CPU; a GPU takes whole batches. The pieces together are the batch."""
    model, seen = gs.load(weights), []
    monkeypatch.setattr(
        frozen_backbone, "read_features", lambda *call: seen.append(len(call[1])) or read_features(*call)
    )
    images = torch.randn(11, 3, 32, 32)
    assert torch.allclose(read_in_pieces(model, images, "float32", 4).maps, model.features(images), atol=1e-5)
    assert seen == [4, 4, 3]
    assert [nets.images_at_once(model.features, 3, (side, side)) for side in (32, 224, 1024)] == [64, 5, 1]


# --- where the weights come from


def test_weights_of_a_model_bring_what_they_expect(half, weights):
    what, _ = half
    assert what.prepared.backbone == "nin"
    assert what.prepared.preprocessing.mean == (0.3, 0.3, 0.3)
    built = what.trials[0].build()
    assert digest(built.features) == what.prepared.weights_digest
    for name, tensor in read_weights(weights).state.items():
        assert torch.equal(built.features.state_dict()[name], tensor)


def test_a_state_dict_needs_a_name(tmp_path, weights):
    state = read_weights(weights).state
    path = tmp_path / "trunk.safetensors"
    save_file(state, path)
    found = read_weights(path, "nin", 1)
    assert (found.channels, found.preprocessing, found.moments) == (3, None, None)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())
    save_file({f"features.{name}": tensor for name, tensor in state.items()} | {"head.x": torch.ones(2)}, path)
    assert read_weights(path, "nin").state.keys() == state.keys()
    with pytest.raises(ValueError, match="does not say which network"):
        read_weights(path)
    with pytest.raises(ValueError, match=r"not the weights of nin:paper: \d+ tensors of the file belong to another"):
        read_weights(path, "nin:paper")
    save_file(state, path)
    with pytest.raises(ValueError, match="not the weights of resnet18"):
        read_weights(path, "resnet18")
    with pytest.raises(ValueError, match="leave --backbone out"):
        read_weights(weights, "resnet18")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights(tmp_path / "nothing")
    path.write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(ValueError, match=r"it is damaged or incomplete, or no file of torch\.save"):
        read_weights(path, "nin")


def test_published_weights_bring_what_they_expect(tmp_path):
    torch.manual_seed(0)
    state = nets.build("vgg11").state_dict()
    path = tmp_path / "vgg11.safetensors"
    save_file(state, path)
    assert read_weights(path, "vgg11").moments is None  # a trunk alone is anyone's
    head = {"classifier.0": (16, 512 * 49), "classifier.3": (8, 16), "classifier.6": (5, 8)}
    for name, shape in head.items():
        state |= {f"{name}.weight": torch.zeros(shape), f"{name}.bias": torch.zeros(shape[0])}
    save_file(state, path)
    found = read_weights(path, "vgg11")
    assert found.moments == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    nets.build("vgg11").load_state_dict(found.state)


def test_weights_of_timm_lose_their_head(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=5)
    path = tmp_path / "resnet10t.safetensors"
    save_file(net.state_dict(), path)
    found = read_weights(path, "timm:resnet10t")
    assert found.moments == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = Classifier("timm:resnet10t", "gap", ("a", "b"), Preprocessing(3, (64, 64), (64, 64), *found.moments))
    model.features.load_state_dict(found.state)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().features(x), net.eval().forward_features(x))


def test_weights_that_change_meanwhile_end_it(data, weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(weights.read_bytes())
    what, _ = planned(request(data, path, ("gap",), 1), tmp_path / "out")
    model = Classifier("nin", "gap", ("a", "b"), what.prepared.preprocessing)
    model.save(path)
    with pytest.raises(ValueError, match="has changed since"):
        what.trials[0].build()


# --- what cannot be


def test_wrong_requests_say_what_to_do(data, weights, tmp_path):
    choices = TrainOptions(str(data), epochs=1)
    pretrained = TrainOptions(str(data), backbone="timm:resnet18", pretrained=True)
    for wrong, says in (
        (
            CompareRequest(replace(choices, backbone="nin"), ("gap",), freeze=True),
            "trained weights of nin do not exist",
        ),
        (CompareRequest(choices, ("gap",), freeze=True, finetune=True), "--freeze and --finetune: give one of them"),
        (
            CompareRequest(replace(choices, from_scratch=True), ("gap",), weights=weights),
            "--from-scratch and --weights",
        ),
        (CompareRequest(pretrained, ("gap",), weights=weights), "from one only"),
    ):
        with pytest.raises(ValueError, match=says):
            compare(wrong, tmp_path / "out", quiet())
    assert not (tmp_path / "out").exists()


def test_maps_too_large_for_half_precision_say_the_way_out(data, weights, tmp_path):
    loud = read_weights(weights).state
    last = [name for name in loud if name.endswith(".weight") and loud[name].ndim == 1][-1]
    path = tmp_path / "loud.safetensors"
    save_file({**loud, last: loud[last] * 1e6}, path)
    what, _ = planned(request(data, path, ("gap",), 1, backbone="nin"), tmp_path)
    for head in ("gap", "fc"):
        one = replace(what, trials=tuple(replace(trial, head=head) for trial in what.trials))
        with pytest.raises(RuntimeError, match=r"more than half precision can.*--precision float32"):
            looked(one, tmp_path)
    # the way out that is named: the same maps fit
    whole, _ = planned(request(data, path, ("gap",), 1, backbone="nin", precision="float32"), tmp_path)
    assert looked(whole, tmp_path).shown.array.max() > 65504


def test_weights_that_are_no_numbers_are_told_from_maps_that_are_too_large(data, weights, tmp_path, monkeypatch):
    state = read_weights(weights).state
    last = [name for name in state if name.endswith(".weight")][-1]
    path = tmp_path / "nan.safetensors"
    for precision in ("auto", "float32"):
        broken = state[last].clone()
        broken.view(-1)[0] = float("nan")
        save_file({**state, last: broken}, path)
        asked = request(data, path, ("gap",), 1, backbone="nin", precision=precision)
        with pytest.raises(ValueError, match=rf"1 of 64 numbers in {last} are not finite"):
            planned(asked, tmp_path / precision)
        save_file({**state, last: torch.full_like(broken, 3e38)}, path)
        # one forward pass shows it before any image is looked at; a picture that alone is too large, the pass itself
        with pytest.raises(ValueError, match="its weights are finite, but the maps they make are NaN or infinite"):
            planned(asked, tmp_path / precision)
        monkeypatch.setattr("gapstone.training.training_data.check_finite", lambda *_: None)
        what, _ = planned(asked, tmp_path / precision)
        with pytest.raises(RuntimeError, match="maps hold NaN or infinity, though its weights do not"):
            looked(what, tmp_path / precision)
        monkeypatch.undo()


# --- a whole comparison


def with_boxes(data, weights, heads=("gap", "nin"), seeds=2):
    # two at a time on any machine: a kill comes while some are left
    return replace(request(data, weights, heads, seeds), boxes=Path(data).parent / "boxes.csv", workers=2)


@pytest.fixture
def untimed(monkeypatch):
    """`run` times its heads; that the others do not saves a third of this file's time."""
    monkeypatch.setattr(head_speed, "measure_head_speeds", lambda *_: {})


@pytest.fixture(scope="module")
def run(data, weights, tmp_path_factory):
    out, console = tmp_path_factory.mktemp("run"), quiet()
    return out, compare(with_boxes(data, weights), out, console), console.file.getvalue()


def test_what_trials_share_goes_with_the_last_of_them(data, weights, tmp_path, untimed, monkeypatch):
    """And what a killed run left of it is not taken."""
    out, found, train = tmp_path / "out", [], run_comparison._train
    compare(request(data, weights, ("gap",), 1, epochs=1), out, quiet())
    left = out / "kept" / "shared" / "left.npy"
    left.parent.mkdir()
    left.write_bytes(b"left")

    def looking(*given):
        found.append(left.exists())
        failed = train(*given)
        found.extend(path.name for path in left.parent.glob("*-gem-3-*.npy"))
        return failed

    monkeypatch.setattr(run_comparison, "_train", looking)
    compare(request(data, weights, ("gap", "gem:p=learned"), 1, epochs=1), out, quiet())
    assert found[0] is False
    assert len(found) > 8
    assert not left.parent.exists()


@pytest.mark.slow
def test_the_best_head_is_written_as_a_model(run):
    out, results, console = run
    model, *others = results["models"]
    assert sorted(gs.load(out / other["file"]).head.spec for other in [model, *others]) == sorted(
        head["head"] for head in results["heads"]
    )
    heads = {head["head"]: head["test_accuracy"]["mean"] for head in results["heads"]}
    assert heads[model["head"]] == max(heads.values())
    assert f"{model['head']}, seed {model['seed']} (the best on validation images)" in " ".join(console.split())
    trial = next(trial for trial in results["trials"] if trial["id"] == model["trial"])
    assert [trial[key] for key in ("head", "seed", "test_accuracy")] == [
        model[key] for key in ("head", "seed", "test_accuracy")
    ]
    classifier = gs.load(out / model["file"])
    assert (classifier.head.spec, list(classifier.labels)) == (model["head"], results["data"]["classes"])


@pytest.mark.slow
def test_the_same_report(run, weights, data):
    out, results, said = run
    assert "Frozen backbone, no augmentation: one pass over 90 images" in " ".join(said.split())
    settings = results["settings"]
    assert (settings["frozen"], settings["weights"], settings["augment"]) == (True, str(weights), "none")
    assert len(settings["weights_digest"]) == 16
    assert {trial["status"] for trial in results["trials"]} == {"done"}
    page = (out / "report.html").read_text("utf-8")
    assert "frozen backbone, no augmentation" in page
    assert 'id="maps"' in page
    assert 'id="localisation"' in page
    for head in results["heads"]:
        assert head["parameters"] > head["head_parameters"] > 0
        assert head["localisation"]["gt_known"]["mean"] is not None
        assert head["shift"]["accuracy"][0] == pytest.approx(head["test_accuracy"]["mean"])
        assert head["sizes"]["accuracy"][1] == pytest.approx(head["test_accuracy"]["mean"])
    with np.load(out / "pictures.npz") as pictures:
        for number in (0, 1):
            maps, bias, logits = (pictures[f"{key}_{number}"] for key in ("maps", "bias", "logits"))
            assert maps.sum((2, 3)) + bias == pytest.approx(logits, abs=1e-4)
    assert json.loads((out / "plan.json").read_text("utf-8"))["request"]["weights"] == str(weights)


@pytest.mark.slow  # quick: tests/damage goes on with a finished run, too
def test_more_heads_and_seeds_look_again_at_nothing(run, data, weights, tmp_path, untimed):
    import shutil

    first, before, _ = run
    out = tmp_path / "out"
    shutil.copytree(first, out, copy_function=shutil.copy2)
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "kept").glob("*.npy")}
    strange = out / "kept" / "maps-0123456789abcdef.npy"
    np.save(strange, np.zeros(3 * 10**5))
    console = quiet()
    again = compare(with_boxes(data, weights, ("fc:grid=2", "gap"), 3), out, console)
    assert f"1 file (2.4 MB) of other heads, settings or images left unused in {out / 'kept'}" in unwrapped(console)
    strange.unlink()
    assert {path.name: path.stat().st_mtime_ns for path in (out / "kept").glob("*.npy")} == kept
    accuracy = {(trial["head"], trial["seed"]): trial["test_accuracy"] for trial in before["trials"]}
    repeated = [trial for trial in again["trials"] if (trial["head"], trial["seed"]) in accuracy]
    assert len(repeated) == 2
    assert all(trial["test_accuracy"] == accuracy[trial["head"], trial["seed"]] for trial in repeated)


CAUTION = "does not say which images it was trained on"


def test_folds(data, weights, tmp_path):
    what, said = planned(replace(request(data, weights, ("gap", "fc")), folds=3), tmp_path)
    assert sorted(np.concatenate([trial.test for trial in what.trials if trial.head == "fc"])) == list(range(90))
    seen = looked(what, tmp_path)
    for trial in what.trials:
        kept = cached_predictor(trial, seen, what.prepared.store.labels)
        assert kept.logits(np.union1d(trial.train, trial.test)).isfinite().all()
    assert re.search(CAUTION, what.caution)
    assert said.count(what.caution) == 1


@pytest.mark.slow
def test_weights_are_where_training_starts_with_finetune(data, weights, tmp_path, untimed):
    """And with folds: these weights may have been trained on images that are tested, which is told everywhere."""
    choices, console = TrainOptions(str(data), epochs=1, batch_size=16, learning_rate=1e-6), quiet()
    asked = CompareRequest(choices, ("gap",), folds=2, weights=weights, finetune=True)
    results = compare(asked, tmp_path, console)
    assert (results["settings"]["frozen"], results["settings"]["weights"]) == (False, str(weights))
    assert results["settings"]["augment"] != "none"
    assert results["data"]["test"] == 90
    assert not (tmp_path / "kept").exists()
    what, _ = planned(asked.checked(), tmp_path)
    assert [trial.id for trial in what.trials] == [trial["id"] for trial in results["trials"]]
    built = what.trials[0].build()
    assert digest(built.features) == results["settings"]["weights_digest"]
    assert re.search(CAUTION, results["data"]["caution"])
    assert unwrapped(console).count("does not say which images") == 2  # at the start and at the end
    assert "does not say which images" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("folds", "ours"), [(None, True), (3, False)])
def test_no_caution_with_seeds_or_for_weights_of_unknown_origin(data, weights, tmp_path, folds, ours):
    path = weights
    if not ours:
        path = tmp_path / "trunk.safetensors"
        save_file(read_weights(weights).state, path)
    what, said = planned(
        replace(request(data, path, ("gap",), backbone=None if ours else "nin"), folds=folds), tmp_path
    )
    assert what.caution is None
    assert "does not say which images" not in " ".join(said)


TIMED = ("created", "sealed", "ms_per_image", "train_seconds", "peak_memory_mb", "seconds")


def numbers(out):
    """results.json without what is timed."""

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in TIMED}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads((out / "results.json").read_text("utf-8")))


KILLED = """
if __name__ == "__main__":  # the processes of trials need none of this
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv.pop())
    from tests.comparing.test_freeze import compare, quiet, with_boxes
    data, weights, out = map(Path, sys.argv[1:])
    compare(with_boxes(data, weights), out, quiet())
"""


@pytest.mark.parametrize("when", ["looking", "training"])
@pytest.mark.slow  # quick: test_resume.py, and damage/ for --freeze
def test_the_same_numbers_after_a_kill(data, weights, run, tmp_path, untimed, when):
    script, (whole, *_), out = tmp_path / "script.py", run, tmp_path / "out"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(data), str(weights), str(out), str(Path(__file__).parents[2])]
    with subprocess.Popen(command, start_new_session=True) as process:
        deadline = time.monotonic() + 600
        watched = out / "kept" if when == "looking" else out / "trials"
        pattern = "maps-*.npy" if when == "looking" else "[0-9a-f]*"
        while not list(watched.glob(pattern)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    done = {path: (path / "trial.json").stat().st_mtime_ns for path in (out / "trials").glob("[0-9a-f]*")}
    kept = {path: path.stat().st_mtime_ns for path in (out / "kept").glob("*.npy")}
    assert len(done) < 4, "it was not stopped in the middle"
    assert bool(done) == (when == "training")
    assert kept
    assert not (out / "results.json").exists()
    compare(with_boxes(data, weights), out, quiet())
    assert numbers(out) == numbers(whole)
    for path, when_made in done.items():
        assert (path / "trial.json").stat().st_mtime_ns == when_made
    for path, when_made in kept.items():
        assert path.stat().st_mtime_ns == when_made
    for path in (out / "trials").iterdir():
        (_, mine), (_, other) = read(path), read(whole / "trials" / path.name)
        assert all(np.array_equal(mine[key], other[key]) for key in mine)


def test_the_plan_is_the_same_for_a_pass_that_is_half_done(half):
    what, _ = half
    assert asdict(what.trials[0].start)["map_dtype"] == "float16"
    once_again = feature_pass.plan_feature_pass(what.trials)
    assert once_again.images == len(once_again.all) + len(once_again.changes) * len(once_again.robust)
    assert isinstance(backbone(what.trials[0]), nn.Module)


def test_the_backbone_runs_without_its_batch_norms_and_what_is_stored_says_so(whole, tmp_path, monkeypatch):
    what, seen = whole
    trial, store, rows = what.trials[0], what.prepared.store, what.trials[0].test
    plan = feature_pass.FeaturePass(trial, ("gap", "nin"), rows, rows[:0], rows[:1])

    def computed():
        cache = feature_pass.features_of(backbone(trial), store, tmp_path, plan, lambda _: None)
        return cache.maps[STILL].path.name, cache.maps[STILL][rows]

    folded, fast = computed()
    monkeypatch.setattr(feature_pass, "fold", lambda *_: None)
    plain, slow = computed()
    assert plain != folded  # the names of their files
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    assert not torch.equal(fast, slow)
    torch.testing.assert_close(fast, seen.maps[STILL][rows], atol=1e-5, rtol=1e-5)


# --- how long it takes


def test_what_is_measured_before_tells_how_long_and_how_much(half):
    """The pass by the pixels of its images, heads by what they read; of a head that was not measured, nothing."""
    what, seen = half
    measured, trials = what.measured, what.trials
    assert set(measured["batch_seconds"]) == set(HEADS)
    for part in ("setup_seconds", "batch_seconds"):
        assert all(seconds > 0 for seconds in measured[part].values())
    kept = [*seen.maps.values(), *seen.pooled.values()]
    rows = sum(len(rows.rows) for rows in seen.maps.values())
    assert measured["image_bytes"] * rows == pytest.approx(sum(k.path.stat().st_size for k in kept), rel=0.05)
    a_second = {"image_seconds": 1.0, "batch_seconds": dict.fromkeys(HEADS, 0.0)}
    moved = len(what.feature_pass.robust)
    sizes = (0.75**2 + 1.25**2 + 1.5**2) * moved
    moves = 4 * len(trial_measures.shift_pixels((32, 32))) * moved
    assert frozen_pace.pass_seconds(a_second, what.feature_pass) == pytest.approx(90 + moves + sizes)
    assert frozen_pace.heads_seconds(a_second, trials, 2) == pytest.approx(len(trials) * frozen_pace.START / 2)
    longer = a_second | {"batch_seconds": dict.fromkeys(HEADS, 2.0), "setup_seconds": dict.fromkeys(HEADS, 5.0)}
    trial = trials[0]
    batches = (len(trial.train) + len(trial.validation) / 3) / 16
    expected = frozen_pace.START + (5.0 + 3 * 2.0) * batches
    assert frozen_pace.heads_seconds(longer, [trial], 1) == pytest.approx(expected)
    assert frozen_pace.heads_seconds({"image_seconds": 1.0}, trials, 2) is None
