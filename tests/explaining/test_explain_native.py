"""`explain --native`: every picture as it is, and what is said of it does not depend on the others."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import gapstone as gs
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.images.load import load
from gapstone.maps.map_files import load_npz
from gapstone.maps.open_model import open_model
from tests.explaining.tiny import make_model, make_pictures
from tests.marks import of_timm


def run(model, *images, out, **options):
    console = Console(file=io.StringIO(), width=200)
    fine = explain_files(ExplainRequest(str(model), tuple(map(str, images)), drawings=False, **options), out, console)
    return fine, json.loads((out / "explained.json").read_text("ascii")), console.file.getvalue()


@pytest.fixture
def sizes(tmp_path):
    for number, size in enumerate([(40, 56), (33, 90), (40, 56), (5, 7)]):
        make_pictures(tmp_path / f"photos/{number}", 1, size, seed=number)
    return tmp_path / "photos"


def test_each_picture_is_seen_as_it_is(model, sizes, tmp_path):
    fine, document, _ = run(model, sizes, out=tmp_path / "out", native=True, all_classes=True)
    assert fine
    assert document["options"]["native"] is True
    assert [row["size"] for row in document["pictures"]] == [[40, 56], [33, 90], [40, 56], [5, 7]]
    network = gs.load(model)
    for row in document["pictures"]:
        pixels = load(row["name"]).pixels
        probabilities = network.predict(pixels, native=True)[0]
        assert row["probability"] == pytest.approx(float(probabilities.max()), abs=1e-6)
        assert row["prediction"] == int(probabilities.argmax())
        evidences = load_npz(tmp_path / "out" / row["npz"])
        height, width = row["size"]
        assert len(evidences) == 4
        for evidence in evidences:
            # nin: stride 4, cells at 0, 4, 8, … of the picture's own pixels, all of it seen
            assert evidence.map.shape == (-(-height // 4), -(-width // 4))
            assert evidence.placement.stride == (4, 4)
            assert evidence.placement.start == (0, 0)
            assert evidence.placement.seen == ((0, height), (0, width))
            assert float(evidence.map.sum()) + evidence.bias == pytest.approx(evidence.logit, abs=1e-5)
            assert evidence.probability == pytest.approx(float(probabilities[evidence.index]), abs=1e-6)
    _, resized, _ = run(model, sizes, out=tmp_path / "other", all_classes=True)
    assert resized["options"]["native"] is False
    assert resized["pictures"] != document["pictures"]


def test_photos_alone_and_together(model, real_images, tmp_path):
    """Photos whose sizes differ: together, alone and asked in Python, they are answered alike."""
    folder = real_images("microcontrollers")
    smaller = tmp_path / "photos"
    smaller.mkdir()
    for number, path in enumerate(sorted((folder / "val").rglob("*.jp*g"))[:5]):
        with Image.open(path) as photo:  # of several sizes and shapes, and not too many pixels for a test
            photo.thumbnail((200 + 37 * number, 150 + 11 * number))
            photo.convert("RGB").save(smaller / f"{number}.png")
    _, together, _ = run(model, smaller, out=tmp_path / "out", native=True, plain=True)
    assert len({tuple(row["size"]) for row in together["pictures"]}) > 2
    opened = open_model(str(model))
    looked = opened.look([load(row["name"]).pixels for row in together["pictures"]], top_k=3, native=True)
    for number, row in enumerate(together["pictures"]):
        _, alone, _ = run(model, row["name"], out=tmp_path / f"alone{number}", native=True, plain=True)
        assert alone["pictures"][0]["classes"] == row["classes"]
        kept = load_npz(tmp_path / "out" / row["npz"])
        for one, other in zip(kept, looked[number], strict=True):
            np.testing.assert_allclose(one.map, other.map, atol=1e-5)
            assert one.placement == other.placement
            assert float(one.map.sum()) + one.bias == pytest.approx(one.logit, abs=1e-4)


def test_goes_on_where_it_was_and_never_mixes(model, sizes, tmp_path):
    out = tmp_path / "out"
    run(model, sizes, out=out)
    _, first, said = run(model, sizes, out=out, native=True)
    assert "had been looked at before" not in said
    _, again, said = run(model, sizes, out=out, native=True)
    assert "4 of 4 pictures had been looked at before" in said
    assert again == first
    make_pictures(sizes / "4", 1, (20, 24), seed=9)
    _, more, said = run(model, sizes, out=out, native=True)
    assert "4 of 5 pictures had been looked at before" in said
    assert more["pictures"][:4] == first["pictures"]


def test_what_cannot_be_seen_as_it_is(sizes, tmp_path):
    flat = make_model(tmp_path / "flat.safetensors", head="fc")
    with pytest.raises(ValueError, match=r"trained on images of 32×32 px and takes no others.*--resize.*fc:grid=7"):
        run(flat, sizes, out=tmp_path / "out", native=True)
    assert not (tmp_path / "out").exists()
    grid = make_model(tmp_path / "grid.safetensors", head="fc:grid=7")
    assert run(grid, sizes, out=tmp_path / "out", native=True)[0]


def test_a_picture_too_small_or_too_large_is_one_error(sizes, tmp_path, monkeypatch):
    from gapstone.images import preprocessing

    model = tmp_path / "vgg.safetensors"
    about = preprocessing.Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3)
    gs.Classifier("vgg11_bn", "gap", ("a", "b"), about).save(model)
    monkeypatch.setattr(preprocessing, "LARGEST", 50)
    fine, document, _ = run(model, sizes, out=tmp_path / "out", native=True, top=1)
    assert not fine
    errors = [row.get("error") for row in document["pictures"]]
    assert errors[0] is errors[2] is None
    assert "90×33 px are more than the 2,500 pixels" in errors[1]
    assert "7×5 px, and the network needs at least 32" in errors[3]
    assert "resized (without native) it can" in errors[3]


def test_timm(tmp_path, sizes):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    weights = {"weights": tmp_path / "w.safetensors", "native": True}
    _, document, _ = run("timm:resnet10t", sizes, out=tmp_path / "out", **weights)
    assert [row.get("size") for row in document["pictures"]] == [[40, 56], [33, 90], [40, 56], None]
    # a single cell before the last block: the map cannot be told from a gate
    assert "the network cannot take it as it is" in document["pictures"][3]["error"]
    for row in document["pictures"][:3]:
        for one in load_npz(tmp_path / "out" / row["npz"]):
            assert float(one.map.sum()) + one.bias == pytest.approx(one.logit, abs=1e-4)
    of_timm("test_vit_relpos")
    save_file(timm.create_model("test_vit_relpos", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"timm:test_vit_relpos takes only 160×160 px.*--resize"):
        run("timm:test_vit_relpos", sizes, out=tmp_path / "vit", **weights)
