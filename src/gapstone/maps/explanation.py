"""Explanation: the maps of all pictures of a batch, and what the model answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from gapstone.drawing import explanation_view
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.explanation_view import Pictures, ShownImages
from gapstone.tracing.placement import Placement

IMAGES, CLASSES = 4, 3
"""Shown where nobody says how many."""


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
        return explanation_view.line(self)

    def _repr_html_(self) -> str:
        return explanation_view.cell(self, IMAGES, CLASSES)

    def sheet(
        self, images: int | Sequence[int] = IMAGES, classes: int = CLASSES, pictures: Pictures | None = None
    ) -> Image.Image:
        """Images beside the maps of their most probable classes among those explained, all on one scale.

            >>> explained.sheet().save("maps.png")

        images: how many from the first, or which. classes: how many of each. pictures: uint8 arrays (H, W, 3) of all
        images as the network saw them, where the batch does not say how it was normalised and shall look right.
        Raises: ValueError where there are no pictures, or others than were explained.
        """
        return explanation_view.sheet(self, images, classes, pictures)

    def show(
        self, images: int | Sequence[int] = IMAGES, classes: int = CLASSES, pictures: Pictures | None = None
    ) -> None:
        """`sheet` in the notebook's cell, or in a window.

        Raises: as `sheet`; RuntimeError where nothing can show pictures.
        """
        explanation_view.present(self.sheet(images, classes, pictures))

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
