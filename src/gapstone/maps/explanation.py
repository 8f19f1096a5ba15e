"""Explanation: the maps of all pictures of a batch, and what the model answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from gapstone.drawing import explanation_view
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.explanation_view import Pictures, ShownImages
from gapstone.maps.targets import One, class_number
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
    mean_map: Tensor
    """(N, *cells): of the mean of all C logits, whichever classes are explained."""
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
    reference: str | None = None
    """What `centred` or `against` subtracted, in words; None: nothing."""
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

    def centred(self) -> "Explanation":
        """Each class's map minus the mean of all classes' maps, and so its logit and bias: what softmax can see.

            >>> explained.centred().maps            # evidence for a class rather than for any class

        Softmax gives the same probabilities when any number is added to all logits, so what all classes' maps have in
        common is decided by how training began, not by the images: with u added to every map, logit_k + Σu − log Σ_j
        exp(logit_j + Σu) is as before. The differences between classes are all there is, and these show them.

        Raises: ValueError where classes do not compete: a model that ends in a sigmoid, or of one logit.
        """
        self._check_softmax("centred")
        return self._minus(
            self.mean_map, self.bias.mean(-1, keepdim=True), self.logits.mean(1), "the mean of all classes"
        )

    def against(self, rival: One | Tensor) -> "Explanation":
        """Each class's map minus that of `rival`: evidence for the class rather than for that one.

            >>> explained.against("fox").maps
            >>> explained.against(torch.tensor([2, 0])).maps          # each image's own

        Probabilities stay, as softmax sees differences alone; `logits` and `bias` are differences from the rival's.
        Raises: ValueError where the rival's map is not among those explained; as `centred`.
        """
        self._check_softmax("against")
        numbers = self._numbers(rival)
        rows = torch.arange(len(self.logits), device=self.logits.device)
        bias = self.bias.expand_as(self.logits)[rows, numbers][:, None]
        name = self._name(int(numbers[0])) if bool((numbers == numbers[0]).all()) else "each image's rival"
        return self._minus(self.maps[rows, self._places(numbers)], bias, self.logits[rows, numbers], name)

    def contrast(self, a: One | Tensor | None = None, b: One | Tensor | None = None) -> "Explanation":
        """One map of each image, for class `a` rather than `b`: exact, and any pair costs one subtraction.

            >>> explained.contrast("cat", "dog").maps.shape
            torch.Size([16, 1, 7, 7])
            >>> explained.contrast()                # the most probable class of each image minus the next

        a, b: a number or a name; a tensor (N,) of each image's own; None: the most probable of the image, and the most
        probable other than `a`. Raises: as `against`.
        """
        first = self.logits.argmax(1) if a is None else self._numbers(a)
        if b is None:
            b = self.logits.scatter(1, first[:, None], -torch.inf).argmax(1)
        contrasted, places = self.against(b), self._places(first)[:, None]
        rows = torch.arange(len(first), device=first.device)[:, None]
        return replace(contrasted, maps=contrasted.maps[rows, places], classes=first[:, None])

    def _minus(self, maps: Tensor, bias: Tensor, logits: Tensor, reference: str) -> "Explanation":
        return replace(
            self,
            maps=self.maps - maps[:, None],
            mean_map=self.mean_map - maps,
            bias=self.bias - bias,
            logits=self.logits - logits[:, None],
            reference=reference,
        )

    def _check_softmax(self, verb: str) -> None:
        if self.end and "sigmoid" in self.end:
            raise ValueError(
                f"{verb}: the model ends in a {self.end}, so its classes do not compete; take the maps as they are"
            )
        if self.logits.shape[1] < 2:
            raise ValueError(f"{verb}: the model has one logit, and no other class to compare it with")

    def _numbers(self, classes: One | Tensor) -> Tensor:
        """(N,): a class, or each image's own."""
        n, count = self.logits.shape
        if not isinstance(classes, Tensor):
            classes = torch.tensor(class_number(classes, count, self.labels))
        if classes.is_floating_point() or classes.dim() > 1 or (classes.dim() == 1 and len(classes) != n):
            raise ValueError(
                f"a class is a whole number, a name, or a tensor of one for each of {n} images, not {classes!r}"
            )
        return classes.to(self.logits.device).expand(n)

    def _places(self, numbers: Tensor) -> Tensor:
        """(N,): where each image's class stands among its maps."""
        here = self.classes == numbers[:, None]
        if not bool(here.any(1).all()):
            missing = int(numbers[~here.any(1)][0])
            raise ValueError(
                f"there is no map of class {self._name(missing)}: explain all classes (classes=None), or this one, too"
            )
        return here.int().argmax(1)

    def _name(self, number: int) -> str:
        return self.labels[number] if self.labels else str(number)

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
