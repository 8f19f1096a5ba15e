"""Which part of each tensor of a padded batch belongs to each image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, ...]
Array = NDArray[Any]
INF = np.float32(np.inf)
ATTRIBUTE = "_gapstone_extents"
"""Of tensors: a tenth of what a dictionary of weak references costs."""


class Unsupported(ValueError):
    """A call whose answer for an image of a padded batch cannot be made the answer for that image alone."""


@dataclass(frozen=True)
class Extents:
    """Of one tensor (N, …): image i has the positions below `sizes[i]` along `axes`; what is beyond is anything finite.

    >>> Extents((2, 3), ((7, 5), (6, 6)))        # of maps (2, C, 7, 6)
    """

    axes: tuple[int, ...]
    """Which dimensions of the tensor are spatial."""
    sizes: tuple[Size, ...]
    flat: Size | None = None
    """Where the spatial axes were put into one: their lengths."""

    def runs(self) -> Iterator[tuple[slice, Size]]:
        """Neighbours of one size. Batches are sorted, so these are all images of that size."""
        start = 0
        for i in range(1, len(self.sizes) + 1):
            if i == len(self.sizes) or self.sizes[i] != self.sizes[start]:
                yield slice(start, i), self.sizes[start]
                start = i

    def moved(self, rule: Callable[[Size], Size]) -> "Extents":
        """After a call that makes other sizes of these."""
        made = {size: rule(size) for size in dict.fromkeys(self.sizes)}
        return Extents(self.axes, tuple(made[size] for size in self.sizes))

    def fills(self, x: Tensor) -> bool:
        """Whether nothing of the tensor is padding."""
        lengths = self.flat or tuple(x.shape[axis] for axis in self.axes)
        return all(size == lengths for size in self.sizes)

    def crop(self, x: Tensor, images: slice, size: Size) -> Tensor:
        """Of these images what they are alone, as a view where it can be."""
        if self.flat is not None:
            (axis,) = self.axes
            axes = tuple(range(axis, axis + len(size)))
            map = x.view(*x.shape[:axis], *self.flat, *x.shape[axis + 1 :])
            return replace(self, axes=axes, flat=None).crop(map, images, size).flatten(axis, axes[-1])
        return x[self._index(x.dim(), images, size)]

    def _index(self, dims: int, images: slice, size: Size) -> tuple[slice, ...]:
        index = [images, *[slice(None)] * (dims - 1)]
        for axis, length in zip(self.axes, size, strict=True):
            index[axis] = slice(length)
        return tuple(index)

    def joined(self, parts: Sequence[Tensor], axes: tuple[int, ...]) -> tuple[Tensor, "Extents"]:
        """Maps of each run, in one padded tensor again, and their extents."""
        lengths = [tuple(part.shape[axis] for axis in axes) for part in parts]
        sizes = tuple(size for part, size in zip(parts, lengths, strict=True) for _ in range(len(part)))
        extents = Extents(axes, sizes)
        shape = list(parts[0].shape)
        shape[0] = len(sizes)
        for axis, longest in zip(axes, map(max, zip(*lengths, strict=True)), strict=True):
            shape[axis] = longest
        whole = parts[0].new_zeros(shape)
        for part, (images, size) in zip(parts, _spans(parts, lengths), strict=True):
            whole[extents._index(whole.dim(), images, size)] = part
        return whole, extents


def _spans(parts: Sequence[Tensor], lengths: Sequence[Size]) -> Iterator[tuple[slice, Size]]:
    start = 0
    for part, size in zip(parts, lengths, strict=True):
        yield slice(start, start + len(part)), size
        start += len(part)


class PaddingMasks:
    """What is set beyond the images, as tensors that broadcast over a map; each made once for a batch."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Tensor] = {}

    def ones(self, x: Tensor, extents: Extents) -> Tensor:
        """(N, 1, …): 1 for the image and 0 beyond. A multiplication keeps the image and clears the rest."""
        return self._of("ones", x, extents, lambda: _inside(x, extents))

    def below(self, x: Tensor, extents: Extents) -> Tensor:
        """∞ for the image and −∞ beyond: a minimum keeps the image and leaves nothing of the rest."""
        return self._of("below", x, extents, lambda: np.where(_inside(x, extents), INF, -INF))

    def above(self, x: Tensor, extents: Extents) -> Tensor:
        """−∞ for the image and 0 beyond: a maximum keeps the image and makes 0 of −∞."""
        return self._of("above", x, extents, lambda: np.where(_inside(x, extents), -INF, np.float32(0)))

    def counts(self, x: Tensor, extents: Extents) -> Tensor:
        """(N,): positions of each image."""
        return self._of("counts", x, extents, lambda: np.array([prod(size) for size in extents.sizes]))

    def _of(self, kind: str, x: Tensor, extents: Extents, make: Callable[[], Array]) -> Tensor:
        key = (kind, extents.axes, extents.sizes, tuple(x.shape[axis] for axis in extents.axes), x.dim(), x.dtype)
        if key not in self._made:
            # numpy: a call on so few numbers takes less time than one of torch
            self._made[key] = torch.from_numpy(make()).to(x.device, x.dtype)
        return self._made[key]


def _inside(x: Tensor, extents: Extents) -> Array:
    """(N, 1, …): whether a position is the image's."""
    lengths = extents.flat or tuple(x.shape[axis] for axis in extents.axes)
    n, ends = len(lengths), np.array(extents.sizes)
    inside = np.ones((len(ends), *(1,) * n), bool)
    for number, length in enumerate(lengths):
        below = np.arange(length) < ends[:, number, None]
        inside = inside & below.reshape(len(ends), *(length if k == number else 1 for k in range(n)))
    return inside.reshape(len(ends), *(x.shape[axis] if axis in extents.axes else 1 for axis in range(1, x.dim())))


class PaddedMaps:
    """The tensors of one padded pass that have positions of images, with their extents, while it runs."""

    def __init__(self) -> None:
        self.masks = PaddingMasks()
        self.products = 0
        """Multiply-adds of the convolutions."""
        self._key = object()
        self._tensors: list[ref[Tensor]] = []

    def of(self, x: Tensor) -> Extents | None:
        """None where a tensor has no positions of images."""
        entry = getattr(x, ATTRIBUTE, None)
        return entry[1] if entry is not None and entry[0] is self._key else None

    def known(self, x: Tensor) -> Extents:
        extents = self.of(x)
        assert extents is not None
        return extents

    def put(self, x: Tensor, extents: Extents) -> Tensor:
        setattr(x, ATTRIBUTE, (self._key, extents))
        self._tensors.append(ref(x))
        return x

    def clear(self, x: Tensor) -> None:
        """Sets what is beyond the images to 0, in place: nobody reads what was there."""
        extents = self.known(x)
        if not extents.fills(x):
            x.mul_(self.masks.ones(x, extents))

    def forget(self) -> None:
        """Takes the extents off the tensors again: a model may keep its maps, and be saved with them."""
        for reference in self._tensors:
            x = reference()
            if x is not None and ATTRIBUTE in x.__dict__:
                delattr(x, ATTRIBUTE)
