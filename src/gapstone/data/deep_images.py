"""Images in memory whose values are not 0…255: more than 8 bits, or floats. One range for all makes them so."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gapstone.images.as_picture import GRAY_OR_RGB
from gapstone.images.high_bit_depth import content_of, native, spread_of
from gapstone.images.intensity_range import AnySpread, Ranges, ValueSpread, decide, on_ranges
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

    `spreads` are those of images that have been looked at already; None where they have 8 bits or cannot be read.

    Raises ImageError for an image with values that are not finite.
    """

    def __init__(self, values: ImageValues, spreads: Mapping[int, AnySpread | None] | None = None) -> None:
        self.values = values
        self._spreads = dict(spreads or {})
        self._ranges: Ranges | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.pixels(row, None)

    def pixels(self, row: int, ranges: Ranges | None) -> NDArray[np.uint8]:
        """The image on `ranges`, or on those of all these images where they have none for it."""
        return self._pixels(native(self.values[row]), ranges)

    def pixels_and_content(self, row: int) -> tuple[NDArray[np.uint8], bytes]:
        """The image on the range of all these images, and a hash of its values; of 8 bits there is no hash (b"").

        The hash is that of the same picture in a file.
        """
        values = native(self.values[row])
        pixels = self._pixels(values, None)
        if values.dtype == np.uint8:
            return pixels, b""
        return pixels, content_of(values)

    def _pixels(self, values: NDArray[Any], ranges: Ranges | None) -> NDArray[np.uint8]:
        try:
            for decided in (ranges, self.ranges):
                if decided is not None and (shown := on_ranges(values, decided)) is not None:
                    return shown
            own = on_ranges(values, decide([spread_of(values)]))  # it is not of the usual channels
        except ValueError as error:
            raise ImageError(str(error)) from error
        assert own is not None
        return own

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
                self._spreads[row] = spread_or_none(native(self.values[row]))
            progress(row + 1, len(self))
        self._ranges = decide_usual(spread for spread in self._spreads.values() if spread is not None)

    def spread(self, row: int) -> AnySpread | None:
        """Of the image's values; None if it has 8 bits or cannot be read."""
        return self._spreads.get(row)


def spread_or_none(values: NDArray[Any]) -> AnySpread | None:
    """The spread of the values (H, W, C) of an image; None if they have 8 bits, or are not finite."""
    if values.dtype == np.uint8:
        return None
    try:
        return spread_of(values)
    except ValueError:  # it is told where the image is asked for
        return None


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
