"""`gapstone train`: a frozen backbone stays as it is; otherwise the whole network is trained.

That the head is that of a comparison: tests/comparing/test_best_model.py.
"""

import io
import json
import re

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import gapstone as gs
from gapstone.comparing.compare_request import CompareRequest
from gapstone.evaluating import train_model as of_train
from gapstone.evaluating.evaluate import evaluate
from gapstone.evaluating.evaluate_request import EvaluateRequest
from gapstone.evaluating.train_model import train_model
from gapstone.training.training_data import TrainOptions
from tests.comparing.small_comparison import write_data
from tests.schemas import check


def trained(folder, head="gap", seed=0, **how):
    """The model, what its file says, and what was printed."""
    console = Console(file=io.StringIO(), width=200)
    options = {"batch_size": 16, "epochs": 3} | how.pop("options", {})
    weights = folder / "weights.safetensors"
    choices = TrainOptions(str(folder / "data.npz"), **options)
    more = {name: how.pop(name) for name in ("report", "command", "on_epoch") if name in how}
    request = CompareRequest(choices, (head,), 1, quick=True, **({"weights": weights} | how))
    train_model(request, seed, folder / "trained.safetensors", console, **more)
    return gs.load(folder / "trained.safetensors"), " ".join(console.file.getvalue().split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_data(folder)
    return folder


def test_finetune_trains_the_backbone_from_those_weights(folder):
    before = load_file(folder / "weights.safetensors")

    def moved(model):
        """How far the backbone's convolutions are from the weights, and how large those are."""
        weights = {name: tensor for name, tensor in model.features.state_dict().items() if tensor.dim() > 1}
        return [float((tensor - before[f"features.{name}"]).norm() / tensor.norm()) for name, tensor in weights.items()]

    still, said = trained(folder)
    assert max(moved(still)) == 0
    assert "not trained (--finetune trains it)" in said
    assert "gap on the frozen backbone, no augmentation: one pass over 60 images, float32" in said
    assert re.search(
        r"Test accuracy \d+\.\d % \(95 % CI [\d.]+ to [\d.]+\) on \d+ images never trained on; learning rate [\d.]+, "
        r"weight decay",
        said,
    )
    assert "Learning rate, weight decay and epoch were chosen on" in said
    further, said = trained(folder, finetune=True, options={"epochs": 1})
    assert 0 < max(moved(further)) < 0.2
    assert "trained further" in said
    assert "best of 1 epoch by validation accuracy: 1" in said
    scratch, said = trained(
        folder, seed=1, weights=None, options={"epochs": 1, "backbone": "nin", "from_scratch": True}
    )
    assert min(moved(scratch)) > 0.5
    assert "nin, all of it trained" in said


def test_options_that_do_not_fit_are_refused_before_any_work(folder):
    for how, words in (
        ({"freeze": True, "finetune": True}, "--freeze and --finetune"),
        ({"freeze": True, "weights": None, "options": {"backbone": "nin"}}, "--freeze: trained weights of nin"),
        ({"weights": folder / "none.safetensors"}, "none.safetensors"),
        ({"options": {"from_scratch": True}}, "--from-scratch and --weights"),
    ):
        with pytest.raises((ValueError, OSError), match=words):
            trained(folder, **how)


@pytest.mark.parametrize(("where", "words"), [("features_of", "during the pass"), ("train_on_cache", "after 0 of 3")])
def test_a_stop_says_what_was_stopped_and_leaves_nothing(tmp_path, monkeypatch, where, words):
    def stopped(*_):
        raise KeyboardInterrupt

    write_data(tmp_path)
    monkeypatch.setattr(of_train, where, stopped)
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt) as caught:
        trained(tmp_path)
    assert words in caught.value.__notes__[0]
    assert "no model was written. The same command starts again." in caught.value.__notes__[0]
    assert not (tmp_path / "trained.safetensors").exists()
    assert torch.get_num_threads() == threads


def test_what_evaluate_says_is_said_of_the_test_images(folder, tmp_path):
    """The same numbers as of the file that was written, which knows what it was trained on."""
    _, said = trained(folder, report=tmp_path / "report", command="gapstone train")
    written = json.loads((tmp_path / "report/evaluated.json").read_text())
    check("evaluated", written)
    assert written["command"] == "gapstone train"
    assert {"accuracy", "macro-F1", "AUROC", "moved images"} <= set(
        re.findall(r"accuracy|macro-F1|AUROC|moved images", said)
    )
    assert f"Report: {tmp_path}" in said
    request = EvaluateRequest((str(folder / "trained.safetensors"),), str(folder / "data.npz"), quick=True)
    again = evaluate(request, tmp_path / "again", Console(file=io.StringIO()))
    assert again["data"]["images"] == written["data"]["images"]
    assert again["data"]["left_out"]["trained_on"] == 60 - again["data"]["images"]
    for name, stat in written["models"][0]["metrics"].items():
        assert again["models"][0]["metrics"][name]["mean"] == pytest.approx(stat["mean"], abs=0.02), name
    assert again["models"][0]["trained_on"] == {"known": 60 - again["data"]["images"], "complete": False}


def test_a_foreign_folder_for_the_report_is_refused_first(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"--report .* holds 'mine.txt'"):
        trained(folder, report=tmp_path)
