"""Damaged folders, kills at random moments, full disks: the same numbers, or one clear line; never other numbers."""

import io
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from rich.console import Console

from gapstone.comparing.run_comparison import report
from tests.damage.commands import Command, commands, copy, judge, kill
from tests.damage.damage import damage

pytestmark = pytest.mark.kernels  # runs in this process go on with what killed processes left, to the bit

NAMES = ("compare", "freeze", "explain", "convert")
SEED = int(os.environ.get("GAPSTONE_TEST_SEED", "0"))
CASES = int(os.environ.get("GAPSTONE_TEST_DAMAGES", "200"))
KILLS = int(os.environ.get("GAPSTONE_TEST_KILLS", "100"))
DISKS = int(os.environ.get("GAPSTONE_TEST_DISKS", "20"))


class World:
    """The four commands; of each a finished and a half-finished folder, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commands = folder, commands(folder / "data")

    def finished(self, name: str) -> Path:
        folder = self.folder / f"{name}-finished"
        if not folder.exists():
            folder.mkdir()
            code, printed = self.commands[name].run(folder)
            assert code == 0, printed
        return folder

    def half(self, name: str) -> Path:
        folder = self.folder / f"{name}-half"
        if not folder.exists():
            folder.mkdir()
            self.commands[name].half(folder)
        return folder

    def unbroken(self, name: str) -> object:
        return self.commands[name].results(self.finished(name))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def one_damage(world: World, name: str, state: str, seed: int, tmp_path: Path) -> tuple[str, str]:
    folder = copy(world.finished(name) if state == "finished" else world.half(name), tmp_path / f"{name}-{seed}")
    what = damage(folder, np.random.default_rng(seed))
    try:
        ended, printed = judge(world.commands[name], folder, world.unbroken(name))
    except BaseException as error:
        raise AssertionError(f"{name}, {state}, seed {seed}: {what}: {error!r}") from error
    if ended == "refused":  # and after the advice was taken, or nothing was done, it is not silently wrong either
        print(f"{name} {state} {what}: {printed.splitlines()[-1]}")
    return ended, what


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("explain", 1000),
        ("explain", 1001),
        ("explain", 1002),
        *(pytest.param("compare", seed, marks=pytest.mark.slow) for seed in (1000, 1001)),
    ],
)
def test_some_damages(world, tmp_path, name, seed):
    one_damage(world, name, "finished", seed, tmp_path)


@pytest.mark.slow  # quick: test_some_damages
def test_everything_at_once(world, tmp_path):
    """Each of these was an error that named no file, a traceback, or another number in the report."""
    folder = copy(world.finished("compare"), tmp_path / "all")
    out = folder / "out"
    one, two, three, _ = sorted((out / "trials").iterdir())
    (out / "speed.json").write_bytes(b"")
    (out / "plan.json").write_text("[]")
    facts = json.loads((one / "trial.json").read_text())
    (one / "trial.json").write_text(json.dumps(facts | {"test_accuracy": 1.0}, indent=1))
    for trial, other in ((two, three), (three, two)):
        (trial / "arrays.npz").write_bytes(
            (world.finished("compare") / "out/trials" / other.name / "arrays.npz").read_bytes()
        )
    with np.load(out / "store" / "rows.npz") as rows:
        np.savez(out / "store" / "rows.npz", labels=rows["labels"][::-1], indices=rows["indices"])
    (out / "pictures.npz").write_bytes(b"PK")
    (out / "results.json").write_text("{}")
    ended, printed = judge(world.commands["compare"], folder, world.unbroken("compare"))
    assert ended == "same"
    for name in ("speed.json has no seal", "plan.json has no seal", f"{one.name}/trial.json has no seal",
                 f"{two.name}/arrays.npz does not fit", f"{three.name}/arrays.npz does not fit",
                 "rows.npz does not fit"):  # fmt: skip
        assert name in printed
    _, again = judge(world.commands["compare"], folder, world.unbroken("compare"))
    assert "made anew" not in again


@pytest.mark.parametrize("name", ["results.json", "pictures.npz"])
def test_a_report_of_damaged_results_names_them(world, tmp_path, name):
    out = copy(world.finished("compare"), tmp_path / name) / "out"
    content = (out / name).read_bytes()
    (out / name).write_bytes(content.replace(b"0.", b"1.", 1) if name == "results.json" else content[:-1])
    with pytest.raises(ValueError, match=rf"{name} does not fit.*run the same `gapstone compare` again"):
        report(out, Console(file=io.StringIO()))


@pytest.mark.slow
def test_a_folder_of_an_earlier_version_is_made_anew(world, tmp_path):
    folder = copy(world.finished("compare"), tmp_path / "earlier")
    out = folder / "out"
    (out / ".gapstone").unlink()
    for path in (out / "plan.json", out / "speed.json", out / "store" / "store.json", *out.glob("trials/*/trial.json")):
        facts = json.loads(path.read_text())
        del facts["sealed"]
        path.write_text(json.dumps(facts))
    ended, printed = judge(world.commands["compare"], folder, world.unbroken("compare"))
    assert ended == "same"
    assert printed.count("made anew") == 4


@pytest.mark.slow
def test_many_damages(world, tmp_path):
    counted: Counter[tuple[str, str, str]] = Counter()
    wrong = []
    for seed in range(SEED, SEED + CASES):
        name, state = NAMES[seed % 4], ("finished", "half")[seed // 4 % 2]
        try:
            ended, _ = one_damage(world, name, state, seed, tmp_path)
        except AssertionError as error:
            ended = "WRONG"
            wrong.append(str(error))
            print(error, flush=True)
        counted[name, state, ended] += 1
    for key, count in sorted(counted.items()):
        print(*key, count)
    assert not wrong


@pytest.mark.slow
def test_many_kills(world, tmp_path):
    """Ten kills in a row at random moments, then a run to the end; so often that it makes 100."""
    rng = np.random.default_rng(SEED)
    rounds = max(1, KILLS // 10)
    for turn in range(rounds):
        name = NAMES[turn % 4]
        command, folder = world.commands[name], tmp_path / f"killed-{turn}"
        folder.mkdir()
        began = monotonic()
        copy(world.finished(name), tmp_path / f"copy-{turn}")
        long = lasts(command, tmp_path / f"timed-{turn}")
        for _ in range(10):
            process = command.start(folder)
            try:
                process.wait(timeout=float(rng.uniform(0.3, 1.0)) * long)
            except subprocess.TimeoutExpired:
                kill(process)
            else:
                process.communicate()
        code, printed = command.run(folder)
        assert code == 0, printed
        assert command.results(folder) == world.unbroken(name), f"{name} after kills: {printed}"
        print(f"{name}: 10 kills, the same numbers ({monotonic() - began:.0f} s)", flush=True)


def lasts(command: Command, folder: Path) -> float:
    folder.mkdir()
    began = monotonic()
    process = command.start(folder)
    process.communicate()
    return monotonic() - began


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system: run it as root")
def test_full_disks(world, tmp_path):
    """A run that is half done goes on on a file system with little room left; then on one with enough."""
    rng = np.random.default_rng(SEED)
    counted: Counter[str] = Counter()
    for turn in range(DISKS):
        name = NAMES[turn % 4]
        command, disk = world.commands[name], tmp_path / f"disk-{turn}"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(disk)]).returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            folder = copy(world.half(name), disk / "half")  # with its images: they ask for room before they begin
            used, room = shutil.disk_usage(disk).used, int(rng.integers(1, 60)) * 4096
            subprocess.run(["mount", "-o", f"remount,size={used + room}", str(disk)], check=True)
            ended, printed = judge(command, folder, world.unbroken(name))
            counted[f"{name} {ended}"] += 1
            print(f"{name}, {room // 1024} kB left: {ended}: {printed.splitlines()[-1]}", flush=True)
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            assert judge(command, folder, world.unbroken(name))[0] == "same"
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    print(counted)
