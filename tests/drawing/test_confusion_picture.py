"""The picture of what is taken for what, and the table of metrics: what stands in them, and that names are escaped."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from gapstone.drawing.confusion_picture import FEW, alike_together, confusion_picture, most_confused
from gapstone.drawing.metric_table import metric_table
from gapstone.statistics.metrics import METRICS

SVG = "{http://www.w3.org/2000/svg}"


def drawn(counts, classes, images=None):
    text = str(confusion_picture(counts, classes, images))
    return ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(svg):
    return ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]


def test_shares_of_rows_and_counts():
    svg = drawn([[9, 1], [0, 200]], ["cat", "dog"])
    cells = [text for text in texts(svg) if text.isdigit()]
    assert cells == ["90", "9", "10", "1", "100", "200"]  # none where nothing is
    assert svg.get("aria-label") == "Confusion of 2 classes: true classes are rows, predicted ones columns"
    fills = [rect.get("fill") for rect in svg.iter(f"{SVG}rect")]
    assert [("--right" in fill, "--wrong" in fill) for fill in fills[:3]] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_names_are_escaped_cut_and_marked_where_images_are_few():
    hostile, long = "<script>alert(1)</script>", "한국어로 된 아주 긴 이름의 클래스 하나 더"
    svg = drawn([[3, 0, 0], [0, 9, 0], [0, 0, 9]], [hostile, long, "a\x1b[31m"], [FEW - 1, 9, 9])
    titles = [title.text for title in svg.iter(f"{SVG}title")]
    assert f"{hostile} (4 test images)" in titles
    assert long in titles
    assert not any("\x1b" in text for text in texts(svg))
    shown = "".join(texts(svg))
    assert "* <script>alert(1)</scri" in shown
    assert "…" in shown


@pytest.mark.parametrize("classes", [2, 12, 25, 26, 120, 121, 400])
def test_any_number_of_classes_fits_its_box(classes):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (classes, classes)) + 20 * np.eye(classes, dtype=int)
    svg = drawn(counts, [f"class {k}" for k in range(classes)])
    x, y, width, height = map(float, svg.get("viewBox").split())
    assert x + width > 0 < y + height
    for path in svg.iter(f"{SVG}path"):
        for across, down in re.findall(r"M(\d+) (\d+)", path.get("d")):
            assert int(across) < x + width
            assert int(down) < y + height
    named = len(list(svg.iter(f"{SVG}title")))
    assert named == (2 * classes if classes <= 120 else 0)
    assert len(ElementTree.tostring(svg)) < 60_000 + 30 * np.count_nonzero(counts) + 400 * classes
    assert confusion_picture(np.eye(401), ["x"] * 401) is None


def test_confused_classes_lie_together():
    counts = 50 * np.eye(8, dtype=int)
    for a, b in ((0, 5), (1, 6), (2, 7), (3, 4)):
        counts[a, b] = counts[b, a] = 20
    order = alike_together(counts).tolist()
    assert sorted(order) == list(range(8))
    assert all(abs(order.index(a) - order.index(b)) == 1 for a, b in ((0, 5), (1, 6), (2, 7), (3, 4)))
    counts[3] = 0  # a class that no image is of
    assert sorted(alike_together(counts).tolist()) == list(range(8))


def test_the_most_confused_are_those_with_the_largest_share():
    counts = [[90, 10, 0], [3, 2, 0], [0, 40, 160]]
    found = most_confused(counts, ["a", "b", "c"], most=2)
    assert [(one["true"], one["predicted"], one["count"], one["of"]) for one in found] == [
        ("b", "a", 3, 5),
        ("c", "b", 40, 200),
    ]
    assert found[0]["sentence"] == "b is taken for a in 60 % of its predictions (3 of 5)."
    assert most_confused(np.eye(3, dtype=int), "abc") == []


def test_a_table_of_metrics():
    metrics = [METRICS[name].to_json() for name in ("nll", "accuracy")]
    stats = {
        "nll": {"mean": 0.2345, "ci95": [0.1, 0.4], "values": []},
        "accuracy": {"mean": None, "ci95": None, "values": []},
    }
    text = str(metric_table([("<b>", stats)], metrics))
    assert "&lt;b&gt;" in text
    assert "<b>0.234</b>" in text  # the first decides
    assert "0.100 to 0.400" in text
    assert "nats, lower is better" in text
    assert text.count("<tr>") == 2
