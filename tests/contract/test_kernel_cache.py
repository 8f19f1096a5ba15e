"""Where compiled kernels are kept: privately, checked when read, under names that tell all that is in them."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from gapstone.loops import kernel_cache, kernel_code
from gapstone.loops.tuned.pixel_back_codegen import PixelsBack
from gapstone.loops.tuned.pixel_codegen import Pixels
from gapstone.loops.tuned.pixel_scatter import PixelScatter
from gapstone.loops.tuned.row_back_codegen import RowsBack
from gapstone.loops.tuned.row_codegen import Rows
from gapstone.loops.tuned.scatter import Scatter
from gapstone.loops.tuned.whole_back_codegen import WholeMapBack
from gapstone.loops.tuned.whole_codegen import WholeMap
from gapstone.storage.cache_folder import cache_folder

posix = pytest.mark.skipif(os.name != "posix", reason="other systems keep users apart in other ways")


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """The folder of kernels of a cache of its own."""
    monkeypatch.setenv("GAPSTONE_CACHE", str(tmp_path / "cache"))
    kernel_cache._say_damaged.cache_clear()
    return tmp_path / "cache" / "kernels"


def test_what_was_written_is_read(kernels):
    assert kernel_cache.read("mean") is None
    assert kernel_cache.write("mean", b"code")
    assert kernel_cache.read("mean") == b"code"
    assert [path.name for path in kernels.iterdir()] == ["mean.kernel"]


@pytest.mark.parametrize("how", ["emptied", "cut", "one bit", "longer", "another's", "another version's"])
def test_what_is_damaged_is_not_read_and_said_once(kernels, how):
    kernel_cache.write("mean", b"code of the mean")
    kernel_cache.write("max", b"code of the maximum")
    file, good = kernels / "mean.kernel", (kernels / "mean.kernel").read_bytes()
    bad = {
        "emptied": b"",
        "cut": good[:-1],
        "one bit": good[:-1] + bytes([good[-1] ^ 1]),
        "longer": good + b"\0",
        "another's": (kernels / "max.kernel").read_bytes(),
        "another version's": good.replace(b"gapstone kernel 1", b"gapstone kernel 0"),
    }
    file.write_bytes(bad[how])
    with pytest.warns(RuntimeWarning, match="damaged; it is compiled anew"):
        assert kernel_cache.read("mean") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel_cache.read("mean") is None
    assert kernel_cache.write("mean", b"code of the mean")
    assert kernel_cache.read("mean") == b"code of the mean"


@posix
def test_the_folder_is_the_users_alone(kernels):
    kernel_cache.write("mean", b"code")
    assert kernels.stat().st_mode & 0o777 == 0o700
    kernels.chmod(0o777)
    kernel_cache._folder.cache_clear()
    assert kernel_cache.folder() == kernels
    assert kernels.stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_of_another_user_is_not_used(kernels):
    kernels.mkdir(parents=True)
    os.chown(kernels, 12345, 12345)
    assert kernel_cache.folder() is None
    assert "belongs to another user" in kernel_cache.why_not()
    assert not kernel_cache.write("mean", b"code")
    assert kernel_cache.read("mean") is None


@pytest.mark.parametrize("there", ["a file", "a link", "a link elsewhere"])
def test_what_is_no_folder_is_not_used(kernels, tmp_path, there):
    kernels.parent.mkdir()
    if there == "a file":
        kernels.write_text("mine")
    else:
        (tmp_path / "other").mkdir()
        kernels.symlink_to(tmp_path / ("other" if there == "a link" else "nowhere"))
    assert kernel_cache.folder() is None
    assert not kernel_cache.write("mean", b"code")
    assert not (tmp_path / "other").exists() or not list((tmp_path / "other").iterdir())


def test_a_full_disk_keeps_nothing(kernels, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    kernel_cache.folder()
    monkeypatch.setattr(Path, "write_bytes", full)
    assert not kernel_cache.write("mean", b"code")
    assert list(kernels.iterdir()) == []


def test_the_working_folder_chooses_no_cache(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAPSTONE_CACHE", "here")
    monkeypatch.setenv("XDG_CACHE_HOME", "there")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if os.name == "posix":
        assert cache_folder() == tmp_path / "home" / ".cache" / "gapstone"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "gapstone"


# ---- names

SPECS = [
    Rows("max", "f32", 3, 3, 2, 2), RowsBack("max", "f32", 3, 3, 2, 2), Scatter(), PixelScatter(),
    Pixels("max", "f32", 3, 3, 2, 2, 1, 1, 1, 1), PixelsBack("max", "f32", 3, 3, 2, 2, 1, 1, 1),
    WholeMap("gem", "f32", False), WholeMapBack("gem", "f32", False),
]  # fmt: skip


def executed(function) -> set[Path]:
    """The files of gapstone's that a call runs code of."""
    found: set[str] = set()

    def look(frame, event, _):
        if event == "call":
            found.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(None)
    root = Path(kernel_code.__file__).parents[1]
    return {Path(name) for name in found if Path(name).is_relative_to(root)}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_kernels_name_changes_with_every_file_that_makes_it(spec):
    """And with constants that only an import brings in: `LEAST` of gem is baked into the whole maps' kernels."""
    files = set(kernel_code.sources(type(spec).__module__))
    assert executed(lambda: spec.bind("tag")) <= files
    if isinstance(spec, WholeMap | WholeMapBack):
        assert any(path.parts[-2:] == ("pools", "gem.py") for path in files)


