"""While a kernel is built torch answers; what asks for repeatable numbers waits."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import gapstone as gs
from gapstone.loops import background
from gapstone.loops.background import Builder
from gapstone.loops.kernels_ready import meanwhile
from tests.loops_by_name import call_of

SOURCE = str(Path(gs.__file__).parents[1])

pytestmark = pytest.mark.kernels


BEGIN = """
import json, os, sys, torch
import torch.nn.functional as F
import gapstone as gs
from gapstone.loops import background, kernel_code, kernels, operators
emitted = []
emit = kernels.emit
def slow(function, name):
    emitted.append(name)
    return emit(function, name)
kernels.emit = slow
"""


def run(cache: Path, code: str, wait: bool = False) -> dict:
    known = {key: value for key, value in os.environ.items() if key != "GAPSTONE_WAIT_FOR_KERNELS"}
    known |= {"PYTHONPATH": SOURCE, "GAPSTONE_CACHE": str(cache)} | ({"GAPSTONE_WAIT_FOR_KERNELS": "1"} if wait else {})
    done = subprocess.run([sys.executable, "-c", BEGIN + code], env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


STEPS = """
x = torch.arange(2400.).reshape(2, 3, 20, 20).sin()
def step():
    y = x.clone().requires_grad_()
    out = gs.pool(y, "max", gs.Window(2))
    (out * torch.arange(float(out.numel())).reshape(out.shape)).sum().backward()
    return out.detach(), y.grad, type(out.grad_fn).__name__
first = step()
waited = gs.wait_for_kernels(60)
later = step()
same = [bool(torch.equal(a, b)) for a, b in zip(first[:2], later[:2])]
print(json.dumps({"same": same, "first": first[2], "later": later[2], "emitted": len(emitted), "waited": waited}))
"""


def test_torch_answers_first_and_gapstone_after(tmp_path):
    """Windows that do not overlap: the same to the bit, gradients too."""
    found = run(tmp_path, STEPS)
    assert found == {"same": [True, True], "first": "MaxPool2DWithIndicesBackward0", "later": "_PoolBackward",
                     "emitted": 2, "waited": True}  # fmt: skip


def test_who_must_repeat_waits(monkeypatch):
    monkeypatch.delenv(background.VARIABLE, raising=False)
    assert not background.must_wait()
    torch.use_deterministic_algorithms(True)
    try:
        assert background.must_wait()
    finally:
        torch.use_deterministic_algorithms(False)
    monkeypatch.setenv(background.VARIABLE, "1")
    assert background.must_wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deterministic", "variable"])
def test_what_must_repeat_waits(tmp_path, how):
    begin = "torch.use_deterministic_algorithms(True)\n" if how == "deterministic" else ""
    found = run(tmp_path, begin + STEPS, wait=how == "variable")
    assert (found["first"], found["emitted"]) == ("_PoolBackward", 2)
    again = run(tmp_path, STEPS)  # both are on disk now: loaded at once
    assert (again["first"], again["emitted"]) == ("_PoolBackward", 0)


MANY = """
from contextlib import nullcontext
x = torch.rand(2, 6, 24, 24)
mask = torch.rand(24, 24) > 0.3
found = {}
def calls():
    for name, more in (("max", {}), ("mean", {}), ("gem", {"p": 3.0}), ("logsumexp", {}), ("std", {}), ("avgmax", {})):
        for region in (gs.Window(3, 2, 1), gs.Whole(), gs.Mask(mask)):
            for laid in (x, x.contiguous(memory_format=torch.channels_last)):
                y = laid.clone().requires_grad_()
                out = gs.pool(y, name, region, **more)
                out.sum().backward()
                yield out.detach(), y.grad
learned = torch.tensor(3.0, requires_grad=True)
def learns():
    learned.grad = None
    gs.pool(x, "gem", p=learned).sum().backward()
    return learned.grad.clone()
first, slope = list(calls()), learns()
before = len(emitted)
waited = gs.wait_for_kernels(300)
second, again = list(calls()), learns()
close = all(torch.allclose(a, b, atol=1e-5) for one, two in zip(first, second) for a, b in zip(one, two))
print(json.dumps({"close": close and torch.allclose(slope, again, rtol=1e-4), "waited": waited,
                  "emitted": len(emitted), "before": before}))
