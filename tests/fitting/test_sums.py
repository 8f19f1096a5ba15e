"""Sums from several machines make the head that all images together make."""

import numpy as np
import pytest
import torch
from world import LABELS, classifier, images

from gapstone.fitting.ridge import Ridge
from gapstone.fitting.seen import vectors
from gapstone.fitting.sums import fit_sums, head_sums

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
