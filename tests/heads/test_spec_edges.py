"""What a head's text may say, at its limits; and what a head takes."""

import pytest
import torch

import gapstone as gs
from gapstone.heads import RECIPES, parse
from gapstone.heads.spec import WIDEST, split_specs


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("gapp", "gap"),
        ("GAP", "gap"),
        ("mean", "gap"),
        ("AdaptiveAvgPool2d", "gap"),
        ("max", "gmp"),
        ("MLP", "fc"),
        ("flatten", "fc"),
        ("fast-cat-avgmax", "catavgmax"),
        ("GeM", "gem"),
        ("fastavgmax", "avgmax"),
        ("catavgmx", "catavgmax"),
    ],
)
def test_what_was_probably_meant(text, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
        parse(text)


def test_what_nobody_can_have_meant():
    known = r"there are gap, gmp.*nin, fc, cls, cls\+gap, attention, own\. A pool of your own is registered"
    with pytest.raises(ValueError, match=known):
        parse("xyzzy")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fc:0", "from 1 to"),
        (f"fc:{WIDEST + 1}", "from 1 to"),
        ("fc:-3", "from 1 to"),
        ("fc:1.5", "from 1 to"),
        ("fc:²", "from 1 to"),  # a digit, and no number
        ("fc:٣", "from 1 to"),
        ("fc:8,,8", "from 1 to"),
        ("fc:a", "from 1 to"),
        ("gap:dropout=0.1:8", "neither hidden widths"),
        ("gap:", "neither hidden widths"),
        ("gap:8:9", "neither hidden widths"),
        ("gap:dropout=0.96", "from 0 to 0.95"),
        ("gap:dropout=-0.1", "from 0 to 0.95"),
        ("gap:dropout=nan", "must be a number"),
        ("gap:dropout=learned", "must be a number"),
        ("gap:dropout=0.1:dropout=0.2", "given twice"),
        ("gap:p=3", "gap takes dropout=, norm=, layers=, not p="),
        ("gem:p=0.09", "or 'learned'"),
        ("gem:p=101", "or 'learned'"),
        ("fc:grid=1.5", "whole number"),
        ("fc:grid=0", "whole number"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("fc:1", "fc:1"),
        (f"fc:{WIDEST}", f"fc:{WIDEST}"),
        (" fc : 8 , 9 ", "fc:8,9"),
        ("gap:dropout=0", "gap"),
        ("gap:dropout=0.95", "gap:dropout=0.95"),
        ("gem:p=0.1", "gem:p=0.1"),
        ("gem:p=100", "gem:p=100"),
        ("gem:p=learned", "gem:p=learned"),
        ("fc:grid=1", "fc:grid=1"),
    ],
)
def test_what_is_taken(text, plain):
    assert str(parse(text)) == plain
    assert parse(plain) == parse(text)


def test_a_list_of_heads():
    assert split_specs("gap,fc:512,512:dropout=0.5, nin ,") == ["gap", "fc:512,512:dropout=0.5", "nin"]
    assert split_specs("8,gap") == ["8", "gap"]  # no head before it: refused where it is read


OF_MAPS = [spec for spec in RECIPES if parse(spec).reads.maps_alone]


@pytest.mark.parametrize("spec", [*OF_MAPS, "fc:grid=2", "gap:8"])
def test_maps_that_a_head_does_not_take(spec):
    head = gs.Head(spec, 4, 3, size=(5, 5) if spec == "fc" else None).eval()
    assert head(torch.rand(2, 4, 5, 5)).shape == (2, 3)
    for shape in ((2, 5, 5, 5), (4, 5), (2, 3, 5, 5)):
        with pytest.raises(ValueError, match=r"takes feature maps \(N, 4, h, w\)"):
            head(torch.rand(*shape))
    if spec == "fc":
        with pytest.raises(ValueError, match="was made for 5×5 feature maps and got 5×6"):
            head(torch.rand(2, 4, 5, 6))
    else:
        assert head(torch.rand(2, 4, 5, 6)).shape == (2, 3)
    for channels, classes in ((0, 3), (4, 0)):
        with pytest.raises(ValueError, match="both must be at least 1"):
            gs.Head(spec, channels, classes, size=(5, 5))


def test_flattening_asks_for_a_size():
    with pytest.raises(ValueError, match=r"must know their size.*fc:grid=7"):
        gs.Head("fc", 4, 3)
    assert gs.Head("fc:grid=2", 4, 3).size is None


@pytest.mark.parametrize("spec", [*OF_MAPS, "fc:grid=2", "gap:dropout=0.5", "nin:8:dropout=0.5"])
def test_contributions_add_up_or_are_refused(spec):
    head = gs.Head(spec, 4, 3, size=(5, 5) if spec == "fc" else None).eval()
    x = torch.rand(2, 4, 5, 5) + 0.1
    if not head.additive:
        assert spec == "lse"
        with pytest.raises(ValueError, match="its pool's shares are weights"):
            head.contributions(x)
        return
    found = head.contributions(x)
    torch.testing.assert_close(found.maps.sum((2, 3)) + found.bias, head(x), rtol=1e-5, atol=1e-5)
    some = torch.tensor([[2, 0], [1, 1]])
    torch.testing.assert_close(head.contributions(x, some).maps, found.maps[torch.arange(2)[:, None], some])


def test_hidden_layers_have_no_contributions():
    head = gs.Head("gap:8", 4, 3)
    assert not head.additive
    with pytest.raises(ValueError, match="it has hidden layers"):
        head.contributions(torch.rand(2, 4, 5, 5))
    assert gs.Head("nin:8", 4, 3).additive