def test_every_source_counts(monkeypatch, tmp_path):
    module = WholeMap.__module__
    before = kernel_code.fingerprint(module, "spec")
    assert before == kernel_code.fingerprint(module, "spec")
    assert before != kernel_code.fingerprint(module, "another")
    for path in kernel_code.sources(module):
        changed = tmp_path / path.name
        changed.write_bytes(path.read_bytes() + b"\n# changed\n")
        files = tuple(changed if other == path else other for other in kernel_code.sources(module))
        with monkeypatch.context() as patch:
            patch.setattr(kernel_code, "sources", lambda _, files=files: files)
            kernel_code._code.cache_clear()
            assert kernel_code.fingerprint(module, "spec") != before, path
    kernel_code._code.cache_clear()


def test_imports_are_found_however_they_are_written(monkeypatch, tmp_path):
    package = tmp_path / "gapstone" / "loops"
    package.mkdir(parents=True)
    (package / "top.py").write_text(
        "from gapstone.loops import (\n    one,  # a comment, and (another)\n    two as other,\n)\n"
        "import gapstone.loops.three\nfrom .four import name\ndef later():\n    from gapstone.loops.five import x\n"
        "import numpy\n"
    )
    for name in ("one", "two", "three", "four", "five", "six"):
        (package / f"{name}.py").write_text("")
    monkeypatch.setattr(kernel_code, "__file__", str(package / "kernel_code.py"))
    for cached in (kernel_code.sources, kernel_code._file):
        cached.cache_clear()
    found = [path.stem for path in kernel_code.sources("gapstone.loops.top")]
    for cached in (kernel_code.sources, kernel_code._file):
        cached.cache_clear()
    assert sorted(found) == ["five", "four", "one", "three", "top", "two"]


# ---- together

CODE = """
import sys, torch
from gapstone.loops import kernels
emit, emitted = kernels.emit, []
kernels.emit = lambda function, name: emitted.append(name) or emit(function, name)
from gapstone.loops.tuned import launch_rows
import gapstone as gs
x = torch.arange(600.).reshape(2, 3, 10, 10).sin()
print(gs.pool(x, "max", gs.Window(2)).double().sum().item(), len(emitted))
"""


def run(cache: Path, folder: Path, code: str = CODE) -> subprocess.CompletedProcess[str]:
    source = str(Path(kernel_code.__file__).parents[2])
    known = {**os.environ, "PYTHONPATH": source, "PYTHONSAFEPATH": "1", "GAPSTONE_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=known, capture_output=True, text=True)


@pytest.mark.slow  # four processes; quick: test_what_is_damaged_is_not_read_and_said_once
@pytest.mark.parametrize("how", ["cut", "empty", "zeros"])
def test_a_damaged_kernel_is_compiled_anew_and_said_once(tmp_path, how):
    first = run(tmp_path, tmp_path)
    answer, emitted = first.stdout.split()
    assert emitted == "1", first.stderr
    (file,) = (tmp_path / "kernels").iterdir()
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "zeros": whole[:-8] + bytes(8)}[how])
    again = run(tmp_path, tmp_path)
    assert again.stdout.split() == [answer, "1"], again.stderr
    assert again.stderr.count("is damaged; it is compiled anew") == 1
    assert file.read_bytes() == whole


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    answer, emitted = run(tmp_path, tmp_path).stdout.split()
    assert emitted == "1"
    assert run(tmp_path, tmp_path).stdout.split() == [answer, "0"]


ARRAYS = """
import sys
sys.path.insert(0, "code")
import numpy as np
from arrays import total
print(total(np.arange(5.0)))
"""
FUNCTION = """
from gapstone.loops.numba_cache import compiled, kept
@kept
@compiled
def total(x):
    found = 0.0
    for value in x:
        found += value
    return found
"""


@pytest.mark.slow
def test_functions_of_arrays_are_checked_too(tmp_path):
    """Those that Numba keeps itself: it would unpickle whatever it finds."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "arrays.py").write_text(FUNCTION)
    first = run(tmp_path, tmp_path, ARRAYS)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "kernels" / "numba"
    files = [path for path in folder.rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert len(files) >= 2
    assert folder.stat().st_mode & 0o777 == 0o700 or os.name != "posix"
    for path in files:
        path.write_bytes(path.read_bytes()[:-7])
    again = run(tmp_path, tmp_path, ARRAYS)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert again.stderr.count("is damaged; it is compiled anew") == 1
    stamps = {path: path.stat().st_mtime_ns for path in files}
    third = run(tmp_path, tmp_path, ARRAYS)
    assert (third.stdout, third.stderr) == (first.stdout, "")
    assert {path: path.stat().st_mtime_ns for path in files} == stamps


@pytest.mark.slow
def test_without_a_place_to_keep_kernels(tmp_path):
    """Compiled for this process alone."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    once = run(nowhere, tmp_path)
    assert once.stdout.split()[1] == "1", once.stderr
    assert once.stderr == ""
