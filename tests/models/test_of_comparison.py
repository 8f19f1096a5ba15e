"""A folder of `gapstone compare` where a model is expected."""

import inspect

import pytest

from gapstone.commands import evaluating_commands, model_commands
from gapstone.models.classifier import load
from gapstone.models.model_file import ModelFileError
from gapstone.models.of_comparison import model_of
from gapstone.storage.sealed_json import write_sealed
from tests.models.test_classifier import make


@pytest.fixture
def out(tmp_path):
    """fc is the best; of gap there are two seeds, the better one first."""
    files = [("fc", "model.safetensors"), ("gap", "models/gap-seed3.safetensors"),
             ("fc", "models/fc-seed0.safetensors"), ("gap", "models/gap-seed0.safetensors")]  # fmt: skip
    write_sealed(tmp_path / "results.json", {"models": [{"head": h, "file": file} for h, file in files]}, "results")
    return tmp_path


def test_the_best_and_each_heads(out):
    assert model_of(str(out)) == str(out / "model.safetensors")
    assert model_of(str(out), "fc") == str(out / "model.safetensors")
    assert model_of(str(out), "gap") == str(out / "models/gap-seed3.safetensors")
    assert model_of("timm:resnet18") == "timm:resnet18"


def test_what_is_not_there(out, tmp_path_factory):
    with pytest.raises(ModelFileError, match="holds no model of gmp; it holds those of: fc, gap"):
        model_of(str(out), "gmp")
    with pytest.raises(ModelFileError, match="is a folder without the results of a comparison"):
        model_of(str(tmp_path_factory.mktemp("other")))
    with pytest.raises(ValueError, match=r"--head gap goes with the folder of a comparison; a.safetensors is none"):
        model_of("a.safetensors", "gap")
    text = (out / "results.json").read_text().replace("seed3", "seed4")
    (out / "results.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"results.json.* the same gapstone compare again mends it"):
        model_of(str(out))
    write_sealed(out / "results.json", {"models": []}, "results")
    with pytest.raises(ModelFileError, match="holds no model; it holds those of: none"):
        load(out)


def test_load_takes_a_folder(out):
    make().save(out / "model.safetensors")
    assert load(out).labels == make().labels


def test_every_command_that_asks_a_model_has_the_option():
    commands = [model_commands.predict, model_commands.explain, model_commands.inspect, model_commands.export,
                model_commands.serve, evaluating_commands.evaluate]  # fmt: skip
    for command in commands:
        assert "head" in inspect.signature(command).parameters, command
