"""Sums from several machines make the head that all images together make."""

import numpy as np
import pytest
import torch

import gapstone as gs
from gapstone.fitting.ridge import Ridge
from gapstone.fitting.seen import vectors
from gapstone.fitting.sums import fit_sums, head_sums

from .world import LABELS, classifier, images

OTHER = images(300, seed=2)


def test_two_machines_are_as_one(tmp_path):
    model = classifier()
    x, y = images(250, seed=1)
    for name, rows in (("a", y < 1), ("b", y >= 1)):  # no class is on both
        head_sums(model, (x[rows], y[rows]), "gap").save(tmp_path / f"{name}.npz")
    total = Ridge.load(tmp_path / "a.npz") + Ridge.load(tmp_path / "b.npz")
    assert total.y.tolist() == np.bincount(y).tolist()
    new = fit_sums(model, total, "gap")
    with torch.no_grad():
        pooled = vectors(new.head, model.features(x)).numpy()
    whole = Ridge.of(pooled, np.eye(3)[y.numpy()]).solve()
    weight = new.head.classifier[-1].weight.detach().numpy()
    np.testing.assert_allclose(weight, whole.weight, rtol=1e-4, atol=1e-4 * np.abs(whole.weight).max())
    with torch.no_grad():
        right = (new(OTHER[0]).argmax(1) == OTHER[1]).double().mean().item()
        sure = new(OTHER[0]).softmax(1).max(1).values.mean().item()
        sharp = fit_sums(model, total, "gap", validation=images(100, seed=3))(OTHER[0])
    assert right > 0.8
    assert sure < right - 0.2
    assert sharp.softmax(1).max(1).values.mean().item() == pytest.approx(right, abs=0.1)
    assert torch.equal(sharp.argmax(1), new(OTHER[0]).argmax(1))


def test_sums_of_something_else():
    model = classifier()
    x, y = images(60, seed=1)
    total = head_sums(model, (x, y), "catavgmax")
    with pytest.raises(ValueError, match=r"the sums are of \(128, 3\) \(features, classes\); 'gap' has \(64, 3\)"):
        fit_sums(model, total, "gap")
    one = head_sums(model, (x[y == 1], y[y == 1]), "gap")
    with pytest.raises(ValueError, match=f"no images of {LABELS[0]!r}"):
        fit_sums(model, one, "gap")
    with pytest.raises(ValueError, match="label 9"):
        head_sums(model, (x, torch.full((60,), 9)), "gap")
    with pytest.raises(ValueError, match="no closed form"):
        head_sums(model, (x, y), "nin")


def test_sums_that_would_add_up_to_nonsense(tmp_path):
    """Of another head, order of classes or network: the same shapes, other meanings."""
    model, other = classifier(), classifier(seed=1)
    x, y = images(60, seed=1)
    names = LABELS[::-1]
    total = head_sums(model, (x, y), "gap")
    wrong = [
        head_sums(model, (x, y), "gmp"),
        head_sums(model, (x, 2 - y), "gap", labels=names),
        head_sums(other, (x, y), "gap"),
    ]
    for sums in wrong:
        again = Ridge.load(sums.save(tmp_path / "sums.npz"))
        for one in (sums, again):
            with pytest.raises(ValueError, match="another model, head or order of classes"):
                fit_sums(model, one, "gap")
            with pytest.raises(ValueError, match=r"sums are of different things .* order of classes"):
                total + one
    assert len({sums.identity for sums in (total, *wrong)}) == 4
    assert fit_sums(model, wrong[1], "gap", labels=names).labels == names


def test_the_head_that_is_exchanged_does_not_matter():
    """Machines may hold the same network under another head."""
    model = classifier()
    x, y = images(60, seed=1)
    swapped = fit_sums(model, head_sums(model, (x, y), "gmp"), "gmp")
    assert head_sums(model, (x, y), "gap").identity == head_sums(swapped, (x, y), "gap").identity
    assert isinstance(model.head, gs.Head)


def test_held_out_images_that_are_not_finite():
    model = classifier()
    x, y = images(60, seed=1)
    with pytest.raises(ValueError, match="features of 60 of 60 images are not finite"):
        fit_sums(model, head_sums(model, (x, y), "gap"), "gap", validation=(x * torch.nan, y))
