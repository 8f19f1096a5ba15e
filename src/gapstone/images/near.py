"""near_pairs(thumbnails) = pairs that are one picture: re-encoded, resized, a little brighter, lightly cropped.

1. Candidates: each thumbnail as 8×8 means, without its own mean and contrast, is a point on a sphere; its 16 main
   directions go into a k-d tree, and each asks for its nearest neighbours within a radius.
2. Proof: the two 32×32 thumbnails are laid over each other (shift and scale per axis, gain and offset: Gauss–Newton
   steps), and what is left over has to be noise: correlation and colour decide.

The thresholds are what pairs looked at as pictures allowed (each set alone, then with made copies of 500 images):

- photos, 4,309 flowers of 128×128: all 26 pairs from .972 up are one photo, some recoloured or black and white; from
  .965 down it is another field under another sky. Of made copies it finds: JPEG of quality 20, half size, brightness
  ±20 %: 99 to 100 %; up to 4 % cropped off each side: 97 %; 5 % off every side: 67 %; 8 %: 15 %. In 130 photos of
  800×600 nearly the same.
- colour, up to 64 pixels, 50,000 of CIFAR-10: 534 pairs from .98 up, those looked at are one picture (one car is
  there dozens of times); between .95 and .97 some are two planes or two ships. Made copies: brightness and 4 % crops
  97 %, JPEG of quality 50 78 %, half size (16×16) 21 %.
- gray, up to 64 pixels, all 70,000 of MNIST and the 1,797 digits: nobody copied anything there, but two ones reach
  .9945 and .9959 without any alignment. So there only near-perfect copies count (JPEG of quality 75 still does); none
  is found in either. Gray photos (X-rays, say) were not measured and get a stricter bar than colour ones.

A pair missed or found wrongly costs little: groups only keep images on one side of a split, they exclude nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .facts import COLOUR_SIDE, GRAY_SIDE

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Bar:
    """What a pair of one kind of image must reach."""

    radius: float  # between the candidates' points on the unit sphere: 4 % cropped off a side moves .17, at most .4
    align: bool
    correlation: float
    colour: float  # levels of 255


PHOTO = _Bar(0.35, True, 0.97, 25.0)
GRAY_PHOTO = _Bar(0.35, True, 0.985, 25.0)
SMALL_COLOUR = _Bar(0.35, True, 0.98, 10.0)
SMALL_GRAY = _Bar(0.10, False, 0.997, 10.0)
SMALL = 64  # pixels on the long side
NEIGHBOURS = 8  # per image: a hundred copies of one picture hang together by fewer links than 100 × 99
PLAIN = 4.0  # gray levels of contrast below which a picture is too plain to be compared (a white page, the sea)
ASPECT = 0.15  # log of width / height: a light crop changes it little
_STEPS = 6  # Gauss–Newton steps; later ones change nothing
_BLOCK = 4096  # pairs at once: 200 MB of work space


def near_pairs(thumbnails: NDArray[np.uint8], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, 2) rows of `thumbnails` (N, 32·32 + 8·8·3) that show one picture; `sizes` (N, 2) are (width, height)."""
    small = sizes.max(axis=1, initial=0) <= SMALL
    gray = _chroma(thumbnails).max(axis=(1, 2), initial=0) <= 2
    aspect = np.log(sizes[:, 0] / sizes[:, 1])
    found = [np.empty((0, 2), np.int64)]
    # a photo and its small or black-and-white copy are one picture, so the most lenient bar of the two kinds counts,
    # save for small gray ones: those resemble each other by nature
    kinds = (
        (small & gray, SMALL_GRAY),
        (~small & gray, GRAY_PHOTO),
        (small & ~gray, SMALL_COLOUR),
        (~(small & gray), PHOTO),
    )
    for members, bar in kinds:
        if bar is PHOTO and not (~small & ~gray).any():
            continue
        which = np.flatnonzero(members)
        pairs = which[_candidates(thumbnails[which], bar.radius)]
        pairs = pairs[np.abs(aspect[pairs[:, 0]] - aspect[pairs[:, 1]]) < ASPECT]
        if bar is PHOTO:
            mixed = ~small[pairs].all(axis=1) & ~gray[pairs].all(axis=1)
            pairs = pairs[mixed]
        for start in range(0, len(pairs), _BLOCK):
            block = pairs[start : start + _BLOCK]
            correlation, colour = compare(thumbnails[block[:, 0]], thumbnails[block[:, 1]], bar.align)
            found.append(block[(correlation >= bar.correlation) & (colour <= bar.colour)])
    return np.concatenate(found)


def _candidates(thumbnails: NDArray[np.uint8], radius: float) -> NDArray[np.int64]:
    from scipy.spatial import cKDTree

    if len(thumbnails) < 2:
        return np.empty((0, 2), np.int64)
    points, contrast = _points(thumbnails)
    textured = np.flatnonzero(contrast >= PLAIN)
    points = points[textured]
    if len(points) < 2:
        return np.empty((0, 2), np.int64)
    centred = points - points.mean(axis=0)
    # the 16 directions that hold most: distances can only shrink, so no neighbour is lost
    _, axes = np.linalg.eigh(centred.T @ centred)
    low = centred @ axes[:, -16:]
    k = min(NEIGHBOURS + 1, len(low))
    _, near = cKDTree(low).query(low, k=k, distance_upper_bound=radius, workers=-1)
    rows = np.repeat(np.arange(len(low)), k)
    others = near.ravel()
    real = (others < len(low)) & (others != rows)
    pairs = np.sort(np.stack([rows[real], others[real]], axis=1), axis=1)
    pairs = np.unique(pairs, axis=0)
    close = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) < radius
    found: NDArray[np.int64] = textured[pairs[close]]
    return found


