"""What a program reads: strict JSON of the documented schema, and npz that gives the same Evidence back."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from gapstone.drawing.evidence import Evidence
from gapstone.localisation.cam_boxes import Box
from gapstone.maps.map_files import join, load_npz, save_npz, to_json
from gapstone.tracing.placement import Placement

PLACEMENT = Placement((32.0, 32.5), (0.0, 1 / 3), ((0, 224), (10.25, 200)), exact=True)


def evidence(index=0, label="cat", map=None, **changes):
    map = np.random.default_rng(index).normal(size=(3, 4)).astype(np.float32) if map is None else map
    values = {
        "logit": float(map.sum()) + 0.1,
        "probability": 0.7,
        "bias": 0.1,
        "placement": PLACEMENT,
        "size": (224, 230),
        "additive": True,
        "completeness": 1e-7,
    }
    return Evidence(index=index, label=label, map=map, **(values | changes))


def strict(document):
    """As a strict reader gets it: no NaN, ASCII only."""
    text = json.dumps(document, allow_nan=False)
    assert text.isascii()
    return json.loads(text)


def test_every_documented_field():
    evidences = [evidence(3), evidence(1, additive=False, completeness=0.4)]
    box = Box(1.0, 2.0, 30.0, 40.0, 500, 0.9, 0.8)
    found = strict(to_json(evidences, name="a.jpg", model="m.safetensors", boxes={3: [box]}))
    assert list(found) == ["schema", "model", "pictures"]
    assert (found["schema"], found["model"]) == (1, "m.safetensors")
    (picture,) = found["pictures"]
    assert list(picture) == ["name", "size", "placement", "reference", "classes"]
    assert picture["reference"] is None
    assert (picture["name"], picture["size"]) == ("a.jpg", [224, 230])
    seen = [[0, 224], [10.25, 200]]
    assert picture["placement"] == {"stride": [32, 32.5], "start": [0, 1 / 3], "seen": seen, "exact": True}
    first, second = picture["classes"]
    keys = "index label logit probability bias positive negative additive held completeness map boxes"
    assert list(first) == keys.split()
    assert (first["index"], first["label"], first["probability"], first["bias"]) == (3, "cat", 0.7, 0.1)
    assert first["positive"] + first["negative"] + first["bias"] == pytest.approx(first["logit"], abs=1e-6)
    assert first["negative"] < 0 < first["positive"]
    assert first["boxes"] == [{"x0": 1, "y0": 2, "x1": 30, "y1": 40, "area": 500, "peak": 0.9, "share": 0.8}]
    assert (second["additive"], second["completeness"], second["boxes"]) == (False, 0.4, [])


def test_boxes_only_where_asked_for():
    (picture,) = to_json([evidence()])["pictures"]
    assert "boxes" not in picture["classes"][0]
    assert picture["name"] is None


def test_the_map_reads_back_to_the_last_bit():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    map = np.append(bits[np.abs(bits) < 1e30][:9_990], [0, -0.0, 1e-45, 1.1754944e-38, 0.1, 1 / 3, 16777216, -1, 1, 2])
    map = map.astype(np.float32).reshape(100, 100)
    found = strict(to_json([evidence(map=map, logit=0.0)]))["pictures"][0]["classes"][0]["map"]
    np.testing.assert_array_equal(np.array(found, np.float32).view(np.uint32), map.view(np.uint32))


def test_maps_may_lie_in_an_npz():
    (picture,) = to_json([evidence()], npz="a.npz")["pictures"]
    assert picture["npz"] == "a.npz"
    assert picture["classes"][0]["map"] is None


def test_labels_and_names_stay_or_are_escaped():
    found = strict(to_json([evidence(label='猫 <&"\n\x00')], name="caf\udce9.jpg"))
    assert found["pictures"][0]["classes"][0]["label"] == '猫 <&"\n\x00'
    assert found["pictures"][0]["name"] == "caf\\xe9.jpg"  # half a surrogate is no text


@pytest.mark.parametrize("field", ["logit", "probability", "bias", "completeness"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_numbers_that_json_does_not_have(field, value):
    with pytest.raises(ValueError, match=f"the {field} of 'cat' is {value}"):
        to_json([evidence(**{field: value})])


def test_no_such_numbers_in_the_map():
    map = np.array([[1, np.nan]], np.float32)
    with pytest.raises(ValueError, match="NaN or infinity"):
        to_json([evidence(map=map, logit=0.0)])


def test_join_keeps_the_order():
    documents = [to_json([evidence()], name=name, model="m") for name in "bac"]
    joined = join(documents)
    assert [p["name"] for p in joined["pictures"]] == ["b", "a", "c"]
    assert joined == {"schema": 1, "model": "m", "pictures": joined["pictures"]}
    with pytest.raises(ValueError, match="2 models"):
        join([*documents, to_json([evidence()], model="other")])
    with pytest.raises(ValueError, match="0 models"):
        join([])


@pytest.mark.parametrize("name", ["maps.npz", "maps"])
def test_npz_gives_the_same_evidence_back(tmp_path, name):
    given = [evidence(3, "é猫"), evidence(0, "", additive=False, completeness=0.25, bias=1 / 3)]
    save_npz(tmp_path / name, given)
    found = load_npz(tmp_path / name)
    assert len(found) == 2
    for ours, theirs in zip(found, given, strict=True):
        for field in fields(Evidence):
            if field.name != "map":
                mine, other = getattr(ours, field.name), getattr(theirs, field.name)
                assert mine == other, field.name
                assert type(mine) is type(other), field.name
        assert ours.map.dtype == np.float32
        np.testing.assert_array_equal(ours.map, theirs.map)


def test_what_was_subtracted_is_kept(tmp_path):
    for reference in (None, "the mean of all classes", ""):
        given = [evidence(3, reference=reference), evidence(0, reference=reference)]
        save_npz(tmp_path / "a.npz", given)
        assert [e.reference for e in load_npz(tmp_path / "a.npz")] == [reference, reference]
        assert strict(to_json(given))["pictures"][0]["reference"] == reference
    for write in (to_json, lambda evidences: save_npz(tmp_path / "b.npz", evidences)):
        with pytest.raises(ValueError, match="different things subtracted"):
            write([evidence(), evidence(1, reference="dog")])


def test_npz_without_a_reference_is_plain(tmp_path):
    save_npz(tmp_path / "a.npz", [evidence()])
    with np.load(tmp_path / "a.npz") as stored:
        older = {name: stored[name] for name in stored if name != "reference"}
    np.savez(tmp_path / "older.npz", **older)
    assert load_npz(tmp_path / "older.npz")[0].reference is None


def test_npz_holds_plain_arrays(tmp_path):
    save_npz(tmp_path / "a.npz", [evidence(3), evidence(1)])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored["map"].shape == (2, 3, 4)
        assert stored["index"].tolist() == [3, 1]
        assert stored["size"].tolist() == [224, 230]
        assert int(stored["schema"]) == 1


@pytest.mark.parametrize("write", [to_json, lambda evidences: save_npz("never.npz", evidences)])
def test_one_picture_at_a_time(write):
    with pytest.raises(ValueError, match="at least one class"):
        write([])
    for other in (
        evidence(1, size=(224, 229)),
        evidence(1, map=np.ones((3, 3), np.float32)),
        evidence(1, placement=replace(PLACEMENT, exact=False)),
    ):
        with pytest.raises(ValueError, match="several pictures"):
            write([evidence(), other])


def test_a_label_that_npz_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="NUL"):
        save_npz(tmp_path / "a.npz", [evidence(label="cat\0")])
    with pytest.raises(ValueError, match="NUL"):
        save_npz(tmp_path / "a.npz", [evidence(reference="cat\0")])
    assert not (tmp_path / "a.npz").exists()
