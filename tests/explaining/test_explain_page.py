"""One page that needs no network, with every map where the drawing has it."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gapstone.drawing.colourbar import ticks
from gapstone.drawing.colours import rgba
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.upsample import upsample
from gapstone.explaining import explain_page
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.tracing.placement import Placement
from tests.explaining.tiny import make_model, make_pictures


def explained(model, pictures, out, **options):
    explain_files(ExplainRequest(str(model), (str(pictures),), html=True, **options), out, Console(file=io.StringIO()))
    return (out / "index.html").read_text("utf-8")


class Elements(HTMLParser):
    """All elements, and whether each is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_asks_no_network_and_runs_only_its_own_script(model, pictures, tmp_path):
    text = explained(model, pictures, tmp_path / "out")
    elements = Elements(text).found
    addresses = [
        value for _, attributes in elements for name, value in attributes.items() if name in ("src", "href", "srcset")
    ]
    assert len(addresses) > 5 * 3
    assert all(address.startswith(("data:", "#")) for address in addresses)
    styles = re.sub(r"url\(data:[^)]*\)", "", text)
    assert "url(" not in styles
    assert "@import" not in styles
    (policy,) = (a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]


def test_a_card_for_each_picture_with_its_classes(model, pictures, tmp_path):
    text = explained(model, pictures, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "explained.json").read_text("ascii"))
    cards = [attributes for tag, attributes in Elements(text).found if tag == "article"]
    assert [card["data-name"] for card in cards] == [f"p{i:03d}.png" for i in range(5)]
    assert [card["data-answer"] for card in cards] == [row["label"] for row in document["pictures"]]
    assert [float(card["data-p"]) for card in cards] == [row["probability"] for row in document["pictures"]]
    assert len(re.findall(r'alt="Map of ', text)) == 15


def test_the_same_results_give_the_same_page(model, pictures, tmp_path):
    one = explained(model, pictures, tmp_path / "one")
    assert one == explained(model, pictures, tmp_path / "other")
    assert str(tmp_path / "one") not in one  # the folder can be moved


def test_no_positive_evidence_is_said(pictures, tmp_path):
    """A map without a positive cell: of the class that every cell speaks against."""
    model = make_model(tmp_path / "m.safetensors")
    text = explained(model, pictures, tmp_path / "out", classes="0,1,2,3")
    document = json.loads((tmp_path / "out" / "explained.json").read_text("ascii"))
    nothing = sum(entry["positive"] == 0 for row in document["pictures"] for entry in row["classes"])
    assert text.count("no positive evidence") == nothing
    everything = [entry for row in document["pictures"] for entry in row["classes"]]
    assert all((not entry["boxes"]) == (entry["positive"] == 0) for entry in everything)


@pytest.mark.parametrize("how", ["cells", "smooth"])
@pytest.mark.parametrize(
    "placement",
    [
        Placement((32.0, 32.0), (0.0, 0.0), ((0, 96), (0, 96)), exact=True),  # ResNet's
        Placement((20.0, 30.0), (12.0, 9.0), ((4, 88), (10, 96)), exact=True),  # a part of the picture
        Placement.even((3, 3), (96, 96)),
    ],
)
def test_maps_lie_where_the_drawings_have_them(placement, how):
    """Blow the page's picture up as a browser does, cut it as the page does, and compare with `place`."""
    values = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    evidence = Evidence(0, "cat", 1.0, 0.5, 0.0, values, placement, (96, 96), True, 0.0)
    uri, (top, left, height, width) = explain_page._map(evidence, 2.0, how, 0.9)
    small = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    (y0, y1), (x0, x1) = placement.seen
    assert top <= y0 + 0.4
    assert left <= x0 + 0.4
    assert top + height >= y1 - 0.4
    assert left + width >= x1 - 0.4
    middle = np.arange(96) + 0.5
    rows = ((middle - top) / height * len(small)).astype(int).clip(0, len(small) - 1)
    columns = ((middle - left) / width * small.shape[1]).astype(int).clip(0, small.shape[1] - 1)
    drawn = small[rows][:, columns].astype(float)
    drawn[(middle < y0) | (middle > y1)] = 0
    drawn[:, (middle < x0) | (middle > x1)] = 0
    exact = rgba(upsample(values, placement, (96, 96), how), 2.0, 0.9).astype(float)
    away = np.abs(drawn[..., 3] - exact[..., 3])
    if how == "cells":
        assert (away > 1).mean() < 0.02  # a cell's edge may fall within a pixel
    else:
        assert away.mean() < 12  # a quarter of a cell is one colour here; half a cell aside gives 30 and more
    assert ((drawn[..., 0] > drawn[..., 2]) == (exact[..., 0] > exact[..., 2])).mean() > 0.93


def test_many_pictures_are_cut_off_aloud(model, tmp_path, monkeypatch):
    monkeypatch.setattr(explain_page, "MOST", 3)
    folder = make_pictures(tmp_path / "photos", 5)
    text = explained(model, folder, tmp_path / "out", drawings=False)
    assert text.count("<article") == 3
    assert "shows the first 3 of 5 pictures" in text


PHONE = 390 - 2 * 20, 30 * 16  # px: what the page's margins leave of a phone's width; up to where it is narrow
LETTER = 13.12 * 0.64  # px: of a digit at .82rem, in the widest of the page's fonts


@pytest.mark.parametrize("largest", [3e-6, 0.00358, 0.0421, 0.83, 4.2, 17.5, 321.0, 54321.0])
def test_labels_of_the_colour_bar_have_room_on_a_phone(largest):
    """They did not: five numbers of seven letters on 350 px."""
    css = (files("gapstone.console") / "templates" / "base.css").read_text("utf-8")
    narrow = re.search(r"@media \(max-width: 30rem\) \{(.*?)\n\}", css, re.S)
    assert narrow
    assert ".ticks span:nth-child(even) { display: none; }" in narrow[1]
    labels = ticks(largest, None)
    for width, shown in ((PHONE[0], labels[::2]), (26 * 16, labels)):
        right = -9.0
        for at, text in shown:
            wide = LETTER * len(text)
            # the first begins at its tick, the last ends there, the others are centred
            left = at * width - wide * (at if at in (0, 1) else 0.5)
            assert left > right + 2, (width, text)
            right = left + wide
        assert right <= width + 0.5
