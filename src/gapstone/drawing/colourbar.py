"""The colour bar, in logits per cell: the colours of `colours.rgba` over light and over dark grey."""

import numpy as np
from PIL import Image, ImageDraw

from gapstone.drawing import colours, lettering

LIGHT, DARK = 235, 70  # grey levels below the colours: the same colour looks different over each
WIDTH, LETTERS = 420, 13  # px
TITLE = "logits per cell, over light and over dark"


def strip(width: int, height: int, largest: float, strength: float, cmap: str | None) -> Image.Image:
    """Return the bar without numbers: its upper half over light grey, its lower half over dark grey."""
    low, high = ends(largest, cmap)
    values = low + (np.arange(width) + 0.5) * ((high - low) / width)
    ground = np.full((height, width), DARK, np.uint8)
    ground[: height // 2] = LIGHT
    picture = Image.fromarray(ground).convert("RGB")
    layer = Image.fromarray(np.broadcast_to(colours.rgba(values, largest, strength, cmap), (height, width, 4)).copy())
    picture.paste(layer, (0, 0), layer)
    return picture


def ends(largest: float, cmap: str | None) -> tuple[float, float]:
    """Return the values at both ends of the bar; a colormap starts at 0."""
    return (-largest if cmap is None else 0.0), largest


def ticks(largest: float, cmap: str | None) -> list[tuple[float, str]]:
    """Return (position along the bar from 0 to 1, number as text) of each tick."""
    low, high = ends(largest, cmap)
    return [(at, number(low + at * (high - low), largest)) for at in (0, 0.25, 0.5, 0.75, 1)]


def number(value: float, largest: float) -> str:
    """Format a value with the decimals that give `largest` three significant digits."""
    if value == 0:
        return "0"
    if not 1e-3 <= largest < 1e4:
        text = f"{value:+.1e}"
    else:
        text = f"{value:+.{max(0, 2 - int(np.floor(np.log10(largest))))}f}"
    return f"−{text[1:]}" if value < 0 else text


def colour_bar(largest: float, strength: float, cmap: str | None) -> Image.Image:
    """Return the bar with numbers and title on white."""
    side, height, line = 4 * LETTERS, 2 * LETTERS, round(1.4 * LETTERS)
    picture = Image.new("RGB", (WIDTH + 2 * side, height + 2 * line + 8), "white")
    picture.paste(strip(WIDTH, height, largest, strength, cmap), (side, line + 2))
    draw, letters = ImageDraw.Draw(picture), lettering.font(LETTERS)
    for at, text in ticks(largest, cmap):
        x = side + at * (WIDTH - 1)
        draw.line((x, line + 2 + height, x, line + 5 + height), fill="black")
        draw.text((x, line + height + 6), text, "black", letters, anchor="ma")
    for place, anchor, text, colour in (
        (side, "la", "against" if cmap is None else "", colours.BELOW),
        (side + WIDTH / 2, "ma", TITLE, (0, 0, 0)),
        (side + WIDTH, "ra", "for", colours.ABOVE if cmap is None else (0, 0, 0)),
    ):
        draw.text((place, 0), text, colour, letters, anchor=anchor)
    return picture
