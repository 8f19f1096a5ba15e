"""Draws the map of one class over the picture, at the picture's own resolution."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gapstone.drawing import colours
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.upsample import How, upsample
from gapstone.images.as_picture import MOST_CHANNELS, as_picture

if TYPE_CHECKING:
    from gapstone.localisation.cam_boxes import Box  # loads scipy

DARKEST, LIGHTEST = 40, 230
"""Grey levels of black and white in the picture below a map."""


def largest(evidences: Iterable[Evidence]) -> float:
    """Return the common scale of several maps: the largest |contribution| of a cell; 1 if all are 0."""
    return max((float(np.abs(e.map).max()) for e in evidences), default=0.0) or 1.0


def overlay(
    pixels: NDArray[np.uint8],
    evidence: Evidence,
    largest: float | None = None,
    alpha: float = colours.STRONGEST,
    how: How = "smooth",
    box: Sequence["Box"] = (),
    *,
    grey: bool = True,
    cmap: str | None = None,
) -> Image.Image:
    """Draw the map of one class over a picture, as RGB at the picture's own resolution.

    ```python
    scale = largest(evidences)  # of all maps that are compared
    overlay(pixels, evidences[0], scale).save("cat.png")
    ```

    A thin line marks the region that the network saw, if that is not the whole picture.

    Args:
        pixels: (H, W), (H, W, 1) or (H, W, 3) uint8: the picture that was explained.
        evidence: The map.
        largest: The contribution at the end of the colour bar, in logits per cell; this map's own by default.
        alpha: The opacity there, above 0 and at most 1.
        how: "smooth" or "cells", as for `upsample`.
        box: Boxes to draw.
        grey: Whether to draw the picture in grey, so that all colours come from the map.
        cmap: As for `colours.rgba`.

    Raises:
        ValueError: If `pixels` is not a picture or not that of the map, or a value is out of range.
    """
    picture = underlay(pixels, grey)
    check_fit(pixels, evidence)
    scale = scale_of(largest, [evidence])
    layer = Image.fromarray(
        colours.rgba(upsample(evidence.map, evidence.placement, evidence.size, how), scale, alpha, cmap)
    )
    picture.paste(layer, (0, 0), layer)
    draw_seen(picture, evidence)
    draw_boxes(picture, box)
    return picture


def scale_of(scale: float | None, evidences: Iterable[Evidence]) -> float:
    """Return the given scale, or that of the evidences if it is None."""
    return largest(evidences) if scale is None else scale


def underlay(pixels: NDArray[Any], grey: bool) -> Image.Image:
    """Return the picture as RGB; with `grey` in grey and with less contrast."""
    received = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    is_image = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim in (2, 3) and pixels.size > 0
    if not is_image or (pixels.ndim == 3 and pixels.shape[2] > MOST_CHANNELS):
        raise ValueError(f"pixels: {received}; a picture is a uint8 array of (H, W) or (H, W, C)")
    picture = as_picture(pixels[..., None] if pixels.ndim == 2 else pixels)
    if grey:
        # neither black nor white: the colours of the map would look different over them
        picture = picture.convert("L").point([round(DARKEST + v * (LIGHTEST - DARKEST) / 255) for v in range(256)])
    return picture.convert("RGB")


def check_fit(pixels: NDArray[np.uint8], evidence: Evidence) -> None:
    """Raise ValueError if the map is not of this picture, or is not finite."""
    if tuple(pixels.shape[:2]) != tuple(evidence.size):
        raise ValueError(
            f"the picture is {pixels.shape[0]}×{pixels.shape[1]} (H×W) and the map of {evidence.label!r} is for "
            f"{evidence.size[0]}×{evidence.size[1]}: give the picture that the network was asked about"
        )
    evidence.check_finite()


def resized(evidence: Evidence, size: tuple[int, int]) -> Evidence:
    """Return the evidence for the picture resized to (H, W)."""
    scale = (size[0] / evidence.size[0], size[1] / evidence.size[1])
    return replace(evidence, placement=evidence.placement.within((0, 0), scale), size=size)


def draw_seen(picture: Image.Image, evidence: Evidence) -> None:
    """Draw a thin grey line around the region that the network saw, if it is not the whole picture."""
    if evidence.placement.covers(evidence.size):
        return
    (top, bottom), (left, right) = evidence.placement.seen
    # of a strip of 3×2000 px, the region can be thinner than a pixel; it is still drawn as a line
    x0, y0 = min(round(left), picture.width - 1), min(round(top), picture.height - 1)
    ImageDraw.Draw(picture).rectangle(
        (x0, y0, max(x0, round(right) - 1), max(y0, round(bottom) - 1)),
        outline=(160, 160, 160),
        width=max(1, round(min(picture.size) / 500)),
    )


def draw_boxes(picture: Image.Image, boxes: Sequence["Box"]) -> None:
    """Draw boxes white within black, visible on any picture; the outer edge is that of the box."""
    thin = max(1, round(min(picture.size) / 300))
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        x0, y0, x1, y1 = round(box.x0), round(box.y0), round(box.x1) - 1, round(box.y1) - 1
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=(0, 0, 0), width=3 * thin)
        if min(x1 - x0, y1 - y0) > 2 * thin:
            draw.rectangle((x0 + thin, y0 + thin, x1 - thin, y1 - thin), outline=(255, 255, 255), width=thin)
