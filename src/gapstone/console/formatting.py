"""Formats numbers, and foreign text, for people to read.

Foreign text (a class name, a path, a tensor's name, metadata, a library's error that quotes them) may hold a terminal's
escape sequences, line breaks, marks that reverse the reading direction, zero-width characters, or bytes that are not
UTF-8. `display` makes it safe to print; `gapstone.console.terminal` prints it.
"""

import base64
import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

_JOINER = "\u200d"
# letters and marks by their category, but without a glyph (Unicode: Default_Ignorable_Code_Point)
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")


def format_size(size: Iterable[int]) -> str:
    """A size or a shape as text.

    >>> format_size((224, 160)), format_size((2, 3, 224, 160))
    ('224×160', '2×3×224×160')
    """
    return "×".join(map(str, size))


def count_noun(number: int, singular: str, plural: str | None = None) -> str:
    """A number with a noun in the singular or the plural.

    >>> count_noun(1, "seed"), count_noun(1200, "image"), count_noun(2, "class", "classes")
    ('1 seed', '1,200 images', '2 classes')
    """
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def span(low: float, high: float, digits: int = 1) -> str:
    """A range of numbers; a single number if both ends round to the same text.

    >>> span(96.81, 97.94), span(96.81, 96.79)
    ('96.8 to 97.9', '96.8')
    """
    ends = f"{low:,.{digits}f}", f"{high:,.{digits}f}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind where it says nothing; at most 200 characters.

    >>> first_line(ValueError("size mismatch")), first_line(KeyError())
    ('size mismatch', 'KeyError')
    """
    return display((str(error).strip().splitlines() or [type(error).__name__])[0][:200])


def signed(number: float, digits: int = 1) -> str:
    """A number with its sign; zero has none.

    >>> signed(-1.25), signed(0.0)
    ('−1.2', '0.0')
    """
    text = f"{abs(number):.{digits}f}"
    return text if float(text) == 0 else ("−" if number < 0 else "+") + text


def display(text: str | os.PathLike[str], most: int | None = None) -> str:
    r"""The text with every invisible character written as an escape, cut to at most `most` characters.

    ```python
    display("sp ace ünï 猫 👩‍🔬.jpg")   # as it is
    display("two\nlines.jpg")          # 'two\\nlines.jpg'
    display("\x1b[31mred")             # '\\x1b[31mred'
    display("caf\udce9.jpg")           # 'caf\\xe9.jpg': the byte E9 of a Latin-1 name
    display("a" * 1000, 20)            # 'aaaaaaaaaaaaaaaaaaa…'
    ```
    """
    text = os.fspath(text)
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_visible(text, i) else _escape(c) for i, c in enumerate(text))


def lines(text: str) -> str:
    r"""`display` line by line, for gapstone's own messages of several lines.

    ```python
    lines("DATA is one of:\n  digits\x07")      # 'DATA is one of:\n  digits\\x07'
    ```
    """
    return "\n".join(map(display, text.split("\n")))


def one_line(text: str) -> str:
    r"""`display` of an error's text in one line: each run of blanks and line breaks becomes one blank.

    ```python
    one_line("no such tensor:\n\x1b[31mx")      # 'no such tensor: \\x1b[31mx'
    ```
    """
    return display(" ".join(text.split()))


def cell(text: str) -> str:
    """A report's text as HTML for a notebook: in a monospaced font, with all markup escaped."""
    from html import escape

    return f'<pre style="line-height:1.3;white-space:pre;overflow-x:auto">{escape(lines(text))}</pre>'


@cache  # each compiles its templates
def pages(package: str) -> "Environment":
    """A Jinja environment with the templates of a package and those that all share (base.html.j2, base.css).

    Every text goes through `display` and is escaped; objects with `__html__` (gapstone's own markup) are not.

    >>> pages(__package__).get_template("report.html.j2").render(head=head)
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    def finalize(value: object) -> object:
        return display(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp_hash"] = _csp_hash
    return environment


def _csp_hash(script: str) -> str:
    """A script's hash, for a content security policy that allows only that script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def show_warnings() -> None:
    """Print Python's warnings in one line each, escaped, from now on: a library's warning may quote a foreign file."""

    def format_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return f"{display(filename)}:{lineno}: {category.__name__}: {display(' '.join(str(message).split()))}\n"

    warnings.formatwarning = format_warning


def _is_visible(text: str, i: int) -> bool:
    c = text[i]
    if c == _JOINER:  # visible only inside a composed emoji, such as a family
        before = text[i - 1 : i]
        return _category(before) in ("So", "Sk", "Mn") and _category(text[i + 1 : i + 2]) == "So"
    return c.isprintable() and c not in _INVISIBLE


def _category(c: str) -> str:
    return unicodedata.category(c) if c else ""


def _escape(c: str) -> str:
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode represents a byte that is not UTF-8 so
        return f"\\x{code - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")
