"""Nothing of the working folder is run or obeyed, whatever lies there."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gapstone.runtime import working_folder

# what the processes import, and what they or their libraries ask for without it being there
OTHERS = (
    *(
        "numpy",
        "torch",
        "torchvision",
        "numba",
        "llvmlite",
        "PIL",
        "matplotlib",
        "scipy",
        "sklearn",
        "joblib",
        "triton",
    ),
    *("safetensors", "typer", "rich", "click", "jinja2", "markupsafe", "yaml", "timm", "starlette", "uvicorn", "onnx"),
    *("sitecustomize", "usercustomize", "readline", "cupy", "torch_xla", "torch_npu", "defusedxml", "olefile"),
    *("triton", "multipart", "onnxruntime", "gapstone", "tests"),
)
NAMES = sorted({*sys.stdlib_module_names, *OTHERS})
COMMAND = """
import sys
from gapstone.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture
def hostile(tmp_path):
    """A working folder with a file of every module's name; each writes its own into the file `ran` when it is run."""
    folder, ran = tmp_path / "photos", tmp_path / "ran"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write({name!r} + '\\n')\n")
    if compiler := shutil.which("cc"):  # NVIDIA's libraries look for it
        code = (
            f'#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ FILE *f = fopen("{ran}", "a");'
        )
        source = tmp_path / "library.c"
        source.write_text(code + ' if (f) { fputs("libcuda\\n", f); fclose(f); } }')
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


