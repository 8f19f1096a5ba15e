"""What `gs.stream` returns: logits, maps, and the image small enough to be looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gapstone.console.formatting import count_noun, display, format_size
from gapstone.drawing.evidence import Evidence, percent
from gapstone.images.as_picture import GRAY_OR_RGB, three_channels
from gapstone.maps.explanation import CLASSES, Explanation, maps_as_html, present
from gapstone.models.class_probabilities import probabilities

SIDE = 768  # px: longest side of a picture on the sheet


@dataclass(frozen=True, repr=False)
class Streamed:
    """A model's answer for one image of any size, and what of the image it comes from.

    Examples:
        >>> streamed = gs.stream(model, "slide.svs")
        >>> streamed.logits.shape, streamed.maps.shape
        (torch.Size([1, 2]), torch.Size([1, 2, 225, 325]))
        >>> streamed.sheet().save("maps.png")
    """

    logits: Tensor
    """(1, K): what the network gives."""
    explanation: Explanation | None
    """Maps of the classes asked for, at the size of the last map; None: none were asked for, or `no_maps` says why."""
    size: tuple[int, int]
    """(H, W) of the image, in pixels."""
    labels: tuple[str, ...] | None = None
    multi_label: bool = False
    end: str | None = None
    """What the network ends in ("softmax", "sigmoid", …): `logits` come after it, the explanation's before."""
    no_maps: str | None = None
    passes: int = 1
    """How many times the image was read."""
    rows: int = 0
    """Of a band."""
    error: float | None = None
    """The largest difference between the small image whole and in bands, as a part of the largest logit."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What was assumed, left out, or could not be decoded."""
    picture: NDArray[np.uint8] | None = field(default=None, compare=False)
    """(h, w, C): the image, small; None: it was given normalised."""

    @property
    def probabilities(self) -> Tensor:
        """(1, K): they sum to 1, or of a multi-label model each is by itself."""
        if self.explanation is not None:
            return self.explanation.probabilities
        if self.end is not None:
            return self.logits.exp() if self.end.startswith("log") else self.logits
        return probabilities(self.logits.float(), self.multi_label)

    @property
    def maps(self) -> Tensor:
        """(1, k, h, w): what each cell of the last map adds to the logit of each class asked for.

        Raises:
            ValueError: there are none; says why.
        """
        return self._explained().maps

    @property
    def answers(self) -> Mapping[str, float]:
        """The probability of each class by its name, or its number, the most probable first."""
        order = self.probabilities[0].argsort(descending=True).tolist()
        return {self.labels[k] if self.labels else str(k): float(self.probabilities[0, k]) for k in order}

    def evidence(self, plain: bool = False) -> list[Evidence]:
        """The maps asked for, placed in the whole image, the most probable class first.

        plain: as they are, with what all classes have in common.
        """
        return sorted(self._explained().shown(plain).evidence(0, self.size), key=lambda one: -one.logit)

    def sheet(
        self, classes: int = CLASSES, *, plain: bool = False, picture: NDArray[np.uint8] | None = None
    ) -> Image.Image:
        """The image beside the maps of its most probable classes among those asked for, small.

            >>> streamed.sheet().save("maps.png")

        picture: (h, w, 3) or (h, w, 1) uint8 of the image's proportions, where it was given normalised.
        """
        from gapstone.drawing.sheet import SheetRow, contact_sheet

        pixels = self.picture if picture is None else picture
        if pixels is None:
            raise ValueError("the image was given normalised, and is not known as a picture: give it small as picture=")
        if pixels.shape[2] not in GRAY_OR_RGB:
            pixels = three_channels(pixels)
        height, width = pixels.shape[:2]
        scale = height / self.size[0], width / self.size[1]
        explained = self._explained().shown(plain)
        placement = explained.placement.within((0, 0), scale)
        evidences = sorted(explained.evidence(0, (height, width), placement), key=lambda one: -one.logit)
        row = SheetRow.of(pixels, evidences[:classes], f"{format_size(self.size)} px", side=SIDE)
        return next(contact_sheet([row], per_page=1))

    def show(self, classes: int = CLASSES, *, plain: bool = False) -> None:
        """`sheet` in the notebook's cell, or in a window."""
        present(self.sheet(classes, plain=plain))

    def _explained(self) -> Explanation:
        if self.explanation is None:
            raise ValueError(f"there are no maps: {self.no_maps or 'they were not asked for (maps=False)'}")
        return self.explanation

    def __repr__(self) -> str:
        name, probability = next(iter(self.answers.items()))
        parts = [
            f"{format_size(self.size)} px", f"{display(name)} {percent(probability)}",
            f"maps {format_size(self.maps.shape[2:])}" if self.explanation is not None else "no maps",
            f"{count_noun(self.passes, 'pass', 'passes')} in bands of {count_noun(self.rows, 'row')}",
            f"{self.seconds:.1f} s",
        ]  # fmt: skip
        return f"Streamed({', '.join(parts)})"

    def _repr_html_(self) -> str:
        text = f"<p><code>{escape(repr(self))}</code></p>"
        try:
            return text + maps_as_html(self.sheet())
        except ValueError as error:  # no picture, no maps
            return f"{text}<p>{escape(display(str(error)))}</p>"
