"""Maps of a model whose classes do not compete: each class's own, whatever the others are."""

import pytest
import torch
from torch import nn

import gapstone as gs


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def test_logits_for_sigmoids_are_told_by_an_option():
    model, images = network(), torch.rand(2, 3, 16, 16)
    together, single = gs.explain(model, images), gs.explain(model, images, multi_label=True)
    assert torch.equal(single.probabilities, single.logits.sigmoid())
    assert torch.equal(together.probabilities, together.logits.softmax(1))
    assert torch.equal(single.maps, together.maps)
    assert single.shown() is single
    assert repr(single).endswith("additive, multi-label)")
    assert together.shown().reference is not None
    with pytest.raises(ValueError, match="against: the model is multi-label, so its classes do not compete"):
        single.contrast()
    with pytest.raises(ValueError, match="centred: the model is multi-label"):
        single.centred()
    assert single.evidence(0, (16, 16))[1].probability == pytest.approx(single.logits[0, 1].sigmoid().item())
    # as if the model ended in the sigmoid itself
    ends = gs.explain(nn.Sequential(model, nn.Sigmoid()), images)
    torch.testing.assert_close(ends.probabilities, single.probabilities)
