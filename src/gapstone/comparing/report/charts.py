"""Charts of results: for pages, and as Matplotlib figures.

In a page they are inline SVG whose colours are the page's CSS variables, so that they follow its light and dark themes.
They hold no names (of classes, files, heads): the page's text has them, where browsers shape every script right. They
are 360 units wide: one column on a phone, two or three on a desk.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from markupsafe import Markup

from gapstone.comparing.report.number_text import short
from gapstone.drawing.matplotlib_setup import style

# gapstone.drawing.matplotlib_setup goes before Matplotlib
# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

COLOURS = 7  # those of Okabe & Ito, for every kind of colour vision, without yellow, which is illegible on white
MARKERS = "os^DvPX"
LINES = ("-", "--", "-.", ":")
FEW = 10  # predictions: the accuracy of fewer is drawn hollow
MOST_POINTS = 80  # of a training curve: more are invisible


@dataclass(frozen=True)
class Palette:
    """The colours of a chart."""

    ink: str
    grid: str
    soft: str
    heads: tuple[str, ...]

    def rc(self) -> dict[Any, Any]:
        """Matplotlib's settings."""
        return {
            "svg.fonttype": "none",
            "svg.hashsalt": "gapstone",
            "font.size": 11.5,
            "text.parse_math": False,
            "text.color": self.ink,
            "axes.edgecolor": self.soft,
            "axes.labelcolor": self.ink,
            "axes.linewidth": 0.8,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": self.grid,
            "grid.linewidth": 0.8,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "lines.solid_capstyle": "round",
        }


PAGE = Palette("#0a0000", "#0a0001", "#0a0002", tuple(f"#0a0b{number:02x}" for number in range(COLOURS)))
"""Placeholders that no chart has otherwise; `_svg` replaces them by the page's variables."""
PAPER = Palette(
    "#1d2023", "#e2e2dd", "#6a6e73", ("#0072b2", "#d55e00", "#009e73", "#b5548c", "#c98500", "#3f9fd6", "#1d2023")
)
"""The page's light theme."""


