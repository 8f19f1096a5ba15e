"""Every file and every function of a module that a page names is there."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")})
FOLDERS = ("src", "tests", "benchmarks", "docs", "examples")
FILES = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
NOT_HERE = {
    "CHANGELOG.md": {"FILE.py"},  # the user's
    "docs/decisions/0001-pooling-py.md": {"pool.py", "gapstone/pool.py"},  # why there is none
    "docs/decisions/0025-rooms-and-names.md": {"fitting/sums.py"},  # gone, and said so
    "docs/safety.md": {"numpy.py"},  # somebody's, in a folder of photos
    "docs/speed.md": {"train.py"},  # the user's
}
"""Files that a page names although the project has none of that name."""


def missing_files(text: str) -> set[str]:
    """Paths that end in .py, and that no file of the project ends in. `row[_back]_codegen.py` and `…_rows.py` stand for
    several files, so they are not looked for."""
    named = set(re.findall(r"(?<![\w/.{}\[\]…-])\w[\w/]*\.py\b", text))
    return {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in FILES)}


def top_level_names(path: Path) -> set[str]:
    """What a module defines or imports."""
    names = {child.stem for child in path.parent.iterdir()} if path.name == "__init__.py" else set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@cache
def modules() -> dict[str, set[str]]:
    """The modules whose names are two words: a name such as `scan` or `head` is more often a variable."""
    files = (ROOT / "src/gapstone").rglob("*_*.py")
    return {path.stem: top_level_names(path) for path in files if path.name != "__init__.py"}


def missing_names(text: str) -> set[str]:
    """`module.name` in code, where the module is there and the name is not."""
    named = re.findall(r"(?<!\w)(\w+)\.([A-Za-z_]\w*)", " ".join(re.findall(r"`([^`\n]+)`", text)))
    return {
        f"{module}.{name}"
        for module, name in named
        if name not in ("py", "yaml") and name not in modules().get(module, {name})
    }


def test_every_file_that_a_page_names_is_there():
    assert len(PAGES) > 50
    assert missing_files("`data/sources.py`, sources.py and `data/nothing.py`") == {"data/nothing.py"}
    found = {page.relative_to(ROOT).as_posix(): missing_files(page.read_text("utf-8")) for page in PAGES}
    assert {page: names for page, names in found.items() if names} == NOT_HERE


def test_every_function_of_a_module_that_a_page_names_is_there():
    assert missing_names("`kernel_code.emit`, `kernel_code.nothing`, `kernel_code.py`") == {"kernel_code.nothing"}
    found = {page.name: missing_names(page.read_text("utf-8")) for page in PAGES}
    assert {page: names for page, names in found.items() if names} == {}
