"""How an Explanation is shown: as a line of text, a contact sheet, HTML in a notebook, a window."""

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

SIDE = 224  # px: longest side of a picture on the sheet

Pictures = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class ShownImages:
    """The explained images as the network saw them: the batch itself, not a copy."""

    images: Tensor
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """(mean, std) per channel of their normalisation, on the scale 0…1; None if unknown."""

    def pixels(self, image: int) -> NDArray[np.uint8] | None:
        """Return an image as (H, W, 3 or 1) uint8; None if it has not the dimensions of a picture.

        With an unknown normalisation, its least value becomes black and its largest white.
        """
        x = self.images[image].detach().float().cpu()
        if x.dim() != 3:
            return None
        if self.moments is not None:
            mean, std = (torch.tensor(values)[:, None, None] for values in self.moments)
            x = x * std + mean
        elif x.min() < 0 or x.max() > 1:
            x = x.nan_to_num(0.0, 0.0, 0.0)
            x = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
        if len(x) not in (1, 3):
            x = x.mean(0, keepdim=True)  # other numbers of channels become grey
        pixels: NDArray[np.uint8] = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return pixels


class Explained(Protocol):
    """The part of `gapstone.maps.explanation.Explanation` that is shown."""

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
    """Return a summary: `Explanation(2 images, 3 of 1,000 classes, maps 7×7, additive)`."""
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
    """Draw pictures beside the maps of the most probable of their explained classes, on one scale.

    Args:
        explained: The explanation.
        images: How many images from the first on, or their indexes.
        classes: Most classes per image.
        pictures: The pictures to draw on, uint8; None: the images that the network saw.

    Raises:
        ValueError: If there are no pictures, or they do not fit the explanation.
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
        picture = np.asarray(pictures[number])
        if picture.dtype != np.uint8 or picture.shape[:2] != size:
            raise ValueError(
                f"pictures[{number}] is {picture.dtype} {picture.shape}: give the pictures as the network saw them, "
                f"uint8 of {format_size(size)} px, (H, W, 3) or (H, W, 1)"
            )
        return picture
    pixels = explained.seen.pixels(number) if explained.seen is not None else None
    if pixels is None:
        raise ValueError(
            "this explanation has no pictures (of feature maps, of signals or of volumes); give pictures=, uint8 "
            "arrays (H, W, 3) as the network saw them"
        )
    return pixels


def cell(explained: Explained, images: int, classes: int) -> str:
    """Return HTML for a notebook: the summary and, if there are pictures, the sheet of the first images."""
    text = f"<p><code>{escape(line(explained))}</code></p>"
    try:
        picture = sheet(explained, images, classes, None)
    except ValueError as error:  # no pictures, or NaN
        return f"{text}<p>{escape(display(str(error)))}</p>"
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)  # a fifth of a PNG: it is stored in the notebook
    uri = base64.b64encode(buffer.getvalue()).decode("ascii")
    count = len(explained.classes)
    more = f"<p>The first {images} of {count:,}: <code>explained.show(images=range(…))</code></p>" * (count > images)
    return f'{text}<img style="max-width:100%" src="data:image/jpeg;base64,{uri}" alt="class activation maps">{more}'


def present(picture: Image.Image) -> None:
    """Show a picture in the cell of a notebook or in a window.

    Raises:
        RuntimeError: If there is neither.
    """
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        sys.modules["IPython"].display.display(picture)
        return
    from PIL import ImageShow

    if not ImageShow.show(picture, "class activation maps"):
        raise RuntimeError('there is no program here that shows pictures: explained.sheet().save("maps.png") keeps it')
