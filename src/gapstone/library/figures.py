"""Charts of a comparison as Matplotlib figures: those of the report, with the heads' names."""

import base64
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from gapstone.comparing.remarks import learned_with
from gapstone.comparing.report import number_text, report_pictures
from gapstone.comparing.report.charts import PAPER, ChartStyle, drawing
from gapstone.comparing.report.report_charts import CHARTS, draw, heads_of, reliability
from gapstone.console.formatting import display
from gapstone.drawing.confusion_picture import FEW
from gapstone.drawing.lettering import drawable
from gapstone.storage.atomic import atomic_file
from gapstone.storage.sealed_json import read_vouched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("svg", "png", "pdf")
MOST_NUMBERED = 12
"""Classes of a confusion matrix whose cells have numbers."""


def figure(results: dict[str, Any], what: str, head: str) -> "Figure":
    """The chart of that name. Raises ValueError where there is none, or nothing of it was measured."""
    made = _drawn(results, what, head)
    if made is None:
        raise ValueError(f"there is nothing to draw for {what!r}: {_WHY.get(what, 'no trial has finished')}.")
    return made


def _drawn(results: dict[str, Any], what: str, head: str) -> "Figure | None":
    """The chart; None where nothing of it was measured. Raises ValueError where there is none of that name."""
    names = [one["head"] for one in results["heads"]]
    single: dict[str, Callable[[dict[str, Any], int], Figure | None]] = {
        "reliability": _reliability,
        "confusion": _confusion,
    }
    if what in single:
        return single[what](results, names.index(head))
    if what == "pairs":
        return _pairs(results)
    if what in CHARTS:
        chart = draw(results, heads_of(results), what, PAPER)
        return None if chart is None else _with_names(chart.figure, names, results["settings"]["baseline"])
    raise ValueError(f"there is no chart {what!r}; there are {', '.join(['pairs', *CHARTS, *single])}")


_WHY = {
    "shift": "no image was moved, as with quick, or no trial has finished",
    "same": "no image was moved, as with quick, or no trial has finished",
    "sizes": "no image was resized: with quick, or no head takes other sizes",
    "curve": "the comparison was made without `curve`",
    "validation": "no network was trained epoch by epoch, as on a frozen backbone",
    "loss": "no network was trained epoch by epoch, as on a frozen backbone",
    "pairs": "there is one head alone, or no trial has finished",
    "confusion": "no trial has finished, there are several labels per image, or more than 100 classes",
}


def save_all(out: Path, results: dict[str, Any], form: str) -> list[Path]:
    """Write every chart that has something to show into OUT/figures. Raises ValueError for another form."""
    if form not in FORMS:
        raise ValueError(f"--figures {display(form)}: must be {' or '.join(FORMS)}.")
    heads = [one["head"] for one in results["heads"]]
    wanted = [(what, what, heads[0]) for what in ("pairs", *CHARTS)]
    for number, head in enumerate(heads, start=1):
        name = f"{number}-" + re.sub(r"[^\w.-]+", "-", display(head))
        wanted += [(f"{what}-{name}", what, head) for what in ("reliability", "confusion")]
    written: list[Path] = []
    (out / "figures").mkdir(exist_ok=True)
    for name, what, head in wanted:
        if (made := _drawn(results, what, head)) is None:
            continue
        written.append(out / "figures" / f"{name}.{form}")
        with atomic_file(written[-1]) as unfinished:
            made.savefig(unfinished, format=form, dpi=200)
    return written


