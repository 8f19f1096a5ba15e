"""Where the cells of a map lie in a picture: cell i has its centre at start + stride · i, in pixels, along each axis.

0 is the centre of the first pixel, so a picture of n pixels reaches from −0.5 to n − 0.5. A cell stands for the centre
of its receptive field, and that is not the middle of an equal share: ResNet's cells have theirs at 0, 32, 64, …, where
`interpolate(align_corners=False)` draws them at 15.5, 47.5, 79.5, …
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.tracing.locate_head import HeadLocation


@dataclass(frozen=True)
class Placement:
    """Per spatial axis (y before x): where the cells' centres lie, and which part of the picture the network saw.

    >>> Placement((32.0, 32.0), (0.0, 0.0), ((0, 224), (0, 224)), exact=True).centres(7, axis=0)
    array([  0.,  32.,  64.,  96., 128., 160., 192.])
    """

    stride: tuple[float, ...]
    start: tuple[float, ...]
    seen: tuple[tuple[float, float], ...]
    """From edge to edge, 0 the outer edge of the first pixel: (0, n) is the whole of n pixels."""
    exact: bool
    """From the geometry of every layer; False: some layer moves pixels in a way that is not known, and the cells share
    what was seen in equal parts."""

    @classmethod
    def even(cls, cells: Sequence[int], size: Sequence[int]) -> "Placement":
        """Cells that share the picture in equal parts."""
        strides = tuple(n / c for n, c in zip(size, cells, strict=True))
        return cls(strides, tuple((s - 1) / 2 for s in strides), tuple((0, n) for n in size), exact=False)

    @classmethod
    def of(cls, location: HeadLocation) -> "Placement":
        """Of the last map, by what is known of it."""
        cells = location.grid or location.cells
        if len(cells) != len(location.size):  # tokens that were never a grid
            return cls.even(cells, cells)
        if location.geometry is None or location.grid is not None:
            return cls.even(cells, location.size)
        return cls(location.geometry.stride, location.geometry.start, tuple((0, n) for n in location.size), exact=True)

    def centres(self, cells: int, axis: int) -> NDArray[np.float64]:
        """Pixels, of `cells` cells along an axis."""
        return self.start[axis] + self.stride[axis] * np.arange(cells, dtype=np.float64)

    def edges(self, cells: int, axis: int) -> NDArray[np.float64]:
        """(cells + 1) edges, 0 the outer edge of the first pixel: halfway between centres; the outer cells reach to
        the end of what was seen, and a cell whose centre lies beyond it is left with nothing.
        """
        low, high = self.seen[axis]
        inner = self.centres(cells, axis)[:-1] + self.stride[axis] / 2 + 0.5
        return np.concatenate([[low], inner.clip(low, high), [high]])

    def covering(self, maps: NDArray[Any]) -> tuple[NDArray[Any], tuple[tuple[float, float], ...]]:
        """Maps (…, h, w) with their outer cells repeated until cells of one size cover what was seen, and from where to
        where along each axis they then reach, 0 the outer edge of the first pixel.

        >>> even = Placement((32.0, 32.0), (0.0, 0.0), ((0, 96), (0, 96)), exact=True)
        >>> wider, reach = even.covering(np.zeros((3, 3)))
        >>> wider.shape, reach                                  # three cells end at 80.5: one more on each axis
        ((4, 4), ((-15.5, 112.5), (-15.5, 112.5)))
        """
        pads, reach = [], []
        cells = maps.shape[-len(self.stride) :]
        for stride, start, (low, high), count in zip(self.stride, self.start, self.seen, cells, strict=True):
            first = start + 0.5 - stride / 2
            # a hundredth of a cell is rounding
            before = max(0, ceil((first - low) / stride - 0.01))
            after = max(0, ceil((high - first) / stride - count - 0.01))
            pads.append((before, after))
            reach.append((first - before * stride, first + (count + after) * stride))
        return np.pad(maps, [(0, 0)] * (maps.ndim - len(pads)) + pads, mode="edge"), tuple(reach)

    def covers(self, size: Sequence[int]) -> bool:
        """Whether the network saw all of a picture of that size, to half a pixel."""
        return all(low < 0.5 and high > n - 0.5 for (low, high), n in zip(self.seen, size, strict=True))

    def to_json(self) -> dict[str, Any]:
        """`stride`, `start`, `seen`, `exact`: lists and numbers, y before x."""
        return {
            "stride": [float(s) for s in self.stride],
            "start": [float(s) for s in self.start],
            "seen": [[float(low), float(high)] for low, high in self.seen],
            "exact": self.exact,
        }

    def within(self, origin: Sequence[float], scale: Sequence[float]) -> "Placement":
        """The same cells in another picture, of which the network was shown a part, resized.

        origin: the outer edge of that part in the other picture, in its pixels; scale: its pixels per pixel here.
        """
        axes = list(zip(self.stride, self.start, self.seen, origin, scale, strict=True))
        return replace(
            self,
            stride=tuple(stride * k for stride, _, _, _, k in axes),
            start=tuple(o + (start + 0.5) * k - 0.5 for _, start, _, o, k in axes),
            seen=tuple((o + low * k, o + high * k) for _, _, (low, high), o, k in axes),
        )
