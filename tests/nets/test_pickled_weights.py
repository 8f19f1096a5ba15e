"""Files of torch.save: their tensors alone; what is hostile, damaged or no weights is a sentence, and nothing runs."""

import argparse
import io
import pickle
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch

from gapstone.nets.pickled_weights import is_pickled, read_pickled
from gapstone.nets.wrapped_weights import network_part, without_head

STATE = OrderedDict({"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "where"),
    [
        (STATE, ""),
        ({**STATE, "epoch": 3}, ""),
        ({"state_dict": STATE, "optimizer": {"state": {0: torch.zeros(9)}}, "epoch": 3}, "state_dict"),
        ({"model": {"state_dict": STATE}, "args": None}, "model.state_dict"),
        ({"student": {"b": torch.ones(1)}, "teacher": STATE}, "teacher"),
        ({"model": "resnet18", "model_state_dict": STATE}, "model_state_dict"),
    ],
)
def test_what_people_save(tmp_path, content, where, zipped):
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert is_pickled(path)
    state, found = read_pickled(path)
    assert (set(state), found) == (set(STATE), where)
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


class Writes:
    """A pickle that would write a file as it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickles_run_nothing(tmp_path, zipped):
    path, written = tmp_path / "w.pth", tmp_path / "written"
    torch.save({"state_dict": {**STATE, "x": Writes(written)}}, path, _use_new_zipfile_serialization=zipped)
    said = r"holds more than weights: \w*\.?open, which torch.load\(weights_only=True\) does not open.*save_file"
    with pytest.raises(ValueError, match=said) as caught:
        read_pickled(path)
    assert not written.exists()
    assert "weights_only` set to `False" not in str(caught.value)  # torch's advice
    path.write_bytes(pickle.dumps(Writes(written)))
    with pytest.raises(ValueError, match=r"w\.pth: "):
        read_pickled(path)
    assert not written.exists()


def test_checkpoints_with_other_objects(tmp_path):
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.ckpt")
    with pytest.raises(ValueError, match=r"w\.ckpt: it holds more than weights: argparse\.Namespace, which"):
        read_pickled(tmp_path / "w.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt: it is a TorchScript archive, which holds code"):
        read_pickled(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.ones(2)], "it holds a list; expected a state_dict"),
        ({"epoch": 3, "loss": 0.1}, r"no weights were found in it \(it has epoch, loss\)"),
        ({}, r"it has nothing"),
        ({0: torch.ones(2)}, r"it has 0"),
        ({"w": torch.eye(3).to_sparse()}, "w is sparse_coo, and weights are plain numbers"),
        ({"w": torch.zeros(3, device="meta")}, "w is strided|claims 3 numbers|plain numbers|damaged"),
        ({"w": torch.ones(1).expand(10**13)}, "w claims 10,000,000,000,000 numbers, and the file has fewer"),
    ],
)
def test_what_is_no_weights(tmp_path, content, said):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=said):
        read_pickled(tmp_path / "w.pth")


def test_damaged_files_are_one_sentence(tmp_path):
    path, whole = tmp_path / "w.pth", io.BytesIO()
    for zipped in (True, False):
        whole = io.BytesIO()
        torch.save(STATE, whole, _use_new_zipfile_serialization=zipped)
        content = whole.getvalue()
        for end in range(4, len(content), max(1, len(content) // 40)):
            path.write_bytes(content[:end])
            with pytest.raises(ValueError, match=r"w\.pth: ") as caught:
                read_pickled(path)
            assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_more_than_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("gapstone.nets.pickled_weights.memory", lambda: 2_000_000)
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data/0", bytes(1_000_000))
    with pytest.raises(ValueError, match=r"unpacked it has 0\.0 GB, and opening it takes three times that"):
        read_pickled(tmp_path / "w.pth")


def test_the_part_that_is_a_network():
    own = {"conv1.weight", "layer1.0.bias"}

    def states(prefix):
        return {f"{prefix}{name}": torch.full((1,), len(prefix)) for name in own}

    for prefix in ("", "module.", "model.", "backbone.", "encoder.", "_orig_mod.", "module.encoder_q.", "a.b.c."):
        part = network_part({**states(prefix), f"{prefix}fc.weight": torch.ones(1), "zz.t": torch.ones(1)}, own)
        assert (part.prefix, part.others) == (prefix, 1 if prefix else 0)
        assert own | {"fc.weight"} <= set(part.state)
    both = {**states("student.backbone."), **states("teacher.backbone."), **states("s.")}
    assert network_part(both, own).prefix == "teacher.backbone."
    assert network_part({**states("net_b."), **states("a.")}, own).prefix == "a."
    assert network_part({**states("x."), "conv1.weight": torch.ones(1)}, own).prefix == "x."  # more of its tensors
    part = network_part({"q": torch.ones(1)}, own)
    assert (set(part.state), part.said()) == ({"q"}, None)
    said = network_part({**states("module."), "loss.t": torch.ones(1)}, own).said()
    assert said == "of its tensors those named module.… are the network's; 1 other tensor of the file left out"
    left, beside = without_head({**states(""), "fc.0.weight": torch.ones(1), "layer1.9.bias": torch.ones(1)}, own)
    assert (set(left), beside) == (own | {"layer1.9.bias"}, ["fc"])
