"""One sheet per pool: what it makes of a real feature map over each region, and which positions it listens to.

The map has two channels made of a photograph that scikit-learn ships, without training: how strong the edges are (the
one that is drawn) and how red it is (only attention asks for it), at stride 8.
"""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image
from torch import Tensor

import gapstone as gs
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY
from gapstone.regions import Region

FOLDER = Path(__file__).parents[1] / "pictures" / "pools"
ROWS, COLUMNS, STRIDE = 32, 48, 8
SCALE, GAP, FIRST, TOP = 4, 10, 212, 28  # pixels: of a position, between panels, the first column, above the panels
PHOTO = 48  # colours of the photograph
EVERYWHERE = (-0.5, COLUMNS - 0.5, ROWS - 0.5, -0.5)
HEAT = ListedColormap(colormaps["cividis"](np.linspace(0, 1, 48)))  # the same to every kind of colour vision
PULL = ListedColormap(colormaps["PuOr_r"](np.linspace(0.1, 0.9, 25)))  # signed: violet, white, orange; as safe
INK, LINE, SECOND, WINNER = "#222222", "#ffffff", "#ff9d5c", "#e3241b"
OUTSIDE, NOTHING = "#dddddd", "#f4f4f4"  # what a mask leaves out; where there is no answer
WINDOW = gs.Window(6, stride=4, padding=1)
PYRAMID = (1, 2, 4)
BOXES = torch.tensor([[0, 5, 3, 25, 29], [0, 38, 9, 46, 29]])  # the tower and the tree, in positions
BOX_COLOURS = (LINE, SECOND)


@dataclass(frozen=True)
class Scene:
    photo: np.ndarray
    x: Tensor
    """(1, 2, 32, 48): edges, red."""
    mask: Tensor
    """All but the sky and the lake."""
    labels: Tensor
    """Six parts of like colour and place."""


