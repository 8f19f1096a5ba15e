"""What the tutorial's pictures share: size, colours, panels without ticks, numbers on paper, PNGs of few colours."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from gapstone.drawing import colours

FOLDER = Path(__file__).parents[1] / "pictures" / "tutorial"
WIDTH, DPI = 8.4, 150  # inches; 1260 px, shown at about 830
INK, FAINT = "#222222", "#8a8a8a"
FOR, AGAINST = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (colours.ABOVE, colours.BELOW))
MARK = "#e3241b"  # where a maximum is
HEAT = ListedColormap(colormaps["cividis"](np.linspace(0, 1, 64)))  # to every eye alike
HEADS = {"gap": ("#00795c", "o", "GAP"), "gmp": ("#a3358f", "s", "GMP"), "fc:grid=7": ("#555555", "D", "FC 7×7")}


def figure(height: float) -> Figure:
    """`height` in inches."""
    return Figure(figsize=(WIDTH, height), dpi=DPI)


def panel(drawn: Figure, left: float, bottom: float, width: float, height: float, title: str = "") -> Axes:
    """A frame without ticks, in inches from the lower left corner."""
    wide, tall = drawn.get_size_inches()
    axes = drawn.add_axes((left / wide, bottom / tall, width / wide, height / tall))
    axes.set_title(title, fontsize=11, color=INK, pad=5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#bbbbbb", linewidth=0.6)
    return axes


def words(
    drawn: Figure, x: float, y: float, text: str, size: float = 11, colour: str = INK, ha: Any = "center", **more: Any
) -> None:
    """Text at a place in inches."""
    wide, tall = drawn.get_size_inches()
    drawn.text(x / wide, y / tall, text, fontsize=size, color=colour, ha=ha, va="center", **more)


def number(axes: Axes, x: float, y: float, text: str, size: float = 11) -> None:
    """On a piece of paper, so that it can be read on any picture; in the units of the axes' data."""
    box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none"}
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, bbox=box, zorder=6)


def cross(axes: Axes, x: float, y: float, size: float = 16) -> None:
    """Red on white: seen on everything."""
    axes.plot(x, y, "+", ms=size + 2, mew=5, color="white", zorder=4)
    axes.plot(x, y, "+", ms=size, mew=2.4, color=MARK, zorder=5)


def frame(axes: Axes, left: float, top: float, width: float, height: float, **look: Any) -> None:
    axes.add_patch(Rectangle((left, top), width, height, fill=False, **look))


def signed(maps: np.ndarray, largest: float) -> np.ndarray:
    """gapstone's colours on white, opaque: (…, 3) uint8."""
    layer = colours.rgba(maps, largest).astype(float)
    alpha = layer[..., 3:] / 255
    return np.rint(layer[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def plain(axes: Axes) -> None:
    """A chart: no box, thin lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.tick_params(labelsize=10, colors=INK, length=3)


def write(drawn: Figure, name: str, few: int = 0) -> Path:
    """`few`: in so many colours, for photographs and overlays, which would weigh four times as much."""
    held = io.BytesIO()
    drawn.savefig(held, format="png", facecolor="white")
    picture = Image.open(held).convert("RGB")
    if few:
        picture = picture.quantize(few, kmeans=1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.png"
    picture.save(path, optimize=True)
    return path
