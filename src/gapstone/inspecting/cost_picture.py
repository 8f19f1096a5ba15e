"""Draws the parameters, multiply-adds and memory of each part of a network; PNG or SVG."""

import io
from pathlib import Path

from gapstone.console.formatting import display
from gapstone.drawing.matplotlib_setup import style
from gapstone.inspecting.amounts import cells, share, size
from gapstone.inspecting.network_costs import NetworkCosts, NetworkPart
from gapstone.storage.atomic import atomic_file

# gapstone.drawing.matplotlib_setup must be imported before Matplotlib
# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HEAD, TRUNK, LINE = "#d55e00", "#0072b2", "#d9d9d9"  # of Okabe & Ito: distinct for any colour vision
ENDINGS = (".png", ".svg")
LONGEST = 34  # characters of a part's name: more leave no room for the bars


def save(costs: NetworkCosts, path: Path) -> Path:
    """Write the picture, and return its path.

    Raises:
        ValueError: If the name ends neither in .png nor in .svg.
        FileNotFoundError: If there is no such folder.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: a picture ends in {' or '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    # names are the user's: "$" in them does not start a formula
    with style(**{"svg.fonttype": "none", "svg.hashsalt": "gapstone", "text.parse_math": False}):
        figure = draw(costs)
        # the command may replace pictures that have this creator
        metadata = {"Date": None, "Creator": "gapstone"} if path.suffix.lower() == ".svg" else {"Software": "gapstone"}
        with atomic_file(path) as unfinished:
            figure.savefig(unfinished, dpi=160, facecolor="white", metadata=metadata)
    return path


def png(costs: NetworkCosts) -> bytes:
    """Return the picture as a PNG for a notebook."""
    file = io.BytesIO()
    with style(**{"text.parse_math": False}):
        draw(costs).savefig(file, format="png", dpi=80, facecolor="white")
    return file.getvalue()


def draw(costs: NetworkCosts) -> Figure:
    """Draw three panels of bars with a row per part, from the image at the top to the output at the bottom."""
    parts = costs.parts
    names = [_name(part) for part in parts]
    margin = 0.4 + 0.078 * max(len(line) for name in names for line in name.split("\n"))  # inches
    width, height = margin + 8.6, 1.75 + 0.42 * len(parts)
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(
        left=margin / width, right=1 - 0.25 / width, bottom=0.5 / height, top=1 - 1.15 / height, wspace=0.1
    )
    memory = f"{size(costs.kept_bytes)} of training activations" if costs.kept_bytes is not None else "does not train"
    columns = (
        (f"{costs.parameters:,} parameters", [part.parameters for part in parts]),
        (f"{costs.macs:,} multiply-adds", [part.macs for part in parts]),
        (memory, [part.kept_bytes or 0 for part in parts]),
    )
    for axes, (title, values) in zip(panels, columns, strict=True):
        _panel(axes, title, values, [part.head_parameters > part.parameters / 2 for part in parts])
    panels[0].set_yticks(range(len(parts)), names, fontsize=9)
    panels[0].invert_yaxis()
    left = 0.25 / width
    h, w = costs.size
    figure.text(left, 1 - 0.32 / height, display(costs.name, 120), fontsize=13, fontweight="bold", va="center")
    figure.text(
        left,
        1 - 0.6 / height,
        f"one image of {costs.channels}×{h}×{w} → {cells(costs.output)}",
        fontsize=9,
        va="center",
    )
    if costs.head_parameters:
        text = f"■ the head: {share(costs.head_parameters, costs.parameters)} of the parameters"
        figure.text(left, 0.22 / height, text, fontsize=9, color=HEAD, va="center")
    return figure


def _panel(axes: Axes, title: str, values: list[int], heads: list[bool]) -> None:
    total = sum(values)
    axes.barh(range(len(values)), values, color=[HEAD if head else TRUNK for head in heads], height=0.66)
    axes.set_title(title, fontsize=9.5, loc="left")
    axes.set_xlim(0, max(max(values), 1) * 1.28)  # room for the number after the longest bar
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(LINE)
    for row, value in enumerate(values):
        axes.annotate(
            share(value, total), (value, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
        )


def _name(part: NetworkPart) -> str:
    shown = display(part.name)
    short = shown if len(shown) <= LONGEST else f"…{shown[1 - LONGEST :]}"
    return f"{short}\n{cells(part.output)}" if part.output else short
