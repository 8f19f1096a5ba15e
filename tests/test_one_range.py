"""The range of a data set's 16-bit pixels, from the scan to the model file and into every command that loads one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.explaining.predict_files import predict_files
from gapstone.export.file_metadata import file_metadata
from gapstone.images.intensity_range import UNDECIDED, Ranges
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import open_model
from gapstone.models.classifier import Classifier, load
from gapstone.serve import read_picture as serve
from gapstone.training.training_data import TrainOptions, plan_training
from tests.written_images import png16

TWELVE_BITS = Ranges(integers=(0, 4095))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dark 12-bit picture, the 8 bits that it is on 0…4095, and what it would be on a range of its own."""
    values = np.random.default_rng(0).integers(0, 1000, (16, 16), dtype=np.uint16)
    path = tmp_path_factory.mktemp("pictures") / "dark.png"
    path.write_bytes(png16(values))
    on = {top: np.floor(values * (255 / top) + 0.5).astype(np.uint8)[..., None] for top in (4095, 1023)}
    return {"path": path, "right": on[4095], "guessed": on[1023]}


def model(ranges: Ranges) -> Classifier:
    torch.manual_seed(0)
    seen = Preprocessing(1, (16, 16), (16, 16), (0.1,), (0.2,), ranges)
    made = Classifier("nin", "gap", ("dark", "bright"), seen)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "new": model(TWELVE_BITS).save(folder / "new.safetensors"),
        "old": model(UNDECIDED).save(folder / "old.safetensors"),
    }


@pytest.mark.parametrize(("which", "shown"), [("new", "right"), ("old", "guessed")])
def test_predict_and_explain_see_the_models_range(
    which: str, shown: str, pictures: dict[str, Any], files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    opened = load(files[which])
    expected = opened.predict(pictures[shown])[0]
    assert torch.equal(opened.predict(pictures["path"])[0], expected)
    assert not torch.allclose(expected, opened.predict(pictures["guessed" if shown == "right" else "right"])[0])
    assert predict_files(str(files[which]), [str(pictures["path"])], True, 1, "cpu")
    (row,) = json.loads(capsys.readouterr().out)["images"]
    assert list(row["probabilities"].values()) == pytest.approx(expected.tolist())
    assert ("guessed from this picture alone" in row["notes"][0]) == (which == "old")
    request = ExplainRequest(str(files[which]), (str(pictures["path"]),), drawings=False, as_json=True, device="cpu")
    assert explain_files(request, tmp_path / "out")
    (explained,) = json.loads(capsys.readouterr().out)["pictures"]
    assert explained["probability"] == pytest.approx(float(expected.max()), rel=1e-5)


def test_serve_shows_each_model_its_own(pictures: dict[str, Any]) -> None:
    models = [model(ranges).preprocessing for ranges in (TWELVE_BITS, UNDECIDED)]
    answer = serve.check_result(
        serve.read(serve.worker_arguments(models, 10_000), (pictures["path"].read_bytes(), True)), models
    )
    # tuples come back as lists from a worker process; here nothing is sent
    seen = answer if isinstance(answer, serve.UploadedPicture) else None
    assert seen is not None
    assert np.array_equal(seen.fitted[0], pictures["right"])
    assert np.array_equal(seen.fitted[1], pictures["guessed"])


def test_an_export_says_it(files: dict[str, Path]) -> None:
    said = file_metadata(open_model(str(files["new"])), maps=False)["preprocessing"]
    assert said["ranges"] == {"integers": [0, 4095]}
    assert "integers 0…4,095 become 0…255" in said["recipe"][0]
    assert "ranges" not in file_metadata(open_model(str(files["old"])), maps=False)["preprocessing"]


def test_what_is_trained_keeps_the_range_of_its_data(tmp_path: Path, files: dict[str, Path]) -> None:
    random = np.random.default_rng(1)
    for name, top in {"dark": 1000, "bright": 4000}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            values = random.integers(0, top, (16, 16), dtype=np.uint16)
            (tmp_path / "data" / name / f"{i}.png").write_bytes(png16(values))
    said: list[str] = []

    def progress(_: str) -> Any:
        return lambda *_: None

    planned = plan_training(TrainOptions(str(tmp_path / "data")), [0], None, said.append, progress)
    prepared = planned.decode(tmp_path / "store", said.append, progress)
    assert prepared.preprocessing.ranges == TWELVE_BITS
    assert any("integers 0…4,095 become 0…255, in all images alike" in line for line in said)
    bright = np.asarray([prepared.labels[k] == "bright" for k in prepared.store.labels])
    assert prepared.store.images[bright].max() > 240
    assert prepared.store.images[~bright].max() == 62
