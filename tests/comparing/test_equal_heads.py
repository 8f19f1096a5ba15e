"""Heads that are one function are found by what they compute; those that are not stay apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.equal_heads import describe, equal_heads, without_equals
from gapstone.comparing.plan import plan_comparison
from gapstone.heads import BackboneOutput
from gapstone.training.training_data import TrainOptions

ALL = ["gap", "gmp", "gem", "lse", "avgmax", "catavgmax", "nin", "fc", "fc:grid=2"]


def maps(h, w, negative=False):
    x = torch.rand(6, 5, h, w, generator=torch.Generator().manual_seed(h * 10 + w)) + 0.1
    return x - 0.6 if negative else x


def test_on_one_cell_all_pools_are_one():
    assert equal_heads(ALL, maps(1, 1)) == [tuple(head for head in ALL if head != "nin")]
    # of negative numbers gem makes positive ones
    (group,) = equal_heads(ALL, maps(1, 1, negative=True))
    assert group == ("gap", "gmp", "lse", "avgmax", "catavgmax", "fc", "fc:grid=2")


def test_on_larger_maps_they_are_not():
    assert equal_heads(ALL, maps(2, 3)) == []
    assert equal_heads([*ALL, "fc:grid=1"], maps(2, 3)) == [("gap", "fc:grid=1")]
    assert equal_heads([*ALL, "gem:p=1"], maps(2, 3)) == [("gap", "gem:p=1")]
    assert equal_heads([*ALL, "gem:p=1"], maps(2, 3, negative=True)) == []
    assert equal_heads([*ALL], maps(2, 2)) == [("fc", "fc:grid=2")]


def test_what_is_trained_is_not_the_same():
    assert equal_heads(["gap", "gap:8", "gap:dropout=0.5", "gem:p=learned", "lse:r=learned", "nin"], maps(1, 1)) == []
    assert equal_heads(["gap:8", "gmp:8", "gap:8:dropout=0.5", "gmp:8:dropout=0.5"], maps(1, 1)) == [
        ("gap:8", "gmp:8"),
        ("gap:8:dropout=0.5", "gmp:8:dropout=0.5"),
    ]


def test_a_norm_is_trained_otherwise():
    heads = ["gap", "gmp", "gap:norm=batch", "gmp:norm=batch"]
    assert equal_heads(heads, maps(1, 1)) == [("gap", "gmp"), ("gap:norm=batch", "gmp:norm=batch")]


def test_heads_that_read_more_than_maps():
    given = BackboneOutput(torch.rand(6, 10, 2, 2), torch.rand(6, 10), torch.rand(6, 10))
    heads = ["gap", "cls", "cls+gap", "own", "gap:layers=2", "cls:layers=2", "cls+gap:layers=2", "attention"]
    assert equal_heads(heads, given, 5) == []
    mean, token = given.maps.mean((2, 3)), given.class_token
    assert equal_heads(heads, replace(given, own=token[:, 5:]), 5) == [("cls", "own")]  # a plain ViT's
    assert equal_heads(heads, replace(given, own=mean[:, 5:]), 5) == [("gap", "own")]  # a CNN's
    alike = replace(given, class_token=mean)
    assert equal_heads(heads, alike, 5) == [
        ("gap", "cls", "cls+gap"),
        ("gap:layers=2", "cls:layers=2", "cls+gap:layers=2"),
    ]
    assert equal_heads(["gap", "attention", "attention:queries=2", "attention:cls=1"], maps(1, 1)) == [
        ("gap", "attention", "attention:queries=2")
    ]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_whatever_the_scale(scale):
    assert equal_heads(["gap", "gmp", "fc:grid=1"], maps(2, 2) * scale) == [("gap", "fc:grid=1")]
    assert equal_heads(["gap", "gmp"], torch.zeros(3, 5, 2, 2)) == [("gap", "gmp")]


def test_one_of_each_stays():
    groups = equal_heads(["gmp", "gap", "nin", "fc"], maps(1, 1))
    assert groups == [("gmp", "gap", "fc")]
    assert without_equals(["gmp", "gap", "nin", "fc"], groups, "gap") == ("gap", "nin")
    assert without_equals(["gmp", "gap", "nin", "fc"], groups, "nin") == ("gmp", "nin")
    (sentence,) = describe(groups, "gap", (1, 1))
    assert sentence.startswith("On these feature maps (1×1) gmp, fc are the same function as gap: training them")


@pytest.mark.slow  # quick: the tests above
def test_a_comparison_trains_one_of_them(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 2)
    options = TrainOptions(str(tmp_path / "data.npz"), epochs=1, batch_size=4, precision="float32")
    heads = ("gap", "gmp", "gem:p=1", "fc:grid=1")
    request = CompareRequest(options, heads, seeds=1, baseline="fc:grid=1").checked()
    (tmp_path / "out" / "trials").mkdir(parents=True)
    said = []
    plan = plan_comparison(request, tmp_path / "out", said.append, lambda name: lambda done, total: None)
    assert plan.request.heads == ("gmp", "fc:grid=1")
    assert [trial.head for trial in plan.trials] == ["gmp", "fc:grid=1"]
    (sentence,) = plan.left_out
    assert sentence in said
    assert "gap, gem:p=1 are the same function as fc:grid=1" in sentence
