"""Sections 4 and 6 to 9 of the tutorial: a trained network's maps, its reasons, and its heads under changes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from tutorial_style import (
    AGAINST,
    DPI,
    FAINT,
    FOR,
    HEADS,
    HEAT,
    INK,
    WIDTH,
    cross,
    figure,
    panel,
    plain,
    signed,
    words,
    write,
)

from gapstone.drawing.overlay import resized
from gapstone.drawing.pictures import largest, overlay

TIMES = 4  # a pixel of a digit becomes so many


def vector(made: dict[str, Any]) -> Path:
    drawn = figure(2.75)
    maps, means = made["maps"][0].detach().numpy(), made["vector"][0].detach().numpy()
    logits = made["logits"][0].detach().numpy()
    look = {"cmap": HEAT, "vmin": 0, "vmax": float(np.quantile(maps, 0.985))}
    picture(panel(drawn, 0.08, 0.65, 1.35, 1.35, "28×28"), made["paper"][made["seven"]])
    tiles(panel(drawn, 1.85, 0.15, 2.3, 2.3, "64 maps of 7×7"), maps, look)
    tiles(panel(drawn, 4.57, 0.15, 2.3, 2.3, "64 means"), means[:, None, None], look)
    for left, text in ((1.64, "nin"), (4.36, "mean"), (7.1, "linear")):
        words(drawn, left, 1.3, "→", 20)
        words(drawn, left, 1.54, text, 9)
    axes = panel(drawn, 7.42, 0.15, 0.88, 2.3, "10 logits")
    axes.barh(range(10), logits, color=np.where(logits > 0, FOR, AGAINST), height=0.7)
    axes.set_ylim(9.6, -0.6)
    plain(axes)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.axvline(0, color=FAINT, lw=0.6)
    axes.set_yticks(range(10), labels=[str(digit) for digit in range(10)])
    axes.tick_params(length=0)
    return write(drawn, "vector")


def terms(made: dict[str, Any]) -> Path:
    """The three strongest for a 7, the strongest against it, and all."""
    drawn = figure(4.5)
    maps, parts = made["maps"][0].detach(), made["terms"].detach()
    weight, bias = made["linear"].weight[7].tolist(), made["linear"].bias[7].item()
    sums = parts.sum((1, 2))
    shown = [*sums.argsort(descending=True)[:3].tolist(), int(sums.argmin())]
    running = parts[shown].cumsum(0).numpy()
    every = parts.sum(0).numpy()
    scale = max(float(np.abs(running).max()), float(np.abs(every).max()))
    for row, text in enumerate(("map F", "w × F\n/ 49 cells", "added up")):
        words(drawn, 0.5, 3.52 - 1.45 * row, text, 10)
    for place, channel in enumerate(shown):
        left, side = 1.06 + 1.26 * place, 1.12
        axes = panel(drawn, left, 2.96, side, side, f"F{subscript(channel + 1)},  w = {signed_number(weight[channel])}")
        axes.title.set_fontsize(10)
        axes.imshow(maps[channel].numpy(), cmap=HEAT, vmin=0, vmax=float(maps[shown].max()))
        axes = panel(drawn, left, 1.51, side, side, f"Σ = {signed_number(sums[channel])}")
        axes.imshow(signed(parts[channel].numpy(), scale))
        axes = panel(drawn, left, 0.08, side, side, f"Σ = {signed_number(running[place].sum())}")
        axes.imshow(signed(running[place], scale))
        words(drawn, left + side + 0.07, 2.07, "+", 13)
    for height in (2.07, 0.64):
        words(drawn, 6.17, height, "…", 13)
    axes = panel(drawn, 6.38, 0.08, 1.94, 1.94, f"all 64:  Σ = {signed_number(every.sum())}")
    over = enlarge(made["paper"][made["seven"]])
    evidence = resized(made["explained"].evidence(0, (28, 28))[0], over.shape[:2])
    axes.imshow(overlay(over, evidence, scale, how="cells"))
    for height, text, look in (
        (3.7, f"all 64  {signed_number(every.sum())}", {}),
        (3.4, f"bias  {signed_number(bias)}", {}),
        (3.0, f"logit {signed_number(made['logits'][0, 7].item())}", {"weight": "bold"}),
    ):
        words(drawn, 8.25, height, text, 13, ha="right", **look)
    drawn.add_artist(Line2D([6.9 / WIDTH, 8.3 / WIDTH], [3.2 / 4.5] * 2, color=INK, lw=0.8))
    return write(drawn, "terms")


def scene(made: dict[str, Any]) -> Path:
    drawn = figure(4.3)
    over = enlarge(made["scene"][0])
    evidences = [resized(one, over.shape[:2]) for one in made["found"].evidence(0, (64, 96))]
    scale = largest(evidences[digit] for digit in made["places"])
    wide, tall = over.shape[1] / DPI, over.shape[0] / DPI  # pixel for pixel
    for place, digit in enumerate(made["places"]):
        left, bottom = round(12 + 426 * (place % 3)) / DPI, (360 if place < 3 else 66) / DPI
        axes = panel(drawn, left, bottom, wide, tall)
        axes.imshow(overlay(over, evidences[digit], scale), interpolation="nearest")
        row, column = made["spots"][digit]
        cross(axes, 4 * TIMES * column, 4 * TIMES * row, 14)
        axes.text(0.985, 0.03, f"{digit}?", transform=axes.transAxes, fontsize=16, weight="bold", ha="right", color=INK)
    axes = panel(drawn, 438 / DPI, 0.14, wide, 0.12)
    axes.imshow(signed(np.linspace(-scale, scale, 101)[None], scale), aspect="auto")
    words(drawn, 2.84, 0.2, f"against  −{scale:.3f}", 10, ha="right")
    words(drawn, 438 / DPI + wide + 0.08, 0.2, f"+{scale:.3f}  for  (logits per cell)", 10, ha="left")
    return write(drawn, "scene", few=100)


def shift(made: dict[str, Any]) -> Path:
    drawn = figure(3.62)
    fixed = made["heads"]["fc:grid=7"].head.classifier[-1].weight[7].detach().view(64, 7, 7)
    most = fixed[fixed.flatten(1).std(1).argmax()]  # the map whose weights differ most
    same = made["linear"].weight[7].detach().max().expand(7, 7)
    words(drawn, 0.82, 3.47, "weights of one map", 11)
    for bottom, weights, title, paler in ((1.82, most, "FC: 49", 1), (0.08, same, "GAP: 1", 2)):
        axes = panel(drawn, 0.16, bottom, 1.32, 1.32, title)
        axes.imshow(signed(weights.numpy(), paler * weights.abs().max().item()))
        axes.set_xticks(np.arange(0.5, 6), [])
        axes.set_yticks(np.arange(0.5, 6), [])
        axes.tick_params(length=0)
        axes.grid(color="white", lw=0.8)
    axes = panel(drawn, 2.2, 1.05, 5.2, 2.15, "shifted: % right")
    curves(axes, range(5), made["curves"])
    axes.set_xticks(range(5), labels=["0", "1", "2", "3", "4 pixels"])
    for by in range(5):
        middle = 2.2 + 5.2 * (by + 0.3) / 4.6
        picture(panel(drawn, middle - 0.36, 0.08, 0.72, 0.72), np.roll(made["paper"][made["seven"]], by, 1))
    return write(drawn, "shift")


def against(made: dict[str, Any]) -> Path:
    drawn = figure(3.75)
    sides, margins = (28, 35, 42), (0, 4, 8, 16)
    digit = torch.from_numpy(made["paper"][made["seven"], :, :, 0])[None, None].float()
    larger = [F.interpolate(digit, (side, side), mode="bicubic").clamp(0, 255) for side in sides]
    framed = [F.pad(digit, (margin,) * 4, mode="replicate") for margin in margins]
    for left, wide, title, ask, steps, pictures, labels in (
        (0.5, 3.2, "enlarged: % right", made["enlarged"], sides, larger, ("1×", "1.25×", "1.5×")),
        (4.2, 3.4, "on more paper: % right", made["framed"], margins, framed, ("0", "4", "8", "16 pixels")),
    ):
        axes = panel(drawn, left, 1.35, wide, 2.1, title)
        answers = {name: [ask(model, step) for step in steps] for name, model in made["heads"].items()}
        curves(axes, range(len(steps)), answers, names=left > 4)
        axes.set_xticks(range(len(steps)), labels=labels)
        for place, one in enumerate(pictures):
            side = 0.85 * one.shape[-1] / 60
            middle = left + wide * (place + 0.3) / (len(steps) - 0.4)
            picture(panel(drawn, middle - side / 2, 0.5 - side / 2, side, side), one[0, 0, :, :, None].byte().numpy())
    return write(drawn, "against")


def curves(axes: Axes, steps: range, answers: dict[str, list[float]], names: bool = True) -> None:
    """Accuracies, each head named at its line's end."""
    plain(axes)
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 50, 100])
    axes.grid(axis="y", color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(-0.3, len(steps) - 0.7)
    for name, values in answers.items():
        colour, marker, _ = HEADS[name]
        axes.plot(steps, values, marker=marker, color=colour, lw=2, ms=6, clip_on=False)
    if not names:
        return
    ends = sorted(answers, key=lambda name: answers[name][-1])
    height = -np.inf
    for name in ends:  # from below, each at least a line's height above the one before
        height = max(answers[name][-1], height + 11)
        colour, _, text = HEADS[name]
        axes.text(len(steps) - 0.84, height, text, color=colour, fontsize=11, va="center", clip_on=False)


def picture(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)


def tiles(axes: Axes, maps: np.ndarray, look: dict[str, Any]) -> None:
    """64 maps as 8 rows of 8, white between."""
    side = 20
    sheet = np.full((8 * side, 8 * side), np.nan)
    for place, cells in enumerate(maps):
        rows = np.arange(side - 2) * cells.shape[0] // (side - 2)
        top, left = place // 8 * side + 1, place % 8 * side + 1
        sheet[top : top + side - 2, left : left + side - 2] = cells[np.ix_(rows, rows)]
    axes.imshow(sheet, **look)
    axes.spines[:].set_visible(False)


def enlarge(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(TIMES, 0).repeat(TIMES, 1)


def subscript(value: int) -> str:
    return str(value).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def signed_number(value: Any) -> str:
    return f"{float(value):+.2f}".replace("-", "−")
