"""Four commands on tiny data: how each is run, where it keeps what, and what must come out of it."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits

import gapstone as gs
from gapstone.cli import main
from gapstone.images.preprocessing import Preprocessing
from tests.explaining.tiny import make_model, make_pictures

TIMED = ("created", "command", "sealed", "ms_per_image", "train_seconds", "peak_memory_mb", "seconds")


@dataclass(frozen=True)
class Command:
    name: str
    arguments: Callable[[Path], list[str]]
    """Of the command line, for results in a folder."""
    results: Callable[[Path], Any]
    """What must be the same, whatever happened."""
    begun: str
    """A pattern of what is there when it is half done."""
    kept: Callable[[Path], Path] = lambda folder: folder / "out"
    """Where a run that was stopped leaves its work."""

    def run(self, folder: Path) -> tuple[int, str]:
        """In this process: (exit code, all that was printed)."""
        printed = io.StringIO()
        argv = ["gapstone", *self.arguments(folder)]
        with (
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            try:
                code = main()
            except SystemExit as ended:
                code = ended.code
        return int(code or 0), printed.getvalue()

    def start(self, folder: Path) -> "subprocess.Popen[str]":
        """In a process of its own."""
        command = [sys.executable, "-m", "gapstone", *self.arguments(folder)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def half(self, folder: Path) -> None:
        """Killed in the middle."""
        process = self.start(folder)
        deadline = time.monotonic() + 600
        while not list(self.kept(folder).glob(self.begun)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} ended before it was half done: {process.communicate()[0]}")
            time.sleep(0.002)
        kill(process)


def kill(process: "subprocess.Popen[str]") -> None:
    """SIGKILL to a command and the processes it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def compared(folder: Path) -> Any:
    """The numbers of a comparison without what is timed, and all else as it is."""
    out = folder / "out"

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in TIMED}
        return [strip(item) for item in value] if isinstance(value, list) else value

    arrays = {}
    for trial in sorted((out / "trials").iterdir()):
        with np.load(trial / "arrays.npz") as found:
            arrays[trial.name] = {key: found[key].tobytes() for key in found.files}
    numbers = strip(json.loads((out / "results.json").read_text("utf-8")))
    return numbers, arrays, (out / "predictions.csv").read_bytes(), (out / "pictures.npz").read_bytes()


def explained(folder: Path) -> Any:
    out = folder / "out"
    paths = [out / "explained.json", out / "index.html", *(out / "maps").iterdir()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def commands(folder: Path) -> dict[str, Command]:
    """The four, on data that is made in `folder`."""
    digits = load_digits()
    images = (digits.images[digits.target < 3][:120] * 15).astype(np.uint8)
    labels = digits.target[digits.target < 3][:120]
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "digits.npz"
    np.savez(data, images=images, labels=labels)
    weights = folder / "weights.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        about = Preprocessing(1, (16, 16), (16, 16), (0.3,), (0.4,))
        gs.Classifier("nin", "fc:8", ("0", "1", "2"), about).save(weights)
    model = make_model(folder / "model.safetensors")
    pictures = make_pictures(folder / "photos", 8)
    small = ["--heads", "gap,fc", "--seeds", "2", "--epochs", "1", "--workers", "2", "--precision", "float32"]

    def compare(*more: str) -> Callable[[Path], list[str]]:
        return lambda out: ["compare", str(data), *small, *more, "--out", str(out / "out")]

    return {
        "compare": Command("compare", compare(), compared, "trials/[0-9a-f]*"),
        "freeze": Command("freeze", compare("--weights", str(weights), "--freeze"), compared, "kept/*.npy"),
        "explain": Command(
            "explain",
            lambda out: ["explain", str(model), str(pictures), "--html", "--batch-size", "2",
                         "--out", str(out / "out")],
            explained,
            ".looked/[0-9a-f]*.json",
        ),
        "convert": Command(
            "convert",
            lambda out: ["convert", str(weights), "--head", "gap", "--data", str(data), "--finetune", "1",
                         "--out", str(out / "gap.safetensors")],
            lambda out: (out / "gap.safetensors").read_bytes(),
            "kept/*.npy",
            lambda out: out / ".gap.safetensors.parts",
        ),
    }  # fmt: skip


def judge(command: Command, folder: Path, unbroken: Any) -> tuple[str, str]:
    """Run it where something happened: ("same" or "refused", what was printed); raises AssertionError otherwise."""
    code, printed = command.run(folder)
    assert "Traceback" not in printed, printed
    if code:
        lines = [line for line in printed.splitlines() if line.startswith("gapstone: ")]
        assert code == 1, printed
        assert len(lines) == 1, printed
        return "refused", printed
    assert command.results(folder) == unbroken, f"silently different: {printed}"
    return "same", printed


def copy(whence: Path, to: Path) -> Path:
    shutil.copytree(whence, to, symlinks=True)
    return to
