"""`gs.compare`: of a network, a head and callbacks of the user's own; in a script without a guard; after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import gapstone as gs
from gapstone.heads.own_heads import _registered
from gapstone.library.listeners import EpochEnded, TrialEnded
from gapstone.library.python_words import in_python
from gapstone.storage.sealed_json import read_sealed
from tests.own_code import Gated, Net

SMALL = {"limit": 60, "epochs": 2, "quick": True, "progress": False}


@pytest.fixture(autouse=True)
def no_heads_stay():
    yield
    _registered.clear()


def test_of_a_network_and_a_head_of_ones_own(tmp_path):
    epochs: list[EpochEnded] = []
    trials: list[TrialEnded] = []
    heads = ["gap", {"mine": lambda channels, classes, size: Gated(channels, classes)}]
    arguments = SMALL | {"backbone": Net, "heads": heads, "seeds": 2, "out": tmp_path / "out"}
    result = gs.compare("digits", **arguments, on_epoch=epochs.append, on_trial=trials.append)
    assert [head["head"] for head in result.results["heads"]] == ["gap", "mine"]
    assert {(one.head, one.seed) for one in trials} == {(head, seed) for head in ("gap", "mine") for seed in (0, 1)}
    assert all(one.failed is None and 0 <= one.test_accuracy <= 1 and one.train_seconds > 0 for one in trials)
    assert sorted({one.epoch for one in epochs}) == [1, 2]
    assert all(one.epochs == 2 and 0 <= one.validation_accuracy <= 1 for one in epochs)
    # the models: of each head, and the best
    files = {entry["file"]: entry for entry in result.results["models"]}
    assert set(files) == {"model.safetensors", "models/gap.safetensors", "models/mine.safetensors"}
    for file, entry in files.items():
        model = gs.load(result.out / file, backbone=Net)
        assert model.head.spec == entry["head"]
        assert isinstance(model.head.module, Gated) == (entry["head"] == "mine")
    assert not list((result.out / "trials").glob("*/weights.safetensors"))
    check_kept(result)
    # again: nothing is trained, the same numbers; an edited network is another
    trials.clear()
    again = gs.compare("digits", **arguments, on_trial=trials.append)
    assert not trials
    assert again.results["heads"] == result.results["heads"]
    assert again.results["models"] == result.results["models"]
    edited = gs.compare("digits", **arguments | {"backbone": lambda: Net(5), "heads": ["gap"]}, on_trial=trials.append)
    assert len(trials) == 2
    assert edited.results["settings"]["backbone"] != result.results["settings"]["backbone"]


def check_kept(result):
    """Models and predictions of the comparison are those of its numbers."""
    assert isinstance(result.model("mine").head.module, Gated)  # the network is known in this process
    assert result.model().head.spec == result.results["models"][0]["head"]
    with pytest.raises(ValueError, match=r'no model of gap with seed 7 was kept.*kept: .*keep="all"'):
        result.model("gap", seed=7)
    answers = result.predictions(probabilities=True)
    assert answers.groupby("head")["correct"].mean().to_dict() == pytest.approx(
        {head.name: head.accuracy.mean for head in result}
    )
    assert answers.filter(like="p(").to_numpy().sum(1) == pytest.approx(1, abs=1e-5)
    assert set(result.predictions("mine")["head"]) == {"mine"}
    assert len(result.maps(2).axes) == 2 * 3  # a head of one's own has maps, too


def test_words_of_python():
    assert in_python("--batch-size 1: must be at least 2; --group x. The same command goes on, a --- b -- c") == (
        "batch_size 1: must be at least 2; groups x. The same call goes on, a --- b -- c"
    )
    with pytest.raises(ValueError, match=r"^batch_size 1: must be at least 2\.$"):
        gs.compare("digits", batch_size=1)
    with pytest.raises(ValueError, match=r"^baseline 'fc' is not among heads gap\.$"):
        gs.compare("digits", heads=["gap"], baseline="fc")
    with pytest.raises(ValueError, match=r"^keep some: must be best or all or none\.$"):
        gs.compare("digits", keep="some")
    with pytest.raises(TypeError, match=r"^heads='gap': expected a list, such as heads=\['gap'\]\.$"):
        gs.compare("digits", heads="gap")
    with pytest.raises(TypeError, match=r"Gated\(.* has no name: give it one, \{'mine': Gated\}"):
        gs.compare("digits", heads=[Gated(3, 3)])
    with pytest.raises(ValueError, match="at='body' is for a network of your own"):
        gs.compare("digits", backbone="nin", at="body")


@pytest.mark.slow
def test_the_command_gives_the_same_numbers(tmp_path):
    arguments = {"heads": ["gap", "fc"], "seeds": 2, "epochs": 2, "limit": 100, "quick": True}
    result = gs.compare("digits", **arguments, out=tmp_path / "python", progress=False)
    options = ["--heads", "gap,fc", "--seeds", "2", "--epochs", "2", "--limit", "100", "--quick"]
    command = [sys.executable, "-m", "gapstone", "compare", "digits", *options, "--out", str(tmp_path / "command")]
    subprocess.run(command, check=True, capture_output=True)
    other = read_sealed(tmp_path / "command" / "results.json", "results")
    assert [head["metrics"] for head in other["heads"]] == [head["metrics"] for head in result.results["heads"]]
    assert [trial["id"] for trial in other["trials"]] == [trial["id"] for trial in result.results["trials"]]


SCRIPT = """
import json, sys, torch, gapstone as gs
from torch import nn
import helper

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3))
        self.fc = nn.Linear(8, 10)
    def forward(self, x):
        return self.fc(helper.twice(self.body(x)).mean((2, 3)))

