"""The SVG: well-formed whatever the labels, needs no network, and every cell is where it is and says its number."""

import base64
import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gapstone.drawing import colours
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.pictures import svg
from gapstone.localisation.cam_boxes import Box
from gapstone.tracing.placement import Placement

CROP = Placement((10.0, 10.0), (15.0, 25.0), ((10, 50), (20, 60)), exact=True)
SPACE = "{http://www.w3.org/2000/svg}"


def evidence(map, index=0, label="cat", size=(60, 80), placement=CROP, **changes):
    values = {"logit": 1.0, "probability": 0.5, "bias": 0.1, "additive": True, "completeness": 0.0}
    map = np.asarray(map, np.float32)
    return Evidence(index=index, label=label, map=map, placement=placement, size=size, **(values | changes))


MAP = np.arange(-8, 8, dtype=np.float32).reshape(4, 4) / 8
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def drawn(*arguments, **options):
    return ElementTree.fromstring(svg(*arguments, **options))


def words(root):
    return ["".join(text.itertext()) for text in root.iter(f"{SPACE}text")]


def picture(image):
    head, data = image.get("href").split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_every_cell_is_where_it_is_and_says_its_number():
    root = drawn(PIXELS, [evidence(MAP)])
    (cells,) = (g for g in root.iter(f"{SPACE}g") if g.get("class") == "cells")
    assert len(cells) == 16
    down, across = CROP.edges(4, 0), CROP.edges(4, 1)
    painted = colours.rgba(MAP, 1.0)
    for place, rect in enumerate(cells):
        i, j = divmod(place, 4)
        x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        assert (x, y, x + width, y + height) == pytest.approx(
            (across[j], down[i], across[j + 1], down[i + 1]), rel=1e-5
        )
        assert rect.get("fill") == "#" + bytes(painted[i, j, :3].tolist()).hex()
        assert float(rect.get("fill-opacity")) == pytest.approx(painted[i, j, 3] / 255, abs=1e-3)
        value = float(rect[0].text.split(": ")[1].replace("−", "-"))
        assert value == pytest.approx(MAP[i, j], abs=0.006)
        assert rect[0].text.startswith(f"row {i + 1}, column {j + 1}: ")


def test_cells_beyond_what_was_seen_are_left_out():
    """ResNet at a size that its stride does not divide may have a cell whose centre lies outside."""
    placement = Placement((32.0, 32.0), (0.0, 0.0), ((0, 60), (0, 80)), exact=True)
    root = drawn(PIXELS, [evidence(np.ones((3, 4)), placement=placement)])
    (cells,) = (g for g in root.iter(f"{SPACE}g") if g.get("class") == "cells")
    assert len(cells) == 3 * 3  # columns end at 16.5, 48.5, 80
    assert all(float(rect.get("width")) > 0 < float(rect.get("height")) for rect in cells)


def test_nothing_is_fetched_from_anywhere():
    text = svg(PIXELS, [evidence(MAP)], name="http://example.org/a.jpg")
    assert re.findall(r"\w+://[^\s<\"]*", text.replace("http://example.org/a.jpg", "")) == [
        "http://www.w3.org/2000/svg"
    ]
    root = ElementTree.fromstring(text)
    links = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith(("href", "src"))]
    assert len(links) == 4
    assert all(link.startswith(("data:image/", "#beneath")) for link in links)
    assert "script" not in text
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize("label", ["<b>&\"'", "]]></svg>", "猫 é", "a\0b\x1b\n\ud800\ufffe", "", "x" * 5000, "سلام"])
def test_any_label_and_name(label):
    root = drawn(PIXELS, [evidence(MAP, label=label)], name=label)
    text = words(root)
    readable = label.replace("\0", "\\x00").replace("\x1b", "\\x1b").replace("\n", "\\n")
    readable = readable.replace("\ud800", "\\ud800").replace("\ufffe", "\\ufffe")
    assert text[0].startswith(readable)  # the name; a long one has its whole as tooltip
    assert text[1].startswith(readable)


