"""The scripts in benchmarks/ load without any peer installed, and cover what they say."""

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gapstone.bench.case_result import measure
from gapstone.bench.cases import Case
from gapstone.bench.contenders import CaseArrays

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(os, "environ", dict(os.environ))  # they set threads and the like for their own process
    return lambda name: runpy.run_path(str(FOLDER / f"{name}.py"))


def test_every_case_of_the_full_set_can_be_described(script):
    sections = script("pools")["cases"]()
    every = [case for some in sections.values() for case in some]
    assert len(every) > 200
    assert {"GoogLeNet", "ResNet", "VGG", "Inception-v4", "NIN", "SPP", "heads", "205 MB"} <= set(sections)
    for some in sections.values():
        assert len(set(some)) == len(some)
    for case in every:
        mask = torch.ones(case.shape[0], *case.shape[2:], dtype=torch.bool) if case.masked else None
        case.region(mask).place(case.shape)
    matches = script("pools")["matches"]
    assert matches("GoogLeNet.*backward", "GoogLeNet", Case("max", (1, 1, 4, 4), (3, 2, 1), direction="backward"))


def test_a_peer_that_is_not_installed_is_left_out(script, monkeypatch):
    for library in ("onnxruntime", "openvino", "jax"):
        monkeypatch.setitem(sys.modules, library, None)
    peers = script("peers")["PEERS"]
    some = {name: peers[name] for name in ("onnxruntime", "openvino", "jax", "views")}
    found = measure(Case("max", (2, 4, 8, 8), (3, 2, 1)), 1, 0.0, 1, some)
    assert found.wrong is None
    assert set(found.ratios) == {"torch", "views"}
    assert set(found.notes) == {"onnxruntime", "openvino", "jax"}


@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), (5, 1, 2)])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_views_give_the_maximum(script, window, layout):
    job = CaseArrays(Case("max", (2, 3, 9, 11), window, layout=layout), 1)
    assert torch.equal(script("peers")["views"](job)().double(), job.truth[0])


def test_a_model_whose_answers_differ_is_not_timed(script, monkeypatch):
    import argparse

    import gapstone as gs

    class Other(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) + 1

    names = script("models")
    monkeypatch.setitem(
        names["MODELS"], "tiny", (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 3, 8, 8))
    )
    monkeypatch.setattr(gs, "accelerate", lambda model, channels_last: Other(), raising=False)
    options = argparse.Namespace(rounds=1, seconds=0.0, batch=None, compile=False)
    with pytest.raises(names["WrongError"], match="not timed"):
        names["measure"]("tiny", "NCHW", "infer", 1, options)
    monkeypatch.setattr(gs, "accelerate", lambda model, channels_last: model)
    found = names["measure"]("tiny", "NCHW", "infer", 1, options)
    assert found.error == 0
    assert "tiny" in names["line"](found)


def test_the_crossover_is_the_last_defeat(script):
    taken = {4: (1.0, 9.0), 8: (5.0, 4.0), 16: (6.0, 7.0), 32: (20.0, 8.0)}
    found = {size: {"nn.MaxPool2d": torch_, "gs.pool": ours} for size, (torch_, ours) in taken.items()}
    crossover = script("call_overhead")["crossover"]
    assert crossover(found, "gs.pool").startswith("faster from 8×32×32 on")
    assert crossover({4: found[4]}, "gs.pool") == "slower at all sizes"
