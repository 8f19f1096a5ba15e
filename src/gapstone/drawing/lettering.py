"""Text in pixels: matplotlib's DejaVu Sans, and what it cannot draw as an escape instead of an empty box."""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Pillow's own font has 113 characters: no é, no −. Basic layout: raqm is not in every build, and moves letters.
    return ImageFont.truetype(_file(bold), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _file(bold: bool) -> Path:
    from gapstone.drawing.matplotlib_setup import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@cache
def _drawn(character: str) -> bool:
    """Is there a glyph for it, and does it stand by itself, from left to right? (Both weights hold the same ones.)"""
    files = [
        str(_file(bold)) for bold in (False, True)
    ]  # imports gapstone.drawing.matplotlib_setup, which goes before Matplotlib
    from matplotlib.ft2font import FT2Font

    alone = unicodedata.bidirectional(character) not in {"R", "AL", "AN"}
    return alone and all(FT2Font(file).get_char_index(ord(character)) for file in files)


def drawable(text: str) -> str:
    r"""Every character that would be an empty box as its escape: "猫" becomes "\u732b", "é" stays."""
    text = unicodedata.normalize("NFC", text)
    return "".join(c if _drawn(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def fit(text: str, size: int, width: float, bold: bool = False) -> str:
    """At most so many pixels wide: what is too long loses its middle, since names often differ at their ends."""
    return _fit(drawable(text), lambda t: font(size, bold).getlength(t), width)


def fit_any(text: str, size: int, width: float, bold: bool = False) -> str:
    """`fit` for a viewer that has other fonts too: nothing is escaped, unknown characters count as one em."""
    known = font(size, bold)
    return _fit(text, lambda t: sum(known.getlength(c) if _drawn(c) else size for c in t), width)


def _fit(text: str, measure: Callable[[str], float], width: float) -> str:
    if measure(text) <= width:
        return text

    def shortened(kept: int) -> str:
        return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]

    kept = bisect_right(range(2, len(text)), width, key=lambda n: measure(shortened(n))) + 1
    return shortened(kept)


def wrap(text: str, size: int, width: float, bold: bool = False) -> list[str]:
    """Lines of whole words, each at most so many pixels wide."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size, bold).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
