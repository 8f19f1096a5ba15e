"""The page in headless Chromium, with every address but this machine's blocked."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from gapstone.drawing.colours import rgba
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.upsample import upsample
from gapstone.images.load import load
from gapstone.localisation.cam_boxes import box
from gapstone.maps.open_model import open_model
from gapstone.tracing.placement import Placement
from tests.marks import slow_but
from tests.serve.browser import Browser, chromium
from tests.serve.serving import LABELS, Live, encoded, picture, small

pytestmark = pytest.mark.xdist_group("serve")

DONE = "document.body.classList.contains('answered') && !document.body.classList.contains('busy')"
CANVASES = "[...document.querySelectorAll('figure canvas')]"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("needs Chromium (apt-get install chromium), or its path in GAPSTONE_CHROMIUM")
    with Browser(program, tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser: Browser, live: Live) -> Iterator[Browser]:
    yield from opened(browser, live)


def opened(browser: Browser, live: Live) -> Iterator[Browser]:
    """The page, fresh; afterwards nothing may have been asked of anybody else, and nothing have gone wrong."""
    browser.requests.clear()
    browser.complaints.clear()
    browser.events.clear()
    browser.size(1280, 900)
    browser.open(live.url)
    browser.until("document.querySelector('#models').textContent !== ''")
    yield browser
    browser.open("about:blank")
    for address in browser.requests:
        parts = urlsplit(address)
        here = parts.netloc == f"127.0.0.1:{live.port}" or parts.scheme in ("data", "blob", "about")
        assert here, f"the page asked {address[:200]}"
    expected = ("400", "413", "422")  # the console tells of answers that are errors
    assert [c for c in browser.complaints if not any(f"status of {code}" in c for code in expected)] == []


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(picture(60, 80)))
    return path


def upload(page: Browser, path: Path) -> None:
    page.js("document.body.classList.remove('answered')")
    page.choose("#file", path)
    page.until(DONE)


def text(page: Browser, selector: str) -> str:
    return str(page.js(f"document.querySelector({json.dumps(selector)}).innerText"))


def looks(page: Browser) -> list[str]:
    return list(page.js(f"{CANVASES}.map((c) => c.toDataURL())"))


def evidence(model: Path, path: Path) -> list[Evidence]:
    """As the page shows it: minus the mean of all classes, most probable first."""
    opened, pixels = open_model(str(model)), load(path).pixels
    shown = opened.evidence(opened.explain([pixels]).centred(), 0, pixels.shape[:2])
    return sorted(shown, key=lambda each: -each.logit)


def found_box(each: Evidence, threshold: float, how: str = "smooth") -> str:
    [found] = box(upsample(each.map, each.placement, each.size, how), threshold)
    x0, y0, x1, y1 = (int(edge) for edge in found.edges)
    return f"Box {x1 - x0} × {y1 - y0} px, from ({x0}, {y0}) to ({x1}, {y1})"


def test_an_upload_shows_the_classes_and_their_map(page: Browser, photo: Path, model_files: tuple[Path, Path]) -> None:
    upload(page, photo)
    expected = evidence(model_files[0], photo)
    rows = page.js(
        "[...document.querySelectorAll('.class')].map((row) => row.innerText.split('\\n').map((s) => s.trim()))"
    )
    assert [row[0] for row in rows] == [each.label for each in expected]
    shares = [f"{100 * each.probability:.1f} %" for each in expected]
    assert [row[1] for row in rows if "<" not in row[1] and ">" not in row[1]] == [
        share for share, each in zip(shares, expected, strict=True) if 0.0005 <= each.probability < 0.9995
    ]
    assert text(page, ".title").startswith(expected[0].label)
    assert f"logit {expected[0].logit:.2f}".replace("-", "−") in text(page, ".title")
    assert "photo.png, 80 × 60 px" in text(page, "#name")
    assert expected[0].label in text(page, "#said")
    largest = max(float(np.abs(each.map).max()) for each in expected)
    assert text(page, "#high").startswith("+")
    assert float(text(page, "#high")) == pytest.approx(largest, rel=0.01)


def test_switching_classes_asks_the_server_nothing(page: Browser, photo: Path) -> None:
    upload(page, photo)
    asked = len(page.requests)
    pictures = [looks(page)[0]]
    for n in range(1, len(LABELS)):
        page.js(f"document.querySelectorAll('.class input')[{n}].click()")
        assert text(page, ".title").startswith(text(page, f".class:nth-child({n + 1}) .label"))
        pictures += looks(page)
    assert len(set(pictures)) == len(LABELS)
    page.js("document.querySelector('input[value=cells]').click()")
    page.js("document.querySelector('#grey').click()")
    assert looks(page)[0] not in pictures
    assert len(page.requests) == asked


def test_maps_as_they_are_are_one_switch_away(page: Browser, photo: Path, model_files: tuple[Path, Path]) -> None:
    upload(page, photo)
    centred = evidence(model_files[0], photo)[0]
    [plain] = open_model(str(model_files[0])).look([load(photo).pixels], top_k=1)[0]
    before = looks(page)
    said = text(page, ".title"), text(page, ".sum")
    assert f"logit {centred.logit:.2f} above the mean" in said[0]
    assert f"logit {centred.logit:.2f} above the mean" in said[1]
    asked = len(page.requests)
    page.js("document.querySelector('#centred').click()")
    assert f"logit {plain.logit:.2f}".replace("-", "−") in text(page, ".title")
    assert "the mean" not in text(page, "figure")
    assert looks(page) != before
    page.js("document.querySelector('#centred').click()")
    assert looks(page) == before
    assert (text(page, ".title"), text(page, ".sum")) == said
    assert len(page.requests) == asked


def test_the_slider_moves_the_box_as_the_library_does(
    page: Browser, tmp_path: Path, model_files: tuple[Path, Path]
) -> None:
    photo = tmp_path / "photo.png"  # no edge of a cell falls on the middle of a pixel, where rounding would decide
    photo.write_bytes(encoded(picture(61, 83)))
    upload(page, photo)
    first = next(n for n, each in enumerate(evidence(model_files[0], photo)) if each.positive > 0)
    page.js(f"document.querySelectorAll('.class input')[{first}].click()")
    each = evidence(model_files[0], photo)[first]
    assert text(page, ".cell") == found_box(each, 0.2)
    page.js("document.querySelector('#threshold').focus()")
    for _ in range(50):
        page.key("ArrowRight")
    assert text(page, "#threshold-value") == "70 %"
    assert text(page, ".cell") == found_box(each, 0.7)
    assert found_box(each, 0.7) != found_box(each, 0.2)
    page.js("document.querySelector('input[value=cells]').click()")
    assert text(page, ".cell") == found_box(each, 0.7, "cells")
    page.js("document.querySelector('#boxed').click()")
    assert "Box" not in text(page, ".cell")


def test_everything_works_from_the_keyboard(page: Browser, photo: Path, model_files: tuple[Path, Path]) -> None:
    expected = evidence(model_files[0], photo)
    page.send("Page.setInterceptFileChooserDialog", enabled=True)
    page.key("Tab")
    assert page.js("document.activeElement.id") == "choose"
    assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.key("Enter")
    page.until("true")
    chooser = next(event for event in page.events if event["method"] == "Page.fileChooserOpened")
    page.send("DOM.setFileInputFiles", files=[str(photo)], backendNodeId=chooser["params"]["backendNodeId"])
    page.send("Page.setInterceptFileChooserDialog", enabled=False)
    page.until(DONE)
    assert page.js("document.activeElement.id") == "choose"
    page.key("Tab")
    assert page.js("document.activeElement.tagName") == "CANVAS"
    page.key("ArrowRight")
    height, width = expected[0].map.shape
    row, column = (height - 1) // 2, (width - 1) // 2
    page.key("ArrowDown")
    row = min(row + 1, height - 1)
    value = f"{expected[0].map[row, column]:+.4g}"
    said = text(page, "#said")
    assert said.startswith(f"Row {row + 1}, column {column + 1}: ")
    assert float(said.split(": ")[1].split(" of ")[0].replace("−", "-")) == pytest.approx(float(value), rel=0.01)
    assert f"logit {expected[0].logit:.2f}".replace("-", "−") in said
    page.key("Escape")
    assert "Row" not in text(page, ".cell")
    page.key("Tab")
    assert page.js("document.activeElement.name") == "class"
    page.key("ArrowDown")
    assert text(page, ".title").startswith(expected[1].label)
    page.key("4")
    assert text(page, ".title").startswith(expected[3].label)
    reached = []
    for _ in range(9):
        page.key("Tab")
        reached.append(page.js("document.activeElement.id || document.activeElement.name"))
    assert reached == ["other", "kind", "grey", "centred", "opacity", "boxed", "threshold", "png", "json"]


def test_pointing_reads_a_cell(page: Browser, photo: Path, model_files: tuple[Path, Path]) -> None:
    upload(page, photo)
    each = evidence(model_files[0], photo)[0]
    place_ = page.js(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('canvas').getBoundingClientRect())"
    )
    xs, ys = each.placement.edges(each.map.shape[1], 1), each.placement.edges(each.map.shape[0], 0)
    x = place_[0] + place_[2] * (xs[-2] + xs[-1]) / 2 / 80
    y = place_[1] + place_[3] * (ys[0] + ys[1]) / 2 / 60
    page.mouse(x, y)
    said = text(page, ".cell")
    assert said.startswith(f"Row 1, column {each.map.shape[1]}: ")
    assert float(said.split(": ")[1].split(" of ")[0].replace("−", "-")) == pytest.approx(each.map[0, -1], rel=0.01)
    page.mouse(place_[0] + 2, y)
    assert text(page, ".cell") == "The network did not look here."
    page.mouse(5, 5)
    assert "Row" not in text(page, ".cell")


def test_what_cannot_be_used_is_said(page: Browser, photo: Path, tmp_path: Path) -> None:
    whole = encoded(picture(200, 200), "JPEG")
    named = {
        "diary.jpg": (b"dear diary " * 100, "cannot be read"),
        "half.jpg": (whole[: len(whole) // 2], "truncated"),
        "empty.png": (b"", "is empty"),
        "huge.jpg": (b"x" * 4_000_000, "at most 3 MB are taken"),
        "<img src=x onerror=alert(1)>.png": (b"no", "cannot be read"),
    }
    for name, (data, message) in named.items():
        (tmp_path / name).write_bytes(data)
        page.choose("#file", tmp_path / name)
        page.until("!document.querySelector('#error').hidden && !document.body.classList.contains('busy')")
        assert text(page, "#error").startswith(name)
        assert message in text(page, "#error")
        assert page.js("document.querySelector('#error img')") is None
        page.js("document.querySelector('#error').hidden = true")
    upload(page, photo)
    assert page.js("document.querySelector('#error').hidden")


def test_the_server_refuses_what_the_page_would_not_send(page: Browser) -> None:
    told = page.js(
        "fetch('/api/explain', {method: 'POST', headers: {'Content-Type': 'image/png'}, body: new Uint8Array(4e6)})"
        ".then(async (r) => [r.status, (await r.json()).error])"
    )
    assert told == [413, "The file is too large: at most 3 MB are taken."]


def test_pasting_and_dropping(page: Browser, photo: Path) -> None:
    make = (
        "fetch('/icon.svg').then(() => new Promise((done) => {"
        "const c = Object.assign(document.createElement('canvas'), {width: 40, height: 30});"
        "c.getContext('2d').fillRect(0, 0, 9, 9);"
        "c.toBlob((blob) => {const t = new DataTransfer();"
        "t.items.add(new File([blob], 'NAME.png', {type: 'image/png'}));"
        "document.body.dispatchEvent(EVENT); done(true);}); }))"
    )
    paste = "new ClipboardEvent('paste', {clipboardData: t, bubbles: true})"
    drop = "new DragEvent('drop', {dataTransfer: t, bubbles: true, cancelable: true})"
    for name, event in (("pasted", paste), ("dropped", drop)):
        assert page.js(make.replace("NAME", name).replace("EVENT", event))
        page.until(f"document.querySelector('#name').textContent === '{name}.png, 40 × 30 px'")
    page.js(
        "document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer(), bubbles: true}))"
    )
    assert text(page, "#error") == "The clipboard holds no picture."


def test_downloads(page: Browser, photo: Path, model_files: tuple[Path, Path]) -> None:
    upload(page, photo)
    for name in ("json", "png"):
        page.js(f"document.querySelector('#{name}').click()")
    files = [page.downloads / f"photo.gapstone.{name}" for name in ("json", "png")]
    for _ in range(100):
        if all(file.exists() for file in files):
            break
        page.until("new Promise((done) => setTimeout(() => done(true), 100))")
    document = json.loads(files[0].read_text())
    assert document["schema"] == 1
    assert document["models"][0]["classes"][0]["label"] == evidence(model_files[0], photo)[0].label
    with Image.open(files[1]) as image:
        assert image.width >= 720
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert ((colours[:, 0] - colours[:, 2] > 40) | (colours[:, 2] - colours[:, 0] > 40)).mean() > 0.05, (
        "the map is on it"
    )


@pytest.mark.parametrize("seed", slow_but(range(4), 0))
def test_the_pages_maps_are_the_librarys(page: Browser, seed: int) -> None:
    """Placing, colours and boxes in JavaScript against gapstone.maps, on maps that lie anywhere in the picture."""
    random = np.random.default_rng(seed)
    cells, size = random.integers(1, 9, 2).tolist(), random.integers(20, 90, 2).tolist()
    map_ = random.normal(0, 1, cells).astype(np.float32)
    where = Placement(
        tuple(random.uniform(3, 15, 2)),
        tuple(random.uniform(-4, 12, 2)),
        tuple((random.uniform(-2, 9), n - random.uniform(-2, 9)) for n in size),
        exact=True,
    )
    given = json.dumps(
        {"map": map_.ravel().tolist(), "cells": cells, "size": size, "where": vars(where)}, default=float
    )
    for how in ("smooth", "cells"):
        found = page.js(
            f"import('/maps.js').then((m) => {{const g = {given};"
            f"const v = m.place(Float32Array.from(g.map), g.cells, g.where, g.size, '{how}');"
            "return [[...v], [...m.rgba(v, 1.5)], [0, 0.2, 0.5, 0.9].map((t) => m.box(v, g.size, t)),"
            " [0, 1].map((axis) => m.edges(g.where, g.cells[axis], axis)), m.scaled(g.where, [0.5, 1.7])]; })"
        )
        placed = upsample(map_, where, size, how)
        np.testing.assert_allclose(np.reshape(found[0], size), placed, atol=1e-5)
        colours, expected = np.reshape(found[1], (*size, 4)), rgba(placed, 1.5, strength=1.0)
        np.testing.assert_allclose(colours[..., 3], expected[..., 3], atol=1)
        shown = expected[..., 3] > 1  # the sign of what is next to nothing is rounding
        np.testing.assert_array_equal(colours[shown][:, :3], expected[shown][:, :3])
        for threshold, edges in zip((0, 0.2, 0.5, 0.9), found[2], strict=True):
            expected_box = [list(map(int, each.edges)) for each in box(placed, threshold)]
            assert [edges] == (expected_box or [None]), (how, threshold)
        elsewhere = where.within((0, 0), (0.5, 1.7))
        for name in ("stride", "start", "seen"):
            np.testing.assert_allclose(found[4][name], getattr(elsewhere, name), atol=1e-9)
        for axis in (0, 1):
            np.testing.assert_allclose(found[3][axis], where.edges(cells[axis], axis), atol=1e-9)


def test_no_evidence_is_said(page: Browser, tmp_path: Path, model_files: tuple[Path, Path]) -> None:
    for seed in range(30):
        path = tmp_path / f"{seed}.png"
        path.write_bytes(encoded(picture(60, 80, seed)))
        without = [n for n, each in enumerate(evidence(model_files[0], path)) if each.positive == 0]
        if without:
            break
    else:
        pytest.fail("no class of this model is ever without evidence: choose another seed for it")
    upload(page, path)
    page.js(f"document.querySelectorAll('.class input')[{without[0]}].click()")
    assert "No positive evidence" in text(page, ".sum")
    assert "Box" not in text(page, ".cell")


@pytest.mark.slow  # quick: the other tests of the page
@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 640)])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(page: Browser, photo: Path, width: int, height: int, dark: bool) -> None:
    page.size(width, height, scale=2, mobile=True, dark=dark)
    for _ in range(2):
        assert page.js("document.scrollingElement.scrollWidth") <= width
        upload(page, photo)
    small = page.js(
        "[...document.querySelectorAll('button, select, .class, .choice label')].filter((e) => e.offsetParent)"
        ".map((e) => [e.textContent.trim().slice(0, 20), e.getBoundingClientRect().height]).filter(([, h]) => h < 32)"
    )
    assert small == [], "too small for a thumb"
    paper = page.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark


@pytest.fixture(scope="module")
def pair(model_files: tuple[Path, Path]) -> Iterator[Live]:
    import signal

    server = Live(f"[{str(model_files[0])!r}, {str(model_files[1])!r}], port=0")
    yield server
    server.stop(signal.SIGTERM)


@pytest.mark.slow  # quick: test_api.py
def test_two_models_and_two_classes(browser: Browser, pair: Live, photo: Path, model_files: tuple[Path, Path]) -> None:
    for page in opened(browser, pair):
        upload(page, photo)
        one, two = (evidence(model, photo) for model in model_files)
        assert page.js("document.querySelectorAll('figure').length") == 2
        titles = page.js("[...document.querySelectorAll('.title')].map((e) => e.innerText)")
        assert ["one.safetensors" in titles[0], "two.safetensors" in titles[1]] == [True, True]
        assert all(title.startswith(one[0].label) for title in titles)
        page.js("document.querySelectorAll('.class input')[0].focus()")
        other = one[1].label
        page.js(
            "(() => {const s = document.querySelector('#other');"
            f"s.value = [...s.options].find((o) => o.text === '{other}').value;"
            "s.dispatchEvent(new Event('change')); })()"
        )
        assert page.js("document.querySelectorAll('figure').length") == 4
        page.js("document.querySelector('input[value=difference]').click()")
        assert page.js("document.querySelectorAll('figure').length") == 2
        titles = page.js("[...document.querySelectorAll('.title')].map((e) => e.innerText)")
        for title, answers in zip(titles, (one, two), strict=True):
            logits = {each.label: each.logit for each in answers}
            assert title.startswith(f"{one[0].label} − {other}")
            told = float(title.split("Δ logit ")[1].split()[0].replace("−", "-"))
            assert told == pytest.approx(logits[one[0].label] - logits[other], abs=0.05)
        page.js("document.querySelector('input[value=beside]').click()")
        before = looks(page)
        page.js("document.querySelector('#own').click()")
        after = looks(page)
        scales = [max(float(np.abs(each.map).max()) for each in answers) for answers in (one, two)]
        assert [float(end) for end in text(page, "#high").split(" | ")] == pytest.approx(scales, rel=0.01)
        larger = scales.index(max(scales))  # the other's maps gain
        assert after[2 * larger] == before[2 * larger]
        assert after[2 - 2 * larger] != before[2 - 2 * larger]


@pytest.mark.slow
def test_several_labels_are_told_and_two_of_them_shown(browser: Browser, photo: Path, tmp_path: Path) -> None:
    model = small(1)
    model.multi_label = True
    with torch.no_grad():
        model.head.classifier[-1].weight.mul_(0.01)
        model.head.classifier[-1].bias.copy_(torch.tensor([2.0, -1.0, 3.0, -4.0]))
    live = Live(f"[{str(model.save(tmp_path / 'several.safetensors'))!r}], port=0")
    try:
        for page in opened(browser, live):
            upload(page, photo)
            assert page.js("[...document.querySelectorAll('.predicted .label')].map((e) => e.innerText)") == [
                "eel",
                "cat",
            ]
            assert [
                title.split("\n")[0]
                for title in page.js("[...document.querySelectorAll('.title b')].map((e) => e.innerText)")
            ] == ["eel", "cat"]
            assert re.search(r"eel, 9\d\.\d %; cat, 8\d\.\d %", text(page, "#said"))
            assert "here 2 of 4" in text(page, "#notes")
            assert page.js("document.querySelector('#mode').hidden")  # no difference of classes that do not compete
            assert page.js("document.querySelector('#centring').hidden")
    finally:
        live.stop(signal.SIGINT)
