"""Sections 1 to 3 and 5 of the tutorial: maps, windows, max and mean of two photographs; what heads cost."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from tutorial_style import (
    HEADS,
    HEAT,
    INK,
    WIDTH,
    cross,
    figure,
    frame,
    number,
    panel,
    words,
    write,
)

import gapstone as gs

CELL = 16  # pixels


def photograph(name: str) -> np.ndarray:
    """The part that whole cells cover."""
    return load_sample_image(name)[1 : 1 + 26 * CELL, 1 : 1 + 39 * CELL]


def feature_maps(made: dict[str, Any]) -> Path:
    drawn = figure(1.94)
    axes = panel(drawn, 0.08, 0.36, 1.97, 1.31, "photograph")
    axes.imshow(photograph("flower.jpg"), extent=(-0.5, 38.5, 25.5, -0.5), aspect="auto")
    questions = {"petal": "red − blue", "leaf": "green − red", "edge": "dark, then light"}
    for place, (name, asks) in enumerate(questions.items()):
        left = 2.17 + 2.07 * place
        axes = panel(drawn, left, 0.36, 1.97, 1.31, name)
        cells = made["look"]("flower.jpg")[0, place]
        axes.imshow(cells.numpy(), cmap=HEAT, vmin=0, vmax=float(cells.max()), aspect="auto")
        words(drawn, left + 0.985, 0.17, asks, 10)
    return write(drawn, "feature-maps", few=256)


def window(made: dict[str, Any]) -> Path:
    drawn = figure(2.14)
    petal = made["petal"][0, 0]
    look = {"cmap": HEAT, "vmin": 0, "vmax": float(petal.max()), "aspect": "auto"}
    size = 2.68, 2.68 / 1.5
    axes = panel(drawn, 0.08, 0.08, *size, "petal map, 26×39")
    axes.imshow(petal.numpy(), **look)
    for row, column in ((2, 3), (3, 2)):
        frame(axes, 4 * column - 0.5, 4 * row - 0.5, 6, 6, ec="white", lw=1, ls=(0, (2, 1.4)))
    for column in (2, 4):
        frame(axes, 4 * column - 0.5, 7.5, 6, 6, ec="white", lw=2.4)
    for left, name, answers in ((2.86, "max", made["highest"][0, 0]), (5.64, "mean", made["average"][0, 0])):
        axes = panel(drawn, left, 0.08, *size, f"{name} of each window, 6×9")
        axes.imshow(answers.numpy(), **look)
        for row, column in ((2, 2), (2, 4)):
            frame(axes, column - 0.5, row - 0.5, 1, 1, ec="white", lw=2.4)
            value = float(answers[row, column])
            ink = "white" if value < 0.5 * petal.max() else INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink)
    return write(drawn, "window")


def max_and_mean(made: dict[str, Any]) -> Path:
    drawn = figure(4.52)
    both = made["both"]
    scale = {"cmap": HEAT, "vmin": 0, "vmax": float(both.max()), "aspect": "auto"}
    answers = gs.pool(both, "max").flatten(), gs.pool(both, "mean").flatten()
    for row, name in enumerate(("flower.jpg", "china.jpg")):
        bottom = 2.2 - 2.1 * row
        title = ("photograph", "petal map", "max", "mean") if row == 0 else ("", "", "", "")
        down, right = gs.share(both[row : row + 1], "max")[0, 0].nonzero()[0].tolist()
        axes = panel(drawn, 0.08, bottom, 3.0, 2.0, title[0])
        axes.imshow(photograph(name), extent=(-0.5, 38.5, 25.5, -0.5), aspect="auto")
        cross(axes, right, down)
        axes = panel(drawn, 3.2, bottom, 3.0, 2.0, title[1])
        axes.imshow(both[row, 0].numpy(), **scale)
        cross(axes, right, down)
        for place, answer in enumerate(answers):
            axes = panel(drawn, 6.32 + 1.04 * place, bottom, 0.94, 2.0, title[2 + place])
            axes.imshow(np.full((1, 1), float(answer[row])), **scale)
            number(axes, 0, 0, f"{answer[row]:.2f}", 14)
    return write(drawn, "max-and-mean", few=256)


def cost(made: dict[str, Any]) -> Path:
    drawn = figure(2.72)
    count, fc, gap = made["count"], HEADS["fc:grid=7"][0], HEADS["gap"][0]
    flat, single = count(made["flat"]), count(made["gap"].head)
    axes = bars(drawn, 1.5, "7×7×64 maps, 10 classes: parameters of the head", "flatten, 500", "GAP")
    axes.barh([1, 0], [flat, single], color=[fc, gap], edgecolor=[fc, gap], lw=2)  # the line shows what has no width
    axes.text(flat * 0.985, 1, f"{flat:,}", ha="right", va="center", color="white", fontsize=12)
    axes.text(flat * 0.015, 0, f"{single:,}", va="center", color=INK, fontsize=12)
    axes.set_xlim(0, flat)

    below, head, small = count(made["vgg"]), count(made["vgg_head"]), count(made["vgg_gap"])
    axes = bars(drawn, 0.1, "VGG-16, 1,000 classes: all parameters", "as published", "with GAP")
    axes.barh([1, 0], [below, below], color="#c9c9c9")
    axes.barh([1, 0], [head, small], left=below, color=[fc, gap])
    axes.text(below / 2, 1, f"{below / 1e6:.1f} M", ha="center", va="center", color=INK, fontsize=11)
    share = f"head {head:,} = {100 * head / (below + head):.1f} %"
    axes.text((below + head) * 0.985, 1, share, ha="right", va="center", color="white", fontsize=12)
    axes.text((below + small) + head * 0.015, 0, f"{below + small:,}", va="center", color=INK, fontsize=12)
    axes.set_xlim(0, below + head)
    return write(drawn, "cost")


def bars(drawn: Figure, bottom: float, title: str, upper: str, lower: str) -> Axes:
    axes = panel(drawn, 1.35, bottom, WIDTH - 1.45, 0.85)
    axes.set_title(title, fontsize=11, color=INK, loc="left", pad=4)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=11, colors=INK)
    axes.set_ylim(-0.45, 1.45)
    axes.set_yticks([1, 0], labels=[upper, lower])
    return axes