@cache
def scene() -> Scene:
    picture = Image.fromarray(load_sample_image("china.jpg")).resize((COLUMNS * STRIDE, ROWS * STRIDE))
    photo = np.asarray(picture)
    colour = torch.from_numpy(photo.copy()).float().permute(2, 0, 1)[None] / 255
    grey = F.pad(colour.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    down, right = grey[..., 1:, :-1] - grey[..., :-1, :-1], grey[..., :-1, 1:] - grey[..., :-1, :-1]
    edges = F.avg_pool2d((down**2 + right**2).sqrt(), STRIDE)
    red = F.avg_pool2d((colour[:, :1] - colour[:, 1:].amax(1, keepdim=True)).clamp(min=0), STRIDE)
    small = F.avg_pool2d(colour, STRIDE)[0]
    place = torch.stack(torch.meshgrid(torch.arange(ROWS) / ROWS, torch.arange(COLUMNS) / COLUMNS, indexing="ij"))
    points = torch.cat([small, 1.3 * place]).flatten(1).T.double().numpy()
    parts = KMeans(6, n_init=4, random_state=0).fit_predict(points)
    x = torch.cat([(edges / edges.max()).sqrt(), red / red.max()], 1)
    labels = torch.from_numpy(parts).reshape(ROWS, COLUMNS).long()
    shown = picture.resize((2 * COLUMNS, 2 * ROWS)).quantize(PHOTO, dither=Image.Dither.NONE).convert("RGB")
    return Scene(np.asarray(shown), x, small.mean(0) < 0.6, labels)


def example(name: str) -> dict[str, Any]:
    """The parameters of a pool's sheet: its defaults, and something plain where it has none."""
    given: dict[str, Any] = {}
    for member in COMPOSITIONS[name].pools if name in COMPOSITIONS else (name,):
        for key, knob in (POOLS.get(member) or WHOLE_ONLY[member]).parameters.items():
            if knob.per_position:
                given["query"] = torch.tensor([0.0, 7.0])  # look where it is red
            elif knob.default is None:
                given[key] = 5 if knob.whole else knob.least + 0.9 * (knob.most - knob.least)
            else:
                given[key] = knob.default
    return given


def regions() -> dict[str, Region]:
    """What a column of the sheet is called, and its region."""
    seen = scene()
    return {
        "Whole()": gs.Whole(),
        "Window(6, 4, 1)": WINDOW,
        "Grid(4)": gs.Grid(4),
        "Pyramid((1, 2, 4))": gs.Pyramid(PYRAMID),
        "Boxes(boxes, 3)": gs.Boxes(BOXES, 3),
        "Mask(mask)": gs.Mask(seen.mask),
        "Segments(labels)": gs.Segments(seen.labels, 6),
    }


def draw(name: str) -> Path:
    """Draw a pool's sheet and write it."""
    seen, columns = scene(), regions()
    answers, shares = {}, {}
    for title, region in columns.items():
        x = seen.x.clone().requires_grad_()
        out = gs.pool(x, name, over=region, **example(name))
        edges = out[:, ::2]  # of the channel that is drawn; a composition side by side has two
        edges.sum().backward()
        answers[title], shares[title] = edges.detach().transpose(0, 1).numpy(), x.grad[0, 0].numpy()
    rows = len(answers["Whole()"])
    scale, apart = _scale(seen.x[0, 0].numpy(), answers)

    sheet = Sheet(rows + 2, len(columns))
    few = np.count_nonzero(shares["Whole()"]) <= 10
    for column, (title, region) in enumerate(columns.items(), 1):
        axes = sheet.panel(0, column, title)
        axes.imshow(seen.x[0, 0].numpy(), cmap=HEAT, vmin=0, vmax=1)
        _outline(axes, region)
        if few:
            down, right = np.nonzero(shares[title])
            size, edge = (26, 0.8) if len(down) < 20 else (13, 0.5) if len(down) < 100 else (4, 0)
            axes.scatter(right, down, s=size, c=WINNER, linewidths=edge, edgecolors=LINE, zorder=3)
        for row in range(rows):
            _paint(sheet.panel(1 + row, column), region, answers[title][row], scale)
        axes = sheet.panel(rows + 1, column)
        axes.imshow(shares[title] / np.abs(shares[title]).max(), cmap=PULL, vmin=-1, vmax=1)

    axes = sheet.panel(0, 0, "the photograph")
    axes.imshow(seen.photo, extent=EVERYWHERE)
    members = COMPOSITIONS[name].pools if rows > 1 else (name,)
    words = (
        "answers, on a log scale\nof their own" if isinstance(scale, LogNorm) else "answers, on a scale\nof their own"
    )
    for row, member in enumerate(members):
        sheet.key(
            1 + row, member, words if apart else "answers, painted where\nthey were taken", ScalarMappable(scale, HEAT)
        )
    sheet.key(rows + 1, "share", "d answer / d x of\neach position", ScalarMappable(Normalize(-1, 1), PULL), True)
    return _write(sheet.figure, name)


class Sheet:
    """Panels of whole pixels, so that a position of the map is a sharp square; a wider column of words before them."""

    def __init__(self, rows: int, columns: int) -> None:
        self.width = FIRST + columns * (SCALE * COLUMNS + GAP)
        self.height = TOP + rows * (SCALE * ROWS + GAP)
        self.figure = Figure(figsize=(self.width / 100, self.height / 100), dpi=100)

    def axes(self, row: int, column: int) -> Axes:
        left = FIRST + (column - 1) * (SCALE * COLUMNS + GAP) if column else GAP
        top = TOP + row * (SCALE * ROWS + GAP)
        place = left, self.height - top - SCALE * ROWS, SCALE * COLUMNS, SCALE * ROWS
        return self.figure.add_axes(
            (place[0] / self.width, place[1] / self.height, place[2] / self.width, place[3] / self.height)
        )

    def panel(self, row: int, column: int, title: str = "") -> Axes:
        axes = self.axes(row, column)
        axes.set_title(title, fontsize=13, color=INK, pad=5)
        axes.set_xticks([])
        axes.set_yticks([])
        _limits(axes)
        for spine in axes.spines.values():
            spine.set(color="#bbbbbb", linewidth=0.6)
        return axes

    def key(self, row: int, title: str, words: str, colours: ScalarMappable, signed: bool = False) -> None:
        """What a row is, and its colours."""
        axes = self.axes(row, 0)
        axes.set_axis_off()
        axes.text(0, 0.97, title, fontsize=15, weight="bold", color=INK, va="top")
        axes.text(0, 0.76, words, fontsize=11, color=INK, va="top", linespacing=1.15)
        bar = self.figure.colorbar(colours, cax=axes.inset_axes((0.05, 0.2, 0.88, 0.13)), orientation="horizontal")
        if signed:
            bar.set_ticks([-1, 0, 1], labels=["−", "0", "+"])
        elif not isinstance(colours.norm, LogNorm):
            bar.locator = MaxNLocator(4, steps=[1, 2, 5, 10])
        bar.outline.set_linewidth(0.4)
        bar.ax.tick_params(labelsize=10, length=2, colors=INK)


def _scale(x: np.ndarray, answers: dict[str, np.ndarray]) -> tuple[Normalize, bool]:
    """The map's own scale, wherever the answers lie within it; else one of their own, the same for all regions."""
    every = np.concatenate([a.ravel() for a in answers.values()])
    every = every[np.isfinite(every)]
    if every.min() >= x.min() - 1e-6 and every.max() <= x.max() + 1e-6 and every.max() > x.max() / 2:
        return Normalize(0, 1), False
    if every.min() > 0 and every.max() > 30 * every.min():
        return LogNorm(every.min(), every.max()), True
    return Normalize(0, every.max()), True


def _limits(axes: Axes) -> None:
    axes.set_xlim(-0.5, COLUMNS - 0.5)
    axes.set_ylim(ROWS - 0.5, -0.5)


def _outline(axes: Axes, region: Region) -> None:
    """Where the region looks."""
    seen = scene()
    if isinstance(region, gs.Window):
        size, stride, before = WINDOW.size, WINDOW.stride, WINDOW.padding
        for i, (row, column) in enumerate([(3, 5), (3, 6), (4, 5), (0, 0)]):
            corner = column * stride - before - 0.5, row * stride - before - 0.5
            axes.add_patch(
                Rectangle(corner, size, size, fill=False, edgecolor=LINE, linewidth=1.8 if i == 0 else 0.9,
                          linestyle="-" if i in (0, 3) else (0, (2, 1.4)))
            )  # fmt: skip
    elif isinstance(region, gs.Grid):
        _lines(axes, 4, 1.0)
    elif isinstance(region, gs.Pyramid):
        _lines(axes, 4, 0.7)
        _lines(axes, 2, 2.2)
    elif isinstance(region, gs.Boxes):
        for box, colour in zip(BOXES, BOX_COLOURS, strict=True):
            _, left, top, right, bottom = box.tolist()
            width, height = right - left + 1, bottom - top + 1
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=colour, lw=1.8))
            for third in (1, 2):
                axes.plot([left - 0.5 + third * width / 3] * 2, [top - 0.5, bottom + 0.5], c=colour, lw=0.7)
                axes.plot([left - 0.5, right + 0.5], [top - 0.5 + third * height / 3] * 2, c=colour, lw=0.7)
    elif isinstance(region, gs.Mask):
        axes.imshow(np.where(seen.mask.numpy(), np.nan, 1.0), cmap=ListedColormap([OUTSIDE]))
        _borders(axes, seen.mask.long())
    elif isinstance(region, gs.Segments):
        _borders(axes, seen.labels)


