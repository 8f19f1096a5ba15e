"""An Explanation as a person sees it: a line of text, the pictures with their maps, a notebook's cell, a window."""

import base64
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gapstone.console.formatting import count_noun, display, format_size
from gapstone.drawing.evidence import Evidence
from gapstone.tracing.placement import Placement

SIDE = 224  # px, of a picture on the sheet

Pictures = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class ShownImages:
    """The images that were explained, as the network saw them: the batch itself, not a copy."""

    images: Tensor
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """(mean, std) per channel that they were normalised with, on the scale 0…1; None: not known."""

    def pixels(self, image: int) -> NDArray[np.uint8] | None:
        """(H, W, 3 or 1); None for what is no picture. Where it is not known how images were normalised, from the least
        value of the picture, black, to the largest, white.
        """
        x = self.images[image].detach().float().cpu()
        if x.dim() != 3:
            return None
        if self.moments is not None:
            mean, std = (torch.tensor(one)[:, None, None] for one in self.moments)
            x = x * std + mean
        elif x.min() < 0 or x.max() > 1:
            x = x.nan_to_num(0.0, 0.0, 0.0)
            x = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
        if len(x) not in (1, 3):
            x = x.mean(0, keepdim=True)  # of other channels, their grey
        found: NDArray[np.uint8] = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return found


class Explained(Protocol):
    """What is shown of an explanation (`gapstone.maps.explanation.Explanation` has it all)."""

    @property
    def maps(self) -> Tensor: ...
    @property
    def classes(self) -> Tensor: ...
    @property
    def logits(self) -> Tensor: ...
    @property
    def additive(self) -> bool: ...
    @property
    def completeness(self) -> Tensor: ...
    @property
    def held(self) -> tuple[str, ...]: ...
    @property
    def end(self) -> str | None: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def seen(self) -> ShownImages | None: ...
    def evidence(self, image: int, size: Sequence[int]) -> list[Evidence]: ...


def line(explained: Explained) -> str:
    """`Explanation(2 images, 3 of 1,000 classes, maps 7×7, additive)`"""
    images, classes = explained.classes.shape
    count = explained.logits.shape[1]
    each = (f"{classes:,} of " if classes != count else "") + count_noun(count, "class", "classes")
    parts = [count_noun(images, "image"), each, f"maps {format_size(explained.maps.shape[2:])}"]
    if explained.additive:
        parts.append("additive")
    else:
        parts.append(f"not additive: up to {float(explained.completeness.max()):.2g} of a logit unexplained")
    if explained.held:
        parts.append(f"held: {', '.join(explained.held)}")
    if explained.end:
        parts.append(f"of the logits before the {explained.end}")
    return f"Explanation({', '.join(parts)})"


def sheet(explained: Explained, images: int | Sequence[int], classes: int, pictures: Pictures | None) -> Image.Image:
    """The pictures beside the maps of their most probable classes among those explained, on one scale.

    Raises: ValueError where there are no pictures, or others than were explained.
    """
    from gapstone.drawing.sheet import SheetRow, contact_sheet

    count = len(explained.classes)
    numbers = list(range(min(images, count))) if isinstance(images, int) else list(images)
    if not numbers or not all(0 <= number < count for number in numbers) or classes < 1:
        raise ValueError(f"images={images!r}, classes={classes}: of {count} images, from 0; at least one of each")
    rows = []
    for number in numbers:
        pixels = _pixels(explained, number, pictures)
        evidences = sorted(explained.evidence(number, pixels.shape[:2]), key=lambda e: -e.logit)
        rows.append(SheetRow.of(pixels, evidences[:classes], f"image {number}", side=SIDE))
    return next(contact_sheet(rows, per_page=len(rows)))


def _pixels(explained: Explained, number: int, pictures: Pictures | None) -> NDArray[np.uint8]:
    size = tuple(round(high) for _, high in explained.placement.seen)
    if pictures is not None:
        given = np.asarray(pictures[number])
        if given.dtype != np.uint8 or given.shape[:2] != size:
            raise ValueError(
                f"pictures[{number}] is {given.dtype} {given.shape}: give the pictures as the network saw them, uint8 "
                f"of {format_size(size)} px, (H, W, 3) or (H, W, 1)"
            )
        return given
    pixels = explained.seen.pixels(number) if explained.seen is not None else None
    if pixels is None:
        raise ValueError(
            "this explanation has no pictures (of feature maps, of signals or of volumes); give pictures=, uint8 "
            "arrays (H, W, 3) as the network saw them"
        )
    return pixels


def cell(explained: Explained, images: int, classes: int) -> str:
    """HTML for a notebook: the line, and the pictures of the first images where there are any."""
    said = f"<p><code>{escape(line(explained))}</code></p>"
    try:
        picture = sheet(explained, images, classes, None)
    except ValueError as error:  # no pictures, or numbers that cannot be drawn
        return f"{said}<p>{escape(display(str(error)))}</p>"
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)  # a fifth of a PNG: a notebook keeps it
    uri = base64.b64encode(buffer.getvalue()).decode("ascii")
    count = len(explained.classes)
    more = f"<p>The first {images} of {count:,}: <code>explained.show(images=range(…))</code></p>" * (count > images)
    return f'{said}<img style="max-width:100%" src="data:image/jpeg;base64,{uri}" alt="class activation maps">{more}'


def present(picture: Image.Image) -> None:
    """In the notebook's cell, or in a window. Raises RuntimeError where there is neither."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        sys.modules["IPython"].display.display(picture)
        return
    from PIL import ImageShow

    if not ImageShow.show(picture, "class activation maps"):
        raise RuntimeError('there is no program here that shows pictures: explained.sheet().save("maps.png") keeps it')
