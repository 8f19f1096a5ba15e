"""Damaged folders, kills at random moments, full disks: the same numbers, or one clear line; never other numbers."""

import os
import subprocess
from collections import Counter
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from .commands import Command, commands, copy, judge, kill
from .damage import damage

NAMES = ("compare", "freeze", "explain", "convert")
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
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GAPSTONE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield World(tmp_path_factory.mktemp("world"))


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "state"), [("compare", "finished"), ("explain", "finished")])
def test_some_damages(world, tmp_path, name, state, seed):
    one_damage(world, name, state, 1000 + seed, tmp_path)


@pytest.mark.slow
def test_many_damages(world, tmp_path):
    counted: Counter[tuple[str, str, str]] = Counter()
    wrong = []
    for seed in range(CASES):
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
    rng = np.random.default_rng(0)
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
    rng = np.random.default_rng(0)
    counted: Counter[str] = Counter()
    for turn in range(DISKS):
        name = NAMES[turn % 4]
        command, folder = world.commands[name], tmp_path / f"disk-{turn}"
        folder.mkdir()
        size = int(rng.integers(4, 400))
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]).returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            ended, printed = judge(command, folder, world.unbroken(name))
            counted[f"{name} {ended}"] += 1
            print(f"{name}, {size} kB: {ended}: {printed.splitlines()[-1]}", flush=True)
            subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
            assert judge(command, folder, world.unbroken(name))[0] == "same"
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    print(counted)