print("begins", flush=True)
result = gs.compare("digits", backbone=Net, heads=["gap", "gmp"], seeds=4, epochs=6, limit=300, quick=True,
                    out=sys.argv[1], progress=False, workers=1, on_trial=lambda one: print("trial", flush=True))
print(json.dumps([head["metrics"] for head in result.results["heads"]]))
"""
HELPER = "def twice(x): return 2 * x\n"


@pytest.mark.slow
def test_a_script_without_a_guard_that_is_killed(tmp_path):
    """Its own module lies beside it. Killed after its second trial, it ends with the numbers of one that was not."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text(HELPER)

    def start(out):
        command = [sys.executable, "script.py", str(tmp_path / out)]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)

    whole, _ = start("whole").communicate(timeout=300)
    lines = whole.splitlines()
    assert lines[:-1] == ["begins"] + ["trial"] * 8  # the script ran once, in one process
    killed = start("killed")
    assert [killed.stdout.readline().strip() for _ in range(3)] == ["begins", "trial", "trial"]
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    time.sleep(1)
    rest, _ = start("killed").communicate(timeout=300)
    assert rest.splitlines()[0] == "begins"
    assert 1 <= rest.count("trial") <= 6
    assert json.loads(rest.splitlines()[-1]) == json.loads(lines[-1])
    # what the network calls was edited: nothing of it is used again
    (tmp_path / "helper.py").write_text(HELPER.replace("2 * x", "3 * x"))
    edited, _ = start("killed").communicate(timeout=300)
    assert edited.count("trial") == 8


def test_a_network_that_is_given_with_its_weights(tmp_path):
    """Not trained yet: it is trained whole, from these weights; trained: it is frozen."""
    torch.manual_seed(0)
    net = Net()
    arguments = SMALL | {"heads": ["gap"], "seeds": 1, "out": tmp_path / "out"}
    assert not gs.compare("digits", backbone=net, **arguments).results["settings"]["frozen"]
    net.body[1].bias.data.normal_()
    assert gs.compare("digits", backbone=net, **arguments).results["settings"]["frozen"]
