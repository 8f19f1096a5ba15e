"""Class tokens, layers and the own pooler of a frozen backbone: what is stored is what the whole model computes."""

import shutil
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import gapstone as gs
from gapstone.comparing import first_look, trial_measures
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_cache import stored_vectors
from gapstone.comparing.feature_pass import compute_features
from gapstone.comparing.plan import plan_comparison
from gapstone.comparing.predictor import STILL, Change, ModelPredictor
from gapstone.comparing.trials import cached_predictor
from gapstone.models.backbone_weights import digest, read_weights
from gapstone.training.training_data import TrainOptions
from gapstone.workers.job_processes import JobNews
from tests.marks import slow_but

timm = pytest.importorskip("timm")

NETWORK = "vit_pe_core_tiny_patch16_384"  # a class token, and an attention pool that is not it
HEADS = (
    "gap",
    "cls",
    "cls:8",
    "cls+gap:layers=2",
    "attention:queries=2:cls=1",
    "attention:layers=2",
    "own",
    "avgmax:layers=3",
)


pytestmark = pytest.mark.skipif(not timm.is_model(NETWORK), reason=f"timm {timm.__version__} has no {NETWORK}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3)).astype(np.uint8)
    np.savez(folder / "noise.npz", images=images, labels=np.arange(40) % 2, classes=np.array(["a", "b"]))
    torch.manual_seed(0)
    save_file(timm.create_model(NETWORK, num_classes=5).state_dict(), folder / "weights.safetensors")
    return folder


def planned(data, out, heads):
    choices = TrainOptions(str(data / "noise.npz"), f"timm:{NETWORK}", epochs=1, size="24", precision="float32")
    request = CompareRequest(choices, heads, 1, weights=data / "weights.safetensors", freeze=True).checked()
    (out / "trials").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:  # a process of its own would make the network anew
        patch.setattr(first_look, "run_jobs", jobs_here)
        return plan_comparison(request, out, lambda _: None, lambda _: lambda done, total: None)


def jobs_here(job, arguments, workers):
    for argument in arguments:
        yield JobNews(argument, "news", here(job, argument))


def here(job, argument):
    sent, threads = [], torch.get_num_threads()
    try:
        job(argument, sent.append)
    finally:
        torch.set_num_threads(threads)  # another number gives other last bits
    return sent[-1] if not isinstance(sent[-1], dict) else dict(chain.from_iterable(part.items() for part in sent))


def stored(plan, out):
    return here(partial(compute_features, plan.prepared.store.folder, out / "kept"), plan.feature_pass)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    plan = planned(data, out, HEADS)
    return plan, stored(plan, out)


@pytest.mark.parametrize("head", slow_but(HEADS, "cls:8", "cls+gap:layers=2", "attention:queries=2:cls=1", "own"))
def test_a_head_predicts_from_what_is_stored_what_the_whole_model_does(whole, head):
    plan, cache = whole
    trial = next(trial for trial in plan.trials if trial.head == head)
    kept = cached_predictor(trial, cache, plan.prepared.store.labels)
    model = trial.build()
    model.head.load_state_dict(kept.head.state_dict())
    live = ModelPredictor(model.eval(), plan.prepared.store, batch_size=16)
    for change in (STILL, Change(1, 0), Change(size=(36, 36))):
        torch.testing.assert_close(
            kept.logits(trial.test, change), live.logits(trial.test, change), atol=1e-5, rtol=1e-4
        )
    assert kept.cost() == live.cost()
    shown, there = (trial_measures.show(one, trial.shown) for one in (kept, live))
    explained = gs.explain(model, live.images(trial.shown))  # which knows nothing of comparisons
    for found in (shown, there):
        assert found["maps"] == pytest.approx(explained.maps.numpy(), abs=1e-5)
        assert found["bias"] == pytest.approx(explained.bias.expand_as(explained.logits).numpy(), abs=1e-5)
        assert found["additive"]
        assert found["gap"] < 1e-5
        assert found["held"] == list(explained.held)
    labels = torch.from_numpy(plan.prepared.store.labels[trial.shown])[:, None]
    for one in (kept, live):
        asked = one.explain(trial.shown, labels)
        torch.testing.assert_close(
            asked.shown().maps,
            explained.centred().maps.gather(1, labels[..., None, None].expand_as(asked.maps)),
            atol=1e-5,
            rtol=1e-4,
        )


def test_what_is_stored(whole):
    plan, cache = whole
    names = list(map(str, cache.vectors))
    assert names == [
        "'max'", "'max', layer -2", "'max', layer -3", "'mean'", "'mean', layer -2", "'mean', layer -3",
        "class token", "class token, layer -2", "own",
    ]  # fmt: skip
    assert names == list(map(str, stored_vectors(HEADS[::-1])[0]))  # whatever the order of the heads
    assert cache.maps[STILL].array.shape[1:] == (2 * 192, 2, 2)  # of all images: the layers that attention reads
    assert cache.shown.array.shape == (len(plan.trials[0].shown), 3 * 192, 2, 2)
    assert len(cache.unused_files(cache.shown.path.parent)) == 0


@pytest.mark.slow  # quick: test_freeze.py
def test_another_head_changes_no_vector_of_the_others(whole, data, tmp_path):
    plan, cache = whole
    alone = planned(data, tmp_path, ("cls",))
    (trial,) = alone.trials
    theirs = next(trial for trial in plan.trials if trial.head == "cls")
    assert replace(trial, threads=theirs.threads).id == theirs.id
    mine = cached_predictor(trial, stored(alone, tmp_path), plan.prepared.store.labels)
    assert torch.equal(
        mine.inputs(trial.test), cached_predictor(theirs, cache, plan.prepared.store.labels).inputs(trial.test)
    )


@pytest.mark.slow  # quick: test_freeze.py
def test_a_pass_that_was_stopped_goes_on(whole, tmp_path):
    """After the maps, before the vectors that came with them."""
    plan, cache = whole
    shutil.copytree(cache.shown.path.parent, tmp_path / "kept")
    for rows in cache.pooled.values():
        (tmp_path / "kept" / rows.path.name).unlink()
    resumed = stored(plan, tmp_path)
    for change, rows in cache.pooled.items():
        assert np.array_equal(resumed.pooled[change].array, rows.array)


def test_the_weights_of_the_own_pooler_name_its_trials_alone(whole):
    plan, _ = whole
    own, gap = (next(trial for trial in plan.trials if trial.head == head) for head in ("own", "gap"))
    assert own.start == gap.start
    other = replace(own.start, pooler="0" * 16)
    assert replace(own, start=other).id != own.id
    assert replace(gap, start=other).id == gap.id
    features = own.build().features
    assert digest(features) == digest(gap.build().features) == own.start.digest
    assert digest(features, pooler=True) == own.start.pooler


@pytest.mark.slow  # quick: test_a_head_predicts_from_what_is_stored_what_the_whole_model_does
def test_the_own_pooler_is_not_in_a_model_that_was_trained_without_it(whole, tmp_path):
    plan, _ = whole
    by_head = {trial.head: trial.build() for trial in plan.trials if trial.head in ("own", "gap")}
    for head, model in by_head.items():
        model.save(tmp_path / f"{head}.safetensors")
    with_it = read_weights(tmp_path / "own.safetensors", pooler=True).state
    assert with_it.keys() - read_weights(tmp_path / "own.safetensors").state.keys() == {*by_head["own"].features.pooler}
    with pytest.raises(ValueError, match="without its backbone's own pooler, which the head own needs"):
        read_weights(tmp_path / "gap.safetensors", pooler=True)


def test_heads_that_the_backbone_cannot_serve_are_refused_before_the_images_are_read(tmp_path):
    for backbone, head, words in (("nin", "cls", "Nin has no class token"), ("nin", "own", "no pooler of its own")):
        with pytest.raises(ValueError, match=words):
            plan_comparison(
                CompareRequest(TrainOptions("nowhere", backbone), ("gap", head)).checked(), tmp_path, print, print
            )
