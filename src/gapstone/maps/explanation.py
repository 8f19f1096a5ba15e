"""Explanation: the maps of all pictures of a batch and the model's logits; as text, contact sheet or notebook cell."""

import base64
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gapstone.console.formatting import count_noun, display, format_size
from gapstone.drawing.evidence import Evidence
from gapstone.tracing.placement import Placement

IMAGES, CLASSES = 4, 3
"""Shown by default."""
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


@dataclass(frozen=True, repr=False)
class Explanation:
    """Signed contributions in logit units: N pictures, K maps of each, C classes in all.

    >>> explained = gs.explain(model, images, top_k=3)
    >>> explained
    Explanation(16 images, 3 of 1,000 classes, maps 7×7, additive)
    >>> explained.show()                                    # the first four images with their maps
    >>> explained.sheet(images=range(16)).save("maps.png")
    """

    maps: Tensor
    """(N, K, *cells)"""
    classes: Tensor
    """(N, K): the class that each map stands for."""
    bias: Tensor
    """(C,): what no position adds. Where maps are not additive: the head's answer to empty maps. (N, C) where each
    image has its own: a norm after the pool, which is held, takes more than the map gives."""
    logits: Tensor
    """(N, C)"""
    additive: bool
    """The maps add up by the form of the head, with what is `held`. False: gradient × activation at the last feature
    map."""
    placement: Placement
    """Of the cells, in the images as the network saw them."""
    labels: tuple[str, ...] | None = None
    held: tuple[str, ...] = ()
    """What counts as a number of the image, not as something that its cells decide: the weights of attention, the
    standard deviation of a norm after the pool."""
    end: str | None = None
    """What the model does to its logits at its end ("softmax", "log_softmax", "sigmoid", …): it was left out here, and
    the maps and `logits` are those before it."""
    seen: ShownImages | None = field(default=None, compare=False)
    """The images, where they are known: the batch itself, to be shown."""

    @property
    def probabilities(self) -> Tensor:
        """(N, C): each class by itself where the model ends in a sigmoid; else they sum to 1."""
        return self.logits.sigmoid() if self.end and "sigmoid" in self.end else self.logits.softmax(1)

    @property
    def completeness(self) -> Tensor:
        """(N, K): |sum(map) + bias − logit|. Rounding where `additive`; what the maps leave unexplained where not."""
        bias, logits = (x.expand_as(self.logits).gather(1, self.classes) for x in (self.bias, self.logits))
        return (self.maps.flatten(2).sum(2, dtype=logits.dtype) + bias - logits).abs()

    def __repr__(self) -> str:
        images, classes = self.classes.shape
        count = self.logits.shape[1]
        each = (f"{classes:,} of " if classes != count else "") + count_noun(count, "class", "classes")
        parts = [count_noun(images, "image"), each, f"maps {format_size(self.maps.shape[2:])}"]
        if self.additive:
            parts.append("additive")
        else:
            parts.append(f"not additive: up to {float(self.completeness.max()):.2g} of a logit unexplained")
        if self.held:
            parts.append(f"held: {', '.join(self.held)}")
        if self.end:
            parts.append(f"of the logits before the {self.end}")
        return f"Explanation({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The summary and, where there are pictures, the sheet of the first images."""
        text = f"<p><code>{escape(repr(self))}</code></p>"
        try:
            picture = self.sheet()
        except ValueError as error:  # no pictures, or NaN
            return f"{text}<p>{escape(display(str(error)))}</p>"
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90, subsampling=0)  # a fifth of a PNG: it is stored in the notebook
        uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
        count = len(self.classes)
        more = f"<p>The first {IMAGES} of {count:,}: <code>explained.show(images=range(…))</code></p>"
        return f'{text}<img style="max-width:100%" src="{uri}" alt="class activation maps">{more * (count > IMAGES)}'

    def sheet(
        self, images: int | Sequence[int] = IMAGES, classes: int = CLASSES, pictures: Pictures | None = None
    ) -> Image.Image:
        """Images beside the maps of their most probable classes among those explained, all on one scale.

            >>> explained.sheet().save("maps.png")

        images: how many from the first, or which. classes: how many of each. pictures: uint8 arrays (H, W, 3) of all
        images as the network saw them, where the batch does not say how it was normalised and shall look right.
        Raises: ValueError where there are no pictures, or others than were explained.
        """
        from gapstone.drawing.sheet import SheetRow, contact_sheet

        count = len(self.classes)
        numbers = list(range(min(images, count))) if isinstance(images, int) else list(images)
        if not numbers or not all(0 <= number < count for number in numbers) or classes < 1:
            raise ValueError(f"images={images!r}, classes={classes}: of {count} images, from 0; at least one of each")
        rows = []
        for number in numbers:
            pixels = self._pixels(number, pictures)
            evidences = sorted(self.evidence(number, pixels.shape[:2]), key=lambda e: -e.logit)
            rows.append(SheetRow.of(pixels, evidences[:classes], f"image {number}", side=SIDE))
        return next(contact_sheet(rows, per_page=len(rows)))

    def show(
        self, images: int | Sequence[int] = IMAGES, classes: int = CLASSES, pictures: Pictures | None = None
    ) -> None:
        """`sheet` in the notebook's cell, or in a window.

        Raises: as `sheet`; RuntimeError where nothing can show pictures.
        """
        _present(self.sheet(images, classes, pictures))

    def _pixels(self, number: int, pictures: Pictures | None) -> NDArray[np.uint8]:
        size = tuple(round(high) for _, high in self.placement.seen)
        if pictures is not None:
            picture = np.asarray(pictures[number])
            if picture.dtype != np.uint8 or picture.shape[:2] != size:
                raise ValueError(
                    f"pictures[{number}] is {picture.dtype} {picture.shape}: give the pictures as the network saw "
                    f"them, uint8 of {format_size(size)} px, (H, W, 3) or (H, W, 1)"
                )
            return picture
        pixels = self.seen.pixels(number) if self.seen is not None else None
        if pixels is None:
            raise ValueError(
                "this explanation has no pictures (of feature maps, of signals or of volumes); give pictures=, uint8 "
                "arrays (H, W, 3) as the network saw them"
            )
        return pixels

    def evidence(self, image: int, size: Sequence[int], placement: Placement | None = None) -> list[Evidence]:
        """One image's maps, in a picture of `size` (H, W) in which its cells lie as `placement` says."""
        probabilities, errors = self.probabilities[image], self.completeness[image]
        bias = self.bias.expand_as(self.logits)[image]
        return [
            Evidence(
                index=k,
                label=self.labels[k] if self.labels else str(k),
                logit=float(self.logits[image, k]),
                probability=float(probabilities[k]),
                bias=float(bias[k]),
                map=self.maps[image, place].float().cpu().numpy(),
                placement=placement or self.placement,
                size=(size[0], size[1]),
                additive=self.additive,
                completeness=float(errors[place]),
                held=self.held,
            )
            for place, k in enumerate(self.classes[image].tolist())
        ]


def _present(picture: Image.Image) -> None:
    """Show a picture in the cell of a notebook, or in a window."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        sys.modules["IPython"].display.display(picture)
        return
    from PIL import ImageShow

    if not ImageShow.show(picture, "class activation maps"):
        raise RuntimeError('there is no program here that shows pictures: explained.sheet().save("maps.png") keeps it')
