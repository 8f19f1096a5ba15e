"""Model files say which images they were trained on: bounded, without names, also through reading and writing again."""

import numpy as np
import pytest
import torch

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing
from gapstone.models import model_file
from gapstone.models.backbone_weights import read_weights
from gapstone.models.trained_on import NOTHING, UNKNOWN, TrainedOn


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return gs.Classifier("nin", "gap", ("a", "b"), Preprocessing(1, (16, 16), (16, 16), (0.4,), (0.3,)))


def saved(model, path, trained_on):
    model.trained_on = trained_on
    return model.save(path)


@pytest.mark.parametrize("complete", [True, False])
def test_what_was_saved_comes_back(model, tmp_path, complete):
    hashes = np.array([-(2**63), -1, 0, 7, 2**63 - 1])
    path = saved(model, tmp_path / "m.safetensors", TrainedOn(hashes, complete))
    read = gs.load(path)
    assert read.trained_on.hashes.tolist() == hashes.tolist()
    assert read.trained_on.complete is complete
    assert "trained_on" not in read.state_dict()
    assert read.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    weights = read_weights(path)
    assert weights.trained_on.contains(np.array([7, 8])).tolist() == [True, False]
    assert set(weights.state) == set(model.features.state_dict())


def test_a_file_of_before_says_nothing(model, tmp_path):
    path = saved(model, tmp_path / "old.safetensors", None)
    assert "trained_on" not in model_file.read(path).shapes
    assert gs.load(path).trained_on is None
    assert read_weights(path).trained_on is UNKNOWN


def test_eight_bytes_an_image(model, tmp_path):
    without = saved(model, tmp_path / "without.safetensors", NOTHING)
    some = saved(model, tmp_path / "some.safetensors", NOTHING.union(np.arange(50_000) * 2**40))
    assert abs(some.stat().st_size - without.stat().st_size - 400_000) < 100


def test_unions():
    both = NOTHING.union(np.array([3, 1])).union(np.array([2, 3]))
    assert both.hashes.tolist() == [1, 2, 3]
    assert both.complete
    more = UNKNOWN.union(np.array([1]))
    assert (more.hashes.tolist(), more.complete) == ([1], False)
    assert both.incomplete.contains(np.array([3])).all()
    assert not both.incomplete.complete


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.uint8)]
)
def test_hashes_of_another_form_are_refused(model, tmp_path, wrong):
    path = saved(model, tmp_path / "m.safetensors", NOTHING)
    file = model_file.read(path)
    model_file.write(path, file.weights() | {"trained_on": wrong}, file.about)
    with pytest.raises(model_file.ModelFileError, match=r"trained_on.*not I64"):
        gs.load(path)


def test_a_changed_hash_is_damage(model, tmp_path):
    path = saved(model, tmp_path / "m.safetensors", NOTHING.union(np.array([0x0123456789ABCDEF])))
    data = path.read_bytes()
    place = data.index((0x0123456789ABCDEF).to_bytes(8, "little"))
    path.write_bytes(data[:place] + b"\0" + data[place + 1 :])
    with pytest.raises(ValueError, match="checksum"):
        gs.load(path)
