"""`compare` aligns pairs of thumbnails (shift and scale per axis, gain and offset) and measures their similarity.

If both show the same image, the residual after the alignment is noise; the correlation and the colours measure it.
"""

import numpy as np
from numpy.typing import NDArray

from gapstone.data.image_info import COLOUR_SIDE, GRAY_SIDE

Floats = NDArray[np.float32]
ALL = (0, GRAY_SIDE)
"""Every row of a thumbnail."""

BLOCK = 4096  # pairs at once, which need 200 MB of memory
_STEPS = 6  # Gauss–Newton steps; more change nothing


def points(thumbnails: NDArray[np.uint8], rows: tuple[int, int] = ALL) -> tuple[Floats, Floats]:
    """(N, 64) unit vectors and (N,) contrasts of the 8×8 means of these rows of thumbnails.

    The unit vectors are the means without their average and contrast; the contrast is their standard deviation in gray
    levels.
    """
    step = GRAY_SIDE // 8
    compared = slice(rows[0] // step, rows[1] // step)
    size = 8 * (compared.stop - compared.start)
    means = np.empty((len(thumbnails), size), np.float32)
    for start in range(0, len(thumbnails), BLOCK):
        gray = thumbnails[start : start + BLOCK, : GRAY_SIDE**2].astype(np.float32)
        blocks = gray.reshape(-1, 8, step, 8, step).mean(axis=(2, 4))[:, compared]
        means[start : start + BLOCK] = blocks.reshape(-1, size)
    means -= means.mean(axis=1, keepdims=True)
    length = np.linalg.norm(means, axis=1)
    unit = means / np.maximum(length, 1e-6)[:, None]
    return np.asarray(unit, np.float32), np.asarray(length / np.sqrt(size), np.float32)


def compare(
    a: NDArray[np.uint8], b: NDArray[np.uint8], align: bool, rows: tuple[int, int] = ALL
) -> tuple[Floats, Floats]:
    """Compare P pairs of thumbnails in these rows; align them first if `align`.

    Returns:
        (P,) the correlation of the gray thumbnails where they overlap, and (P,) the difference of their colours in
        levels.
    """
    compared = np.zeros((1, GRAY_SIDE, 1), np.float32)
    compared[:, slice(*rows)] = 1
    x = a[:, : GRAY_SIDE**2].reshape(-1, GRAY_SIDE, GRAY_SIDE).astype(np.float32)
    y = b[:, : GRAY_SIDE**2].reshape(-1, GRAY_SIDE, GRAY_SIDE).astype(np.float32)
    grid = np.linspace(-1, 1, GRAY_SIDE, dtype=np.float32)
    move = np.zeros((len(x), 4), np.float32)  # vertical shift and stretch, then horizontal; in pixels at the edge
    for _ in range(_STEPS if align else 0):
        warped, inside = _warp(x, move)
        down, across = np.gradient(warped, axis=(1, 2))
        columns = [down, down * grid[:, None], across, across * grid, warped, np.ones_like(warped)]
        design = np.stack(columns, axis=3).reshape(len(x), -1, 6)
        weight = (inside * compared).reshape(len(x), -1, 1)
        left = design.transpose(0, 2, 1) @ (design * weight)
        left += np.eye(6, dtype=np.float32) * (1e-4 * np.trace(left, axis1=1, axis2=2) / 6 + 1e-3)[:, None, None]
        error = y.reshape(len(x), -1, 1) - warped.reshape(len(x), -1, 1)
        right = design.transpose(0, 2, 1) @ (error * weight)
        step = np.linalg.solve(left, right)[..., 0]
        step[:, :4] /= np.maximum(1 + step[:, 4:5], 0.3)  # the gradients were taken before the gain
        move = np.clip(move + np.clip(step[:, :4], -1, 1), -3, 3)
    warped, inside = _warp(x, move)
    return _correlation(warped, y, inside * compared), _colour_difference(a, b, rows)


def _warp(x: Floats, move: Floats) -> tuple[Floats, Floats]:
    """Sample x at rows r + move[0] + move[1]·r′ and columns c + move[2] + move[3]·c′, with r′ and c′ from −1 to 1."""
    rows, inside_rows = _sampling(move[:, 0:1], move[:, 1:2])
    columns, inside_columns = _sampling(move[:, 2:3], move[:, 3:4])
    warped = rows @ x @ columns.transpose(0, 2, 1)
    return np.asarray(warped, np.float32), inside_rows[:, :, None] * inside_columns[:, None, :]


def _sampling(shift: Floats, stretch: Floats) -> tuple[Floats, Floats]:
    """(P, 32, 32) linear interpolation weights, and (P, 32) ones where the sample lies inside the thumbnail."""
    grid = np.linspace(-1, 1, GRAY_SIDE, dtype=np.float32)
    positions = np.arange(GRAY_SIDE, dtype=np.float32) + shift + stretch * grid
    inside = ((positions >= -0.5) & (positions <= GRAY_SIDE - 0.5)).astype(np.float32)
    positions = np.clip(positions, 0, GRAY_SIDE - 1)
    weights = np.clip(1 - np.abs(positions[:, :, None] - np.arange(GRAY_SIDE, dtype=np.float32)), 0, None)
    return weights.astype(np.float32), inside


def _correlation(x: Floats, y: Floats, weight: Floats) -> Floats:
    total = weight.sum(axis=(1, 2))
    x = x - ((x * weight).sum(axis=(1, 2)) / total)[:, None, None]
    y = y - ((y * weight).sum(axis=(1, 2)) / total)[:, None, None]
    xy, xx, yy = ((p * weight).sum(axis=(1, 2)) for p in (x * y, x * x, y * y))
    return np.asarray(xy / np.sqrt(np.maximum(xx * yy, 1e-6)), np.float32)


def _colour_difference(a: NDArray[np.uint8], b: NDArray[np.uint8], rows: tuple[int, int]) -> Floats:
    """(P,) mean absolute difference of the 8×8 chroma, with the brighter image scaled down to the darker one."""
    level = np.stack([t[:, GRAY_SIDE**2 :].mean(axis=1, dtype=np.float32) for t in (a, b)]) + 1
    scale = (level.min(axis=0) / level)[:, :, None, None]
    step = GRAY_SIDE // COLOUR_SIDE
    compared = slice(rows[0] // step * COLOUR_SIDE, rows[1] // step * COLOUR_SIDE)
    difference = (chroma(a) * scale[0] - chroma(b) * scale[1])[:, compared]
    return np.asarray(np.abs(difference).mean(axis=(1, 2)), np.float32)


def chroma(thumbnails: NDArray[np.uint8]) -> Floats:
    """(N, 64, 2) red − green and blue − green of the colour thumbnails."""
    rgb = thumbnails[:, GRAY_SIDE**2 :].reshape(-1, COLOUR_SIDE**2, 3).astype(np.float32)
    return rgb[:, :, [0, 2]] - rgb[:, :, [1]]
