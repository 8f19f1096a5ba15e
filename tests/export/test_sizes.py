"""Which images an exported network takes, and on which it is tried; the two outputs without anything of gapstone's."""

import pytest
import torch

import gapstone as gs
from gapstone.export.export_module import logits_alone, logits_and_maps
from gapstone.export.size_range import SizeRange, size_range


def test_trials_of_a_network_of_one_size():
    assert SizeRange(3, (28, 30), 8, fixed=True).trials() == [(1, 3, 28, 30), (3, 3, 28, 30)]


def test_trials_of_any_size():
    """The usual size of one and of three; then wider, larger and smaller, of odd numbers, never below the smallest."""
    found = SizeRange(1, (32, 48), 8, fixed=False).trials()
    assert found == [(1, 1, 32, 48), (3, 1, 32, 48), (2, 1, 32, 72), (2, 1, 43, 61), (1, 1, 21, 37)]
    assert SizeRange(3, (32, 32), 30, fixed=False).trials()[-1] == (1, 3, 30, 30)
    assert SizeRange(3, (32, 32), 24, fixed=False).trials()[-1] == (1, 3, 24, 25)


@pytest.mark.parametrize(
    ("backbone", "head", "size", "fixed", "smallest"),
    [
        ("nin", "gap", (28, 28), False, 1),
        ("nin", "fc", (28, 28), True, 1),
        ("nin", "fc:grid=3", (28, 28), False, 1),
        ("vgg11", "gap", (32, 32), False, 32),
    ],
)
def test_what_a_network_takes(make, backbone, head, size, fixed, smallest):
    found = size_range(make(backbone, head, size=size, channels=1 if backbone == "nin" else 3))
    assert (found.fixed, found.usual, found.smallest) == (fixed, size, smallest)
    assert found.channels == (1 if backbone == "nin" else 3)


@pytest.mark.parametrize("head", ["gap", "gem", "nin", "fc:grid=2"])
def test_logits_alone_hold_nothing_of_gapstones_either(make, head):
    opened = make("resnet18", head, size=(32, 32))
    alone = logits_alone(opened)
    for module in (alone, logits_and_maps(opened)):
        assert not any(isinstance(layer, gs.Pool | gs.Head) for layer in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(alone(images), opened.model(images).detach(), rtol=1e-4, atol=1e-5)
