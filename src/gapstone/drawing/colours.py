"""Colours of contributions: colour(v) = blue below 0, vermilion above; opacity(v) = strength · sqrt(|v| / largest)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BELOW, ABOVE = (0, 90, 181), (213, 94, 0)
"""Evidence against and for a class, in colours that people with any colour vision can tell apart."""
STRONGEST = 0.88
"""Opacity of the largest contribution; the picture below stays visible."""
STEPS = 1 << 13  # table entries between 0 and `largest`


POWER = 0.5
"""Exponent of the opacity. With 1, whole pictures vanish: on one scale, the cells of a picture of which the network is
sure are 50 times those of the next. With 1/3, a thousandth of the largest contribution has opacity 0.1, and negligible
values show a two-coloured border where their sign changes. The report of `gapstone compare` uses 1/3 nevertheless: its
scale spans heads whose cells hold 1/256 of the logit and heads whose cells hold a tenth."""


def opacity(values: NDArray[Any], largest: float, power: float = POWER) -> NDArray[np.float64]:
    """Return opacities from 0 (value 0) to 1 (|value| ≥ `largest`): (|value| / largest) ** power."""
    _check(largest)
    return (np.abs(np.asarray(values, np.float64)) / largest).clip(0, 1) ** power


def rgba(
    values: NDArray[Any], largest: float, strength: float = STRONGEST, cmap: str | None = None
) -> NDArray[np.uint8]:
    """Convert contributions to colours with opacity.

    ```python
    rgba(np.array([0.0, 0.5, -0.5]), largest=0.5)  # transparent, vermilion, blue
    rgba(placed, largest(evidences), cmap="magma")  # evidence for the class only
    ```

    Args:
        values: Contributions in logits per cell, of any shape.
        largest: The value at the end of the colour bar, the same for all maps that are compared; larger values get
            its colour.
        strength: The opacity there, above 0 and at most 1.
        cmap: The name of a colormap of Matplotlib instead of the two colours; evidence *against* the class is then
            transparent.

    Returns:
        (…, 4) uint8: red, green, blue, opacity.
    """
    table = _table(largest, strength, cmap)
    # a table: 12 million pixels take 0.1 s; their square roots would take 0.5 s
    packed = np.empty(np.shape(values), np.uint32)
    flat, output = np.ascontiguousarray(values, np.float32).reshape(-1), packed.reshape(-1)
    for start in range(0, flat.size, 1 << 16):  # pieces that stay in the cache
        steps = np.multiply(flat[start : start + (1 << 16)], STEPS / largest, dtype=np.float64) + (STEPS + 0.5)
        output[start : start + (1 << 16)] = table[steps.clip(0, 2 * STEPS).astype(np.int32)]
    return packed.view(np.uint8).reshape(*np.shape(values), 4)


def _table(largest: float, strength: float, cmap: str | None) -> NDArray[np.uint32]:
    """Return (2 · STEPS + 1,) colours from −largest to largest, of four bytes each."""
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
    """Return the (256, 3) colours of a colormap of Matplotlib."""
    from gapstone.drawing.matplotlib_setup import matplotlib

    if name not in matplotlib.colormaps:
        raise ValueError(f"cmap={name!r}: matplotlib has no colormap of that name; viridis, magma and cividis are some")
    table: NDArray[np.uint8] = matplotlib.colormaps[name](np.arange(256) / 255, bytes=True)[:, :3]
    return table
