"""`--config FILE.toml`: the same request as on the command line and from Python, and what is refused."""

import sys
import tomllib

import numpy as np
import pytest

import gapstone as gs
from gapstone import cli
from gapstone.comparing import run_comparison
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.request_as_toml import as_toml
from gapstone.library.comparison import Comparison
from gapstone.training.training_data import TrainOptions

EVERYTHING = """
data = "a \\\\ b.csv"
heads = ["gap", "fc:512,512:dropout=0.5"]
backbone = "resnet18"
folds = 4
baseline = "gap"
metric = "balanced_accuracy"
finetune = true
out = "runs/x"
size = [96, 128]
limit = 500
epochs = 3
batch_size = 32
optimizer = "adamw"
learning_rate = 1e-3
weight_decay = 0
augment = "none"
precision = "float32"
device = "cpu"
duplicates = "drop"
duplicate_threshold = 0.9
groups = "patient"
multi_label = true
split = [0.7, 0.15, 0.15]
patience = 4
margin = 2
workers = 1
keep = "all"
quick = true
tune = true
"""


@pytest.fixture
def asked(monkeypatch):
    """A function that runs the command and returns its request, or what it says."""
    found = []
    assert gs.compare  # imported before: it would keep what is patched here
    monkeypatch.setattr(run_comparison, "compare", lambda request, out, **_: found.append((request, out)))

    def ask(*arguments, capsys=None):
        found.clear()
        monkeypatch.setattr(sys, "argv", ["gapstone", "compare", *map(str, arguments)])
        code = cli.main()
        return found[0] if code == 0 else capsys.readouterr().err

    return ask


def test_a_file_is_the_command_line_and_the_call_from_python(asked, tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text(EVERYTHING)
    request, out = asked("--config", tmp_path / "a.toml")
    assert str(out) == "runs/x"
    options = "--heads gap,fc:512,512:dropout=0.5 --backbone resnet18 --folds 4 --baseline gap --finetune --limit 500"
    options += " --metric balanced_accuracy --size 96x128 --epochs 3 --batch-size 32 --optimizer adamw --learning-rate"
    options += (
        " 1e-3 --weight-decay 0 --augment none --precision float32 --device cpu --duplicates drop --group patient"
    )
    options += " --duplicate-threshold 0.9 --multi-label --split 0.7/0.15/0.15 --patience 4 --margin 2 --workers 1"
    assert asked("a \\ b.csv", *options.split(), "--keep", "all", "--quick", "--tune")[0] == request
    # the same keys from Python
    calls = []
    monkeypatch.setattr("gapstone.library.compare.run", lambda request, out, *_: calls.append(request))
    monkeypatch.setattr(Comparison, "open", classmethod(lambda cls, out: None))
    gs.compare(**tomllib.loads(EVERYTHING), progress=False)
    assert calls == [request]
    # what the report prints is the same again, for both
    printed = as_toml(request)
    (tmp_path / "b.toml").write_text(printed)
    assert asked("--config", tmp_path / "b.toml")[0] == request
    gs.compare(**tomllib.loads(printed), progress=False)
    assert calls[1:] == [request]


def test_the_command_line_replaces_the_file(asked, tmp_path):
    (tmp_path / "a.toml").write_text('data = "x"\nepochs = 3\nseeds = 2\ncurve = [5, "all"]\n')
    request, _ = asked("y", "--config", tmp_path / "a.toml", "--epochs", "7")
    assert (request.choices.data, request.choices.epochs, request.seeds, request.curve) == ("y", 7, 2, "5,all")


def test_what_only_python_gives_is_a_comment():
    def mine(labels, probabilities): ...

    options = TrainOptions(object(), "module:Net-1a2b3c4d", group_pattern=r"(\d+) é", size="8")
    text = as_toml(CompareRequest(options, ("gap",), metric=mine))
    assert [line for line in text.splitlines() if line[0] == "#"] == [
        "# data: given in Python", "# backbone: given in Python", "# metric: given in Python",
    ]  # fmt: skip
    found = tomllib.loads(text)
    assert (found["group_pattern"], found["size"], found["seeds"]) == (r"(\d+) é", "8", 5)
    assert "freeze" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sedes = 3", "compare has no option sedes. Did you mean seeds?"),
        ("xyzzy = 3", "compare has no option xyzzy. Keys are the names of its options"),
        ("[run]\nseeds = 3", "has no option run."),
        ('config = "b.toml"', "has no option config."),
        ('seeds = "five"', "seeds = five: "),
        ("seeds = 2.5", "seeds = 2.5: "),
        ("seeds = true", "seeds = True: true and false are for options without a value"),
        ('quick = "yes"', "quick = yes: expected true or false"),
        ("quick = 1", "quick = 1: expected true or false"),
        ('optimizer = "adam"', "optimizer = adam: "),
        ("seeds = [1]", "seeds = [1]: expected a text or a number"),
        ("heads = [true]", "heads = [True]: expected a list of texts or numbers"),
        ('out = ""', "out = : an empty name"),
        ('group = "a"\ngroups = "b"', "has group and groups, which are the same"),
        ("seeds =", "is no TOML: "),
        ('data = "\\u001b[31m"\nx\u200b = 1', "is no TOML: "),
    ],
)
def test_what_is_refused(asked, tmp_path, capsys, text, said):
    (tmp_path / "a.toml").write_text(text, "utf-8")
    assert said in asked("--config", tmp_path / "a.toml", capsys=capsys)


def test_a_file_that_is_not_there(asked, tmp_path, capsys):
    assert "nope.toml: there is no such file" in asked("--config", tmp_path / "nope.toml", capsys=capsys)
    (tmp_path / "latin.toml").write_bytes(b'data = "\xe9"')
    assert "latin.toml is no TOML" in asked("--config", tmp_path / "latin.toml", capsys=capsys)


def test_data_that_is_an_object_is_a_comment():
    arrays = np.zeros((2, 8, 8), np.uint8), np.array([0, 1])
    for data in (arrays, {"train": arrays, "test": arrays}, [arrays]):
        assert as_toml(CompareRequest(TrainOptions(data), ("gap",))).startswith("# data: given in Python\n")
