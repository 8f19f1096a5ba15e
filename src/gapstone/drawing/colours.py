"""Contributions to colours: colour(v) = blue below 0, vermilion above; opacity(v) = strength · sqrt(|v| / largest)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BELOW, ABOVE = (0, 90, 181), (213, 94, 0)
"""Told apart by every kind of colour vision: what speaks against a class, and what speaks for it."""
STRONGEST = 0.88
"""Opacity of the largest contribution: the picture stays visible beneath."""
STEPS = 1 << 13  # between 0 and the largest: the first is all but clear


POWER = 0.5
"""1 would lose whole pictures: on one scale, cells of one that the network is sure of are 50 times those of the next.
1/3 keeps them, but a thousandth of the largest is then at 0.1, and what is all but nothing gets a border of two colours
where its sign changes. The report of `gapstone compare` needs 1/3 all the same: its one scale spans heads whose cells
hold 1/256 of the logit and others with a tenth."""


def opacity(values: NDArray[Any], largest: float, power: float = POWER) -> NDArray[np.float64]:
    """0 to 1, growing with |value|: 0 is clear, `largest` and more is 1."""
    _check(largest)
    return (np.abs(np.asarray(values, np.float64)) / largest).clip(0, 1) ** power


def rgba(
    values: NDArray[Any], largest: float, strength: float = STRONGEST, cmap: str | None = None
) -> NDArray[np.uint8]:
    """Values of any shape, in logits per cell, to (…, 4) uint8.

    ```python
    rgba(np.array([0.0, 0.5, -0.5]), largest=0.5)  # clear, vermilion, blue
    rgba(placed, largest(evidences), cmap="magma")  # what speaks for the class only
    ```

    largest: the value at the end of the colour bar, the same for all maps that are looked at together; beyond it, the
    colour stays. strength: the opacity there, above 0 to 1. cmap: the name of one of matplotlib's colormaps instead of
    the two colours. It shows what speaks *for* the class; what speaks against it is clear.
    """
    table = _table(largest, strength, cmap)
    # by table: 12 million pixels in 0.1 s, where their roots take 0.5
    found = np.empty(np.shape(values), np.uint32)
    flat, into = np.ascontiguousarray(values, np.float32).reshape(-1), found.reshape(-1)
    for at in range(0, flat.size, 1 << 16):  # pieces that stay in the cache
        steps = np.multiply(flat[at : at + (1 << 16)], STEPS / largest, dtype=np.float64) + (STEPS + 0.5)
        into[at : at + (1 << 16)] = table[steps.clip(0, 2 * STEPS).astype(np.int32)]
    return found.view(np.uint8).reshape(*np.shape(values), 4)


def _table(largest: float, strength: float, cmap: str | None) -> NDArray[np.uint32]:
    """(2 · STEPS + 1,) colours from −largest to largest, four bytes each."""
    _check(largest)
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength!r}: an opacity, above 0 to 1")
    values = np.arange(-STEPS, STEPS + 1) * (largest / STEPS)
    colours = np.empty((len(values), 4), np.uint8)
    colours[:, :3] = np.where((values > 0)[:, None], ABOVE, BELOW)
    colours[:, 3] = np.rint(255 * strength * opacity(values, largest))
    if cmap is not None:
        colours[:, :3] = _colormap(cmap)[np.rint(values.clip(0) * (255 / largest)).astype(np.int64)]
        colours[values < 0, 3] = 0
    return colours.view(np.uint32)[:, 0]


def _check(largest: float) -> None:
    if not (np.isfinite(largest) and largest > 0):
        raise ValueError(f"largest={largest!r}: the contribution at the end of the colour bar, above 0")


def _colormap(name: str) -> NDArray[np.uint8]:
    """(256, 3)"""
    from gapstone.drawing.matplotlib_setup import matplotlib

    if name not in matplotlib.colormaps:
        raise ValueError(f"cmap={name!r}: matplotlib has no colormap of that name; viridis, magma and cividis are some")
    table: NDArray[np.uint8] = matplotlib.colormaps[name](np.arange(256) / 255, bytes=True)[:, :3]
    return table
