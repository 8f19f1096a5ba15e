"""The report of results that never were: whole, safe, without a request, and readable on a terminal."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gapstone.comparing.learning_curve import curve_results
from gapstone.comparing.report import charts, number_text, report_page, report_pictures, report_terminal
from gapstone.comparing.report.charts import COLOURS, ChartStyle
from gapstone.comparing.verdict import sentences
from gapstone.images.as_picture import MOST_CHANNELS, three_channels
from gapstone.statistics.unit import Unit
from tests.comparing.fake_results import NAMES, make, save
from tests.schemas import schemas
from tests.serve.browser import Browser, chromium

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Everything a browser would see: elements with their attributes, and text; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def report(folder: Path, **settings: Any) -> tuple[dict[str, Any], str, Page]:
    results = make(folder, **settings)
    text = report_page.write(folder).read_text("utf-8")
    return results, text, Page(text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Page]:
    return report(tmp_path_factory.mktemp("whole"), failed={"gmp": [3]})


def test_everything_asked_for_is_there(whole: tuple[dict[str, Any], str, Page]) -> None:
    results, _, page = whole
    assert results["verdict"] in page.text
    ids = [attrs["id"] for _, attrs in page.elements if attrs.get("id")]
    sections = ["cost", "verdicts", "training", "overfitting", "robustness", "calibration", "maps", "worst",
                "confusion", "data", "failed", "reproduce", "limits"]  # fmt: skip
    assert [name for name in ids if name in sections] == sections
    for said in (
        results["command"],
        results["data"]["hash"],
        "not additive, off by",
        "no positive evidence",
        "takes only 32×32",
        "Shifted images: each head minus gap",
        "accepts any size",
        "2 files could not be read",
        "the file ends too early",
        "40 groups of exact duplicates",
        "1 trial of 25 failed",
        "gmp , seed 3: out of memory",
        "How to read this",
    ):
        assert said in page.text
    for pair in results["pairs"]:
        assert pair["verdict"] in page.text
        assert pair["advice"] is None or pair["advice"] in page.text
    assert "works at" not in page.text.replace("not to work at", "")
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert set(links) <= {f"#{name}" for name in ids}


def test_nothing_is_asked_of_the_network_and_nothing_runs(whole: tuple[dict[str, Any], str, Page]) -> None:
    _, text, page = whole
    for tag, attrs in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base"}
        for key, value in attrs.items():
            assert not key.startswith("on")
            if key in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                assert (value or "").startswith(("data:", "#"))
    assert not re.search(r"url\((?!#|data:image/)", text)
    assert len(text.encode()) < 5_000_000
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//\w|@import|@font-face", text)
    assert "default-src 'none'" in text


def test_names_are_text_in_their_own_direction(whole: tuple[dict[str, Any], str, Page]) -> None:
    _, text, page = whole
    for name in NAMES:
        assert name in page.text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    named = [attrs for tag, attrs in page.elements if tag == "bdi"]
    assert len(named) > 50
    assert all(attrs["dir"] == "auto" for attrs in named)


def test_hostile_names_in_every_place(tmp_path: Path) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    results = make(tmp_path, classes=(evil, "ok"), heads=("gap", "fc"), failed={"fc": [0]})

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        keep = key in {"head", "baseline", "heads", "a", "b", "metric", "verdict", "status", "created", "input"}
        return value + evil if isinstance(value, str) and not keep else value

    spoilt = spoil(results)
    for metric, was in zip(spoilt["metrics"], results["metrics"], strict=True):
        metric["name"] = was["name"]  # a key of "metrics" of each head
    save(tmp_path, spoilt)
    text = report_page.write(tmp_path).read_text("utf-8")
    assert "<img src=x" not in text
    assert not any("onerror" in attrs for _, attrs in Page(text).elements)
    broken = results | {"command": "name \udce9 that is no UTF-8"}
    save(tmp_path, broken)
    assert b"\\xe9" in report_page.write(tmp_path).read_bytes()


def test_pictures_have_words_and_charts_follow_the_dress(whole: tuple[dict[str, Any], str, Page]) -> None:
    _, text, page = whole
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    assert images
    assert all(attrs.get("alt") for attrs in images)
    charts = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in charts)
    drawn = re.findall(r"<svg.*?</svg>", text, re.S)
    assert not re.search(r"#[0-9a-fA-F]{6}\b", "".join(drawn)), "a colour that no dark dress could change"
    assert not re.search(r"<style|DejaVu|\d\.\d{3,}", "".join(drawn))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    ids = re.findall(r'\sid="([^"]+)"', "".join(drawn))
    for number in ids:
        assert f"#{number}" in text


@pytest.mark.slow
def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    make(tmp_path, heads=("gap", "fc"), shown=2)
    first = report_page.write(tmp_path).read_bytes()
    assert report_page.write(tmp_path).read_bytes() == first
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"heads": ("gap",), "seeds": 1}, marks=pytest.mark.slow),
        pytest.param({"heads": ("gap", "fc"), "seeds": 1, "pictures": False}, marks=pytest.mark.slow),
        pytest.param({"heads": ("gap", "fc"), "failed": {"gap": range(5)}}, marks=pytest.mark.slow),
        {"heads": ("gap", "fc", "nin"), "failed": {"fc": range(5)}, "classes": ("no", "yes"), "channels": 1},
        {"heads": ("gap", "fc"), "failed": {"gap": range(5), "fc": range(5)}, "pictures": False},
        pytest.param(
            {"heads": ("gap", "fc"), "classes": tuple(f"class {i}" for i in range(120)), "seeds": 2, "shown": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"heads": tuple(f"fc:{2**i}" for i in range(3, 12)), "seeds": 2, "shown": 1}, marks=pytest.mark.slow
        ),
    ],
    ids=["one head", "no pictures", "no baseline", "two classes", "nothing", "many classes", "many heads"],
)
def test_odd_comparisons(tmp_path: Path, settings: dict[str, Any]) -> None:
    results, text, page = report(tmp_path, **settings)
    assert results["verdict"] in page.text
    assert "None" not in page.text
    assert "nan" not in text.replace("name", "")
    for width in (80, 120):
        assert "Traceback" not in printed(results, width)
    if len(results["data"]["classes"]) > 25:
        assert "lie side by side" in page.text


def test_what_is_missing_is_a_dash_and_never_zero(tmp_path: Path) -> None:
    results = make(tmp_path, heads=("gap", "fc"))
    for head in results["heads"]:
        head["ms_per_image"] = None
        head["peak_memory_mb"] = {"mean": None, "ci95": None, "values": []}
        for curve in head["curves"]:
            curve["validation_accuracy"] = [None] * len(curve["epoch"])
    results["pairs"][0]["difference"] = results["pairs"][0]["ci95"] = None
    del results["shift_pairs"]
    save(tmp_path, results)
    assert "–" in Page(report_page.write(tmp_path).read_text("utf-8")).text
    assert (
        number_text.percent(None)
        == number_text.short(None)
        == number_text.seconds(None)
        == number_text.p_value(None)
        == "–"
    )


# --- pictures


def decoded(uri: str) -> np.ndarray[Any, Any]:
    import base64

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_overlay_is_one_pixel_per_cell_and_its_opacity_the_root_of_the_value() -> None:
    values = np.array([[4.0, 1.0, 0.0], [-1.0, -4.0, 2.0]])
    pixels = decoded(report_pictures.overlay(values, largest=4.0))
    assert pixels.shape == (2, 3, 4)
    full = round(255 * report_pictures.STRONGEST)
    np.testing.assert_allclose(pixels[..., 3], full * np.cbrt(np.abs(values) / 4), atol=1)
    assert (pixels[0, 0, :3] == report_pictures.ABOVE).all()
    assert (pixels[1, 1, :3] == report_pictures.BELOW).all()


def test_cells_lie_where_the_network_has_them() -> None:
    maps = np.arange(18.0).reshape(2, 3, 3)
    # ResNet at 96 px: cells around 0, 32, 64 reach from −16 to 80, so one more column and row fills the picture
    around, area = report_pictures.placed(maps, np.array([[32.0, 32.0], [0.0, 0.0]]), (96, 96))
    assert around.shape == (2, 4, 4)
    np.testing.assert_array_equal(around[1], np.pad(maps[1], ((0, 1), (0, 1)), mode="edge"))
    assert (area.left, area.width) == pytest.approx((100 * (0.5 - 16) / 96, 100 * 4 * 32 / 96))
    # other axes, other numbers: y in cells of 10 from the middle of 60 px, x in cells that fill 30 px evenly
    around, area = report_pictures.placed(maps, np.array([[10.0, 10.0], [19.5, 4.5]]), (60, 30))
    np.testing.assert_array_equal(around[0, :, 0], [0, 0, 0, 3, 6, 6, 6])
    np.testing.assert_array_equal(around[0, 0], [0, 1, 2])
    assert (area.top, area.height) == pytest.approx((100 * -5 / 60, 100 * 70 / 60))
    assert (area.left, area.width) == pytest.approx((0, 100))
    # from a gapstone that kept no placement: equal shares
    around, area = report_pictures.placed(maps, None, (96, 30))
    assert around.shape == (2, 3, 3)
    assert (area.left, area.top, area.width, area.height) == pytest.approx((0, 0, 100, 100))


def test_a_map_on_the_page_lies_where_it_was_placed(tmp_path: Path) -> None:
    results = make(tmp_path, heads=("gap", "fc"), shown=2)
    with np.load(tmp_path / "pictures.npz") as arrays:
        kept = dict(arrays) | {
            "placement_0": np.array([[4.0, 4.0], [0.0, 0.0]]),
            "boxes": np.array([[1, 8, 0, 16, 40.0]]),
        }
    np.savez(tmp_path / "pictures.npz", **kept)
    save(tmp_path, results)
    page = Page(report_page.write(tmp_path).read_text("utf-8"))
    styles = [attrs.get("style") or "" for tag, attrs in page.elements if tag == "img" and "Map of" in attrs["alt"]]
    # 8 cells of 4 px around 0, 4, …, 28 reach to 30 px of 32: a ninth fills the picture
    assert any(style.startswith("left:-4.688%;top:-4.688%;width:112.500%") for style in styles)
    assert any(style.startswith("left:0.000%;top:0.000%;width:100.000%") for style in styles), "fc has no placement"
    frames = [attrs["style"] for tag, attrs in page.elements if attrs.get("class") == "box"]
    assert set(frames) == {"left:25.000%;top:0.000%;width:25.000%;height:100.000%"}  # cut off at the lower edge


def test_all_maps_share_one_scale(tmp_path: Path) -> None:
    results = make(tmp_path)
    maps, worst = report_pictures.read(tmp_path / "pictures.npz", results["data"]["classes"], len(results["heads"]))
    assert maps
    assert len(worst) == 6
    strongest = [decoded(m.uri)[..., 3].max() for row in maps.rows for cell in row.cells for m in cell or ()]
    assert max(strongest) == round(255 * report_pictures.STRONGEST)
    assert min(strongest) < 0.8 * max(strongest), "a map was stretched to its own maximum"
    assert list(maps.additive) == [True, True, True, True, False]
    with np.load(tmp_path / "pictures.npz") as arrays:
        for image, row in enumerate(maps.rows):
            for head, cell in enumerate(row.cells):
                assert cell
                logits = arrays[f"logits_{head}"][image]
                label, whole = int(arrays["labels"][image]), arrays[f"maps_{head}"][image]
                assert cell[0].positive == pytest.approx((whole[label] - whole.mean(0)).clip(0).sum(), abs=1e-4)
                assert cell[0].label == results["data"]["classes"][arrays["labels"][image]]
                assert cell[0].logit == pytest.approx(logits[label] - logits.mean(), abs=1e-5)
                assert (len(cell) == 1) == (logits.argmax() == arrays["labels"][image])
                assert all(0 <= m.probability <= 1 for m in cell)
    assert not any(m.positive for m in maps.rows[2].cells[0] or () if m.role == "true")


def test_a_map_that_is_added_to_all_classes_changes_nothing_shown(tmp_path: Path) -> None:
    """softmax cannot see it, so how large it is was decided by no image."""
    results = make(tmp_path)
    with np.load(tmp_path / "pictures.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    shift = np.random.default_rng(1).normal(size=arrays["maps_0"].shape[2:]).astype(np.float32)
    arrays |= {"maps_0": arrays["maps_0"] + shift, "logits_0": arrays["logits_0"] + shift.sum()}
    np.savez(tmp_path / "lifted.npz", **arrays)
    classes, heads = results["data"]["classes"], len(results["heads"])
    given, lifted = (
        report_pictures.read(tmp_path / f"{name}.npz", classes, heads)[0] for name in ("pictures", "lifted")
    )
    assert given
    assert lifted
    assert lifted.largest == pytest.approx(given.largest, abs=1e-5)
    for ours, theirs in zip(given.rows, lifted.rows, strict=True):
        for one, other in zip(ours.cells[0] or (), theirs.cells[0] or (), strict=True):
            assert np.abs(decoded(one.uri).astype(int) - decoded(other.uri)).max() <= 1
            for number in ("logit", "probability", "bias", "positive"):
                assert getattr(one, number) == pytest.approx(getattr(other, number), abs=1e-3)


def test_large_pictures_are_made_small_and_small_ones_kept() -> None:
    rng = np.random.default_rng(0)
    large = [rng.integers(0, 256, (600, 900, 3), np.uint8) for _ in range(80)]
    encoded = report_pictures.encode(large)
    assert sum(len(picture.uri) for picture in encoded) <= report_pictures.MOST_BYTES
    assert encoded[0].width > encoded[0].height
    assert not encoded[0].pixelated
    for channels in (1, 2, 3, 4):
        tiny = rng.integers(0, 256, (9, 7, channels), np.uint8)
        kept = report_pictures.encode([tiny])[0]
        assert (kept.width, kept.height, kept.pixelated) == (7, 9, True)
        np.testing.assert_array_equal(decoded(kept.uri), tiny[..., 0] if channels == 1 else three_channels(tiny))


# --- places and words


def test_scale_keeps_numbers_inside_and_ticks_round() -> None:
    scale = report_page.AxisScale([-9.4, 2.4, -1, 1])
    assert scale.at(-9.4) < scale.at(0)
    assert [float(scale.at(x)[:-1]) for x in (-100, 100)] == [0, 100]
    assert scale.ticks() == [-10, -5, 0] or 0 in scale.ticks()
    assert 3 <= len(report_page.AxisScale([99.2, 100], most=100.5).ticks()) <= 10
    assert report_page.AxisScale([0.0]).ticks()


@pytest.mark.parametrize("shares", [[1.0, 1.0], [0.0, 0.0], [0.98, 1.0], [0.0, 0.02], [0.4, 0.6]], ids=str)
def test_no_axis_shows_more_than_all_or_less_than_nothing(shares: list[float]) -> None:
    head = {"shift": {"pixels": [0, 1], "accuracy": shares}}
    chart = charts.robustness([head], "shift", "pixels", "accuracy", ("moved by", "accuracy"))
    assert chart
    (axes,) = chart.figure.axes
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(ticks) > 1
    assert -1e-9 <= min(ticks) < max(ticks) <= 1 + 1e-9
    assert low < min(shares)  # markers are whole
    assert max(shares) < high


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pictures_in_false_colours_are_called_so(tmp_path: Path, channels: int) -> None:
    make(tmp_path, heads=("gap", "gmp"), seeds=3, images=60, channels=channels)
    said = "Pictures of 5 channels are shown in false colours" in report_page.write(tmp_path).read_text("utf-8")
    assert said == (channels == 5)
    (taken,) = re.findall(r'"channels": ({"type.*?})', json.dumps(schemas()["results.schema.json"]))
    assert json.loads(taken) == {"type": "integer", "minimum": 1, "maximum": MOST_CHANNELS}


def test_heads_differ_in_more_than_colour() -> None:
    looks = [(ChartStyle(i).colour, ChartStyle(i).marker, ChartStyle(i).line) for i in range(3 * COLOURS)]
    assert len(set(looks[:COLOURS])) == COLOURS
    assert len({(marker, line) for _, marker, line in looks[:COLOURS]}) == COLOURS
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (number_text.percent(0.9312), "93.1"),
        (number_text.signed(-1.25), "−1.2"),
        (number_text.signed(-0.001), "0.0"),
        (number_text.signed(2.0), "+2.0"),
        (number_text.short(29_658), "29.7 k"),
        (number_text.short(999_900), "1 M"),
        (number_text.short(650), "650"),
        (number_text.p_value(2e-5), "< 0.001"),
        (number_text.p_value(0.0321), "0.032"),
        (number_text.seconds(400), "6.7 min"),
        (number_text.count_noun(1, "seed"), "1 seed"),
        (number_text.count_noun(2, "class", "classes"), "2 classes"),
        (number_text.plus_minus({"mean": 0.93, "ci95": [0.92, 0.94], "values": [0.92, 0.93, 0.94]}), "± 1.0"),
        (number_text.plus_minus({"mean": 0.93, "ci95": [0.93, 0.93], "values": []}), None),
        (number_text.plus_minus({"mean": 0.98, "ci95": [0.94, 1.0], "values": []}), "(94.0 to 100.0)"),
        (number_text.plus_minus({"mean": 0.5, "ci95": None, "values": [0.3, 0.7]}), "[30.0 to 70.0]"),
        (number_text.plus_minus({"mean": 0.5, "ci95": None, "values": [0.5]}), None),
        (number_text.milliseconds({"median": 0.62, "low": 0.6, "high": 0.65}), "0.62"),
        (number_text.milliseconds({"median": 21.0, "low": 0.34, "high": 36.0}), "~21.00"),
        (number_text.milliseconds({"median": 0.62, "low": 0.6, "high": 0.65}, quartiles=True), "0.62 (0.60–0.65)"),
    ],
)
def test_words(made: str | None, said: str | None) -> None:
    assert made == said


# --- terminal


def printed(results: dict[str, Any], width: int, **console: Any) -> str:
    file = io.StringIO()
    report_terminal.render(results, Console(file=file, width=width, **console))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_says_it_in_words(tmp_path: Path, width: int) -> None:
    results = make(tmp_path, failed={"gmp": [1, 3]}, pictures=False)
    text = printed(results, width)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    assert results["verdict"] in flat
    assert "gmp, seeds 1, 3: out of memory" in flat
    for head in results["heads"]:
        assert f"{100 * head['test_accuracy']['mean']:.1f}" in flat
    for pair in results["pairs"]:
        assert number_text.compared(pair) in flat
        assert pair["advice"] is None or pair["advice"] in flat
    assert "Shifted test images, against gap in percentage points: gmp" in flat
    row = next(line for line in text.splitlines() if line.startswith("fc:dropout=0.5"))
    assert "cannot tell" in row or "worse" in row


def test_terminal_shows_escapes_and_markup_as_text(tmp_path: Path) -> None:
    results = make(tmp_path, heads=("gap", "fc"), failed={"fc": [0]}, pictures=False)
    results["trials"][5]["reason"] = "[red]bad[/red] \x1b[31mname"
    text = " ".join(printed(results, 100).split())
    assert "[red]bad[/red]" in text
    assert "\x1b" not in text
    coloured = printed(results, 100, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured


def test_what_could_have_been_found_is_said() -> None:
    from gapstone.comparing.report.number_text import sensitivity

    def tested(*sizes: float | None) -> list[dict[str, Any]]:
        unit = {"unit": "percentage points", "digits": 1}
        return [{"p": 0.5, "detectable": size, "repeats": 3} | unit for size in sizes]

    power = "percentage points would be detected with a power of 80 %"
    assert f"of 1.4 to 2.1 {power}." in sensitivity([*tested(2.13, 1.38), {"p": None}])
    assert f"of 2.1 {power}." in sensitivity(tested(2.13))
    assert sensitivity([{"p": None, "detectable": None}]) == ""
    assert sensitivity([{"p": 0.5, "detectable": None, "repeats": 2}]) == ""
    # nothing that two accuracies can differ by
    assert sensitivity(tested(None)).startswith("No difference, however large, would be detected")
    assert f"of 2.1 {power}; for 1 other head none would" in sensitivity(tested(2.13, None))


def test_a_quick_comparison_has_no_robustness_and_says_so(tmp_path: Path) -> None:
    results = make(tmp_path, heads=("gap", "fc"), seeds=2)
    for head in results["heads"]:
        head |= {"shift": None, "sizes": None, "robustness_images": 0}
        head["shift_accuracy"] = {"mean": None, "ci95": None, "values": []}
    results["shift_pairs"] = []
    results["verdict"], results["findings"] = sentences(results)
    save(tmp_path, results)
    page = report_page.write(tmp_path).read_text("utf-8")
    assert "Not measured (--quick)" in page
    assert "Sizes they accept" not in page
    console = Console(file=io.StringIO(), width=100)
    report_terminal.render(results, console)
    assert "shift" not in console.file.getvalue().lower()


def test_results_in_an_older_form_are_not_shown_but_made_anew(tmp_path: Path) -> None:
    from gapstone.comparing.run_comparison import report as show

    results = make(tmp_path, heads=("gap", "fc"), pictures=False)
    save(tmp_path, results | {"schema": 1, "gapstone": "0.0.9"})
    with pytest.raises(
        ValueError, match=r"written by gapstone 0\.0\.9, in an older form; run the same `gapstone compare`"
    ):
        show(tmp_path, Console(file=io.StringIO()))
    save(tmp_path, results)
    console = Console(file=io.StringIO(), width=100)
    show(tmp_path, console)
    assert results["verdict"] in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="needs a chromium")
def test_a_phone_has_room_for_the_report(tmp_path):
    """No wider than the page, headers apart; the labels of the colour bar as on the page of `explain`."""
    make(tmp_path / "results")
    with Browser(chromium() or "", tmp_path / "browser") as page:
        page.size(390, 844, 2, mobile=True)
        page.open(report_page.write(tmp_path / "results").as_uri())
        assert page.js("document.documentElement.scrollWidth") == 390
        assert page.js(GAPS.replace("CELLS", "'thead tr'")) >= 4
        assert page.js(GAPS.replace("CELLS", "'.ticks'")) >= 4


GAPS = """Math.min(...[...document.querySelectorAll(CELLS)].flatMap(row => {
  const seen = [...row.children].filter(e => e.innerText && getComputedStyle(e).display !== "none").map(e => {
    const range = document.createRange(); range.selectNodeContents(e); return range.getBoundingClientRect();
  });
  return seen.slice(1).map((box, i) => box.left - seen[i].right);
}))"""
"""Pixels between what stands side by side, at the least."""


@pytest.mark.parametrize(("fold", "repeat"), [pytest.param(None, "seed 3", marks=pytest.mark.slow), (2, "fold 2")])
def test_the_page_says_which_model_lies_beside_it(tmp_path: Path, fold: int | None, repeat: str) -> None:
    results = make(tmp_path)
    assert "model.safetensors" not in report_page.write(tmp_path).read_text("utf-8")
    about = {"trial": "0" * 16, "head": "gap<b>", "seed": 3, "fold": fold, "test_accuracy": 0.9}
    results["models"] = [about | {"file": file} for file in ("model.safetensors", "models/fc.safetensors")]
    save(tmp_path, results)
    text = Page(report_page.write(tmp_path).read_text("utf-8")).text
    assert f"model.safetensors (gap<b>, {repeat}), models/fc.safetensors (gap<b>, {repeat}). The first is" in text


def test_accuracy_against_labelled_images_and_what_was_chosen(
    whole: tuple[dict[str, Any], str, Page], tmp_path: Path
) -> None:
    results, text, _ = whole
    assert 'id="labels"' not in text
    assert "chosen on validation images in each trial" not in text
    heads = [head["head"] for head in results["heads"]]
    rng = np.random.default_rng(0)
    points: list[tuple[int | None, int]] = [(5, 50), (30, 300), (None, 2000)]
    hard = rng.random(500)
    right = [
        {head: {seed: hard < 0.6 + 0.1 * at + 0.01 * rng.random() for seed in range(5)} for head in heads}
        for at in range(3)
    ]
    for at, accuracy in ((0, 0.4), (2, 0.95)):
        right[at]["fc"] = dict.fromkeys(range(5), hard < accuracy)
    curve = curve_results(points, right, "gap", Unit(), 0.95)
    (part,) = (entry for key, entry in schemas()["results.schema.json"]["properties"].items() if key == "curve")
    assert set(part["required"]) == set(curve)
    settings = results["settings"] | {
        "tuning": {"learning_rates": [0.3, 3.0], "weight_decays": [0.0, 1e-4]},
        "frozen": True,
    }
    chosen = {("fc", seed): rate for seed, rate in enumerate((0.3, 3.0, 3.0, 0.3, 3.0))}
    trials = [
        trial | {"learning_rate": chosen.get((trial["head"], trial["seed"]), 3.0)}
        if trial["status"] == "done"
        else trial
        for trial in results["trials"]
    ]
    save(tmp_path, results | {"curve": curve, "settings": settings, "trials": trials, "files": {}})
    page = Page(report_page.write(tmp_path).read_text("utf-8"))
    assert curve["findings"][0] in page.text
    assert "Labelled images of each class 5 30 all" in page.text
    assert f"adjusted for {3 * (len(heads) - 1)} comparisons" in page.text
    assert "rates 0.3, 3.0; decays 0.0, 0.0001" in page.text
    assert "fc 0.3, 3, 3, 0.3, 3 0.0005, 0.0005, 0.0005, 0.0005, 0.0005 17, 17, 17, 17, 17" in page.text
    assert "Early stopping" not in page.text
