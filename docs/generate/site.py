"""A hook of MkDocs: the site's pages that lie outside docs/, and links that hold on the site and in the repository.

Pages are written for the repository, where every link is a path to a file. On the site, docs/ is the root, README.md is
the start, and a folder is a list of its pages.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
OUTSIDE = (
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"examples/{path.name}" for pattern in ("*.py", "*.ipynb") for path in sorted((ROOT / "examples").glob(pattern))),
)
FOLDERS = {"docs/decisions": "Decisions", "benchmarks/results": "Measurements"}
"""Folders that pages link to, with the title of the page that lists them."""
LIST = re.compile(r"^((?![*|#> ]).+\n)(?=\* )", re.MULTILINE)
"""A list right after a line of text: Python-Markdown wants an empty line between."""
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and a page for every folder."""
    outside = [*OUTSIDE, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "benchmarks/results").glob("*.md")))]
    content = {name: (ROOT / name).read_text("utf-8") for name in ["README.md", *outside]}
    content |= {f"{folder}/index.md": _listed(ROOT / folder, title) for folder, title in FOLDERS.items()}
    for name, text in content.items():
        files.append(File.generated(config, to_site(name), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    place = page.file.src_uri
    name = in_repository(place)
    folder = posixpath.dirname(place)

    def linked(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups(default="")
        path = to_site(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))
        return f"{before}{posixpath.relpath(path, folder or '.')}{anchor}{after}"

    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)  # code holds no links
    return "".join(block if block.startswith("```") else LINK.sub(linked, LIST.sub(r"\1\n", block)) for block in blocks)


def to_site(name: str) -> str:
    """Where a file of the repository lies on the site."""
    if name in FOLDERS:
        name = f"{name}/index.md"
    return "index.md" if name == "README.md" else name.removeprefix("docs/")


def in_repository(place: str) -> str:
    """The opposite of `to_site`."""
    if place == "index.md":
        return "README.md"
    outside = place in OUTSIDE or place.startswith("benchmarks/")
    return place if outside else f"docs/{place}"


def _listed(folder: Path, title: str) -> str:
    """A page that lists the pages of a folder by their titles."""
    pages = sorted(folder.glob("*.md"))
    titles = {path.name: path.read_text("utf-8").partition("\n")[0].lstrip("# ") for path in pages}
    return f"# {title}\n\n" + "".join(f"* [{text}]({name})\n" for name, text in titles.items())
