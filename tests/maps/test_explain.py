"""Maps: exact where the head allows it, honest where not; nothing of the user's changes."""

import pytest
import torch

import gapstone as gs
from gapstone.maps import explain_maps


@pytest.mark.parametrize("spec", ["gap", "gmp", "gem", "avgmax", "nin", "fc"])
def test_additive_maps_have_no_gap(spec):
    torch.manual_seed(0)
    head = gs.Head(spec, 8, 5, (4, 6))
    explained = explain_maps(head, torch.rand(3, 8, 4, 6))
    assert explained.maps.shape == (3, 5, 4, 6)
    assert explained.bias.shape == explained.logits.shape == (3, 5)
    assert explained.additive
    assert not any(t.requires_grad for t in (explained.maps, explained.bias, explained.logits))
    assert explained.gap < 1e-5


@pytest.mark.parametrize("spec", ["lse", "fc:16", "gap:16:dropout=0.5"])
def test_other_maps_are_gradient_times_activation_and_tell_their_gap(spec):
    torch.manual_seed(0)
    head = gs.Head(spec, 8, 5, (4, 6)).eval()
    x = torch.rand(3, 8, 4, 6)
    explained = explain_maps(head, x)
    assert not explained.additive
    free = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head(free)[:, 2].sum(), free)
    torch.testing.assert_close(explained.maps[:, 2], (gradient * x).sum(1))
    assert explained.gap == pytest.approx(
        (explained.maps.sum((2, 3)) + explained.bias - explained.logits).abs().max().item()
    )
    assert explained.gap > 1e-4


def test_nothing_changes():
    head = gs.Head("fc:16:dropout=0.5", 8, 5, (4, 6)).train()
    with torch.inference_mode():
        x = torch.rand(3, 8, 4, 6)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    state = torch.get_rng_state()
    explain_maps(head, x)
    assert head.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in head.parameters())
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())
