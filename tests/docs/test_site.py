"""The documentation site: every link holds, nothing is loaded from elsewhere, every public name has its entry."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import gapstone as gs

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src"}
LOADED_LINKS = {"stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch", "icon", "manifest", "modulepreload"}


class Html(HTMLParser):
    """What a page links to, what it loads, its anchors, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self.emphasised: list[str] = re.findall("<em>(.*?)</em>", text)
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self._hidden += tag in ("pre", "code", "script", "style")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loads.append(values[LOADED[tag]])
        if tag == "link" and LOADED_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])

    def handle_endtag(self, tag):
        self._hidden -= tag in ("pre", "code", "script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; the build is strict."""
    pytest.importorskip("mkdocs", reason="needs gapstone[docs]")
    pytest.importorskip("mkdocstrings_handlers", reason="needs gapstone[docs]")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Html(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_holds(site, pages):
    broken = []
    for path, html in pages.items():
        if path.name == "404.html":  # its links begin at the root of a host
            continue
        for link in html.links:
            if re.match(r"[a-z]+:", link):
                continue
            target, anchor = urldefrag(link)
            there = (path.parent / unquote(target)).resolve() if target else path
            if there.is_dir():
                there /= "index.html"
            if not there.exists() or (anchor and there in pages and unquote(anchor) not in pages[there].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken
    assert len(pages) > 40


def test_nothing_is_loaded_from_elsewhere(site, pages):
    elsewhere = re.compile(r"(https?:)?//")
    assert not [(path.name, load) for path, html in pages.items() for load in html.loads if elsewhere.match(load)]
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text("utf-8")), path


def test_every_public_name_has_its_entry(site, pages):
    anchors = {anchor for path, html in pages.items() if path.parent.name == "api" for anchor in html.anchors}
    assert {f"gapstone.{name}" for name in gs.PUBLIC} <= anchors


def test_markdown_is_understood_everywhere(pages):
    """Lists, tables and emphasis that Python-Markdown does not take as GitHub does stay in the text as they are."""
    left = []
    for path, html in pages.items():
        text = "".join(html.text)
        left += [
            f"{path.name}: {match[0]!r}" for match in re.finditer(r"\n\* \w.{,40}|\]\(.{,40}|\|---|\*\*\w.{,40}", text)
        ]
        left += [f"{path.name}: {text!r}" for text in html.emphasised if text.count("(") != text.count(")")]
    assert not left
