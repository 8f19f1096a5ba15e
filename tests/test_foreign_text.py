"""Text that others wrote (class names, paths, columns, tensors, metadata) reaches a terminal as text, everywhere."""

import csv
import json
import os
import re
import socket
import warnings

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

import gapstone as gs
from gapstone import cli
from gapstone.console.formatting import display, lines, show_warnings
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.images.preprocessing import Preprocessing

NASTY = ("\x1b[31;5;7mred", "\x1b]0;title\x07", "two\nFORGED: line", "cr\rFORGED", "rtl\u202egnp.exe",
         "[red]x[/]", "zero\u200bwidth\ufeff", "c1\x9b31mx", "del\x7f\x08\x08", "\u2028FORGED", "[/]", ":smile:",
         "\u2066isolate")  # fmt: skip
ORDINARY = ("é", "한글", "日本語", "🌹", "👩\u200d🔬", "❤\ufe0f", "a b", "x[0]", "\\", "Ελλάδα", "עברית", "عربى")
NAMES = [*NASTY, "é 한글 🌹"]


@pytest.mark.parametrize("text", [*NASTY, "\0", "\ud800", "caf\udce9", "\u3164", "a\u200db", "\u115f", "\U000e0041"])
def test_display_shows_it(text):
    shown = display(text)
    assert shown.isprintable() or set(shown) & {"\u200d"}
    assert not set(shown) & set("\u3164\u115f\u200d")
    shown.encode("utf-8")
    assert "\n" not in shown
    assert display(shown) == shown, "what is shown once is shown the same again"


@pytest.mark.parametrize("text", ORDINARY)
def test_display_keeps_it(text):
    assert display(text) == text


def test_display_is_bounded_where_asked():
    assert display("x" * 1000, 80) == "x" * 79 + "…"
    assert lines("ours\n\x07theirs") == "ours\n\\x07theirs"


