"""From a model and pictures to a folder of results, as a person or a script gets them."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import gapstone as gs
from gapstone.explaining import draw_maps
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.images.load import load
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.map_files import load_npz
from gapstone.maps.open_model import open_model
from tests.command_line import gapstone
from tests.explaining.tiny import LABELS, make_model, make_pictures
from tests.schemas import check, check_refuses_damage

pytestmark = pytest.mark.xdist_group("command line")


def run(model, *images, out, **options):
    """(everything readable, the document, what was printed)"""
    console = Console(file=io.StringIO(), width=200)
    fine = explain_files(ExplainRequest(str(model), tuple(map(str, images)), **options), out, console)
    return fine, json.loads((out / "explained.json").read_text("ascii")), console.file.getvalue()


def test_the_document_says_what_the_model_says(model, pictures, tmp_path):
    fine, document, _ = run(model, pictures, out=tmp_path / "out")
    assert fine
    check_refuses_damage("explained", document)
    assert document["schema"] == 3
    assert document["labels"] == list(LABELS)
    assert [row["name"] for row in document["pictures"]] == [str(p) for p in sorted(pictures.iterdir())]
    answers = gs.load(model).predict(sorted(pictures.iterdir()))
    opened = open_model(str(model))
    for row, probabilities in zip(document["pictures"], answers, strict=True):
        assert row["prediction"] == int(probabilities.argmax())
        assert row["label"] == LABELS[row["prediction"]]
        assert row["probability"] == pytest.approx(float(probabilities.max()), abs=1e-6)
        assert row["size"] == [40, 56]
        assert len(row["classes"]) == 3
        explained = opened.explain([load(row["name"]).pixels], top_k=3).centred()
        expected = opened.evidence(explained, 0, (40, 56))
        assert row["reference"] == "the mean of all classes"
        kept = load_npz(tmp_path / "out" / row["npz"])
        for entry, one, other in zip(row["classes"], kept, expected, strict=True):
            assert entry["index"] == one.index == other.index
            assert entry["probability"] == pytest.approx(float(probabilities[entry["index"]]), abs=1e-6)
            assert one.placement == other.placement
            assert one.size == other.size == (40, 56)
            np.testing.assert_allclose(one.map, other.map, atol=1e-5)
            assert entry["logit"] == pytest.approx(float(one.map.sum()) + entry["bias"], abs=1e-4)
            assert "map" not in entry
        with Image.open(tmp_path / "out" / row["drawing"]) as drawing:
            assert drawing.width > 800


def test_boxes_are_those_of_the_map_over_the_picture(model, pictures, tmp_path):
    from gapstone.drawing.upsample import upsample
    from gapstone.localisation.cam_boxes import box

    _, document, _ = run(model, pictures, out=tmp_path / "out", drawings=False)
    found = 0
    for row in document["pictures"]:
        for entry, e in zip(row["classes"], load_npz(tmp_path / "out" / row["npz"]), strict=True):
            expected = [b.edges for b in box(upsample(e.map, e.placement, e.size), 0.2)]
            assert [tuple(b.values()) for b in entry["boxes"]] == expected
            found += len(expected)
    assert found > 5
    _, without, _ = run(model, pictures, out=tmp_path / "out", drawings=False, box="none")
    assert not any("boxes" in entry for row in without["pictures"] for entry in row["classes"])
    _, otsu, _ = run(model, pictures, out=tmp_path / "out", drawings=False, box="otsu")
    assert otsu["pictures"] != document["pictures"]


def test_boxes_of_large_pictures_are_in_their_own_pixels(model, tmp_path):
    folder = make_pictures(tmp_path / "large", 1, (900, 1200))
    _, document, _ = run(model, folder, out=tmp_path / "out", drawings=False, plain=True)
    (row,) = document["pictures"]
    from gapstone.drawing.upsample import upsample
    from gapstone.localisation.cam_boxes import box

    for entry, e in zip(row["classes"], load_npz(tmp_path / "out" / row["npz"]), strict=True):
        for mine, exact in zip(entry["boxes"], box(upsample(e.map, e.placement, e.size), 0.2), strict=True):
            assert np.abs(np.array(list(mine.values())) - exact.edges).max() <= 1200 / 256
            assert max(mine.values()) > 300


def test_asked_classes_are_shown_beside_the_answer(model, pictures, tmp_path):
    _, document, printed = run(model, pictures, out=tmp_path / "out", classes="dog,0", drawings=False)
    for row in document["pictures"]:
        assert [entry["index"] for entry in row["classes"]] == [1, 0]
        assert row["label"] == LABELS[row["prediction"]]
    assert document["options"]["classes"] == [1, 0]
    assert "asked" in printed
    with pytest.raises(ValueError, match="Close to it: dog"):
        run(model, pictures, out=tmp_path / "out", classes="dgo")
    _, document, _ = run(model, pictures, out=tmp_path / "more", top=9)  # as many as there are
    assert all(len(row["classes"]) == 4 for row in document["pictures"] if "error" not in row)


def test_all_keeps_the_maps_of_all_classes(model, pictures, tmp_path):
    _, document, _ = run(model, pictures, out=tmp_path / "out", top=1, all_classes=True, drawings=False)
    for row in document["pictures"]:
        kept = load_npz(tmp_path / "out" / row["npz"])
        assert sorted(e.index for e in kept) == [0, 1, 2, 3]
        assert len(row["classes"]) == 1
        assert kept[0].index == row["classes"][0]["index"] == row["prediction"]


def test_one_scale_over_all_pictures(model, pictures, tmp_path):
    _, document, _ = run(model, pictures, out=tmp_path / "out", batch_size=2)
    largest = max(np.abs(e.map).max() for row in document["pictures"] for e in load_npz(tmp_path / "out" / row["npz"]))
    assert document["largest"] == pytest.approx(largest, rel=1e-6)
    from gapstone.drawing.pictures import side_by_side
    from gapstone.localisation.cam_boxes import Box

    for row in document["pictures"]:
        shown = load_npz(tmp_path / "out" / row["npz"])
        boxes = {entry["index"]: [Box(*b.values(), 0, 0.0, 0.0) for b in entry["boxes"]] for entry in row["classes"]}
        name = os.path.basename(row["name"])
        pixels = load(row["name"]).pixels
        with Image.open(tmp_path / "out" / row["drawing"]) as drawn:
            mine = np.asarray(drawn.convert("RGB"))
        expected = side_by_side(pixels, shown, largest=document["largest"], boxes=boxes, name=name)
        np.testing.assert_array_equal(mine, np.asarray(expected.convert("RGB")))


def test_files_that_cannot_be_read_are_listed_with_their_reason(model, pictures, tmp_path):
    (pictures / "empty.png").write_bytes(b"")
    whole = (pictures / "p000.png").read_bytes()
    (pictures / "short.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "notes.txt").write_text("left out")
    fine, document, printed = run(model, pictures, tmp_path / "none.png", "*.nothing", out=tmp_path / "out", html=True)
    assert not fine
    wrong = {os.path.basename(row["name"]): row["error"] for row in document["pictures"] if "error" in row}
    assert set(wrong) == {"empty.png", "short.png", "none.png"}
    assert wrong["empty.png"] == "the file is empty (0 bytes)"
    assert "truncated" in wrong["short.png"]
    assert wrong["none.png"] == "there is no such file"
    assert document["missing"] == ["*.nothing"]
    for said in ("3 could not be explained", "the file is empty", "*.nothing: no file matches", ".txt 1"):
        assert said in printed
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert all(reason in page for reason in wrong.values())
    assert sum("error" not in row for row in document["pictures"]) == 5
    check("explained", document)


def test_a_folder_of_nothing_but_bad_files(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    fine, document, _ = run(model, tmp_path / "bad.png", out=tmp_path / "out", html=True)
    assert not fine
    assert [set(row) for row in document["pictures"]] == [{"name", "error"}]


@pytest.mark.parametrize(("given", "says"), [("empty", "no images found in"), ("*.jpg", "no images found in")])
def test_nothing_to_explain(model, tmp_path, given, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "labels.csv").write_text("path,label")
    with pytest.raises(ValueError, match=says) as error:
        run(model, tmp_path / given, out=tmp_path / "out")
    if given == "empty":
        assert ".csv 1" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_out_that_cannot_be(model, pictures, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        run(model, pictures, out=tmp_path / "file")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        run(model, pictures, out=tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_that_is_no_utf8(model, pictures, tmp_path):
    odd = os.path.join(os.fsencode(pictures), b"caf\xe9.png")
    shutil.copy(pictures / "p000.png", odd)
    shutil.copy(pictures / "p000.png", pictures / "<b>&\"'.png")
    _, document, printed = run(model, pictures, out=tmp_path / "out", html=True)
    names = [os.path.basename(row["name"]) for row in document["pictures"]]
    assert "caf\\xe9.png" in names
    assert "caf\\xe9.png" in printed
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "caf\\xe9.png" in page
    assert "&lt;b&gt;" in page
    assert "<b>&" not in page
    for row in document["pictures"]:
        assert (tmp_path / "out" / row["npz"]).exists()
        assert (tmp_path / "out" / row["drawing"]).exists()


def test_pictures_of_the_same_name_do_not_meet(model, tmp_path):
    for folder in ("a", "b"):
        make_pictures(tmp_path / folder, 1, seed=ord(folder))
    _, document, _ = run(model, tmp_path / "a", tmp_path / "b", out=tmp_path / "out", drawings=False)
    one, other = (row["npz"] for row in document["pictures"])
    assert one != other
    assert all("/p000-" in name for name in (one, other))


def test_heads_that_do_not_add_up_say_so(pictures, tmp_path):
    model = make_model(tmp_path / "lse.safetensors", head="lse")
    _, document, _ = run(model, pictures, out=tmp_path / "out", html=True, drawings=False)
    entries = [entry for row in document["pictures"] for entry in row["classes"]]
    assert not any(entry["additive"] for entry in entries)
    assert max(entry["completeness"] for entry in entries) > 1e-3
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "do not add up to the logit" in page
    assert "unexplained" in page


def test_json_is_all_that_stands_on_standard_output(model, pictures, tmp_path, capsys):
    fine = explain_files(ExplainRequest(str(model), (str(pictures),), as_json=True, drawings=False), tmp_path / "out")
    printed = capsys.readouterr().out
    assert fine
    assert json.loads(printed) == json.loads((tmp_path / "out" / "explained.json").read_text("ascii"))
    lines = printed.splitlines()
    assert len(lines) == 5 + 2  # a picture per line
    assert json.loads(lines[1].rstrip(","))["name"].endswith("p000.png")
    assert json.loads(printed)["pictures"][0]["drawing"] is None


def test_the_terminal_stays_readable_for_many(model, tmp_path):
    folder = make_pictures(tmp_path / "many", 60, (8, 8))
    _, _, printed = run(model, folder, out=tmp_path / "out", drawings=False)
    assert "p039.png" in printed
    assert "p040.png" not in printed
    assert "20 more pictures" in printed
    assert str(tmp_path / "out" / "explained.json") in printed


def test_the_command(model, pictures, tmp_path):
    (pictures / "empty.png").write_bytes(b"")
    said = gapstone("explain", model, "photos/*.png", "--json", "--no-drawings", "--classes", "dog", cwd=tmp_path)
    assert said.returncode == 1, said.stderr
    document = json.loads(said.stdout)
    assert document["pictures"][0]["name"] == "photos/empty.png"
    assert document == json.loads((tmp_path / "runs" / "explain-tiny" / "explained.json").read_text("ascii"))
    (pictures / "empty.png").unlink()
    assert gapstone("explain", model, "photos", "--no-drawings", "--classes", "dog", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{model}", "photos", "--classes", "dgo"), "Close to it: dog"),
        # each is a process; test_paths.py has all commands
        pytest.param(("nowhere.safetensors", "photos"), "there is no such file", marks=pytest.mark.slow),
        pytest.param(("{model}", "none/*.png"), "no images found in none/*.png", marks=pytest.mark.slow),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(model, pictures, tmp_path, arguments, says):
    said = gapstone("explain", *(a.format(model=model) for a in arguments), cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith("gapstone: ")  # before it: what takes its time
    assert says in said.stderr.splitlines()[-1]
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_of_two_classes_and_results_beside_the_pictures(tmp_path):
    torch.manual_seed(0)
    preprocessing = Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3)
    model = gs.Classifier("nin", "gap", ("cat", "dog"), preprocessing).save(tmp_path / "two.safetensors")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(photos / name)
    with pytest.raises(ValueError, match=r"holds 'a\.png', which gapstone explain did not write there"):
        explain_files(ExplainRequest(str(model), (str(photos),)), photos)
    assert sorted(path.name for path in photos.iterdir()) == ["a.png", "b.png"]
    for given in ([str(photos)], [f"{photos}/**/*.png"], [str(photos)]):
        assert explain_files(ExplainRequest(str(model), tuple(given)), photos / "explained")
        document = json.loads((photos / "explained" / "explained.json").read_text())
        assert [Path(row["name"]).name for row in document["pictures"]] == ["a.png", "b.png"]
        assert len(document["pictures"][0]["classes"]) == 2


@pytest.mark.parametrize("size", [(3, 2000), (400, 1)])
def test_a_strip_is_drawn_and_ends_no_run(model, pictures, tmp_path, size):
    """Of which the network sees less than a pixel of the drawing."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(pictures / "strip.png")
    fine, document, _ = run(model, pictures, out=tmp_path / "out", html=True)
    assert fine
    (strip,) = [row for row in document["pictures"] if row["name"].endswith("strip.png")]
    assert strip["size"] == list(size)
    with Image.open(tmp_path / "out" / strip["drawing"]) as drawn:
        assert min(drawn.size) > 150
    assert "strip.png" in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_a_picture_that_cannot_be_drawn_is_listed_and_ends_no_run(model, pictures, tmp_path, monkeypatch):
    """Whatever Pillow, or gapstone, says to one picture."""
    drawn = draw_maps.side_by_side

    def fails(pixels, *arguments, name, **options):
        if name == "p002.png":
            raise ValueError("x1 must be greater than or equal to x0")
        return drawn(pixels, *arguments, name=name, **options)

    monkeypatch.setattr(draw_maps, "side_by_side", fails)
    out = tmp_path / "out"
    _, document, text = run(model, pictures, out=out, html=True)
    rows = document["pictures"]
    assert [row["drawing"] is None for row in rows] == [False, False, True, False, False]
    assert rows[2]["undrawn"] == "ValueError: x1 must be greater than or equal to x0"
    assert (out / rows[2]["npz"]).is_file()
    assert "p002.png: it could not be drawn (ValueError: x1" in text
    assert (out / "index.html").read_text("utf-8").count("<article") == 5  # its thumbnail is there


def test_a_picture_without_a_thumbnail_is_listed_on_the_page(model, pictures, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("too thin")

    monkeypatch.setattr(draw_maps, "_make_thumbnail", fails)
    _, document, _ = run(model, pictures, out=tmp_path / "out", html=True, drawings=False)
    assert not any("error" in row for row in document["pictures"])
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("it could not be drawn: ValueError: too thin") == 5
    assert "<article" not in page


def test_what_is_held_is_in_the_document_and_on_the_page(pictures, tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    weights, out = tmp_path / "atto.safetensors", tmp_path / "out"
    save_file(timm.create_model("convnext_atto", num_classes=3).state_dict(), weights)
    _, document, _ = run("timm:convnext_atto", pictures, out=out, html=True, weights=weights, drawings=False)
    for entry in (entry for row in document["pictures"] for entry in row["classes"]):
        assert entry["additive"]
        assert entry["held"] == ["the norm's standard deviation"]
        assert abs(entry["positive"] + entry["negative"] + entry["bias"] - entry["logit"]) < 1e-5
    assert "deviation held as a number of the picture" in (out / "index.html").read_text("utf-8")
