"""Values of which a file says that they are none, as GDAL writes them outside of a satellite's swath."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def without_no_data(values: NDArray[Any], no_data: float | None, notes: list[str]) -> NDArray[Any]:
    """Values (H, W) or (H, W, C) in which those that are none are the lowest of the others in their channel; or 0.

    >>> without_no_data(np.array([[-9999, 3, 5]]), -9999.0, [])
    array([[3, 3, 5]])

    They would decide the range of all images otherwise. A note says how many there are.
    """
    if no_data is None:
        return values
    if values.dtype.kind == "f":
        missing = np.isnan(values) if math.isnan(no_data) else values == values.dtype.type(no_data)
    elif math.isfinite(no_data) and no_data.is_integer():
        missing = values == int(no_data)
    else:
        return values
    missing = np.asarray(missing)
    if not missing.any():
        return values
    filled = np.array(values, order="C")
    pixels, is_missing = (each.reshape(*values.shape[:2], -1) for each in (filled, missing))  # views
    for k in range(pixels.shape[2]):
        channel, none = pixels[..., k], is_missing[..., k]
        channel[none] = 0 if none.all() else channel[~none].min()
    share = missing.mean()
    notes.append(
        f"{share:.{1 if share >= 0.001 else 3}%} of its values are none (the file says so: {no_data:g}); as the lowest"
    )
    return filled
