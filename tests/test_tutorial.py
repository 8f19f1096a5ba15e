"""What docs/what-a-head-does.md shows is so: its code gives its numbers, its words agree, its pictures can be drawn.

One run of the page (three small networks are trained: half a minute) serves all tests of its code. They are slow;
`make test` looks at words, numbers, links and both languages.
"""

import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gapstone as gs

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "pictures" / "tutorial"
PAGES = {"en": DOCS / "what-a-head-does.md", "ko": DOCS / "ko" / "what-a-head-does.md"}
TEXT = {language: path.read_text("utf-8") for language, path in PAGES.items()}
both_languages = pytest.mark.parametrize("language", PAGES)
runs_the_page = pytest.mark.slow


def generator(name: str) -> ModuleType:
    """A file of docs/generate, which is no package: `make docs` runs it as a script."""
    sys.path.insert(0, str(DOCS / "generate"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "generate"))


tutorial, style = generator("tutorial"), generator("tutorial_style")


# ---- the code


NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
SAID = re.compile(rf"#\s+({NUMBER}(?:, {NUMBER})*)(?: ± ({NUMBER}))?(?=$|:)")
SHAPE = re.compile(r"#.*?(?:^|\s)\((\d[\d, ]*,?)\)(?=$|:)")


def check(line: str, value: Any) -> str:
    """Compare a value with the comment behind its line; gives what was compared: shape, number, or nothing."""
    if found := SHAPE.search(line):
        assert tuple(getattr(value, "shape", value)) == tuple(map(int, re.findall(r"\d+", found[1]))), line
        return "shape"
    if found := SAID.search(line):
        said = [float(one.replace(",", "")) for one in found[1].split(", ")]
        decimals = max(len(one.partition(".")[2]) for one in found[1].split(", "))
        within = float(found[2]) if found[2] else 0.5 * 10**-decimals
        got = np.array([float(one) for one in flat(value)])
        assert got.shape == (len(said),), f"{line}: {got}"
        assert np.abs(got - said).max() <= within + 1e-6, f"{line}: {got}"
        return "number"
    return ""