def run(script, folder, *arguments, flags=(), **environment):
    """`script` lies beside the folder, as a console script lies elsewhere; what it said, and which modules were run."""
    file = folder.parent / "script.py"
    file.write_text(script)
    ran = folder.parent / "ran"
    done = subprocess.run(
        [sys.executable, *flags, file, *map(str, arguments)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | environment,
        capture_output=True,
        text=True,
    )
    return done, ran.read_text().split() if ran.exists() else []


ASKS_FOR_A_POOL = """
import sys
sys.path.insert(0, "")  # as a notebook has it
import gapstone as gs
for ask in (lambda: gs.Head("theirs", 3, 2), lambda: gs.Pool("theirs")):
    try:
        ask()
    except ValueError as error:
        print("theirs" in str(error))
print(sys.path[0] == "")
"""


def test_a_pool_is_not_taken_from_it(tmp_path):
    """An entry point is found by a file of a package's description, which a folder of photos may hold."""
    folder, ran = tmp_path / "photos", tmp_path / "ran"
    about = folder / "theirs-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'a').write('theirs\\n')\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gapstone.pools]\ntheirs = theirs:theirs\n")
    done, modules = run(ASKS_FOR_A_POOL, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True"] * 3
    assert modules == []
    # else that proves nothing: without the guard it is found, and run
    look = "import sys; sys.path.insert(0, ''); from importlib.metadata import entry_points as e; "
    subprocess.run(
        [sys.executable, "-c", look + "[p.load for p in e(group='gapstone.pools')][0]"], cwd=folder, check=True
    )


def test_python_itself_runs_them(hostile):
    """Else the tests below prove nothing."""
    subprocess.run([sys.executable, "-c", "import heapq"], cwd=hostile, capture_output=True, check=False)
    assert "heapq" in (hostile.parent / "ran").read_text().split()


# Every module is looked for by each kind of process; none may be found in the folder.
IN_PROCESSES = """
import importlib.util, os, sys
from gapstone.workers.job_processes import run_one
from gapstone.workers.worker_pool import run_workers

def found():
    specs = [importlib.util.find_spec(name) for name in os.environ["NAMES"].split()]
    places = [str(spec.origin) for spec in specs if spec is not None]
    assert len(places) > 100
    return [place for place in places if place.startswith(os.environ["FOLDER"])]

def work(job, send):
    send(found())

def task(constant, task):
    return found()

if __name__ == "__main__":
    PATH
    before = list(sys.path)
    assert run_one(work, None) == [], "a trial's process"
    assert os.environ.get("PYTHONSAFEPATH") == os.environ.get("BEFORE"), "what the user starts starts as before"
    assert sys.path == before
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    assert list(run_workers("script:task", [1], None)) == [(0, [])], "a decoder's process"
    print("done")
"""


@pytest.mark.parametrize(
    ("path", "flags", "environment"),
    [
        ("", (), {}),
        pytest.param("", ("-E",), {}, marks=pytest.mark.slow),  # PYTHONSAFEPATH is not read
        pytest.param("", (), {"PYTHONSAFEPATH": "1", "BEFORE": "1"}, marks=pytest.mark.slow),
        # as `python -m` and notebooks have it: this process has imported what it needs before
        pytest.param("import torch; sys.path.insert(0, '')", (), {}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_process(hostile, path, flags, environment):
    script = IN_PROCESSES.replace("PATH", path or "pass", 1)
    done, ran = run(script, hostile, flags=flags, NAMES=" ".join(NAMES), FOLDER=str(hostile), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    # its own `import torch` is the script's: NVIDIA's library looks there, in whatever program
    assert [name for name in ran if not (path and name == "libcuda")] == []


@pytest.mark.parametrize("own_cache", [False, pytest.param(True, marks=pytest.mark.slow)])  # kernels are compiled, too
def test_compare_and_check(hostile, tmp_path, own_cache):
    for label in ("cat", "dog"):
        for number in range(12):
            path = hostile / "data" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([number, len(label), label == "cat"]).integers(0, 256, (20, 20), np.uint8)
            Image.fromarray(noise).save(path)
    cache = {"GAPSTONE_CACHE": str(tmp_path / "cache")} if own_cache else {}
    if own_cache:  # `compare` checks, too
        done, ran = run(COMMAND, hostile, "check", "data", **cache)
        assert (done.returncode, ran) == (0, []), done.stderr
    options = ("--heads", "gap,fc", "--seeds", 1, "--epochs", 1, "--precision", "float32", "--out", tmp_path / "out")
    done, ran = run(COMMAND, hostile, "compare", "data", *options, **cache)
    assert (done.returncode, ran) == (0, []), done.stdout + done.stderr
    assert len(list((tmp_path / "out" / "trials").iterdir())) == 2


def test_the_command_line_leaves_the_folder(hostile, monkeypatch):
    """`python -m gapstone` has it first on its path, `PYTHONPATH=:…` somewhere; the command line drops both."""
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "path", ["", str(hostile), "elsewhere", *sys.path])
    monkeypatch.setenv("PYTHONPATH", f":{hostile.parent}:.")
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # so that it is put back
    monkeypatch.delenv("PYTHONSAFEPATH")
    working_folder.leave_working_folder()
    assert "" not in sys.path
    assert str(hostile) not in sys.path
    assert "elsewhere" in sys.path
    assert os.environ["PYTHONPATH"] == str(hostile.parent)
    assert os.environ["PYTHONSAFEPATH"] == "1"


def test_a_users_own_script_keeps_its_folder_behind_all_others(hostile, monkeypatch):
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # so that it is put back
    monkeypatch.delenv("PYTHONSAFEPATH")
    before = [str(hostile), *sys.path]
    monkeypatch.setattr(sys, "path", before.copy())
    with working_folder.without_working_folder():
        assert sys.path == [*before[1:], str(hostile)]
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert sys.path == before
    assert "PYTHONSAFEPATH" not in os.environ


def test_the_folder_that_gapstone_lies_in_stays(monkeypatch):
    """`cd src; python -m gapstone`."""
    monkeypatch.chdir(working_folder.HOME)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert working_folder.search_path()[0] == ""


def test_a_working_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "elsewhere"])
    assert working_folder.search_path() == ["", "elsewhere"]  # nothing can be found in it


BROKEN = {
    "matplotlibrc": b"text.usetex: True\nfigure.dpi: 7\n\xff\xfe\n",
    ".numba_config.yaml": b"opt: 0\ncache_dir: kernels\nno_such: [\n",
}


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A working folder with configuration files that would end a program that reads them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    return folder


def test_libraries_are_not_configured_by_it(configured):
    """The compiler, its kernels, charts and letters; Numba looks again before every compilation."""
    code = """
import os
import gapstone as gs, torch
from gapstone.drawing.matplotlib_setup import matplotlib
from gapstone.comparing.report.charts import ChartStyle
from gapstone.drawing.lettering import drawable

if __name__ == "__main__":
    assert gs.pool(torch.rand(1, 1, 4, 4, dtype=torch.float64), "lp", over=gs.Window(3, 1, 0)).shape == (1, 1, 2, 2)
    import numba  # after gapstone, as `gs.pool` does
    assert numba.config.CPU_NAME == "generic"
    open(".numba_config.yaml", "w").write("boundscheck: 1")  # one that can be read
    assert numba.njit(lambda x: x + 1)(1) == 2
    assert numba.config.BOUNDSCHECK is None
    assert not matplotlib.rcParams["text.usetex"]
    assert "<svg" in str(ChartStyle(0).key()) and drawable("é") == "é"
    assert os.path.exists("matplotlibrc")
    print("done")
"""
    done, _ = run(code, configured, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(configured.parent / "kernels"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert sorted(p.name for p in configured.iterdir()) == sorted(BROKEN)


def test_charts_do_not_depend_on_what_the_user_set():
    import matplotlib as mpl

    from gapstone.drawing.matplotlib_setup import style

    with mpl.rc_context({"font.size": 40, "text.usetex": True, "axes.facecolor": "red"}):
        with style(**{"axes.linewidth": 7}):
            assert mpl.rcParams["font.size"] == 10
            assert not mpl.rcParams["text.usetex"]
            assert mpl.rcParams["axes.linewidth"] == 7
        assert mpl.rcParams["font.size"] == 40


def test_every_file_imports_what_goes_before_them():
    """`drawing.matplotlib_setup` before Matplotlib; anything of `loops`, which is where it is used, before Numba."""
    checked = 0
    for path in (working_folder.HOME / "gapstone").rglob("*.py"):
        lines = path.read_text("utf-8").splitlines()
        for library, before in (("matplotlib", "gapstone.drawing.matplotlib_setup"), ("numba", "gapstone.loops")):
            here = [n for n, line in enumerate(lines) if re.match(rf"(import|from) {library}\b", line)]
            if not here or (library == "numba" and path.parts[len(working_folder.HOME.parts) + 1] == "loops"):
                continue
            checked += 1
            first = next((n for n, line in enumerate(lines) if re.match(rf"(import|from) {before}\b", line)), None)
            assert first is not None, f"{path} imports {library} without {before}"
            assert first < here[0], f"{path} imports {library} before {before}"
    assert checked >= 2  # matplotlib_setup.py itself, and who draws letters