def _lines(axes: Axes, cells: int, width: float) -> None:
    for i in range(1, cells):
        axes.plot([i * COLUMNS / cells - 0.5] * 2, [-0.5, ROWS - 0.5], c=LINE, lw=width)
        axes.plot([-0.5, COLUMNS - 0.5], [i * ROWS / cells - 0.5] * 2, c=LINE, lw=width)


def _borders(axes: Axes, labels: Tensor) -> None:
    """Along the edges of the positions where a label meets another."""
    for row, column in (labels[:, 1:] != labels[:, :-1]).nonzero().tolist():
        axes.plot([column + 0.5] * 2, [row - 0.5, row + 0.5], c=LINE, lw=1.0)
    for row, column in (labels[1:] != labels[:-1]).nonzero().tolist():
        axes.plot([column - 0.5, column + 0.5], [row + 0.5] * 2, c=LINE, lw=1.0)


def _paint(axes: Axes, region: Region, answer: np.ndarray, scale: Normalize) -> None:
    """The answers, each where it was taken."""
    seen, look = scene(), {"cmap": HEAT, "norm": scale}
    if isinstance(region, gs.Boxes):
        axes.set_facecolor(NOTHING)
        for cells, box, colour in zip(answer, BOXES, BOX_COLOURS, strict=True):
            _, left, top, right, bottom = box.tolist()
            axes.imshow(cells, extent=(left - 0.5, right + 0.5, bottom + 0.5, top - 0.5), **look)
            width, height = right - left + 1, bottom - top + 1
            edge = INK if colour == LINE else colour
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=edge, lw=1.4))
    elif isinstance(region, gs.Pyramid):
        at = 0
        for i, level in enumerate(PYRAMID):
            cells = answer[0, at : at + level * level].reshape(level, level)
            left = i * COLUMNS / 3 - 0.5
            axes.imshow(cells, extent=(left + 0.25, left + COLUMNS / 3 - 0.25, ROWS - 0.5, -0.5), **look)
            at += level * level
    elif isinstance(region, gs.Segments):
        axes.imshow(answer[0][seen.labels.numpy()], **look)
    elif isinstance(region, gs.Mask):
        axes.set_facecolor(NOTHING)
        axes.imshow(np.where(seen.mask.numpy(), answer[0], np.nan), **look)
        _number(axes, answer[0])
    elif isinstance(region, gs.Whole):
        axes.imshow(answer[0].reshape(1, 1), extent=EVERYWHERE, **look)
        _number(axes, answer[0])
    else:
        axes.imshow(answer[0], extent=EVERYWHERE, **look)
    _limits(axes)


