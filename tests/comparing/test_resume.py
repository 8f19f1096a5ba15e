"""A run that is killed, or stopped with Ctrl-C, goes on and ends with the numbers of one that was not."""

import fcntl
import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.run_comparison import compare
from gapstone.training.training_data import TrainOptions

pytestmark = pytest.mark.kernels  # a run in this process goes on with what a killed one left, to the bit

TIMED = ("created", "sealed", "command", "ms_per_image", "train_seconds", "peak_memory_mb", "seconds")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = tmp_path_factory.mktemp("data") / "some digits.npz"
    images = (digits.images[:150] * 15).astype(np.uint8)
    np.savez(path, images=images, labels=digits.target[:150])
    return path


HEADS, EPOCHS = ("gap", "fc:dropout=0.5"), 2


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["one by one", "two at once"])
def seeds(request):
    """As many trials are at work at a time."""
    return request.param


def command(data, out, seeds):
    options = ["--heads", ",".join(HEADS), "--seeds", seeds, "--workers", seeds, "--epochs", EPOCHS]
    options += ["--precision", "float32", "--quick", "--out", out]
    return [sys.executable, "-m", "gapstone", "compare", str(data), *map(str, options)]


def run(data, out, seeds):
    """The same in this process."""
    compare(
        CompareRequest(
            TrainOptions(str(data), epochs=EPOCHS, precision="float32"), HEADS, seeds, workers=seeds, quick=True
        ),
        out,
        Console(file=io.StringIO()),
    )


def numbers(out):
    """results.json without what is timed."""

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in TIMED}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads((out / "results.json").read_text("utf-8")))


def trials(out):
    return sorted(p.name for p in (out / "trials").iterdir() if not p.name.startswith("."))


@pytest.fixture(scope="module")
def unbroken(data, seeds, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    run(data, out, seeds)
    assert len(trials(out)) == 2 * seeds
    return out


@pytest.mark.parametrize(
    ("how", "when"),
    [
        pytest.param(signal.SIGKILL, "planning", marks=pytest.mark.slow),
        (signal.SIGKILL, "training"),
        pytest.param(signal.SIGINT, "training", marks=pytest.mark.slow),  # quick: test_interrupts.py
    ],
)
def test_the_same_numbers_after_a_stop(data, unbroken, seeds, tmp_path, how, when):
    out = tmp_path / "broken"
    with subprocess.Popen(
        command(data, out, seeds), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + 600  # a machine may be slow; none of this is timed
        while not ((out / "store").exists() if when == "planning" else (out / "trials").exists() and trials(out)):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        said, _ = process.communicate(timeout=300)
    done = {name: (out / "trials" / name / "trial.json").stat().st_mtime_ns for name in trials(out)}
    assert len(done) < 2 * seeds, "it was not stopped in the middle"
    assert bool(done) == (when == "training")
    assert not (out / "report.html").exists()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "The same command goes on" in said
        assert "Traceback" not in said
    run(data, out, seeds)
    assert numbers(out) == numbers(unbroken)
    assert (out / "report.html").exists()
    for name, when in done.items():  # what was done was not done again
        assert (out / "trials" / name / "trial.json").stat().st_mtime_ns == when
    for name in trials(out):
        with (
            np.load(out / "trials" / name / "arrays.npz") as mine,
            np.load(unbroken / "trials" / name / "arrays.npz") as other,
        ):
            assert mine.files == other.files
            assert all(np.array_equal(mine[key], other[key]) for key in mine.files)


def test_two_at_once_and_other_data_are_refused(data, unbroken):
    def ask(data):
        compare(CompareRequest(TrainOptions(str(data)), ("gap",)), unbroken, Console(file=io.StringIO()))

    with pytest.raises(ValueError, match="choose another --out for digits"):
        ask("digits")
    with (unbroken / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another gapstone compare is at work"):
            ask(data)
