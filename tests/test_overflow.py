"""Numbers that are not finite are an error of the model, said as one: no NaN in a table or in JSON, no exit code 0."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import gapstone as gs
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.run_comparison import compare
from gapstone.converting.model_measures import correct_answers
from gapstone.explaining import predict_files
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.models.model_file import ModelFileError, NotFiniteError
from gapstone.training.loop import TrainingError, predict
from gapstone.training.training_data import TrainOptions

PREPROCESSING = Preprocessing(3, (16, 16), (16, 16), (0.5,) * 3, (0.25,) * 3)


def overflowing(head="gap"):
    """Finite weights whose product is not."""
    torch.manual_seed(0)
    model = gs.Classifier("nin", head, ("cat", "dog"), PREPROCESSING).eval()
    with torch.no_grad():
        next(p for p in model.features.parameters() if p.dim() == 4).mul_(1e30)
        model.head.classifier[-1].weight.mul_(1e30)
    return model


class BrightOverflows(nn.Module):
    """Logits that are infinite for bright pictures alone: no trial at loading finds it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1e30))

    def forward(self, x):
        brightness = x.mean((1, 2, 3)).clamp(min=0)
        return torch.stack([brightness * self.scale * 1e20, brightness], 1)


@pytest.mark.parametrize("head", ["gap", "fc"])
def test_finite_weights_that_overflow_are_refused_at_loading(head, tmp_path):
    path = overflowing(head).save(tmp_path / "m.safetensors")
    for opening in (gs.load, lambda path: open_model(str(path))):
        before = torch.get_rng_state()
        with pytest.raises(ModelFileError, match=r"m\.safetensors: its weights are finite, but the logits they give"):
            opening(path)
        assert torch.equal(torch.get_rng_state(), before)


def test_what_was_in_order_still_loads(tmp_path):
    torch.manual_seed(0)
    for head, size in (("gap", 16), ("fc", 40)):
        preprocessing = replace(PREPROCESSING, size=(size, size), stored=(size, size))
        model = gs.Classifier("nin", head, ("cat", "dog"), preprocessing).eval()
        loaded = gs.load(model.save(tmp_path / "m.safetensors"))
        assert not loaded.training
        x = torch.rand(2, 3, size, size)
        torch.testing.assert_close(loaded(x), model(x))


def test_a_picture_it_overflows_on_is_an_error_of_the_model_and_the_others_are_predicted(tmp_path, monkeypatch, capsys):
    for name, grey in (("dark", 0), ("bright", 250)):
        Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(tmp_path / f"{name}.png")
    opened = ImageModel("m", BrightOverflows().eval(), ("cat", "dog"), PREPROCESSING)
    monkeypatch.setattr(predict_files, "open_model", lambda *_: opened)
    pictures = [str(tmp_path / f"{name}.png") for name in ("dark", "bright")]
    assert not predict_files.predict_files("m", pictures, True, 3, "cpu")
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN, no Infinity
    dark, bright = document["images"]
    assert dark["probability"] == pytest.approx(0.5)
    assert "NaN or infinite" in bright["error"]
    assert "error of the model" in bright["error"]
    console = Console(file=io.StringIO(), width=300)
    assert not predict_files.predict_files("m", pictures, False, 3, "cpu", console)
    said = console.file.getvalue()
    assert "nan" not in said.lower().replace("nan or infinite", "")
    with pytest.raises(NotFiniteError, match="1 of 1 image"):
        opened.probabilities(np.full((16, 16, 3), 250, np.uint8))


def test_whatever_measures_an_accuracy_refuses_such_logits():
    class Pictures:
        images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
        labels = np.zeros(4, np.int64)

    rows = np.arange(4)
    with pytest.raises(TrainingError, match="NaN or infinite for 4 of 4 images"):
        predict(overflowing(), Pictures(), rows)
    with pytest.raises(NotFiniteError, match="the model before gives logits that are NaN or infinite"):
        correct_answers(
            overflowing(),
            lambda rows: [torch.rand(len(rows), 3, 16, 16)],
            rows,
            Pictures.labels,
            4,
            whose="the model before",
        )
    with pytest.raises(NotFiniteError, match="2 of 2 images"):
        overflowing().predict(Pictures.images[:2])


def test_weights_that_overflow_are_refused_before_any_trial(tmp_path):
    state = overflowing().features.state_dict()
    state["block1.0.weight"] = state["block1.0.weight"] * 1e8
    save_file({name: t * (1e18 if t.dim() == 4 else 1) for name, t in state.items()}, tmp_path / "w.safetensors")
    request = CompareRequest(TrainOptions("digits", "nin", limit=40), ("gap",), 1, weights=tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"--weights .*w\.safetensors: .*(overflow|not finite)"):
        compare(request, tmp_path / "out", Console(file=io.StringIO()))
    assert not (tmp_path / "out" / "trials").exists()


def test_explain_lists_such_a_picture_and_goes_on(tmp_path, monkeypatch):
    from gapstone.explaining import explain_files
    from gapstone.explaining.explain_request import ExplainRequest

    for name, grey in (("dark", 1), ("bright", 250)):
        Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(tmp_path / f"{name}.png")
    torch.manual_seed(0)
    model = gs.Classifier("nin", "gap", ("cat", "dog"), PREPROCESSING).eval()
    with torch.no_grad():
        for p in model.features.parameters():
            p.abs_()  # maps well above 1
        model.head.classifier[-1].weight.fill_(1e38)  # the mean of all classes is finite, too
        model.head.classifier[-1].bias.zero_()
    opened = ImageModel("m", model, ("cat", "dog"), PREPROCESSING)
    monkeypatch.setattr(explain_files, "open_model", lambda *_: opened)
    pictures = (str(tmp_path / "bright.png"), str(tmp_path / "dark.png"))
    request = ExplainRequest("m", pictures, drawings=False, as_json=False, batch_size=1)
    console = Console(file=io.StringIO(), width=200)
    assert not explain_files.explain_files(request, tmp_path / "out", console)
    document = json.loads((tmp_path / "out" / "explained.json").read_text("ascii"), parse_constant=pytest.fail)
    wrong = [row["error"] for row in document["pictures"] if "error" in row]
    assert len(wrong) == 1  # the dark one is explained
    assert all("an error of the model, which overflows on this picture" in error for error in wrong)
    assert "could not be explained" in console.file.getvalue()