def _number(axes: Axes, value: float) -> None:
    words = f"{value:.3g}"
    axes.text(
        COLUMNS / 2, ROWS / 2 + 8, words, ha="center", va="center", fontsize=12, color=INK,
        bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none"},
    )  # fmt: skip


def _write(figure: Figure, name: str) -> Path:
    """As a PNG of few colours, those of the scales among them: a third of the bytes, and nothing to see of it."""
    held = io.BytesIO()
    figure.savefig(held, format="png")
    drawn = Image.open(held).convert("RGB")
    photo = Image.fromarray(scene().photo).getcolors() or []
    colours = [*HEAT(range(48)), *PULL(range(25)), *([grey / 12] * 3 + [1] for grey in range(13))]
    own = [round(255 * part) for colour in colours for part in colour[:3]]
    own += [int(mark[i : i + 2], 16) for mark in (WINNER, SECOND, OUTSIDE, NOTHING, INK) for i in (1, 3, 5)]
    palette = np.array(own + [part for _, colour in photo for part in colour], dtype=np.int32).reshape(-1, 3)
    pixels, place = np.unique(np.asarray(drawn).reshape(-1, 3), axis=0, return_inverse=True)
    nearest = ((pixels[:, None].astype(np.int32) - palette) ** 2).sum(-1).argmin(1)
    indexed = Image.fromarray(nearest[place.ravel()].reshape(drawn.height, drawn.width).astype(np.uint8))
    indexed.putpalette(palette.astype(np.uint8).ravel().tolist())
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.png"
    indexed.save(path, optimize=True)
    return path
