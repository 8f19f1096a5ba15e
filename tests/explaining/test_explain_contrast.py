"""What `gapstone explain` subtracts, and that its files say so: what all classes have in common is shown nowhere."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import gapstone as gs
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.maps.map_files import load_npz
from tests.explaining.tiny import make_model
from tests.schemas import check

MEAN = "the mean of all classes"


def run(model, pictures, out, **options):
    """(the document, the page, what was printed)"""
    console = Console(file=io.StringIO(), width=200)
    explain_files(ExplainRequest(str(model), (str(pictures),), html=True, **options), out, console)
    document = json.loads((out / "explained.json").read_text("ascii"))
    return document, (out / "index.html").read_text("utf-8"), console.file.getvalue()


def captions(page):
    return re.findall(r"<figcaption>.*?</figcaption>", page)


def test_centred_by_default_and_plain_by_a_switch(model, pictures, tmp_path):
    centred, page, printed = run(model, pictures, tmp_path / "centred", all_classes=True)
    plain, plain_page, plain_printed = run(model, pictures, tmp_path / "plain", all_classes=True, plain=True)
    check("explained", centred)
    check("explained", plain)
    assert (centred["options"]["plain"], plain["options"]["plain"]) == (False, True)
    for ours, theirs in zip(centred["pictures"], plain["pictures"], strict=True):
        assert (ours["reference"], theirs["reference"]) == (MEAN, None)
        assert (ours["prediction"], ours["probability"]) == (theirs["prediction"], theirs["probability"])
        kept = {e.index: e for e in load_npz(tmp_path / "centred" / ours["npz"])}
        whole = {e.index: e for e in load_npz(tmp_path / "plain" / theirs["npz"])}
        assert {e.reference for e in kept.values()} == {MEAN}
        assert {e.reference for e in whole.values()} == {None}
        mean = np.mean([e.map for e in whole.values()], 0)
        for k, evidence in kept.items():
            np.testing.assert_allclose(evidence.map, whole[k].map - mean, atol=1e-6)
            assert evidence.probability == pytest.approx(whole[k].probability, abs=1e-6)
        for entry, other in zip(ours["classes"], theirs["classes"], strict=True):
            assert entry["positive"] + entry["negative"] + entry["bias"] == pytest.approx(entry["logit"], abs=1e-5)
            assert entry["index"] == other["index"]
    said = "Maps, logits and biases are minus the mean of all classes"
    assert said in page
    assert said in printed
    assert captions(page)
    assert all(re.search(r"logit [\d.]+ (above|below) the mean<br>", text) for text in captions(page))
    for text in (plain_page, plain_printed):
        assert "the mean of all classes" not in text
    assert all("the mean" not in text for text in captions(plain_page))


def test_a_map_that_is_added_to_all_classes_changes_no_file(model, pictures, tmp_path):
    lifted = gs.load(model)
    last = [module for module in lifted.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight += torch.randn(1, last.in_features)
        last.bias += 3.0
    lifted.save(tmp_path / "lifted.safetensors")
    results = {}
    for plain in (False, True):
        folders = [tmp_path / f"{name}-{plain}" for name in ("given", "lifted")]
        given = run(model, pictures, folders[0], plain=plain)
        other = run(tmp_path / "lifted.safetensors", pictures, folders[1], plain=plain)
        results[plain] = given, other, folders
    given, other, folders = results[False]
    same(given[0]["pictures"], other[0]["pictures"])
    assert given[0]["largest"] == pytest.approx(other[0]["largest"], abs=1e-5)
    assert captions(given[1]) == captions(other[1])
    for row in given[0]["pictures"]:
        a, b = (np.asarray(Image.open(folder / row["drawing"])).astype(int) for folder in folders)
        assert np.abs(a - b).max() <= 1
    given, other, _ = results[True]
    assert captions(given[1]) != captions(other[1])
    assert other[0]["largest"] > 2 * given[0]["largest"]


def same(ours, theirs):
    """Equal but for the rounding of numbers."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    else:
        assert ours == (pytest.approx(theirs, abs=1e-5) if isinstance(ours, float) else theirs)


def test_a_model_of_one_logit_has_nothing_to_subtract(pictures, tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=1).state_dict(), weights)
    document, page, _ = run("timm:resnet10t", pictures, tmp_path / "out", weights=weights, drawings=False)
    assert {row["reference"] for row in document["pictures"]} == {None}
    assert "the mean of all classes" not in page


def test_a_folder_never_holds_both(tmp_path, pictures):
    model, out = make_model(tmp_path / "m.safetensors"), tmp_path / "out"
    run(model, pictures, out)
    document, _, printed = run(model, pictures, out, plain=True)
    assert "looked at before" not in printed
    assert {row["reference"] for row in document["pictures"]} == {None}
    assert all(e.reference is None for row in document["pictures"] for e in load_npz(out / row["npz"]))
    assert document == run(model, pictures, tmp_path / "fresh", plain=True)[0]
