"""What is printed, written and drawn."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from torch import nn

from gapstone import Classifier
from gapstone.images.preprocessing import Preprocessing
from gapstone.inspecting import inspect
from gapstone.inspecting.inspect_command import inspect_model
from gapstone.inspecting.inspection_table import show
from gapstone.inspecting.model_names import model_named
from tests.schemas import check_refuses_damage


@pytest.fixture(scope="module")
def found():
    return inspect(model_named("vgg16"), name="vgg16")


def shown(found, width, **options):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(console, found, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_it_fits_the_terminal(found, width):
    text = shown(found, width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text  # not a terminal: plain
    for part in ("138,357,544", "123,642,856: 89.4 %", "15.47 G", "512×7×7: a cell sees 212 px, one every 32 px"):
        assert part in text
    assert "sides 224–255 px" in text
    assert "any side ≥ 32 px" in text
    assert "…" not in text or width < 140
    assert ("pools read" in text) == (width == 140)


def test_depth_says_how_much_is_told(found):
    assert "Conv2d" in shown(found, 80)
    assert "Conv2d" not in shown(found, 80, depth=1)
    assert "features Vgg" in shown(found, 80, depth=1)
    assert "features Vgg" not in shown(found, 80, depth=0)


def test_names_are_no_markup():
    name = "[bold]mine[/nonsense] $x_1$"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert name in str(inspect(model, 32, name=name))


def test_json_has_every_field(found, capsys):
    inspect_model("vgg16", as_json=True)
    told = json.loads(capsys.readouterr().out)
    check_refuses_damage("inspect", told)
    assert told["schema"] == 1
    assert told == json.loads(json.dumps(found.as_json()))
    assert told["parameters"] == 138_357_544
    assert told["sizes"] == {
        "kind": "sides",
        "smallest": [224, 224],
        "largest": 255,
        "step": 1,
        "less": 0,
        "more": 0,
        "squares": False,
        "text": "sides 224–255 px",
    }
    assert {row["head"] for row in told["heads"]} > {"as it is", "gap", "nin", "fc:512", "fc:grid=7"}
    assert told["rows"][0]["path"] == ""


@pytest.mark.parametrize("ending", ["png", "svg", "PNG"])
def test_pictures(found, tmp_path, ending):
    path = found.save(tmp_path / f"vgg.{ending}")
    if ending == "svg":
        text = path.read_text("utf-8")
        assert "89.4 %" in text
        assert "classifier.0" in text
        assert found.save(tmp_path / "again.svg").read_text("utf-8") == text
    else:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width > 1000
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10  # it is not blank


def test_mistakes_are_told_before_anything_runs(found, tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        inspect_model("vgg16", picture=tmp_path / "vgg.jpg")
    with pytest.raises(FileNotFoundError, match="no folder"):
        found.save(tmp_path / "none" / "vgg.png")
    for size in ("224x", "0", "1x2x3", "-4", "²"):
        with pytest.raises(ValueError, match=f"--size {size}"):
            inspect_model("vgg16", size)
    with pytest.raises(ValueError, match="--depth -1"):
        inspect_model("vgg16", depth=-1)
    for channels in (0, -2):
        with pytest.raises(ValueError, match=f"--channels {channels}: an image has at least one"):
            inspect_model("vgg16", channels=channels)


@pytest.mark.parametrize(
    ("name", "says"),
    [("vgg61", "vgg16"), ("torchvision:resnet51", "torchvision:resnet50"), ("timm:resnet51", "timm:resnet50")],
)
def test_unknown_names_have_suggestions(name, says):
    if ":" in name:
        pytest.importorskip(name.partition(":")[0])
    with pytest.raises(ValueError, match=says):
        model_named(name)


def test_channels_of_built_networks():
    assert inspect(model_named("resnet18", channels=4), 64, 4).channels == 4
    assert inspect(model_named("resnet18", channels=4), 64).channels == 4  # what its first convolution takes
    with pytest.raises(ValueError, match="3 channels"):
        model_named("torchvision:resnet18", channels=1)


def test_a_file_is_inspected(tmp_path, capsys):
    preprocessing = Preprocessing(1, (28, 28), (28, 28), (0.5,), (0.5,))
    path = Classifier("nin", "gap", ("a", "b"), preprocessing).save(tmp_path / "m.safetensors")
    picture = tmp_path / "m.png"
    inspect_model(str(path), "32x40")
    assert "1×32×40 → 2" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    inspect_model(str(path), picture=picture)
    said = capsys.readouterr().out
    assert "1×28×28 → 2" in said.replace("\n", " ").replace("  ", " ")
    assert picture.exists()
    assert "Picture:" in said
    with pytest.raises(ValueError, match="no such file"):
        model_named(str(Path(tmp_path) / "none.safetensors"))