def _points(thumbnails: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """(N, 64) unit vectors and (N,) the standard deviation they had, in gray levels."""
    step = GRAY_SIDE // 8
    means = np.empty((len(thumbnails), 64), np.float32)
    for start in range(0, len(thumbnails), _BLOCK):
        part = thumbnails[start : start + _BLOCK, : GRAY_SIDE**2].astype(np.float32)
        means[start : start + _BLOCK] = part.reshape(-1, 8, step, 8, step).mean(axis=(2, 4)).reshape(-1, 64)
    means -= means.mean(axis=1, keepdims=True)
    length = np.linalg.norm(means, axis=1)
    return np.asarray(means / np.maximum(length, 1e-6)[:, None], np.float32), np.asarray(length / 8, np.float32)


def compare(a: NDArray[np.uint8], b: NDArray[np.uint8], align: bool) -> tuple[Floats, Floats]:
    """(correlation of the gray thumbnails where they overlap, difference of their colours in levels), each (P,)."""
    x = a[:, : GRAY_SIDE**2].reshape(-1, GRAY_SIDE, GRAY_SIDE).astype(np.float32)
    y = b[:, : GRAY_SIDE**2].reshape(-1, GRAY_SIDE, GRAY_SIDE).astype(np.float32)
    grid = np.linspace(-1, 1, GRAY_SIDE, dtype=np.float32)
    move = np.zeros((len(x), 4), np.float32)  # shift and stretch, down and across, in thumbnail pixels at the edge
    for _ in range(_STEPS if align else 0):
        warped, inside = _warp(x, move)
        down, across = np.gradient(warped, axis=(1, 2))
        columns = [down, down * grid[:, None], across, across * grid, warped, np.ones_like(warped)]
        design = np.stack(columns, axis=3).reshape(len(x), -1, 6)
        weight = inside.reshape(len(x), -1, 1)
        left = design.transpose(0, 2, 1) @ (design * weight)
        left += np.eye(6, dtype=np.float32) * (1e-4 * np.trace(left, axis1=1, axis2=2) / 6 + 1e-3)[:, None, None]
        error = y.reshape(len(x), -1, 1) - warped.reshape(len(x), -1, 1)
        right = design.transpose(0, 2, 1) @ (error * weight)
        step = np.linalg.solve(left, right)[..., 0]
        step[:, :4] /= np.maximum(1 + step[:, 4:5], 0.3)  # the gradients are those before the gain
        move = np.clip(move + np.clip(step[:, :4], -1, 1), -3, 3)
    warped, inside = _warp(x, move)
    return _correlation(warped, y, inside), _colours(a, b)


def _warp(x: Floats, move: Floats) -> tuple[Floats, Floats]:
    """x sampled at rows r + move[0] + move[1]·r′ and columns c + move[2] + move[3]·c′, r′ and c′ from −1 to 1."""
    rows, inside_rows = _sampling(move[:, 0:1], move[:, 1:2])
    columns, inside_columns = _sampling(move[:, 2:3], move[:, 3:4])
    warped = rows @ x @ columns.transpose(0, 2, 1)
    return np.asarray(warped, np.float32), inside_rows[:, :, None] * inside_columns[:, None, :]


def _sampling(shift: Floats, stretch: Floats) -> tuple[Floats, Floats]:
    """(P, 32, 32) linear interpolation weights, (P, 32) 1 where the sample lies inside."""
    grid = np.linspace(-1, 1, GRAY_SIDE, dtype=np.float32)
    at = np.arange(GRAY_SIDE, dtype=np.float32) + shift + stretch * grid
    inside = ((at >= -0.5) & (at <= GRAY_SIDE - 0.5)).astype(np.float32)
    at = np.clip(at, 0, GRAY_SIDE - 1)
    weights = np.clip(1 - np.abs(at[:, :, None] - np.arange(GRAY_SIDE, dtype=np.float32)), 0, None)
    return weights.astype(np.float32), inside


def _correlation(x: Floats, y: Floats, weight: Floats) -> Floats:
    total = weight.sum(axis=(1, 2))
    x = x - ((x * weight).sum(axis=(1, 2)) / total)[:, None, None]
    y = y - ((y * weight).sum(axis=(1, 2)) / total)[:, None, None]
    xy, xx, yy = ((p * weight).sum(axis=(1, 2)) for p in (x * y, x * x, y * y))
    return np.asarray(xy / np.sqrt(np.maximum(xx * yy, 1e-6)), np.float32)


def _colours(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Mean absolute difference of the 8×8 chroma, the brighter picture scaled down to the darker one."""
    level = np.stack([t[:, GRAY_SIDE**2 :].mean(axis=1, dtype=np.float32) for t in (a, b)]) + 1
    scale = (level.min(axis=0) / level)[:, :, None, None]
    difference = _chroma(a) * scale[0] - _chroma(b) * scale[1]
    return np.asarray(np.abs(difference).mean(axis=(1, 2)), np.float32)


def _chroma(thumbnails: NDArray[np.uint8]) -> Floats:
    """(N, 64, 2) red − green and blue − green of the colour thumbnails."""
    rgb = thumbnails[:, GRAY_SIDE**2 :].reshape(-1, COLOUR_SIDE**2, 3).astype(np.float32)
    return rgb[:, :, [0, 2]] - rgb[:, :, [1]]