def _with_names(made: "Figure", names: Sequence[str], baseline: str) -> "Figure":
    """With a legend below; one head needs none."""
    from matplotlib.lines import Line2D

    looks = [ChartStyle(i, PAPER) for i in range(len(names))]
    handles = [
        Line2D([], [], color=look.colour, linestyle=cast(Any, look.line), marker=look.marker, linewidth=2)
        for look in looks
    ]
    shown = [drawable(name) + (" (baseline)" if name == baseline else "") for name in names]
    if len(names) > 1:
        columns = max(1, min(len(names), 60 // (max(map(len, shown)) + 6)))
        made.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False, fontsize=10)
        made.set_figheight(made.get_figheight() + 0.25 * -(-len(names) // columns))
    return made


def _pairs(results: dict[str, Any]) -> "Figure | None":
    """Each head's difference from the baseline with its interval; a band where differences do not matter."""
    pairs = [pair for pair in results["pairs"] if pair["difference"] is not None]
    if not pairs:
        return None
    number = {head["head"]: i for i, head in enumerate(results["heads"])}
    with drawing(PAPER, 6.0, 1.3 + 0.42 * len(pairs)) as (made, axes):
        axes.grid(visible=False, axis="y")
        if pairs[0]["margin"]:
            axes.axvspan(-pairs[0]["margin"], pairs[0]["margin"], color=PAPER.grid, alpha=0.6, linewidth=0)
        axes.axvline(0, color=PAPER.soft, linewidth=1)
        for place, pair in enumerate(pairs):
            look = ChartStyle(number[pair["a"]], PAPER)
            if pair["ci95"]:
                axes.plot(pair["ci95"], [place, place], color=look.colour, linewidth=2, alpha=0.8)
            axes.plot([pair["difference"]], [place], color=look.colour, marker=look.marker, markersize=8, linestyle="")
        axes.set_yticks(range(len(pairs)), [drawable(pair["a"]) for pair in pairs])
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(pairs)), [pair["verdict"] for pair in pairs])
        right.spines["right"].set_visible(False)
        metric, lower = results["metrics"][0]["words"], pairs[0]["lower_is_better"]
        unit = f", {pairs[0]['unit']}" if pairs[0]["unit"] else ""
        better = " (lower is better)" if lower else ""
        axes.set_xlabel(f"test {metric} minus that of {drawable(pairs[0]['b'])}{unit}{better}")
        return made


def _reliability(results: dict[str, Any], number: int) -> "Figure | None":
    if not results["heads"][number]["reliability"]:
        return None
    made = reliability(results, number, PAPER).figure
    made.set_size_inches(3.4, 3.4)
    return made


def _confusion(results: dict[str, Any], number: int) -> "Figure | None":
    """Of each class (row) the shares of its test images that are answered with each (column)."""
    counts = results["heads"][number]["confusion"]
    if not counts:
        return None
    table = np.asarray(counts, np.float64)  # of all trials together
    shares = table / table.sum(1, keepdims=True).clip(1)
    data = results["data"]
    few = [images < FEW for images in data["counts"]["test"]]
    classes = [drawable(name) + "*" * marked for name, marked in zip(data["classes"], few, strict=True)]
    side = min(12.0, 2.2 + 0.42 * len(classes))
    with drawing(PAPER, side, side) as (made, axes):
        axes.grid(visible=False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        axes.tick_params(labelsize=max(4.0, min(10.0, 300 / len(classes))))
        axes.set_xlabel("prediction")
        axes.set_ylabel(f"class (* fewer than {FEW} test images)" if any(few) else "class")
        axes.spines[:].set_visible(False)
        if len(classes) <= MOST_NUMBERED:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.005:
                    colour = "white" if share > 0.55 else PAPER.ink
                    axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
        return made


def map_figure(out: Path, results: dict[str, Any], images: int) -> "Figure":
    """Test images and the maps of each head for their class. Raises ValueError where there are none."""
    if images < 1:
        raise ValueError(f"maps({images}): expected a number of images, 1 or more")
    npz = io.BytesIO(read_vouched(out, "pictures.npz", results)) if results["files"] else None
    heads = [head["head"] for head in results["heads"]]
    maps, _ = report_pictures.read(npz, results["data"]["classes"], len(heads), partial(learned_with, results))
    if maps is None or all(cell is None for cell in maps.rows[0].cells):
        raise ValueError(f"there are no maps in {display(out)}: no trial has finished, or none of its heads has maps.")
    rows, shown = maps.rows[:images], [i for i in range(len(heads)) if maps.rows[0].cells[i] is not None]
    size = rows[0].picture.height / rows[0].picture.width
    with drawing(PAPER, 1.9 * (1 + len(shown)), (1.9 * size + 0.35) * len(rows) + 0.3) as (made, whole):
        whole.remove()
        grid: Any = made.subplots(len(rows), 1 + len(shown), squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            picture = _decoded(row.picture.uri)
            _draw(axes[0], picture, row.picture.pixelated)
            axes[0].set_ylabel(drawable(row.label), fontsize=9)
            for cell, head in zip(axes[1:], shown, strict=True):
                _draw(cell, picture, row.picture.pixelated)
                _draw_map(cell, row.cells[head] or (), picture)
        for cell, head in zip(grid[0, 1:], shown, strict=True):
            cell.set_title(drawable(heads[head]), fontsize=10)
        grid[0, 0].set_title("image", fontsize=10)
        return made


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def _draw(axes: "Axes", picture: Image.Image, pixelated: bool) -> None:
    axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest" if pixelated else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _draw_map(axes: "Axes", maps: Sequence[report_pictures.Map], picture: Image.Image) -> None:
    """The map of the image's class over it, with its probability below."""
    found, (width, height) = maps[0], picture.size
    left, top = found.area.left / 100 * width, found.area.top / 100 * height
    right, bottom = left + found.area.width / 100 * width, top + found.area.height / 100 * height
    layer = np.asarray(_decoded(found.uri).convert("RGBA"))
    axes.imshow(layer, extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5), interpolation="nearest")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    wrong = [_short(drawable(one.label)) for one in maps if one.role == "prediction"]
    said = f", said: {wrong[0]}" if wrong else ""
    axes.set_xlabel(f"{number_text.percent(found.probability)} %{said}", fontsize=8, color=PAPER.soft)


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
