"""The house (docs/how-it-fits.md): arrows run downwards only, and nothing heavy is imported before it is needed."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gapstone as gs

SOURCE = Path(gs.__file__).parent
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"library"},
    {"evaluating"},
    {"comparing", "converting", "explaining", "export", "inspecting", "serve"},
    {"fitting"},
    {"any_size", "swapping", "training"},
    {"maps"},
    {"models"},
    {"cutting", "streaming"},
    {"accelerating", "bench", "drawing", "nets", "ragged"},
    {"tracing"},
    {"heads", "localisation", "testing"},
    {"pooling"},
    {"data", "huge_images", "loops"},
    {"images", "pools", "regions", "trackers", "workers"},
    {"statistics", "storage"},
    {"runtime"},
    {"console"},
]
FILES = {path: path.read_text("utf-8") for path in sorted(SOURCE.rglob("*.py"))}
HEIGHT = {room: -level for level, rooms in enumerate(LAYERS) for room in rooms}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(FILES[path])


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All there are in a file: looking for them takes longer than parsing."""
    return list(ast.walk(tree(path)))


@pytest.fixture(scope="module", autouse=True)
def trees_go():
    """Python's garbage collector would look through them in all tests that follow."""
    yield
    tree.cache_clear()
    nodes.cache_clear()


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a file imports from, in whatever way, also inside functions."""
    here = path.relative_to(SOURCE).parts[:-1]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["gapstone", *here][: len(here) + 2 - node.level] if node.level else []
            names = [".".join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("gapstone.")}
    return found


def files_imported(name: str, path: Path, files: Collection[str]) -> set[str]:
    """The modules of gapstone that a file imports, also inside functions. The package itself is not counted: it is
    imported before any of its modules, and imports none of them."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])])
            module = base if node.level else str(node.module)
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in files else module for alias in node.names}
    return (found & set(files)) - {"gapstone", name}


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, in whatever number of steps."""
    graph = TopologicalSorter(imports)
    try:
        graph.prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


def modules() -> dict[str, Path]:
    return {
        ".".join(("gapstone", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }


def test_no_circle_of_files():
    files = modules()
    assert len(files) > 300
    imports = {name: files_imported(name, path, files) for name, path in files.items()}
    assert circles(imports) == []
    assert circles(imports | {"gapstone.pools": {"gapstone.cli"}}) != []


def test_a_file_name_stands_for_one_thing():
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_a_class_name_stands_for_one_thing():
    names = Counter(node.name for path in FILES for node in tree(path).body if isinstance(node, ast.ClassDef))
    assert not [name for name, count in names.items() if count > 1]


KERNELS = re.compile(r"localisation/components")
"""Their long functions are templates of machine code: a part of one would be another function to the compiler."""


def test_files_and_functions_are_short():
    """At most 400 lines, and 60 of code: without signature and docstring."""
    for path, text in FILES.items():
        name = path.relative_to(SOURCE).as_posix()
        assert text.count("\n") <= 400, name
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not KERNELS.match(name):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                assert not body or (node.end_lineno or 0) - body[0].lineno < 60, f"{name}: {node.name}"


CEILINGS = {
    "__init__": 100,
    "__main__": 100,
    "cli": 100,
    "commands": 750,
    "library": 1430,
    "evaluating": 1400,
    "comparing": 5300,
    "converting": 530,
    "explaining": 1150,
    "export": 900,
    "inspecting": 1230,
    "serve": 700,
    "fitting": 730,
    "swapping": 420,
    "cutting": 800,
    "training": 870,
    "maps": 800,
    "models": 700,
    "accelerating": 500,
    "bench": 800,
    "drawing": 820,
    "nets": 2420,
    "ragged": 700,
    "tracing": 2850,
    "heads": 600,
    "localisation": 600,
    "testing": 400,
    "pooling": 500,
    "data": 5400,
    "loops": 6150,
    "huge_images": 760,
    "any_size": 700,
    "streaming": 830,
    "images": 2080,
    "pools": 600,
    "regions": 400,
    "trackers": 300,
    "workers": 430,
    "statistics": 1320,
    "storage": 700,
    "runtime": 590,
    "console": 300,
}
"""The most lines of code of each room (docs/decisions/0026-how-large-the-house-is.md). A room that outgrows its number
raises it in the same commit, and the commit says what for; a room that is 200 lines below its number lowers it."""


def code_lines(text: str, parsed: list[ast.AST]) -> int:
    """Lines of code: no docstrings (also those below a field), comments, imports and blank lines."""
    lines = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"}
    for node in parsed:
        says = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if says or isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def test_no_room_grows_unnoticed():
    text = '"""Says."""\n\nimport os\n# why\nX = (\n    1\n)\n"""Of X."""\n'
    assert code_lines(text, list(ast.walk(ast.parse(text)))) == 3
    found: Counter[str] = Counter()
    for path, text in FILES.items():
        found[path.relative_to(SOURCE).parts[0].removesuffix(".py")] += code_lines(text, nodes(path))
    wrong = {
        room: f"{lines} lines of code, CEILINGS says {CEILINGS.get(room, 0)}"
        for room, lines in found.items()
        if not 0 <= CEILINGS.get(room, 0) - lines < 200
    }
    assert not wrong


def test_every_room_says_what_it_is_for():
    for room in SOURCE.iterdir():
        if (init := room / "__init__.py") in FILES:
            assert ast.get_docstring(tree(init)), room


def test_arrows_run_downwards():
    files = [p for p in FILES if p.name != "__init__.py" or p.parent != SOURCE]
    assert len(files) > 40
    for path in files:
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        below = {other for other in rooms_imported(path) if other in HEIGHT and other != room}
        wrong = {other for other in below if HEIGHT[other] >= HEIGHT[room]}
        assert not wrong, f"{path.relative_to(SOURCE)} imports from {wrong}, which stand above or beside {room}"


def users_of_rooms() -> str:
    """A line per room, in the order of `LAYERS`: which rooms import from it; `gs` is the package itself."""
    users: dict[str, set[str]] = {room: set() for room in HEIGHT}
    for path in SOURCE.rglob("*.py"):
        user = path.relative_to(SOURCE).parts[0].removesuffix(".py").replace("__init__", "gs")
        for room in rooms_imported(path) & set(HEIGHT) - {user}:
            users[room].add(user)
    text = {
        room: "most rooms" if 2 * len(names) > len(HEIGHT) else ", ".join(sorted(names)) or "—"
        for room, names in users.items()
    }
    return "".join(f"{room:<14} {text[room]}\n" for layer in LAYERS for room in sorted(layer))


def test_the_page_says_who_uses_a_room():
    page = (SOURCE.parents[1] / "docs/how-it-fits.md").read_text("utf-8")
    expected = f"```\n{'ROOM':<14} USED BY\n{users_of_rooms()}```\n"
    assert expected in page, f"docs/how-it-fits.md must hold this block:\n{expected}"


def test_what_is_private_to_other_libraries_stands_in_one_file():
    """Names that they may change without a word: each is looked for, and there is something to do without it."""
    private = re.compile(
        r"torch\.(\w+\.)*_[a-zA-Z]\w*|numba\.(core|np|cpython|typed)\b|llvmlite\.\w*\._|sys\._[a-zA-Z]|\b_C\b"
    )
    allowed = {"PRELOAD = ["}  # a module that is imported, if it is there
    for path, text in FILES.items():
        if path.name in ("torch_internals.py", "numba_config.py", "numba_internals.py"):
            continue
        for line in text.splitlines():
            found = private.search(line.partition("  #")[0])
            assert not found or any(line.startswith(one) for one in allowed), f"{path.name}: {line}"


def test_every_room_has_its_place():
    rooms = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(HEIGHT)


@pytest.mark.parametrize("code", ["import gapstone", "import gapstone.cli"])
def test_nothing_heavy_is_imported_early(code):
    names = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "timm", "transformers")
    heavy = f"{{m for m in {names} if m in sys.modules}}"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(sorted({heavy}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_what_every_process_would_wait_for_is_not_imported():
    """scipy.stats takes half a second; scipy.special has its distributions."""
    for path, text in FILES.items():
        found = re.search(r"^\s*(import scipy\.stats|from scipy\.stats|from scipy import .*\bstats\b)", text, re.M)
        assert not found, path


def test_public_names_are_sorted_and_there():
    assert list(gs.PUBLIC) == sorted(gs.PUBLIC)
    for name in gs.PUBLIC:
        assert getattr(gs, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = gs.nothing


@pytest.mark.xdist_group("one worker")
def test_groups_of_tests_reach_the_workers(request):
    """Else each worker makes every fixture and compiles every kernel, and nothing but the clock says so."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not `pytest -n … --dist loadgroup`")
    assert request.node.nodeid.endswith("@one worker")
