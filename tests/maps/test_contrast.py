"""What softmax can see: differences between classes' maps. What all maps have in common changes nothing shown."""

import numpy as np
import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.heads.contributions import MEAN
from gapstone.maps.explain import explain_head


def model(head: nn.Module, channels: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), head).eval()


def pooled(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers)


MODELS = {
    "linear": lambda: model(pooled(nn.Linear(8, 5))),
    "hidden": lambda: model(pooled(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 5))),
    "norm": lambda: model(pooled(nn.LayerNorm(8), nn.Linear(8, 5))),
    "maps": lambda: model(nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())),
    "log-softmax": lambda: model(pooled(nn.Linear(8, 5), nn.LogSoftmax(1))),
    "strided": lambda: model(nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 5))),
}


def build(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return MODELS[name]()


HEADS = ("gap", "gmp", "gem", "lse", "catavgmax", "nin", "fc", "fc:grid=2", "gap:6")


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 16)


def every(name: str, images: torch.Tensor, **classes):
    if name in MODELS:
        return gs.explain(build(name), images, **classes)
    torch.manual_seed(1)
    return explain_head(gs.Head(name, 4, 5, (6, 8)).eval(), torch.rand(3, 4, 6, 8), **classes)


@pytest.mark.parametrize("name", [*MODELS, *HEADS])
def test_the_mean_map_is_that_of_the_mean_logit(name, images):
    all_classes = every(name, images)
    torch.testing.assert_close(all_classes.mean_map, all_classes.maps.mean(1))
    some = every(name, images, top_k=2)
    torch.testing.assert_close(some.mean_map, all_classes.mean_map, rtol=1e-4, atol=1e-6)
    assert some.maps.shape[1] == 2


@pytest.mark.parametrize("name", [*MODELS, *HEADS])
def test_centred(name, images):
    plain = every(name, images)
    centred = plain.centred()
    torch.testing.assert_close(centred.maps.sum(1), torch.zeros_like(centred.mean_map), rtol=0, atol=1e-5)
    torch.testing.assert_close(centred.probabilities, plain.probabilities)
    if plain.additive:
        assert centred.completeness.max() < 1e-5
    some = every(name, images, top_k=2).centred()
    expected = centred.maps.gather(1, some.classes[:, :, None, None].expand_as(some.maps))
    torch.testing.assert_close(some.maps, expected, rtol=1e-4, atol=1e-6)
    assert centred.reference == "the mean of all classes"
    torch.testing.assert_close(centred.centred().maps, centred.maps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*MODELS, *HEADS])
def test_every_pair_comes_from_the_one_pass(name, images):
    plain = every(name, images)
    for a in range(5):
        for b in range(5):
            pair = plain.contrast(a, b)
            torch.testing.assert_close(pair.maps[:, 0], plain.maps[:, a] - plain.maps[:, b])
            if plain.additive:
                bias = plain.bias.expand_as(plain.logits)
                parts = pair.maps.sum((1, 2, 3)) + bias[:, a] - bias[:, b]
                torch.testing.assert_close(parts, plain.logits[:, a] - plain.logits[:, b], rtol=1e-4, atol=1e-5)
                assert pair.completeness.max() < 1e-5


def test_the_runner_up(images):
    plain = every("linear", images)
    best = plain.logits.topk(2).indices
    pair = plain.contrast()
    rows = torch.arange(3)
    torch.testing.assert_close(pair.maps[:, 0], plain.maps[rows, best[:, 0]] - plain.maps[rows, best[:, 1]])
    assert torch.equal(pair.classes[:, 0], best[:, 0])
    assert torch.equal(plain.contrast(best[:, 1]).maps, -pair.maps)  # the rival of the second is the first
    # of two rows of weights or of five: other last bits on some processors
    torch.testing.assert_close(every("linear", images, top_k=2).contrast().maps, pair.maps, rtol=1e-5, atol=1e-8)


def test_names(images):
    labels = ["ant", "bee", "cat", "dog", "elk"]
    plain = gs.explain(build("linear"), images, labels=labels)
    assert torch.equal(plain.contrast("cat", "elk").maps, plain.contrast(2, 4).maps)
    assert plain.contrast("cat", "elk").reference == "elk"
    assert plain.against("bee").reference == "bee"
    assert torch.equal(plain.against("bee").maps[:, 1], torch.zeros_like(plain.mean_map))
    with pytest.raises(ValueError, match="did you mean cat"):
        plain.contrast("cta", "elk")


