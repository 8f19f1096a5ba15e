"""`gapstone doctor` says what happens: the loop it names is the loop that runs."""

import json

import pytest
import torch
from typer.testing import CliRunner

import gapstone as gs
from gapstone.bench import doctor
from gapstone.cli import app
from gapstone.loops import direct, native, operators
from gapstone.pooling import pool_function
from gapstone.pools import POOLS

NEEDED = {"topk": {"k": 3}, "quantile": {"q": 0.5}, "attention": {"query": torch.zeros(16)}}


def test_every_pool_over_every_region_is_in_the_table():
    cases = doctor.served()
    assert {case.pool for case in cases} >= set(POOLS)
    assert {case.region for case in cases} == set(doctor.REGIONS)
    assert {(case.dtype, case.layout) for case in cases} == {(d, m) for d in doctor.DTYPES for m in doctor.LAYOUTS}
    assert all(case.why for case in cases)


@pytest.mark.kernels
def test_what_it_says_is_what_runs(monkeypatch):
    ran = []

    def operator(call, loop, x):
        ran.append(loop)  # and no more: hundreds of kernels would be compiled
        return x

    def own(call):
        ran.append("native")
        return lambda x: x

    monkeypatch.setattr(operators, "pool", operator)
    monkeypatch.setattr(direct, "pool", operator)
    monkeypatch.setattr(native, "kernel", own)
    monkeypatch.setattr(pool_function, "_remembered", {})
    for case in doctor.served():
        if case.device != "cpu":
            continue
        x = torch.ones(doctor.SHAPE, dtype=getattr(torch, case.dtype)).to(memory_format=doctor.LAYOUTS[case.layout])
        ran.clear()
        if case.loop is None:
            with pytest.raises((ValueError, TypeError)):
                gs.pool(x, case.pool, doctor.REGIONS[case.region], **NEEDED.get(case.pool, {}))
            continue
        gs.pool(x, case.pool, doctor.REGIONS[case.region], **NEEDED.get(case.pool, {}))
        assert ran == ([case.loop] if case.pool in POOLS else []), case


def test_the_command(tmp_path):
    told = CliRunner().invoke(app, ["doctor"])
    assert told.exit_code == 0
    for word in (
        "torch",
        "numba",
        "kernels kept in",
        "cpu, float32, contiguous",
        "logsumexp",
        "Why:",
        "Optional extras:",
        "HEIC photos",
    ):
        assert word in told.output
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["machine"]["gapstone"] == gs.__version__
    assert len(found["served"]) == len(doctor.served())


def test_every_optional_extra_is_listed_with_what_it_is_for(monkeypatch):
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    ours = {extra.name: extra for extra in doctor.extras()}
    assert set(ours) == set(project["optional-dependencies"]) - {"dev", "docs"}
    for name, needed in project["optional-dependencies"].items():
        if name not in ("dev", "docs"):
            assert set(ours[name].packages) == {one.partition(">")[0] for one in needed}
            assert ours[name].purpose
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "onnxscript" else "1.2")
    onnx, heif = (next(e for e in doctor.extras() if e.name == name) for name in ("onnx", "heif"))
    assert onnx.state == "not installed (onnxscript): pip install 'gapstone[onnx]'"
    assert heif.state == "installed: pillow-heif 1.2"
