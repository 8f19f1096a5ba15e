"""Explanation: the maps of all pictures of a batch and the model's logits; as text, contact sheet or notebook cell."""

import base64
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gapstone.console.formatting import count_noun, display, format_size
from gapstone.drawing.evidence import Evidence
from gapstone.images.as_picture import GRAY_OR_RGB, three_channels
from gapstone.maps.targets import NumberOrName, class_number
from gapstone.models.class_probabilities import probabilities
from gapstone.tracing.placement import Placement

IMAGES, CLASSES = 4, 3
"""Shown by default."""
MEAN_OF_CLASSES = "the mean of all classes"
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
        pixels: NDArray[np.uint8] = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return pixels if len(x) in GRAY_OR_RGB else three_channels(pixels)


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
    image has its own: a norm after the pool, which is held, takes more than the map gives; tokens that stand before
    those of the positions bring something of their own."""
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
    standard deviation of a norm after the pool, the gates of activations, what a class token brings."""
    end: str | None = None
    """What the model does to its logits at its end ("softmax", "log_softmax", "sigmoid", …): it was left out here, and
    the maps and `logits` are those before it."""
    reference: str | None = None
    """What `centred` or `against` subtracted, in words; None: nothing."""
    seen: ShownImages | None = field(default=None, compare=False)
    """The images, where they are known: the batch itself, to be shown."""
    multi_label: bool = False
    """The model answers any number of classes: each has the sigmoid of its own logit."""

    @classmethod
    def made(
        cls,
        maps: Tensor,
        selected: Tensor | None,
        bias: Tensor,
        logits: Tensor,
        additive: bool,
        placement: Placement,
        labels: tuple[str, ...] | None,
        held: tuple[str, ...] = (),
        end: str | None = None,
    ) -> "Explanation":
        """Of the maps of `selected` classes (N, K), and after them that of the mean of all; or of all, by None."""
        logits = logits.detach().float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.detach()
        maps = maps.detach()
        if selected is None:
            selected, mean = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1), maps.mean(1)
        else:
            maps, mean = maps[:, :-1], maps[:, -1]
        return cls(maps, mean, selected, bias.to(logits.dtype), logits, additive, placement, labels, held, end)

    @property
    def probabilities(self) -> Tensor:
        """(N, C): each class by itself of a multi-label model, or one that ends in a sigmoid; else they sum to 1."""
        return probabilities(self.logits, self._each_by_itself)

    @property
    def _each_by_itself(self) -> bool:
        """Classes do not compete."""
        return self.multi_label or (self.end is not None and "sigmoid" in self.end)

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

        Raises: ValueError where classes do not compete: a multi-label model, one that ends in a sigmoid, or of one
            logit.
        """
        self._check_softmax("centred")
        return self._minus(self.mean_map, self.bias.mean(-1, keepdim=True), self.logits.mean(1), MEAN_OF_CLASSES)

    def shown(self, plain: bool = False) -> "Explanation":
        """As drawings and files show it: `centred`, or as it is where `plain`, where something was subtracted already,
        and where classes do not compete: a multi-label model, one that ends in a sigmoid, or of one logit.
        """
        as_it_is = plain or self.reference is not None or self._each_by_itself or self.logits.shape[1] < 2
        return self if as_it_is else self.centred()

    def against(self, rival: NumberOrName | Tensor) -> "Explanation":
        """Each class's map minus that of `rival`: evidence for the class rather than for that one.

            >>> explained.against("fox").maps
            >>> explained.against(torch.tensor([1, 0])).maps          # each image's own

        Probabilities stay, as softmax sees differences alone; `logits` and `bias` are differences from the rival's.
        Raises: ValueError where the rival's map is not among those explained; as `centred`.
        """
        self._check_softmax("against")
        return self._against(self._numbers(rival), self.maps, self.classes)

    def _against(self, numbers: Tensor, maps: Tensor, classes: Tensor) -> "Explanation":
        """These maps (N, k, *cells), of classes (N, k), minus those of one class of each image."""
        rows = torch.arange(len(self.logits), device=self.logits.device)
        bias = self.bias.expand_as(self.logits)[rows, numbers][:, None]
        name = self._name(int(numbers[0])) if bool((numbers == numbers[0]).all()) else "each image's rival"
        rivals, logits = self.maps[rows, self._places(numbers)], self.logits[rows, numbers]
        return replace(self._minus(rivals, bias, logits, name, maps), classes=classes)

    def contrast(self, a: NumberOrName | Tensor | None = None, b: NumberOrName | Tensor | None = None) -> "Explanation":
        """One map of each image, for class `a` rather than `b`: exact, and any pair costs one subtraction.

            >>> explained.contrast("cat", "dog").maps.shape
            torch.Size([16, 1, 8, 8])
            >>> explained.contrast()                # the most probable class of each image minus the next

        a, b: a number or a name; a tensor (N,) of each image's own; None: the most probable of the image, and the most
        probable other than `a`. Raises: as `against`.
        """
        first = self.logits.argmax(1) if a is None else self._numbers(a)
        if b is None:
            b = self.logits.scatter(1, first[:, None], -torch.inf).argmax(1)
        self._check_softmax("against")
        rows = torch.arange(len(first), device=first.device)
        maps = self.maps[rows, self._places(first)][:, None]  # of these alone: of 1000 classes it costs as much as of 2
        return self._against(self._numbers(b), maps, first[:, None])

    def _minus(
        self, maps: Tensor, bias: Tensor, logits: Tensor, reference: str, of: Tensor | None = None
    ) -> "Explanation":
        """of: the maps that are subtracted from; None: all."""
        return replace(
            self,
            maps=(self.maps if of is None else of) - maps[:, None],
            mean_map=self.mean_map - maps,
            bias=self.bias - bias,
            logits=self.logits - logits[:, None],
            reference=reference,
        )

    def _check_softmax(self, verb: str) -> None:
        if self._each_by_itself:
            why = "is multi-label" if self.multi_label else f"ends in a {self.end}"
            raise ValueError(f"{verb}: the model {why}, so its classes do not compete; take the maps as they are")
        if self.logits.shape[1] < 2:
            raise ValueError(f"{verb}: the model has one logit, and no other class to compare it with")

    def _numbers(self, classes: NumberOrName | Tensor) -> Tensor:
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
        if self.multi_label:
            parts.append("multi-label")
        if self.end:
            parts.append(f"of the logits before the {self.end}")
        if self.reference:
            parts.append(f"minus {display(self.reference)}")
        return f"Explanation({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The summary and, where there are pictures, the sheet of the first images."""
        text = f"<p><code>{escape(repr(self))}</code></p>"
        try:
            picture = self.sheet()
        except ValueError as error:  # no pictures, or NaN
            return f"{text}<p>{escape(display(str(error)))}</p>"
        count = len(self.classes)
        more = f"<p>The first {IMAGES} of {count:,}: <code>explained.show(images=range(…))</code></p>"
        return f"{text}{maps_as_html(picture)}{more * (count > IMAGES)}"

    def sheet(
        self,
        images: int | Sequence[int] = IMAGES,
        classes: int = CLASSES,
        pictures: Pictures | None = None,
        *,
        plain: bool = False,
    ) -> Image.Image:
        """Images beside the maps of their most probable classes among those explained, all on one scale.

            >>> explained.sheet().save("maps.png")

        Where classes compete, each map is shown minus the mean of all classes' (`centred`), and captions say so.

        images: how many from the first, or which. classes: how many of each. pictures: uint8 arrays (H, W, 3) of all
        images as the network saw them, where the batch does not say how it was normalised and shall look right. plain:
        maps as they are, with what all classes have in common.
        Raises: ValueError where there are no pictures, or others than were explained.
        """
        from gapstone.drawing.sheet import SheetRow, contact_sheet

        count = len(self.classes)
        numbers = list(range(min(images, count))) if isinstance(images, int) else list(images)
        if not numbers or not all(0 <= number < count for number in numbers) or classes < 1:
            raise ValueError(f"images={images!r}, classes={classes}: of {count} images, from 0; at least one of each")
        rows, shown = [], self.shown(plain)
        for number in numbers:
            pixels = self._pixels(number, pictures)
            evidences = sorted(shown.evidence(number, pixels.shape[:2]), key=lambda e: -e.logit)
            rows.append(SheetRow.of(pixels, evidences[:classes], f"image {number}", side=SIDE))
        return next(contact_sheet(rows, per_page=len(rows)))

    def show(
        self,
        images: int | Sequence[int] = IMAGES,
        classes: int = CLASSES,
        pictures: Pictures | None = None,
        *,
        plain: bool = False,
    ) -> None:
        """`sheet` in the notebook's cell, or in a window.

        Raises: as `sheet`; RuntimeError where nothing can show pictures.
        """
        present(self.sheet(images, classes, pictures, plain=plain))

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
                reference=self.reference,
            )
            for place, k in enumerate(self.classes[image].tolist())
        ]


def maps_as_html(picture: Image.Image) -> str:
    """For a cell of a notebook."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)  # a fifth of a PNG: it is stored in the notebook
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return f'<img style="max-width:100%" src="{uri}" alt="class activation maps">'


def present(picture: Image.Image) -> None:
    """Show a picture in the cell of a notebook, or in a window."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        sys.modules["IPython"].display.display(picture)
        return
    from PIL import ImageShow

    if not ImageShow.show(picture, "class activation maps"):
        raise RuntimeError('there is no program here that shows pictures: explained.sheet().save("maps.png") keeps it')
