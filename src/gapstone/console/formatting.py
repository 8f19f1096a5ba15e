"""Numbers, and text that others wrote, as people read them.

Text of a foreign file (a class name, a path, a tensor's name, metadata, a library's error that quotes them) may hold a
terminal's escape sequences, line breaks, marks that reverse the order of reading, characters without width, or bytes
that are not UTF-8. `display` is the one function that makes it safe to print; `gapstone.console.terminal` prints.
"""

import base64
import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_JOINER = "\u200d"
# letters and marks by their category, but nothing is seen where they stand (Unicode: Default_Ignorable_Code_Point)
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")


def format_size(size: Iterable[int]) -> str:
    """A size or a shape.

    >>> format_size((224, 160)), format_size((2, 3, 224, 160))
    ('224×160', '2×3×224×160')
    """
    return "×".join(map(str, size))


def count_noun(number: int, one: str, more: str | None = None) -> str:
    """A number and what it counts: the one place that knows the plural.

    >>> count_noun(1, "seed"), count_noun(1200, "image"), count_noun(2, "class", "classes")
    ('1 seed', '1,200 images', '2 classes')
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def span(low: float, high: float, digits: int = 1) -> str:
    """From one number to another; one number where they are the same as they are written.

    >>> span(96.81, 97.94), span(96.81, 96.79)
    ('96.8 to 97.9', '96.8')
    """
    ends = f"{low:,.{digits}f}", f"{high:,.{digits}f}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def signed(number: float, digits: int = 1) -> str:
    """With its sign, zero without.

    >>> signed(-1.25), signed(0.0)
    ('−1.2', '0.0')
    """
    text = f"{abs(number):.{digits}f}"
    return text if float(text) == 0 else ("−" if number < 0 else "+") + text


def display(text: str | os.PathLike[str], most: int | None = None) -> str:
    r"""The text with every character that is not a visible one written as an escape; at most `most` characters of it.

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
    return "".join(c if _visible(text, i) else _escape(c) for i, c in enumerate(text))


def lines(text: str) -> str:
    r"""`display` line by line: for a message of our own with line breaks of our own.

    ```python
    lines("DATA is one of:\n  digits\x07")      # 'DATA is one of:\n  digits\\x07'
    ```
    """
    return "\n".join(map(display, text.split("\n")))


def one_line(text: str) -> str:
    r"""`display` of an error's text, which may quote several lines of a file: blanks and line breaks become one blank.

    ```python
    one_line("no such tensor:\n\x1b[31mx")      # 'no such tensor: \\x1b[31mx'
    ```
    """
    return display(" ".join(text.split()))


def cell(text: str) -> str:
    """A report's text as a notebook shows it: in letters of one width, nothing of it markup."""
    from html import escape

    return f'<pre style="line-height:1.3;white-space:pre;overflow-x:auto">{escape(lines(text))}</pre>'


def pages(package: str) -> "Environment":
    """The templates of a room, and those that all rooms share (base.html.j2, base.css).

    Every text is escaped and shown as `display` shows it; markup of our own is left as it is.

    >>> pages(__package__).get_template("report.html.j2").render(head=head)
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    def finalize(value: Any) -> Any:
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
    """A script's hash, by which the page's content security policy allows that script alone."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def show_warnings() -> None:
    """From here on Python's warnings are printed in one line each, escaped: a library's may quote what a file holds."""

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return f"{display(filename)}:{lineno}: {category.__name__}: {display(' '.join(str(message).split()))}\n"

    warnings.formatwarning = shown


def _visible(text: str, i: int) -> bool:
    c = text[i]
    if c == _JOINER:  # within an emoji of several, such as a family
        before = text[i - 1 : i]
        return _category(before) in ("So", "Sk", "Mn") and _category(text[i + 1 : i + 2]) == "So"
    return c.isprintable() and c not in _INVISIBLE


def _category(c: str) -> str:
    return unicodedata.category(c) if c else ""


def _escape(c: str) -> str:
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")
