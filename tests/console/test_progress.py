"""No command is silent for long: a word within 2 s of its start, then at least one every 10 s, on photos."""

import io
import os
import pty
import subprocess
import sys
import time
from itertools import pairwise

import pytest

import gapstone as gs
from gapstone.console import progress
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.images.preprocessing import Preprocessing

FIRST, LONGEST = 2.0, 10.0


@pytest.fixture
def quick(monkeypatch):
    """Seconds become hundredths."""
    monkeypatch.setattr(progress, "FIRST", 0.05)
    monkeypatch.setattr(progress, "EVERY", 0.2)
    Terminal.last = time.monotonic()


def plain() -> Terminal:
    return Terminal(file=io.StringIO(), force_terminal=False, width=200)


def said(console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_silence_is_broken(quick):
    console = plain()
    with Bars(console, idle="Idle") as bars:
        time.sleep(0.5)
        tell = bars("Named")
        time.sleep(0.5)
        tell(3, 4000, "news")
        time.sleep(0.5)
        with bars.during("Inner"):
            time.sleep(0.5)
        tell(4000, 4000)
        time.sleep(0.5)
    lines = said(console)
    order = ["Idle … (", "Named … (", "Named: 3 of 4,000 (news)", "Inner … (", "Idle … ("]
    at = [next(k for k, line in enumerate(lines) if line.startswith(word)) for word in order[:-1]]
    assert at == sorted(at)
    assert lines[-1].startswith("Idle")
    assert len(lines) < 15


def test_short_work_says_nothing():
    console = plain()
    with Bars(console) as bars:
        bars("Named")(1, 1)
    assert said(console) == []


def test_what_was_named_and_never_told_of_is_forgotten(quick):
    console = plain()
    with Bars(console) as bars:
        bars("First")
        bars("Second")(1, 2)
        time.sleep(0.5)
    assert all(line.startswith("Second") for line in said(console))


def test_bars_on_a_terminal():
    console = Terminal(file=io.StringIO(), force_terminal=True, width=100)
    with Bars(console, idle="Idle") as bars:
        assert bars.live is not None
        bars("Named")(3, 4000)
        with bars.during("Inner"):
            bars.live.refresh()
    text = console.file.getvalue()
    for word in ("Idle", "Named", "3/4,000", "Inner"):
        assert word in text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    labels = [f"class {k}" for k in range(5)]
    shape = Preprocessing(3, (64, 64), (72, 72), (0.5,) * 3, (0.25,) * 3)
    gs.Classifier("resnet18", "gap", labels, shape).save(path)
    return path


COMMANDS = {
    "compare": "compare PHOTOS --heads gap,fc --seeds 1 --epochs 1 --limit 60",
    "check": "check PHOTOS",
    "train": "train PHOTOS --epochs 1 --limit 60",
    "predict": "predict MODEL PHOTOS",
    "explain": "explain MODEL PHOTOS --no-drawings",
    "inspect": "inspect inception_v4",
    "convert": "convert MODEL --data PHOTOS --limit 60",
    "export": "export MODEL --pt2 e.pt2",
    "bench": "bench --quick --only gem",
    "doctor": "doctor",
}


def listened(command: list[str], folder, seconds: float, terminal: bool) -> list[float]:
    """When it said something, in seconds from its start; it is ended after some."""
    reads, writes = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        command, cwd=folder, stdout=writes, stderr=writes, stdin=subprocess.DEVNULL,
        env={**os.environ, "GAPSTONE_CACHE": str(folder / "cache"), "TERM": "xterm"},
    )  # fmt: skip
    os.close(writes)
    began, times = time.monotonic(), [0.0]
    try:
        while time.monotonic() - began < seconds:
            if not os.read(reads, 65536):
                break
            times.append(time.monotonic() - began)
    except OSError:  # a terminal that was closed
        pass
    finally:
        times.append(time.monotonic() - began)
        process.kill()
        process.wait()
        os.close(reads)
    return times


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_word_within_seconds(name, terminal, model, real_images, tmp_path):
    photos = str(real_images("flowers128"))
    words = [{"PHOTOS": photos, "MODEL": str(model)}.get(word, word) for word in COMMANDS[name].split()]
    times = listened([sys.executable, "-m", "gapstone", *words], tmp_path, 40, terminal)
    load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others' work makes everything slower
    assert times[1] < FIRST * load, times
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < LONGEST * load, times