@pytest.mark.parametrize("name", ["linear", "hidden", "norm"])
def test_a_map_that_is_added_to_all_classes_changes_nothing_shown(name, images):
    """softmax(z + c) = softmax(z): how far up all maps lie is not decided by the images, and nothing shown has it."""
    plain, net = every(name, images), build(name)
    lifted = build(name)
    last = lifted[-1][-1]
    with torch.no_grad():
        last.weight += torch.randn(1, last.in_features)
        last.bias += 3.0
    same = gs.explain(lifted, images)
    assert (same.maps - plain.maps).abs().max() > 0.5 * plain.maps.abs().max()
    torch.testing.assert_close(same.probabilities, gs.explain(net, images).probabilities, rtol=1e-4, atol=1e-6)
    for shown in (lambda e: e.centred(), lambda e: e.contrast(), lambda e: e.contrast(1, 3), lambda e: e.against(2)):
        torch.testing.assert_close(shown(same).maps, shown(plain).maps, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(shown(same).logits, shown(plain).logits, rtol=1e-3, atol=1e-5)
    for as_it_is in (False, True):
        assert alike(*(e.sheet(plain=as_it_is) for e in (plain, same))) != as_it_is


def alike(*sheets) -> bool:
    """Whether they have the same size, and no pixel differs by more than the rounding of one level."""
    a, b = (np.asarray(sheet).astype(int) for sheet in sheets)
    return a.shape == b.shape and bool(np.abs(a - b).max() <= 1)


def test_what_is_shown(images):
    explained = every("linear", images)
    sheet = np.asarray(explained.sheet())
    assert np.array_equal(sheet, explained.centred().sheet())  # nothing is subtracted twice
    assert not np.array_equal(sheet, explained.sheet(plain=True))
    assert explained.shown(plain=True) is explained
    pair = explained.contrast()
    assert pair.shown() is pair
    assert repr(explained) == "Explanation(3 images, 5 classes, maps 6×8, additive)"
    assert repr(explained.shown()) == (
        "Explanation(3 images, 5 classes, maps 6×8, additive, minus the mean of all classes)"
    )
    one = explained.shown().evidence(0, (12, 16))[0]
    assert one.reference == "the mean of all classes"
    assert float(one.map.sum()) + one.bias == pytest.approx(one.logit, abs=1e-5)
    assert one.probability == pytest.approx(float(explained.probabilities[0, 0]))
    assert explained.evidence(0, (12, 16))[0].reference is None


def test_classes_that_do_not_compete(images):
    for head in (pooled(nn.Linear(8, 5), nn.Sigmoid()), pooled(nn.Linear(8, 5), nn.LogSigmoid())):
        explained = gs.explain(model(head), images)
        for verb in (explained.centred, explained.contrast, lambda e=explained: e.against(1)):
            with pytest.raises(ValueError, match="classes do not compete"):
                verb()
        assert explained.shown() is explained
        assert np.array_equal(explained.sheet(), explained.sheet(plain=True))
    one = gs.explain(model(pooled(nn.Linear(8, 1))), images)
    assert one.shown() is one
    with pytest.raises(ValueError, match="one logit"):
        one.centred()


def test_a_class_without_a_map(images):
    some = every("linear", images, classes=[1, 3])
    of_all = every("linear", images).contrast(1, 3).maps
    torch.testing.assert_close(some.contrast(1, 3).maps, of_all, rtol=1e-5, atol=1e-8)  # other last bits, as above
    with pytest.raises(ValueError, match=r"no map of class 2: explain all classes"):
        some.contrast(1, 2)
    with pytest.raises(ValueError, match=r"no map of class 0"):
        some.contrast(0, 1)
    with pytest.raises(ValueError, match="they go from 0 to 4"):
        some.contrast(1, 5)
    for wrong in (torch.tensor([0.5, 1, 2]), torch.tensor([1, 2]), torch.ones(3, 1, dtype=torch.long)):
        with pytest.raises(ValueError, match="one for each of 3 images"):
            some.contrast(1, wrong)


def test_the_mean_among_classes():
    head, x = gs.Head("gap", 4, 5), torch.rand(2, 4, 3, 3)
    classes = torch.tensor([[0, MEAN], [MEAN, 4]])
    parts, whole = head.contributions(x, classes).maps, head.contributions(x).maps
    torch.testing.assert_close(parts[0], torch.stack([whole[0, 0], whole[0].mean(0)]))
    torch.testing.assert_close(parts[1], torch.stack([whole[1].mean(0), whole[1, 4]]))