def test_long_labels_are_cut_and_kept_whole_as_tooltip():
    root = drawn(PIXELS, [evidence(MAP, label="a" * 300 + "z")])
    (span,) = (s for s in root.iter(f"{SPACE}tspan") if len(s) and s[0].text == "a" * 300 + "z")
    assert len(span[0].tail) < 60
    assert span[0].tail.startswith("aaa")
    assert span[0].tail.endswith("aaz")


def test_what_is_said():
    root = drawn(PIXELS, [evidence(MAP, 0, "one"), evidence(-abs(MAP), 1, "two", additive=False, completeness=0.25)])
    text = " ".join(words(root))
    for expected in ("one", "two", "no positive evidence", "0.25 of the logit unexplained", "logits per cell", "+1.00"):
        assert expected in text, expected
    assert "Thin line" in text
    even = replace(CROP, exact=False)
    assert "not known" in " ".join(words(drawn(PIXELS, [evidence(MAP, placement=even)])))


def test_one_scale():
    root = drawn(PIXELS, [evidence(MAP), evidence(4 * MAP, 1)])
    one, other = ([r.get("fill-opacity") for r in g] for g in root.iter(f"{SPACE}g") if g.get("class") == "cells")
    assert [float(a) * 2 for a in one] == pytest.approx([float(a) for a in other], abs=0.01)


def test_the_pictures_are_the_picture():
    pixels = np.stack([np.add.outer(np.arange(60), 2 * np.arange(80)), *np.mgrid[:60, :80]], 2).astype(np.uint8)
    beneath, colour, bar = drawn(pixels, [evidence(MAP)]).iter(f"{SPACE}image")
    assert np.abs(picture(colour).astype(int) - pixels).mean() < 4  # a JPEG
    assert np.ptp(picture(beneath).astype(int), axis=2).max() == 0
    assert picture(bar).shape == (26, 420, 3)


def test_tiny_pictures_stay_pixels():
    pixels = PIXELS[:8, :8, :1]
    one = evidence([[1.0]], size=(8, 8), placement=Placement.even((1, 1), (8, 8)))
    _, colour, _ = drawn(pixels, [one]).iter(f"{SPACE}image")
    assert colour.get("class") == "pixels"
    np.testing.assert_array_equal(picture(colour)[..., :1], pixels)


def test_large_pictures_are_embedded_smaller_with_the_map_in_its_place():
    pixels = np.zeros((1000, 3000, 3), np.uint8)
    one = evidence([[1.0, 2.0]], size=(1000, 3000), placement=Placement.even((1, 2), (1000, 3000)))
    root = drawn(pixels, [one])
    _, colour, _ = root.iter(f"{SPACE}image")
    assert picture(colour).shape == (400, 1200, 3)
    assert (colour.get("width"), colour.get("height")) == ("3000", "1000")
    (cells,) = (g for g in root.iter(f"{SPACE}g") if g.get("class") == "cells")
    assert [rect.get("x") for rect in cells] == ["0", "1500"]


def test_boxes():
    root = drawn(PIXELS, [evidence(MAP)], boxes={0: [Box(10.0, 20.0, 30.0, 45.0, 9, 1.0, 1.0)], 7: []})
    (box,) = (r for r in root.iter(f"{SPACE}rect") if r.get("class") == "box")
    assert [box.get(key) for key in ("x", "y", "width", "height")] == ["10", "20", "20", "25"]


@pytest.mark.parametrize(
    ("changes", "words"), [({"alpha": 0}, "opacity"), ({"largest": -1.0}, "above 0"), ({"cmap": "?"}, "no colormap")]
)
def test_bad_input(changes, words):
    with pytest.raises(ValueError, match=words):
        svg(PIXELS, [evidence(MAP)], **changes)
    with pytest.raises(ValueError, match="60×80"):
        svg(PIXELS[:50], [evidence(MAP)])
