"""One class's map over the whole picture, at the picture's own resolution, in logit units."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gapstone.drawing import colours
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.upsample import How, upsample

if TYPE_CHECKING:
    from gapstone.localisation.cam_boxes import Box  # loads scipy

DARKEST, LIGHTEST = 40, 230
"""What black and white become in the grey picture beneath a map."""


def largest(evidences: Iterable[Evidence]) -> float:
    """The one scale of maps that are looked at together: the largest |contribution| of a cell; 1 where all are 0."""
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
    """The picture with one class's map over it, RGB, at the picture's own resolution.

    ```python
    scale = largest(evidences)  # of all that are looked at together
    overlay(pixels, evidences[0], scale).save("cat.png")
    ```

    pixels: (H, W), (H, W, 1) or (H, W, 3) uint8, the picture that the network was asked about.
    largest: the contribution at the end of the colour bar, in logits per cell; by default this map's own.
    alpha: the opacity there, above 0 to 1. how: "smooth" or "cells", as `place`. box: boxes to draw.
    grey: the picture beneath in grey, so that whatever has a colour has it from the map.
    cmap: as `colours.rgba`.

    A thin line runs around what the network saw, where that is less than the picture.
    Raises ValueError for pixels that are no picture or not the map's, and for values out of range.
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


def scale_of(given: float | None, evidences: Iterable[Evidence]) -> float:
    """The scale that was given, or that of the evidences."""
    return largest(evidences) if given is None else given


def underlay(pixels: NDArray[Any], grey: bool) -> Image.Image:
    """The picture as RGB; in grey, with less contrast, if so asked."""
    what = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    fits = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim in (2, 3) and pixels.size > 0
    if not fits or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise ValueError(f"pixels: {what}; a picture is a uint8 array of (H, W), (H, W, 1) or (H, W, 3)")
    picture = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    if grey:
        # not down to black nor up to white: there the same colour would look like another
        picture = picture.convert("L").point([round(DARKEST + v * (LIGHTEST - DARKEST) / 255) for v in range(256)])
    return picture.convert("RGB")


def check_fit(pixels: NDArray[np.uint8], evidence: Evidence) -> None:
    """Is this the picture of that map, and the map one that can be drawn?"""
    if tuple(pixels.shape[:2]) != tuple(evidence.size):
        raise ValueError(
            f"the picture is {pixels.shape[0]}×{pixels.shape[1]} (H×W) and the map of {evidence.label!r} is for "
            f"{evidence.size[0]}×{evidence.size[1]}: give the picture that the network was asked about"
        )
    if not np.isfinite(evidence.map).all():
        raise ValueError(
            f"the map of {evidence.label!r} holds NaN or infinity: an error of the model, which overflows on this "
            f"picture"
        )


def resized(evidence: Evidence, size: tuple[int, int]) -> Evidence:
    """The same evidence in the picture resized to (H, W)."""
    scale = (size[0] / evidence.size[0], size[1] / evidence.size[1])
    return replace(evidence, placement=evidence.placement.within((0, 0), scale), size=size)


def draw_seen(picture: Image.Image, evidence: Evidence) -> None:
    """The border of what the network saw, where that is less than the picture: a thin line in mid grey."""
    if evidence.placement.covers(evidence.size):
        return
    (top, bottom), (left, right) = evidence.placement.seen
    # of a strip of 3×2000 px, the network sees less than a pixel of what is drawn: a line all the same
    x0, y0 = min(round(left), picture.width - 1), min(round(top), picture.height - 1)
    ImageDraw.Draw(picture).rectangle(
        (x0, y0, max(x0, round(right) - 1), max(y0, round(bottom) - 1)),
        outline=(160, 160, 160),
        width=max(1, round(min(picture.size) / 500)),
    )


def draw_boxes(picture: Image.Image, boxes: Sequence["Box"]) -> None:
    """White within black, so that they show on any picture; the outer edge is the box's."""
    thin = max(1, round(min(picture.size) / 300))
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        x0, y0, x1, y1 = round(box.x0), round(box.y0), round(box.x1) - 1, round(box.y1) - 1
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=(0, 0, 0), width=3 * thin)
        if min(x1 - x0, y1 - y0) > 2 * thin:
            draw.rectangle((x0 + thin, y0 + thin, x1 - thin, y1 - thin), outline=(255, 255, 255), width=thin)
