"""Ctrl-C at any moment, once or twice, and a polite kill: one line, exit code 130 or 143, the same command goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gapstone.runtime import interrupts
from tests.marks import slow_but

COMMANDS = {
    "compare": ("compare", "digits", "--heads", "gap,gmp,fc", "--epochs", "40", "--seeds", "5"),
    "train": ("train", "digits", "--epochs", "200"),
    "inspect": ("inspect", "inception_v4"),
    "check": ("check", "digits"),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "serve": ("serve", "none.safetensors"),
}


def start(command: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "gapstone", *COMMANDS[command]],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "GAPSTONE_CACHE": str(folder / "cache"), "TMPDIR": str(folder)},
    )  # fmt: skip


def listens(process: "subprocess.Popen[str]") -> None:
    """Wait until it catches SIGTERM, which Python alone does not: nothing of it runs before that."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    while process.poll() is None:
        caught = next((line for line in status.read_text().splitlines() if line.startswith("SigCgt")), "SigCgt: 0")
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def end(process: "subprocess.Popen[str]", *signals: int, pause: float = 0.0) -> str:
    """Send them to all processes of the command, as a terminal does; what it said on standard error."""
    for number in signals:
        if process.poll() is None:
            os.killpg(process.pid, number)
        time.sleep(pause)
    _, said = process.communicate(timeout=60)
    return said


def check_said(said: str) -> None:
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("gapstone: ")]
    assert len(lines) == 1, said
    assert "stopped" in lines[0].lower()
    assert "The same command" in lines[0] or "Stopped." in lines[0] or "measured" in lines[0]


@pytest.mark.parametrize("command", slow_but([c for c in COMMANDS if c != "serve"], "compare", "train"))
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", slow_but([0.0, 1.0, 3.0, 6.0], 0.0, 3.0))
def test_ctrl_c(command, moment, times, tmp_path):
    process = start(command, tmp_path)
    listens(process)
    time.sleep(moment)
    done = process.poll() is not None
    said = end(process, *[signal.SIGINT] * times, pause=0.05)
    if done or (process.returncode == 0 and command in ("check", "doctor", "inspect")):
        return  # it was done by then
    assert process.returncode == 130, said
    check_said(said)
    if times == 1:
        assert not list(tmp_path.glob("gapstone-*")), "decoded images were left in the folder of temporary files"


@pytest.mark.parametrize("command", slow_but(["compare", "train"], "compare"))
def test_a_polite_kill(command, tmp_path):
    process = start(command, tmp_path)
    listens(process)
    time.sleep(2)
    said = end(process, signal.SIGTERM)
    assert process.returncode == 143, said
    check_said(said)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(24))
def test_many_moments(moment, tmp_path):
    draw = random.Random(moment)
    process = start("compare", tmp_path)
    listens(process)
    time.sleep(draw.uniform(0, 15))
    said = end(process, *[signal.SIGINT] * draw.choice((1, 2)), pause=draw.uniform(0, 0.3))
    assert process.returncode == 130, said
    check_said(said)


def test_a_background_job_does_not_hear_ctrl_c(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from gapstone.runtime.interrupts import listen; "
    )
    code += "listen('x'); print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "True"


def test_the_innermost_section_speaks():
    with (
        pytest.raises(KeyboardInterrupt) as stopped,
        interrupts.stoppable("outer"),
        interrupts.stoppable(lambda: "inner"),
    ):
        raise KeyboardInterrupt
    assert interrupts.stop_message(stopped.value) == "inner"
    assert interrupts.stop_message(KeyboardInterrupt()).endswith("The same command starts again.")


def test_held_back_signals_come_later():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with interrupts.interrupts_blocked():
            signal.raise_signal(signal.SIGINT)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            time.sleep(0.5)
            assert not heard
            child.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert child.poll() is None, "a process started meanwhile does not hear it"
            child.kill()
            child.wait()
        assert heard == [1]
    finally:
        signal.signal(signal.SIGINT, before)
