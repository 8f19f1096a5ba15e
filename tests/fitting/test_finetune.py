"""The last stage trained from what is kept: only it, repeatably, and never worse than the start."""

import copy

import numpy as np
import pytest
import torch
from world import classifier, images

from gapstone.fitting import finetune as module
from gapstone.fitting.data import InMemory
from gapstone.fitting.finetune import Between, finetune
from gapstone.fitting.fit import fit_head
from gapstone.fitting.seen import look

OTHER = images(400, seed=2)


def between(model, data):
    seen = look(model, model.head, InMemory(data, "cpu"), between=True)
    return Between(seen.between, seen.labels)


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
    seen = look(model, model.head, InMemory(OTHER, "cpu"), between=True)
    assert seen.between.dtype == np.float16
    assert len(seen.between) == 400
    with torch.no_grad():
        maps = model.features(OTHER[0])
        again = model.features.last(torch.from_numpy(seen.between).float())
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
    accuracy, loss = module._judge(model, held_out, torch.device("cpu"))
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
    tuned = finetune(model, Between(bad, train.labels), held_out, epochs=3)
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
    with pytest.raises(ValueError, match="do not fit into half precision"):
        fit_head(model, images(50, seed=1), "gap", finetune=1)


def test_without_held_out_images_it_is_refused():
    x = torch.randn(3, 3, 16, 16)
    with pytest.raises(ValueError, match="needs held-out images"):
        fit_head(classifier(), (x, torch.arange(3)), "gap", finetune=1)
