"""The last stage trained from what is kept: only it, repeatably, and never worse than the start."""

import copy

import numpy as np
import pytest
import torch

from gapstone.fitting import finetune as module
from gapstone.fitting.finetune import LastStage, finetune
from gapstone.fitting.fit_head import fit_head
from gapstone.fitting.fitting_data import InMemory, OnDisk
from gapstone.fitting.head_inputs import head_inputs
from gapstone.fitting.image_batches import stored_view
from tests.fitting.world import PREPROCESSING, classifier, images

OTHER = images(400, seed=2)


def between(model, data):
    seen = head_inputs(model, model.head, InMemory(data, "cpu"), stage_inputs=True)
    return LastStage(seen.stage_inputs, seen.labels)


def test_only_the_last_stage_and_the_head_change():
    model = classifier()
    new = fit_head(model, images(200, seed=1), "gap", finetune=2)
    changed = {k for k, v in new.features.state_dict().items() if not torch.equal(v, model.features.state_dict()[k])}
    assert changed
    assert all(name.startswith("block3.") for name in changed)
    closed = fit_head(model, images(200, seed=1), "gap")
    assert not torch.equal(new.head.classifier[-1].weight, closed.head.classifier[-1].weight)


def test_kept_maps_are_those_of_the_network():
    model = classifier()
    seen = head_inputs(model, model.head, InMemory(OTHER, "cpu"), stage_inputs=True)
    assert seen.stage_inputs.dtype == np.float16
    assert len(seen.stage_inputs) == 400
    with torch.no_grad():
        maps = model.features(OTHER[0])
        again = model.features.last(torch.from_numpy(seen.stage_inputs).float())
    torch.testing.assert_close(again, maps, rtol=0.01, atol=0.01)


def test_it_gets_better():
    x, y = images(300, seed=1)
    before = classifier("gmp", seed=1)
    held_out = between(before, OTHER)
    tuned = finetune(before, between(before, (x, y)), held_out, epochs=5)
    assert tuned.accuracy[0] < 0.6 < 0.9 < tuned.accuracy[tuned.best]
    assert tuned.best > 0
    assert len(tuned.accuracy) == 6


def test_never_worse_than_the_start():
    model = fit_head(classifier(), images(300, seed=1), "gap")
    before = copy.deepcopy(model.state_dict())
    x, y = images(200, seed=3)
    wrong = between(model, (x, (y + 1) % 3))  # trained towards what is wrong on the held-out images
    tuned = finetune(model, wrong, between(model, OTHER), epochs=2)
    assert tuned.best == 0
    assert max(tuned.accuracy[1:]) < tuned.accuracy[0]
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert not model.training


def test_the_weights_kept_are_those_of_the_best_epoch():
    model = classifier("gap")
    held_out = between(model, OTHER)
    tuned = finetune(model, between(model, images(100, seed=1)), held_out, epochs=4, learning_rate=0.3)
    accuracy, loss = module._evaluate(model, held_out, torch.device("cpu"))
    assert (accuracy, loss) == (tuned.accuracy[tuned.best], tuned.loss[tuned.best])
    assert accuracy == max(tuned.accuracy)


def test_the_same_seed_gives_the_same_weights():
    found = []
    for seed in (0, 0, 1):
        model = classifier("gap:dropout=0.5")  # a head that knows nothing: any epoch is better
        held_out, train = between(model, OTHER), between(model, images(150, seed=1))
        torch.rand(3)  # what the caller has drawn does not matter
        state = torch.get_rng_state()
        assert finetune(model, train, held_out, epochs=2, seed=seed).best > 0
        assert torch.equal(torch.get_rng_state(), state)
        found.append(model.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not torch.equal(found[0]["head.classifier.1.weight"], found[2]["head.classifier.1.weight"])


def test_a_loss_that_is_no_number_ends_it_and_the_best_stays():
    model = fit_head(classifier(), images(300, seed=1), "gap")
    before = copy.deepcopy(model.state_dict())
    train, held_out = between(model, images(200, seed=3)), between(model, OTHER)
    bad = train.maps.copy()
    bad[17] = np.inf
    tuned = finetune(model, LastStage(bad, train.labels), held_out, epochs=3)
    assert tuned.stopped == "the loss was no longer a number in epoch 1"
    assert tuned.best == 0
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_it_stops_where_nothing_becomes_better(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 2)
    model = fit_head(classifier(), images(300, seed=1), "gap")
    x, y = images(100, seed=3)
    tuned = finetune(model, between(model, (x, (y + 1) % 3)), between(model, OTHER), epochs=9)
    assert len(tuned.accuracy) == 3
    assert tuned.stopped == "no better epoch since 0"


def test_half_precision_that_is_too_small_is_said():
    model = classifier()
    with torch.no_grad():
        model.features.block2[-2].weight.fill_(1e6)
    with pytest.raises(ValueError, match=r"kept in half precision, which ends at 65,504: leave finetune= out"):
        fit_head(model, images(50, seed=1), "gap", finetune=1)


def test_without_held_out_images_it_is_refused():
    x = torch.randn(3, 3, 16, 16)
    with pytest.raises(ValueError, match="needs held-out images"):
        fit_head(classifier(), (x, torch.arange(3)), "gap", finetune=1)


def test_stored_images_are_kept_in_float32_where_half_precision_is_too_small(tmp_path):
    class Pictures:
        images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
        labels = np.arange(200) % 3

    model = classifier()
    with torch.no_grad():
        model.features.block2[-2].weight.fill_(1e6)
    view = stored_view(Pictures(), PREPROCESSING, torch.device("cpu"))
    data = OnDisk(view, Pictures.labels, np.arange(200), "cpu", tmp_path / "kept", {})
    seen = head_inputs(model, model.head, data, stage_inputs=True)
    assert seen.stage_inputs.dtype == np.float32
    assert np.isfinite(seen.stage_inputs).all()
    assert seen.stage_inputs.max() > 65_504
    with torch.no_grad():
        expected = model.features.before_last(PREPROCESSING.normalise(torch.from_numpy(Pictures.images)))
    torch.testing.assert_close(torch.from_numpy(np.array(seen.stage_inputs)), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_type(dtype):
    x, y = images(100, seed=1)
    expected = fit_head(classifier(), (x, y), "gap", finetune=1).state_dict()
    torch.testing.assert_close(fit_head(classifier(), (x, y.to(dtype)), "gap", finetune=1).state_dict(), expected)


def test_frozen_parameters_are_trained_and_frozen_after():
    model = classifier()
    model.features.requires_grad_(False)
    new = fit_head(model, images(200, seed=1), "gap", finetune=2)
    name = "block3.0.weight"
    assert not torch.equal(new.features.state_dict()[name], model.features.state_dict()[name])
    assert not any(p.requires_grad for p in new.features.parameters())
    assert all(p.requires_grad for p in new.head.parameters())


def test_a_model_in_half_precision_is_fine_tuned_in_float32():
    model = classifier().to(torch.bfloat16)
    x, y = images(200, seed=1)
    new = fit_head(
        model, (x.to(torch.bfloat16), y), "gap", finetune=3, validation=(OTHER[0].to(torch.bfloat16), OTHER[1])
    )
    assert {p.dtype for p in new.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert (new(OTHER[0].to(torch.bfloat16)).argmax(1) == OTHER[1]).double().mean() > 0.8
