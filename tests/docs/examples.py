"""Runs the `>>>` examples of docstrings and pages, in a folder that has the files they name.

What differs from the standard library's doctest:
* `gs`, `torch`, `np`, `nn`, `Path` and what `WORLD` names need no import; a docstring sees its module's names first.
* An example without output may return anything.
* `…` stands for any text; numbers need the digits that are written: `3.4` fits 3.4123 and 3.38.
* An error is written in one line, `ValueError: what it says`.
"""

import ast
import contextlib
import doctest
import importlib
import io
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


@dataclass(frozen=True)
class Text:
    """Some text with examples."""

    module: str | None
    """Whose names it sees; None: a page."""
    name: str
    """As in Python (`Classifier.save`), or the page's path and line."""
    examples: tuple[doctest.Example, ...]


def docstrings(file: Path) -> Iterator[Text]:
    """The docstrings of a module that have examples, read without importing it."""
    module = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")

    def texts(node: Any, name: str) -> Iterator[Text]:
        found = examples(ast.get_docstring(node) or "")
        if found:
            yield Text(module, name or module, found)
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from texts(child, f"{name}.{child.name}".removeprefix("."))

    yield from texts(ast.parse(file.read_text("utf-8")), "")


def page(file: Path) -> Iterator[Text]:
    """The blocks of a Markdown page that have `>>>` examples."""
    text = file.read_text("utf-8")
    for block in re.finditer(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if found := examples(block[1]):
            line = text.count("\n", 0, block.start()) + 1
            yield Text(None, f"{file.relative_to(ROOT)}:{line}", found)


def examples(text: str) -> tuple[doctest.Example, ...]:
    """The examples of a text."""
    return tuple(doctest.DocTestParser().get_examples(text))


def run(text: Text, names: dict[str, Any], setup: str = "") -> str | None:
    """Run all examples of a text; what is wrong with the first that does not do what it says, or None."""
    scope = dict(names)
    if text.module is not None:
        scope |= vars(importlib.import_module(text.module))
    try:
        exec(setup, scope)
    except Exception:
        return f"{text.name}, its setup: {traceback.format_exc(limit=-1)}"
    for example in text.examples:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(compile(example.source, f"<{text.name}>", "single"), scope)
            except Exception as error:
                if not example.want:
                    return f"{text.name}: {example.source}{traceback.format_exc(limit=-1)}"
                print(f"{type(error).__name__}: {error}")
        if example.want and not fits(example.want, output.getvalue()):
            return f"{text.name}: {example.source}expected: {example.want}got:      {output.getvalue()}"
    return None


def fits(want: str, got: str) -> bool:
    """Whether an output is the expected one; see the module's docstring.

    >>> fits("(0.24, 'a …')", "(0.2413, 'a word')"), fits("0.24", "0.31")
    (True, False)
    """
    want, got = (" ".join(text.split()) for text in (want, got))
    pattern, values = "", []
    for part in re.split(rf"(…|\.\.\.|{NUMBER.pattern})", want):
        if part in ("…", "..."):
            pattern += ".*?"
        elif NUMBER.fullmatch(part):
            values.append(part)
            pattern += f"({NUMBER.pattern})"
        else:
            pattern += re.escape(part)
    matched = re.fullmatch(pattern, got, re.DOTALL)
    return matched is not None and all(map(_near, values, matched.groups()))


def _near(want: str, got: str) -> bool:
    """Whether a number is another one, rounded."""
    if "." not in want and "e" not in want:
        return want == got
    digits = len(want.partition("e")[0].partition(".")[2])
    scale = 10.0 ** int(want.partition("e")[2] or 0)
    return abs(float(want) - float(got)) < 10.0**-digits * scale
