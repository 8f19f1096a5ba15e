"""Text in pictures, in Matplotlib's DejaVu Sans; characters that it lacks are escaped."""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans at a size in px."""
    # Pillow's own font has 113 characters: no é, no −. Basic layout: not every build has raqm, which moves letters.
    return ImageFont.truetype(_file(bold), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _file(bold: bool) -> Path:
    from gapstone.drawing.matplotlib_setup import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@cache
def _has_glyph(character: str) -> bool:
    """Tell whether both weights have a glyph for a character that is written from left to right."""
    # before ft2font: _file imports gapstone.drawing.matplotlib_setup, which must be imported before Matplotlib
    files = [str(_file(bold)) for bold in (False, True)]
    from matplotlib.ft2font import FT2Font

    left_to_right = unicodedata.bidirectional(character) not in {"R", "AL", "AN"}
    return left_to_right and all(FT2Font(file).get_char_index(ord(character)) for file in files)


def drawable(text: str) -> str:
    r"""Replace every character without a glyph by its escape: "猫" becomes "\u732b", "é" stays."""
    text = unicodedata.normalize("NFC", text)
    return "".join(c if _has_glyph(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def fit(text: str, size: int, width: float, bold: bool = False) -> str:
    """Shorten text to `width` px by replacing its middle with "…": names often differ at their ends."""
    return _fit(drawable(text), lambda t: font(size, bold).getlength(t), width)


def fit_any(text: str, size: int, width: float, bold: bool = False) -> str:
    """Shorten text as `fit` for a viewer with other fonts: nothing is escaped; unknown characters count as one em."""
    dejavu = font(size, bold)
    return _fit(text, lambda t: sum(dejavu.getlength(c) if _has_glyph(c) else size for c in t), width)


def _fit(text: str, measure: Callable[[str], float], width: float) -> str:
    if measure(text) <= width:
        return text

    def shortened(length: int) -> str:
        return text[: (length + 1) // 2] + "…" + text[len(text) - length // 2 :]

    length = bisect_right(range(2, len(text)), width, key=lambda n: measure(shortened(n))) + 1
    return shortened(length)


def wrap(text: str, size: int, width: float, bold: bool = False) -> list[str]:
    """Break text between words into lines of at most `width` px; a longer word is a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size, bold).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