def flat(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [one for part in value for one in flat(part)]
    return value.detach().flatten().tolist() if isinstance(value, torch.Tensor) else np.ravel(value).tolist()


@pytest.fixture(scope="module")
def ran() -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """The names that the page's code has made, and its commented lines with what they gave."""
    lines: list[tuple[str, Any]] = []
    made = tutorial.run(TEXT["en"], lambda line, value: lines.append((line, value)))
    return made, lines


@pytest.fixture(scope="module")
def made(ran):
    return ran[0]


@runs_the_page
def test_every_line_gives_what_is_behind_it(ran):
    compared = Counter(check(line, value) for line, value in ran[1] if " = " not in line)
    assert not compared[""], [line for line, _ in ran[1] if " = " not in line and not check(line, _)]
    assert compared["number"] >= 20
    compared += Counter(check(line, value) for line, value in ran[1] if " = " in line and SHAPE.search(line))
    assert compared["shape"] >= 10


WRONG = [
    "2 + 2  # 5",
    "100 / 3  # 33.4",
    "97.0  # 94 ± 2",
    "(1, 2)  # 1, 3",
    "torch.ones(2, 3).shape  # (3, 2)",
    "[1]  # 1, 1",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_comment_is_noticed(line):
    right = []
    tutorial.run(f"```python\nimport torch\n{line}\n```", lambda *told: right.append(told))
    with pytest.raises(AssertionError, match=re.escape(line)):
        check(*right[0])


# ---- what the words say of it


@runs_the_page
def test_max_and_mean_of_the_photographs(made):
    highest = gs.pool(made["both"], "max").flatten()
    assert highest[1] > 0.5 * highest[0]  # "the pagoda has one too"
    mean = gs.pool(made["both"], "mean").flatten()
    assert 1.8 < mean[0] / mean[1] < 2.6  # "twice as much"


@runs_the_page
def test_the_map_and_the_bias_are_the_logit(made):
    logit = made["gap"](made["x"])[0, 7]
    torch.testing.assert_close(made["activation"].sum() + made["linear"].bias[7], logit)
    torch.testing.assert_close(made["terms"].sum((1, 2)).sum() + made["linear"].bias[7], logit)
    assert made["explained"].completeness.max() < 1e-4
    assert made["terms"].shape[0] == made["gap"].head.channels == 64


@runs_the_page
def test_the_most_7_like_spot_is_on_the_7_and_paper_has_a_vote(made):
    for digit in (7, 3):
        (top, left), (row, column) = made["places"][digit], made["spots"][digit]
        assert top <= 4 * row < top + 28
        assert left <= 4 * column < left + 28
    gap, blank = made["gap"], np.full((1, 64, 96, 1), 255, np.uint8)
    votes = gs.explain(gap, gap.preprocessing.normalise(torch.from_numpy(blank))).maps[0].mean((1, 2))
    assert votes[1] > 0 > votes[3]  # vermilion for 1, blue for 3


@runs_the_page
def test_at_the_size_it_was_trained_for_the_grid_is_plain_fc(made):
    grid = made["heads"]["fc:grid=7"]
    plain = gs.Head("fc", channels=64, classes=10, size=(7, 7)).eval()
    plain.load_state_dict(grid.head.state_dict())
    maps = grid.features(made["x"])
    torch.testing.assert_close(plain(maps), grid.head(maps))


@runs_the_page
def test_what_shifts_do(made):
    gap, gmp, fc = (made["curves"][name] for name in ("gap", "gmp", "fc:grid=7"))
    assert max(gap[0], gmp[0], fc[0]) - min(gap[0], gmp[0], fc[0]) < 2  # cannot be told apart
    assert min(*gap, *gmp) > 88
    assert fc[4] < 0.7 * gap[4]
    assert gap[4] < gap[0]


@runs_the_page
def test_what_speaks_against_gap(ran):
    enlarged, framed = (
        next(value for line, value in ran[1] if line.startswith(start))
        for start in ("enlarged(gap, 42)", "framed(gap, 16)")
    )
    (gap, _, grid), (diluted, gmp, _) = enlarged, framed
    assert gap < 60
    assert grid > gap + 10
    assert diluted < 50
    assert gmp > 95


def test_nobody_says_that_gap_works_at_any_size():
    claims = [one for one in re.split(r"(?<=\.)\s|\n(?=\|)", TEXT["en"].replace("*", "")) if "works at any size" in one]
    assert len(claims) == 2
    for claim in claims:
        assert "does not follow" in claim or "| no, it accepts any" in claim


# ---- the words' numbers


def parts(text: str) -> list[str]:
    """The sections, each from its heading."""
    return re.split(r"(?m)^(?=## )", text)[1:]


def prose(text: str) -> str:
    """Without code, pictures and links' targets."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"!\[.*?\]\(.*?\)", "", text, flags=re.DOTALL))


def numbers(text: str) -> list[str]:
    """What is measured or counted: decimals, percentages, products and all from 100 on; not ordinals."""
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:×\d+)*(?: ?%)?", text)
    kept = [one.rstrip(",").replace(" ", "") for one in found]
    return [one for one in kept if re.search(r"[.×%]|\d{3}|,\d", one)]


@both_languages
def test_numbers_in_the_words_are_those_of_the_code(language):
    for part in parts(TEXT[language])[:9]:
        code = "".join(tutorial.blocks(part))
        comments = [float(one.replace(",", "")) for one in re.findall(rf"(?<![\w.]){NUMBER}", code)]
        for said in numbers(prose(part)):
            if "×" in said or said.startswith(("1312.", "1512.")):
                continue
            value, decimals = float(said.rstrip("%").replace(",", "")), len(said.rstrip("%").partition(".")[2])
            assert any(abs(round(one, decimals) - value) < 1e-9 for one in comments), (said, part[:40])


RESULTS = (DOCS.parent / "benchmarks" / "results" / "2026-11-heads.md").read_text("utf-8")


def measured(data: str) -> dict[str, dict[str, str]]:
    """Head → column → number, from the first table under the heading that begins with `data`."""
    section = RESULTS.split(f"\n## {data}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    columns, _, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines)
    # of "59.4 (58.2 … 60.6)" the number, of "29,946 (650)" the head's
    heads = {row[0]: dict(zip(columns, row, strict=True)) for row in rows if row[0] in ("gap", "gmp") or "fc" in row[0]}
    for cells in heads.values():
        cells["parameters (head)"] = re.search(r"\(([\d,]+)\)", cells["parameters (head)"])[1]
        cells["test %"] = cells["test %"].split()[0]
    return heads


@both_languages
def test_the_table_quotes_the_measurements(language):
    cifar, mnist = measured("CIFAR-10"), measured("MNIST")
    dropped = cifar["fc:256:dropout=0.5"]["test %"]
    ahead = f"{float(dropped) - float(cifar['gap']['test %']):.1f}"
    weights = [cifar[head]["parameters (head)"] for head in ("gap", "fc:256")]
    shifted = re.search(r"At 3 px: gap ([\d.]+), .* fc ([\d.]+),", RESULTS)
    both = [(cifar, "gap", "fc:256"), (mnist, "gap", "fc")]
    expected = [
        [*weights, "256"],
        [data[head]["overfit"] for data, *heads in both for head in heads],
        [data[head]["test %"] for data, *heads in both for head in heads],
        [dropped, ahead],
        [*shifted.groups()],
        [*(data[head]["at 1.5× %"] for data in (cifar, mnist) for head in ("gap", "gmp")), "1.5"],
    ]
    rows = [line for line in parts(TEXT[language])[9].splitlines() if line.startswith("| ")][1:]
    quoted = [sorted(one.rstrip("%") for one in numbers(row)) for row in rows]
    assert quoted == [sorted(row) for row in expected]


# ---- two languages


def test_both_pages_have_the_same_code_and_pictures_and_numbers():
    english, korean = TEXT["en"], TEXT["ko"]
    fences = [re.findall(r"```\w+\n.*?```", text, re.DOTALL) for text in (english, korean)]
    assert len(fences[0]) >= 12
    assert fences[0] == fences[1]
    shown = [re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text) for text in (english, korean)]
    assert shown[1] == [f"../{path}" for path in shown[0]]
    assert len(parts(english)) == len(parts(korean))
    for one, other in zip(parts(english), parts(korean), strict=True):
        assert Counter(numbers(prose(one))) == Counter(numbers(prose(other))), one[:40]
        assert set(re.findall(r"`[^`\n]+`", prose(one))) == set(re.findall(r"`[^`\n]+`", prose(other))), one[:40]
        assert one.count("\n| ") == other.count("\n| ")


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@both_languages
def test_links_lead_somewhere(language):
    page, text = PAGES[language], re.sub(r"```.*?```", "", TEXT[language], flags=re.DOTALL)
    other = PAGES["ko" if language == "en" else "en"]
    headings = {slug(heading) for heading in re.findall(r"(?m)^#+ (.*)$", text)}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert other.resolve() in [(page.parent / link).resolve() for link in links[:1]]
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            path, _, place = link.partition("#")
            there = (page.parent / path).read_text("utf-8") if place else ""
            assert (page.parent / path).exists(), link
            assert not place or place in {slug(heading) for heading in re.findall(r"(?m)^#+ (.*)$", there)}, link


# ---- the pictures


def test_each_picture_shown_is_there_and_none_is_left_over():
    shown = {Path(path).stem for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT["en"])}
    assert shown == set(tutorial.PICTURES) == {path.stem for path in PICTURES.iterdir()}, "run `make docs`"


@runs_the_page
@pytest.mark.parametrize("name", tutorial.PICTURES)
def test_a_picture_can_be_drawn_again(name, made, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "FOLDER", tmp_path)
    drawn, kept = tutorial.PICTURES[name](made), PICTURES / f"{name}.png"
    assert drawn == tmp_path / f"{name}.png"
    with Image.open(drawn) as new, Image.open(kept) as old:
        assert new.size == old.size, "run `make docs`"
        assert len(new.convert("RGB").getcolors(1 << 20)) > 20
    assert drawn.stat().st_size < 150_000
    assert kept.stat().st_size < 150_000
