"""Images in memory whose values are not 0…255: more than 8 bits, or floats. One range for all makes them so."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gapstone.images.as_picture import GRAY_OR_RGB
from gapstone.images.high_bit_depth import Deep, spread_of
from gapstone.images.intensity_range import (
    AnySpread,
    Kind,
    Ranges,
    ValueSpread,
    decide,
    is_of_channels,
    not_finite,
    to_uint8,
)
from gapstone.images.load import ImageError


class ImageValues(Protocol):
    """The values of images by their row, each (H, W, C): integers or floats."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> NDArray[Any]: ...


class DeepImages:
    """Images by their row as 0…255, on a range that is decided once for all of them (decisions 20 and 44).

        >>> images = DeepImages(np.random.default_rng(0).normal(300, 40, (9, 64, 64, 12)))
        >>> images[0].shape, images[0].dtype
        ((64, 64, 12), dtype('uint8'))
        >>> images.pixels(0, model.preprocessing.ranges)  # as a model that has been trained sees it

    Raises ImageError for an image with values that are not finite.
    """

    def __init__(self, values: ImageValues) -> None:
        self.values = values
        self._spreads: dict[int, AnySpread | None] = {}
        self._ranges: Ranges | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.pixels(row, None)

    def pixels(self, row: int, ranges: Ranges | None) -> NDArray[np.uint8]:
        """The image on `ranges`, or on those of all these images where they have none for it."""
        values = native(self.values[row])
        if values.dtype == np.uint8:
            return np.ascontiguousarray(values)
        kind: Kind = "floats" if values.dtype.kind == "f" else "integers"
        given = None if ranges is None else ranges.of(kind)
        if given is None or (is_of_channels(given) and len(given) != values.shape[2]):
            given = self.ranges.of(kind)
        if kind == "floats" and not np.isfinite(values).all():
            raise ImageError(str(not_finite(values)))
        if given is None or (is_of_channels(given) and len(given) != values.shape[2]):  # of the usual channels
            given = decide([spread_of(values)]).of(kind)
        assert given is not None
        return to_uint8(values, given)

    @property
    def ranges(self) -> Ranges:
        """Decided by all images that can be read."""
        if self._ranges is None:
            self.look(lambda done, total: None)
        assert self._ranges is not None
        return self._ranges

    def look(self, progress: Callable[[int, int], None]) -> None:
        """Look at the values of all images, once."""
        for row in range(len(self)):
            if row not in self._spreads:
                try:
                    values = native(self.values[row])
                    self._spreads[row] = None if values.dtype == np.uint8 else spread_of(values)
                except ValueError:  # it is told where the image is asked for
                    self._spreads[row] = None
            progress(row + 1, len(self))
        self._ranges = decide_usual(spread for spread in self._spreads.values() if spread is not None)

    def spread(self, row: int) -> AnySpread | None:
        """Of the image's values; None if it has 8 bits or cannot be read."""
        return self._spreads.get(row)

    def content(self, row: int) -> bytes:
        """A hash of the values, equal to that of the same picture in a file; of 8 bits none (b"")."""
        values = native(self.values[row])
        if values.dtype == np.uint8:
            return b""
        return Deep(values[..., 0] if values.shape[2] == 1 else values, "").content()


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as float32, integers in the machine's byte order."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which is refused
            return values.astype(np.float32, copy=False)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def decide_usual(spreads: Iterable[AnySpread]) -> Ranges:
    """The ranges of the images that have as many channels as most; a scan leaves out the others."""
    items = list(spreads)
    most = usual_channels(1 if isinstance(item, ValueSpread) else len(item) for item in items)
    return decide(item for item in items if (1 if isinstance(item, ValueSpread) else len(item)) == most)


def usual_channels(counts: Iterable[int]) -> int:
    """How many channels most images have; gray and RGB are one kind, 1.

    >>> usual_channels([1, 3, 3, 12])
    1
    """
    found = Counter(1 if count in GRAY_OR_RGB else count for count in counts)
    return max(found, key=lambda count: (found[count], -count), default=1)