@dataclass(frozen=True)
class ChartStyle:
    """The colour, marker and line of a head in all charts; any one of them identifies it."""

    number: int
    palette: Palette = PAGE

    @property
    def colour(self) -> str:
        return self.palette.heads[self.number % COLOURS]

    @property
    def variable(self) -> str:
        return f"var(--h{self.number % COLOURS})"

    @property
    def marker(self) -> str:
        return MARKERS[(self.number + self.number // COLOURS) % len(MARKERS)]  # another one when colours repeat

    @property
    def line(self) -> str:
        return LINES[self.number % len(LINES)]

    def key(self) -> Markup:
        """The line with its marker before the head's name."""
        with drawing(self.palette, 0.42, 0.17, grid=False) as (figure, axes):
            axes.set_axis_off()
            axes.set_position((0, 0, 1, 1))
            axes.plot([0, 2], [0, 0], color=self.colour, linestyle=self.line, linewidth=1.8)
            axes.plot([1], [0], color=self.colour, marker=self.marker, markersize=6, linestyle="")
            axes.set_xlim(0, 2)
            axes.set_ylim(-1, 1)
            return _svg(figure, None)


@dataclass(frozen=True)
class Chart:
    """A figure, and what it shows in words; in a page it is the <svg> element."""

    figure: Figure
    label: str

    def __html__(self) -> Markup:
        with style(**PAGE.rc()):
            return _svg(self.figure, self.label)


class ShownFigure(Figure):
    """A figure that notebooks show, also where Matplotlib's own display is not set up."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


@contextmanager
def drawing(
    palette: Palette, width: float = 5.0, height: float = 3.5, grid: bool = True
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches, with its axes."""
    with style(**palette.rc(), **{"axes.grid": grid}):
        figure = ShownFigure(figsize=(width, height), layout="constrained" if grid else None)
        yield figure, figure.add_subplot()


def _svg(figure: Figure, label: str | None) -> Markup:
    """The figure as an <svg> element with a text for screen readers, which ignore a figure without one."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.S)  # its style would apply to the whole page
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box
    described = f'role="img" aria-label="{Markup.escape(label)}"' if label else 'aria-hidden="true"'
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{box[1]}" {described}>', text, count=1)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r"font-family: [^;\"]+; ?", "", text)  # the page's
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)  # before Matplotlib 3.10
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", tag[0]), text)
    text = re.sub(r"#0a0b0(\d)", r"var(--h\1)", text)
    for placeholder, variable in ((PAGE.ink, "var(--ink)"), (PAGE.grid, "var(--grid)"), (PAGE.soft, "var(--soft)")):
        text = text.replace(placeholder, variable)
    return Markup(re.sub(r"\s*\n\s*", "\n", text).strip())


def _percent(axes: Axes, axis: str = "y") -> None:
    """To be called when all is drawn: where the margin around it leaves 0 to 1, no share is there, and no tick."""
    getattr(axes, f"{axis}axis").set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 3):g} %"))
    low, high = getattr(axes, f"get_{axis}lim")()
    margin = 0.03 * (min(high, 1) - max(low, 0))  # half of a marker
    getattr(axes, f"set_{axis}lim")(max(low, -margin), min(high, 1 + margin))


def _score_axis(axes: Axes, metric: dict[str, Any]) -> None:
    """The vertical axis of a metric of results.json."""
    axes.set_ylabel(f"test {metric['short']}{', lower is better' if metric['lower_is_better'] else ''}")
    if metric["factor"] == 100:
        _percent(axes)


def cost(heads: Sequence[dict[str, Any]], metric: dict[str, Any], palette: Palette = PAGE) -> Chart | None:
    """The metric on the test images, with its interval, against the number of parameters."""
    shown = [(i, head) for i, head in enumerate(heads) if head["deciding"]["mean"] is not None]
    if not shown:
        return None
    with drawing(palette) as (figure, axes):
        axes.set_xscale("log")
        sizes = [head["parameters"] for _, head in shown]
        aside = (3.2 * max(sizes) / min(sizes)) ** 0.03  # heads of equal cost are drawn side by side
        for place, (i, head) in enumerate(shown):
            look, stat = ChartStyle(i, palette), head["deciding"]
            x = head["parameters"] * aside ** sizes[:place].count(head["parameters"])
            if stat["ci95"]:
                axes.plot([x, x], stat["ci95"], color=look.colour, linewidth=1.6, alpha=0.75)
            axes.plot([x], [stat["mean"]], color=look.colour, marker=look.marker, markersize=8, linestyle="")
        axes.set_xlim(min(sizes) / 1.8, max(sizes) * 1.8)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
        near = max(sizes) < 8 * min(sizes)  # less than a decade: label 20, 30, 50, too; all nine would overlap
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: short(x) if near else ""))
        axes.tick_params(axis="x", which="both", length=3, pad=4)
        axes.set_xlabel("parameters of the whole network")
        _score_axis(axes, metric)
        return Chart(
            figure, f"Test {metric['words']} of each head, with its interval, against the number of parameters"
        )


def curves(heads: Sequence[dict[str, Any]], key: str, label: str, palette: Palette = PAGE) -> Chart | None:
    """A thin line per trial, and a thick line for their mean over the epochs that all have."""
    with drawing(palette) as (figure, axes):
        for i, head in enumerate(heads):
            look = ChartStyle(i, palette)
            runs = [run for run in head["curves"] if run[key]]
            for run in runs[:10]:
                x, y = _thin(run["epoch"], run[key])
                axes.plot(x, y, color=look.colour, linewidth=0.7, alpha=0.35)
            if runs:
                together = [column for column in zip_longest(*(run[key] for run in runs)) if None not in column]
                x, y = _thin(runs[0]["epoch"][: len(together)], [float(np.mean(column)) for column in together])
                every = max(1, len(x) // 6)
                axes.plot(x, y, color=look.colour, linewidth=2, linestyle=look.line,
                          marker=look.marker, markersize=5, markevery=(i % every, every))  # fmt: skip
        if not axes.lines:
            return None
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if "accuracy" in key:
            _percent(axes)
        else:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axes.yaxis.set_minor_locator(LogLocator(subs=()))
        return Chart(figure, f"{label} by epoch: a line for each head's mean, thin lines for its trials")


def labels(
    heads: Sequence[dict[str, Any]], curve: dict[str, Any], metric: dict[str, Any], palette: Palette = PAGE
) -> Chart:
    """The metric on the test images, with its intervals, against labelled images; `heads` are those of the curve."""
    with drawing(palette) as (figure, axes):
        axes.set_xscale("log")
        images = [point["images"] for point in curve["points"]]
        for i, head in enumerate(heads):
            look = ChartStyle(i, palette)
            aside = 1.02 ** (i - (len(heads) - 1) / 2)  # intervals side by side
            stats = [(x * aside, stat) for x, stat in zip(images, head["score"], strict=True) if stat["values"]]
            for x, stat in stats:
                if stat["ci95"]:
                    axes.plot([x, x], stat["ci95"], color=look.colour, linewidth=1.2, alpha=0.6)
            axes.plot([x for x, _ in stats], [stat["mean"] for _, stat in stats], color=look.colour, linewidth=2,
                      linestyle=look.line, marker=look.marker, markersize=6)  # fmt: skip
        axes.set_xticks(images, [f"{count:,}" for count in images])
        axes.minorticks_off()
        axes.set_xlabel("labelled images, training and validation")
        _score_axis(axes, metric)
        return Chart(figure, f"Test {metric['words']} against the number of labelled images, a line for each head")


def robustness(
    heads: Sequence[dict[str, Any]], group: str, x: str, y: str, labels: tuple[str, str], palette: Palette = PAGE
) -> Chart | None:
    """The accuracy on moved (shift) or resized (sizes) test images."""
    with drawing(palette) as (figure, axes):
        for i, head in enumerate(heads):
            if not head[group]:
                continue
            points = [(a, b) for a, b in zip(head[group][x], head[group][y], strict=True) if b is not None]
            if points:
                look = ChartStyle(i, palette)
                axes.plot(*zip(*points, strict=True), color=look.colour, linestyle=look.line, linewidth=2,
                          marker=look.marker, markersize=6)  # fmt: skip
        if not axes.lines:
            return None
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        ticks = next(head[group][x] for head in heads if head[group])
        axes.set_xticks(ticks)
        if group == "sizes":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda scale, _: f"{scale:g}×"))
        _percent(axes)
        return Chart(figure, f"{labels[1]} against {labels[0]}, a line for each head")


def reliability(
    bins: dict[str, Any], number: int, x_axis: str = "confidence", y_axis: str = "accuracy", palette: Palette = PAGE
) -> Chart:
    """Accuracy against confidence; bars show the number of predictions with that confidence.

    With several labels the probability of a class, and the share of such images that have it.
    """
    look = ChartStyle(number, palette)
    edges, count = np.array(bins["edges"]), np.array(bins["count"], float)
    columns = zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True)
    filled = [(confidence, accuracy, n >= FEW) for confidence, accuracy, n in columns if n]
    with drawing(palette, 2.5, 2.5) as (figure, axes):
        axes.bar(edges[:-1], 0.25 * count / max(count.max(), 1), np.diff(edges), align="edge", color=palette.grid)
        axes.plot([0, 1], [0, 1], color=palette.soft, linewidth=1, linestyle=(0, (4, 3)))
        if filled:
            x, y, enough = (np.array(column) for column in zip(*filled, strict=True))
            axes.plot(x, y, color=look.colour, linewidth=1, alpha=0.5)
            for these, face in ((enough, look.colour), (~enough, "none")):
                axes.plot(x[these], y[these], color=look.colour, linestyle="", marker=look.marker, markersize=4.5,
                          markerfacecolor=face)  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xticks([0.5, 1])  # the zero is the other axis's
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        _percent(axes)
        _percent(axes, "x")
        what = f"{y_axis[:1].upper()}{y_axis[1:]} against the {x_axis} of the predictions"
        return Chart(figure, f"{what}, beside the ideal diagonal")


def _thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    step = -(-len(x) // MOST_POINTS) or 1
    return list(x[::step]), list(y[::step])
