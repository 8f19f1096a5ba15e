"""CSV files: no cell is a formula in a spreadsheet, numbers stay numbers, and the way back is exact."""

import csv
import random
import re

import numpy as np
import pytest
from PIL import Image

from gapstone.data import scan_report
from gapstone.data.object_boxes import read_objects
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.storage.csv_file import cell, guarded, write_csv

LIVE = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "'=1", '"=1"', "\u200b=1",
        "\ufeff=1", "\xa0=1", "＝1+1", "＋1", "－1", "＠A", "rose;=1+1", "rose\t@x", "rose\n=1", "-", "=", "--5", "+-5",
        "-1e5x", "-inf", "\x00=1", "''=1"]  # fmt: skip
PLAIN = ["rose", "a=b", "a-b", "tench, -Tinca", "'tis", "", " ", "é", "한글", "-0.5", "+3", "-12", "1e-05", "-.5", "🌹"]


@pytest.mark.parametrize("text", LIVE)
def test_what_a_spreadsheet_would_run_is_text(text):
    safe = guarded(text)
    for piece in re.split(r"[;\t\r\n]", safe):  # as a spreadsheet with another separator would cut it
        assert not re.match(r"""[\s"`\x00\u200b\ufeff]*[=+\-@＝＋－＠]""", piece), safe
    assert cell(safe) == text


@pytest.mark.parametrize("value", [*PLAIN, -0.5, -3, 0, 1e-5, None])
def test_numbers_and_other_texts_stay(value):
    assert guarded(value) == value


def test_the_way_back_is_exact():
    draw = random.Random(0)
    for _ in range(20_000):
        text = "".join(draw.choices("=+-@;'\"\t\r\n 0.5ex＝\u200b", k=draw.randrange(7)))
        assert cell(guarded(text)) == text


def test_a_file_of_them(tmp_path):
    rows = [["name", "value"], *([text, -0.5] for text in LIVE + PLAIN), ["caf\udce9", 1]]
    write_csv(tmp_path / "t.csv", rows)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file))
    assert [cell(name) for name, _ in read[1:-1]] == LIVE + PLAIN
    assert {value for _, value in read[1:-1]} == {"-0.5"}
    assert read[-1] == [r"caf\udce9", "1"]


def test_names_from_a_table_of_ours_are_found_again(tmp_path):
    """A name or class copied from scan.csv or predictions.csv into the table of --boxes."""
    data = tmp_path / "data"
    for label in ("=cmd|' calc'!A0", "@b"):
        (data / label).mkdir(parents=True)
        for k in range(2):
            pixels = np.random.default_rng(k + len(label)).integers(0, 256, (9, 9, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(data / label / f"-{k}.png")
    source = open_source(data)
    scan_report.write(scan(source, cache=None, workers=1), tmp_path / "out")
    with (tmp_path / "out/scan.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert all(row["class"][0] == row["name"][0] == "'" for row in table)
    rows = [[row["name"], 0, 0, 5, 5, row["class"]] for row in table]
    with (tmp_path / "boxes.csv").open("w", encoding="utf-8", newline="") as file:  # as a person copies them
        csv.writer(file).writerows([["path", "x0", "y0", "x1", "y1", "class"], *rows])
    found = read_objects(tmp_path / "boxes.csv", source, [(9, 9)] * 4)
    assert sorted(found.boxes) == [(0, 0), (1, 0), (2, 1), (3, 1)]
