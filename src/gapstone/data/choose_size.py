"""Chooses the size of the network's input from the sizes of the images."""

import numpy as np

from gapstone.console.formatting import display
from gapstone.data.scan import Scan
from gapstone.data.sources import Source
from gapstone.images.preprocessing import LARGEST, parse_size


def choose_size(source: Source, scan: Scan, size: str | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """(size, stored), each (height, width): the size of the network's input, and the size of the stored images.

    ```python
    choose_size(digits, scan(digits))                  # ((16, 16), (16, 16)): 8×8 enlarged
    choose_size(mnist, scan(mnist))                    # ((28, 28), (28, 28))
    choose_size(photos, scan(photos))                  # ((224, 224), (256, 256))
    choose_size(photos, scan(photos), "96x128")        # ((96, 128), (110, 146)): height x width
    ```

    Images that all have the same small size (≤ 64 pixels) keep it, enlarged to at least 16. Otherwise the size is 7/8
    of the median short side, in steps of 16, at least 64 and at most 224, and the stored size is 1/0.875 of that. So
    photos with a short side of 256 or more get the usual 224 of 256, and smaller ones are not enlarged.
    """
    if size is not None:
        chosen = parse_size(size)
        return chosen, _margin(chosen)
    sizes = scan.size_counts()
    if not sizes:
        raise ValueError(f"no readable image in {display(source.given)!r}: there is no size to choose")
    if len(sizes) == 1:
        ((w, h),) = sizes
        if max(w, h) <= 64:
            scale = max(1.0, 16 / min(w, h))  # 16 pixels halved four times leave a map of 1×1
            chosen = (min(LARGEST, round(h * scale)), min(LARGEST, round(w * scale)))
            return chosen, chosen
    short = np.repeat([min(s) for s in sizes], list(sizes.values()))
    side = min(224, max(64, 16 * round(0.875 * float(np.median(short)) / 16)))
    return (side, side), _margin((side, side))


def _margin(size: tuple[int, int]) -> tuple[int, int]:
    if max(size) <= 64:
        return size
    return min(LARGEST, round(size[0] / 0.875)), min(LARGEST, round(size[1] / 0.875))
