"""A head of the user's own, by a name: made, measured, saved, explained."""

import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.heads import RECIPES, parse
from gapstone.heads.own_heads import _registered, own_head, register_head
from gapstone.images.preprocessing import Preprocessing
from tests.own_code import Gated

SMALL = Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3)


HEADS = {
    "gated": lambda channels, classes, size: Gated(channels, classes),
    "flat": lambda channels, classes, size: nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes)
    ),
}


@pytest.fixture(autouse=True)
def known():
    for name, made in HEADS.items():
        register_head(name, own_head(name, made, RECIPES))
    yield
    _registered.clear()


def test_it_is_a_head():
    head = gs.Head("gated", channels=8, classes=3, size=(4, 4))
    assert isinstance(head.module, Gated)
    x = torch.rand(2, 8, 4, 4)
    assert torch.equal(head(x), head.module(x))
    assert head.size is None  # it takes maps of any size
    assert gs.Head("flat", 8, 3, (4, 5)).size == (4, 5)
    assert not head.additive
    assert head.reads.maps_alone
    with pytest.raises(ValueError, match=r"it is your own; gs\.explain"):
        head.contributions(x)
    with pytest.raises(ValueError, match="'gated' is your own"):
        head.vectors(x)


def test_a_model_with_it(tmp_path):
    model = gs.Classifier("nin", "gated", ("a", "b", "c"), SMALL).eval()
    x = torch.rand(2, 3, 32, 32)
    path = model.save(tmp_path / "m.safetensors")
    assert torch.equal(gs.load(path)(x), model(x))
    explained = gs.explain(model, x)
    assert explained.maps.shape[:2] == (2, 3)
    _registered.clear()
    with pytest.raises(ValueError, match=r"its head 'gated' is one's own, .*<lambda>.*give it in Python, gs\.load"):
        gs.load(path)
    assert torch.equal(gs.load(path, head=HEADS["gated"])(x), model(x))


def test_its_digest_is_of_what_it_does():
    first = own_head("gated", HEADS["gated"], RECIPES)
    assert own_head("other", HEADS["gated"], RECIPES).digest == first.digest
    assert (
        own_head("gated", lambda channels, classes, size: Gated(channels + 0, classes), RECIPES).digest != first.digest
    )
    module = Gated(8, 3)
    given = own_head("given", module, RECIPES)
    made = given.make(8, 3, None)
    assert made is not module
    assert torch.equal(made.out.weight, module.out.weight)
    assert given.source == "tests.own_code.Gated"
    module.out.weight.data.add_(1)
    assert own_head("given", module, RECIPES).digest != given.digest


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda channels, classes, size: 1 / 0, "making it for 8 channels, 3 classes .*ZeroDivisionError"),
        (lambda channels, classes, size: 3, "is a int; expected an nn.Module that turns maps"),
        (lambda channels, classes, size: nn.Linear(3, 3), r"given maps \(2, 8, 4, 4\), failed"),
        (lambda channels, classes, size: nn.Flatten(), r"gave \(2, 128\) of 2 images; expected logits \(2, 3\)"),
    ],
)
def test_what_is_no_head(made, words):
    register_head("wrong", own_head("wrong", made, RECIPES))
    with pytest.raises(ValueError, match=f"head 'wrong'.*{words}"):
        gs.Head("wrong", 8, 3, (4, 4))


def test_names_and_options():
    for name in ("gap", "mean", "my head", 3, ""):
        with pytest.raises(ValueError, match=r"head .*(gapstone's|names a head of your own)"):
            own_head(name, HEADS["gated"], RECIPES)
    with pytest.raises(TypeError, match=r"head 'mine' is 3; expected an nn\.Module"):
        own_head("mine", 3, RECIPES)
    with pytest.raises(ValueError, match="gated is a head of your own and takes no options"):
        parse("gated:dropout=0.5")
    with pytest.raises(ValueError, match="neither hidden widths"):
        parse("gated:512")
    with pytest.raises(ValueError, match=r"there are .*gated, flat"):
        parse("gatd")