"""


@pytest.mark.slow  # some seventy kernels
def test_every_kind_of_call_has_another_way_meanwhile(tmp_path):
    found = run(tmp_path, MANY)
    assert found["close"]
    assert found["waited"]
    assert found["emitted"] > found["before"]


def test_nan_is_not_left_to_torch(monkeypatch):
    """Of several NaN in a window torch's maximum gives its gradient to another than the first."""
    place = gs.Window(2).place((1, 1, 4, 4))
    x = torch.zeros(1, 1, 4, 4)
    assert meanwhile(call_of("max", x, place, (), True), x) == "native"
    x[0, 0, 0, 0] = torch.nan
    assert meanwhile(call_of("max", x, place, (), True), x) == "reference"
    assert meanwhile(call_of("max", x, place), x) == "native"
    assert meanwhile(call_of("std", x, place, (), True), x) == "reference"


FORKED = """
x = torch.rand(2, 3, 20, 20)
out = gs.pool(x, "max", gs.Window(2))      # a kernel is being built
pid = os.fork()
if pid == 0:
    background.builder.wait(0)
    os.environ["GAPSTONE_WAIT_FOR_KERNELS"] = "1"
    os._exit(0 if torch.equal(gs.pool(x, "max", gs.Window(2)), out) else 1)
status = os.waitpid(pid, 0)[1]
gs.wait_for_kernels(60)
print(json.dumps({"status": status, "same": bool(torch.equal(gs.pool(x, "max", gs.Window(2)), out))}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle(tmp_path):
    assert run(tmp_path, FORKED) == {"status": 0, "same": True}


@pytest.mark.slow
def test_the_end_of_the_process_waits_for_one_kernel_only(tmp_path):
    code = """
x = torch.rand(2, 3, 20, 20)
for size in (2, 3, 4, 5, 6, 7):
    gs.pool(x, "max", gs.Window(size))
print(json.dumps(True))
"""
    assert run(tmp_path, code)
    kept = list((tmp_path / "kernels").glob("*.kernel"))
    assert 1 <= len(kept) < 6
    assert not list((tmp_path / "kernels").glob(".*"))


# ---- the builder itself


def test_a_build_that_fails_is_met_by_who_asks_again():
    builder, calls = Builder(), []

    def fails():
        calls.append(1)
        raise ValueError("no such instruction")

    builder.add("kernel", fails)  # it may have failed by now
    assert builder.wait(10)
    assert not builder.add("kernel", fails)
    assert calls == [1]
    builder.stop()


def test_nothing_is_built_twice():
    builder, go, calls = Builder(), threading.Event(), []
    builder.add("first", lambda: go.wait(10))
    for _ in range(3):
        assert builder.add("second", lambda: calls.append(1))
    assert not builder.wait(0.01)
    go.set()
    assert builder.wait(10)
    assert calls == [1]
    builder.stop()


def test_not_waiting_ends_with_its_block():
    assert not background.defers()
    with background.not_waiting():
        assert background.defers()
    assert not background.defers()
    with pytest.raises(background.NotBuilt), background.not_waiting():
        raise background.NotBuilt
    assert not background.defers()


COMMAND = """
import sys
from gapstone.__main__ import main
sys.argv = ["gapstone", "--version"]
main()
from gapstone.workers.job_processes import run_jobs
def look(job, tell):
    from gapstone.loops.background import must_wait
    tell(must_wait())
if __name__ == "__main__":
    told = [news.what for news in run_jobs(look, [1], 1) if news.kind == "news"]
    print(json.dumps([background.must_wait(), *told]))
"""


@pytest.mark.slow
def test_commands_and_their_processes_wait(tmp_path):
    """`compare` promises the same numbers again."""
    script = tmp_path / "command.py"
    script.write_text(BEGIN.replace("kernels.emit = slow", "") + COMMAND)
    known = {key: value for key, value in os.environ.items() if key != "GAPSTONE_WAIT_FOR_KERNELS"}
    done = subprocess.run([sys.executable, script], env=known | {"PYTHONPATH": SOURCE}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[true, true]", done.stderr[-2000:]


def test_while_it_compiles_other_threads_get_pythons_lock_soon():
    before, during = sys.getswitchinterval(), []
    one = background.Builder()
    one.add("good", lambda: during.append(sys.getswitchinterval()))
    one.add("bad", lambda: 1 / 0)
    assert one.wait(10)
    one.stop()
    assert during == [pytest.approx(background.YIELD_SECONDS)]
    assert sys.getswitchinterval() == before