def nothing_raw(text: str, forced: bool) -> None:
    if forced:  # colours and cursor movements are rich's own; the names hold others
        assert "\x1b[31;5;7m" not in text
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b\[[0-9;]*m|\r", "", text)
    raw = {c for c in text if c != "\n" and display(c) != c} - set("\u200d")
    assert not raw, [text[max(0, text.index(c) - 60) : text.index(c) + 40] for c in raw]
    assert not re.search(r"^\s*FORGED", text, re.M), "a name has begun a line"


@pytest.mark.parametrize("forced", [False, True])
def test_the_console_escapes_what_was_missed(forced, monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="utf-8", errors="strict") as file:
        console = Terminal(file=file, force_terminal=forced, width=200)
        table = Table("x", title=NASTY[0])
        for name in NASTY:
            if "\n" in name or "\r" in name:
                continue  # a line break of our own is one: names go through `display` first
            console.print(name)
            console.print(Text(name, "bold"))
            table.add_row(name, Text(name, "red"))
        console.print(table)
        with Bars(console, idle=NASTY[0]) as bars:
            tell = bars("".join(NASTY))
            tell(1, 2, "".join(NASTY))
            with bars.during("".join(NASTY)):
                bars.log(NASTY[0])
    text = (tmp_path / "out").read_text("utf-8")
    nothing_raw(text, forced)
    assert "[red]x[/]" in text
    assert ":smile:" in text


def test_warnings_are_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    show_warnings()
    said = warnings.formatwarning("".join(NASTY), UserWarning, NASTY[0], 1)
    nothing_raw(said, False)
    assert said.count("\n") == 1


def test_every_console_is_ours():
    """No other room makes one, prints text as markup, or asks rich to print."""
    from pathlib import Path

    for path in Path(gs.__file__).parent.rglob("*.py"):
        source = path.read_text("utf-8")
        if path.name != "terminal.py" or path.parent.name != "console":
            assert not re.search(r"\bConsole\(|rich\.print|from rich import print|from_markup", source), path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder whose classes and files have such names."""
    root = tmp_path_factory.mktemp("data") / "photos\x1b[31;5;7m[red]\nFORGED"
    draw = np.random.default_rng(0)
    for name in NAMES:
        folder = root / name.replace("/", "∕")
        folder.mkdir(parents=True)
        for k in range(6):
            pixels = draw.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(folder / f"{k}{name.replace('/', '∕')}.png")
        (folder / f"broken{name.replace('/', '∕')}.png").write_bytes(b"\x1b[31;5;7m no image \n FORGED")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model"), [*NAMES, "nul\0", "sur\ud800"])


def saved(folder, labels):
    path = folder / "m\x1b[31;5;7m[red]\nFORGED.safetensors"
    gs.Classifier("nin", "gap", labels, Preprocessing(1, (16, 16), (16, 16), (0.5,), (0.25,))).save(path)
    return path


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "colour"])
def run(request, capfd, monkeypatch, tmp_path):
    """Runs a command; its exit code and all that it and its processes said, which is checked."""
    monkeypatch.setenv("COLUMNS", "3000")  # nothing is folded
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.interrupts, "listen", lambda command: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["gapstone", *map(str, arguments)])
        code = cli.main()
        said = "".join(capfd.readouterr())
        nothing_raw(said, request.param)
        return code, said

    return call


def test_check(run, data, tmp_path):
    code, said = run("check", data, "--out", "out")
    assert code == 0
    assert "[red]x[∕]" in said
    assert "한글" in said
    nothing_raw((tmp_path / "out/scan.txt").read_text("utf-8"), False)
    found = json.loads((tmp_path / "out/scan.json").read_text("utf-8"))
    assert len(found["unreadable"]) == len(NAMES)
    with (tmp_path / "out/scan.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 7 * len(NAMES)


def test_compare_and_report(run, data, tmp_path):
    out = f"out\x1b[31;5;7m\nFORGED{NASTY[5].replace('/', '')}"
    code, said = run(
        "compare", data, "--heads", "gap,fc", "--seeds", "1", "--epochs", "1", "--workers", "1", "--out", out
    )
    assert code == 0, said
    page = (tmp_path / out / "report.html").read_text("utf-8")
    nothing_raw(page.replace("\t", ""), False)
    json.loads((tmp_path / out / "results.json").read_text("utf-8"))
    for table in ("results.csv", "predictions.csv"):
        with (tmp_path / out / table).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        nothing_raw("\n".join(cell for row in rows for cell in row), False)
    assert run("report", out)[0] == 0


def test_train(run, data):
    code, said = run("train", data, "--epochs", "1", "--out", "m\x1b[31;5;7m\nFORGED[red].safetensors")
    assert code == 0, said


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_predict(run, data, model, as_json):
    code, said = run("predict", model, data, "nothing\x1b[31;5;7m\nFORGED*", "--top", "15", *as_json)
    assert code == 1  # some are broken
    assert as_json or "한글" in said


@pytest.mark.parametrize("options", [("--html",), ("--json", "--classes", "한글")])
def test_explain(run, data, options, tmp_path):
    out, model = "out\x1b[31;5;7m\nFORGED", saved(tmp_path, [*NAMES, "sur\ud800"])
    code, said = run("explain", model, data / NAMES[0], data / NAMES[-1], "--out", out, "--top", "3", *options)
    assert code == 1, said
    if "--html" in options:
        nothing_raw((tmp_path / out / "index.html").read_text("utf-8").replace("\t", ""), False)
        json.loads((tmp_path / out / "explained.json").read_text("ascii"))


def test_explain_tells_of_a_class_that_no_file_of_maps_can_hold(run, data, model, tmp_path):
    """Whichever classes the model answers: before it looks at a picture."""
    for options in ((), ("--html", "--top", "1"), ("--all",)):
        code, said = run("explain", model, data, "--out", "out", *options)
        assert code == 1
        assert "ends in NUL" in said
        assert not (tmp_path / "out").exists()


def test_inspect(run, model):
    assert run("inspect", model)[0] == 0
    code, _ = run("inspect", model, "--json", "--picture", "p\x1b[31;5;7m\nFORGED.png")
    assert code == 0
    assert run("inspect", model, "--picture", "p\x1b[31;5;7m\nFORGED.svg")[0] == 0
    assert run("inspect", "resnet\x1b[31;5;7m\nFORGED")[0] == 1


def test_convert(run, data, model):
    code, said = run("convert", model, "--head", "gmp", "--data", data, "--out", "c\x1b[31;5;7m\nFORGED.safetensors")
    assert code == 0, said


def test_export(run, model):
    code, said = run("export", model, "--pt2", "e\x1b[31;5;7m\nFORGED.pt2")
    assert code == 0, said
    assert run("export", model, "--pt2", "nowhere\x1b[31;5;7m\nFORGED/x.pt2")[0] == 1


def test_serve(run, model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("serve", model, "--port", taken.getsockname()[1])[0] == 1
    assert run("serve", model, "--host", "no\x1b[31;5;7m\nFORGED")[0] == 1
    assert run("serve", "none\x1b[31;5;7m\nFORGED", "--port", "0")[0] == 1


def test_doctor_and_bench(run):
    assert run("doctor")[0] == 0
    assert run("bench", "--only", "none\x1b[31;5;7m\nFORGED")[0] == 1
    assert run("bench", "--only", "(\x1b[31;5;7m\nFORGED")[0] == 1


WORD = "x\x1b[31;5;7m\nFORGED\u202e[red]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", WORD),
        ("compare", "digits", "--heads", WORD),
        ("compare", "digits", "--baseline", WORD),
        ("compare", "digits", "--backbone", WORD),
        ("compare", "digits", "--size", WORD),
        ("compare", "digits", "--device", WORD),
        ("compare", "digits", "--boxes", WORD),
        ("compare", "digits", "--weights", WORD),
        ("compare", "digits", f"--{WORD}"),
        ("compare", "digits", "--seeds", WORD),
        ("compare", "digits", "--optimizer", WORD),
        (WORD,),
        ("report", WORD),
        ("check", WORD),
        ("train", "digits", "--head", WORD),
        ("train", "digits", "--out", f"{WORD}/x"),
        ("predict", WORD, WORD),
        ("predict", "resnet18", WORD, "--weights", WORD),
        ("explain", WORD, WORD),
        ("convert", WORD, "--data", WORD),
        ("convert", WORD, "--head", WORD),
        ("export", WORD, "--onnx", f"{WORD}"),
        ("inspect", f"timm:{WORD}"),
        ("inspect", f"torchvision:{WORD}"),
        ("inspect", "resnet18", "--picture", WORD),
        ("inspect", "resnet18", "--size", WORD),
        ("serve", WORD, WORD, WORD),
    ],
    ids=lambda given: " ".join(given).replace(WORD, "WORD"),
)
@pytest.mark.parametrize("run", [False], indirect=True)
def test_what_is_typed(run, arguments, tmp_path):
    before = set(os.listdir(tmp_path))
    code, said = run(*arguments)
    assert code in (1, 2)
    assert "Traceback" not in said
    assert set(os.listdir(tmp_path)) == before


def tables(root):
    """Files of DATA and of models that hold such text where a name should be."""
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    np.savez(root / "arrays.npz", **{"images": images, "x\x1b[31;5;7m\nFORGED": labels})
    np.savez(root / "classes.npz", images=images, labels=labels, classes=np.array([WORD, WORD]))
    np.savez(root / "split.npz", images=images, labels=labels, split=np.array([WORD] * 4))
    np.savez(root / "label.npz", images=images, labels=np.array([WORD, "b"] * 2), classes=np.array(["a", "b"]))
    np.savez(root / "one.npz", images=images, labels=np.array([WORD] * 4))
    (root / "columns.csv").write_text(f'"{WORD}",label\na,b\n')
    (root / "paths.csv").write_text(f'path,label\n"{WORD}",a\nx,b\n')
    (root / "splits.csv").write_text(f'path,label,split\nx,a,"{WORD}"\n')
    (root / "quotes.csv").write_bytes(b'path,label\n"x\x1b[31;5;7m"x,\0\n')
    (root / "latin.csv").write_bytes(b"path,label\n\xe9\x1b[31;5;7m,b\n")
    idx = root / "idx"
    idx.mkdir()
    for name in ("x\x1b[31;5;7m\nFORGED-train", "train"):
        (idx / f"{name}-images-idx3-ubyte").write_bytes(b"\x1b[31;5;7m\nFORGED")
        (idx / f"{name}-labels-idx1-ubyte").write_bytes(b"\x1b[31;5;7m\nFORGED")
    return [*sorted(root.glob("*.npz")), *sorted(root.glob("*.csv")), idx]


@pytest.mark.parametrize("run", [False], indirect=True)
def test_tables(run, tmp_path):
    root = tmp_path / "tables"
    root.mkdir()
    for path in tables(root):
        code, said = run("check", path)
        assert code == 1, (path, said)
        assert "Traceback" not in said


def model_files(root):
    zero = np.zeros(3, np.float32)
    about = {"schema": 1, "gapstone": WORD, "backbone": "nin", "head": "gap", "labels": ["a", "b"], "preprocessing": {}}
    cases = {
        "tensors": ({WORD: zero}, {}),
        "metadata": ({WORD: zero}, {WORD: WORD}),
        "description": ({"a": zero}, {"gapstone": WORD}),
        "schema": ({"a": zero}, {"gapstone": json.dumps(about | {"schema": WORD})}),
        "newer": ({"a": zero}, {"gapstone": json.dumps(about | {"schema": 9})}),
        "backbone": ({"a": zero}, {"gapstone": json.dumps(about | {"backbone": WORD})}),
        "head": ({"a": zero}, {"gapstone": json.dumps(about | {"head": WORD})}),
        "labels": ({"a": zero}, {"gapstone": json.dumps(about | {"labels": [WORD, WORD]})}),
        "label": ({"a": zero}, {"gapstone": json.dumps(about | {"labels": WORD})}),
        "fields": ({"a": zero}, {"gapstone": json.dumps(about | {"preprocessing": {WORD: 1}})}),
    }
    for name, (tensors, metadata) in cases.items():
        path = root / f"{name}.safetensors"
        safetensors.numpy.save_file(tensors, path, metadata)
        yield path


@pytest.mark.parametrize("run", [False], indirect=True)
def test_model_files(run, model, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    whole = safetensors.numpy.load_file(model)
    (root / "no").mkdir()
    about = {"gapstone": json.dumps({})}
    safetensors.numpy.save_file(whole | {WORD: np.zeros(1, np.float32)}, root / "no/more.safetensors", about)
    for path in [*model_files(root), root / "no/more.safetensors"]:
        commands = [("inspect", path), ("predict", path, "x.png")]
        if path.stem in ("tensors", "metadata"):
            commands.append(("predict", "vgg16", "x.png", "--weights", path))
        for arguments in commands:
            code, said = run(*arguments)
            assert code == 1, (arguments, said)
            assert "Traceback" not in said


def test_a_users_own_console_reads_no_markup(model, data, capsys):
    """Names in a table are no markup even where the console is another's."""
    from gapstone.explaining.predict_files import predict_files

    with (data.parent / "said").open("w", encoding="utf-8") as file:
        predict_files(str(model), [str(data / NAMES[5].replace("/", "∕"))], False, 20, "cpu", Console(file=file))
    assert "[red]x[/]" in (data.parent / "said").read_text("utf-8")
