"""Likeness(thumbnails) = pairs that are one picture: re-encoded, resized, brighter, lightly cropped, captioned.

1. Candidates: each thumbnail as 8×8 means, without its own mean and contrast, is a point on a sphere; its 16 main
   directions go into a k-d tree, and each asks for its nearest neighbours within a radius.
2. Proof: the two 32×32 thumbnails are laid over each other (shift and scale per axis, gain and offset: Gauss–Newton
   steps), and what is left over has to be noise: correlation and colour decide (`likeness`).
3. Where pictures are alike by nature, what may be left over is a part of what is left over there (`_adapt`).

The reasons: docs/decisions/0022-one-picture-or-two.md. The thresholds of step 2 are what pairs looked at as pictures
allowed (each set alone, then with made copies of 500 images; before there was a step 3, with which decision 22 has the
numbers):

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
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapstone.data.thumbnail_similarity import ALL, BLOCK, Floats, chroma, compare, points

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SimilarityThreshold:
    """What a pair of one kind of image must reach."""

    radius: float  # between the candidates' points on the unit sphere: 4 % cropped off a side moves .17, at most .4
    align: bool
    correlation: float
    colour: float  # levels of 255
    rows: tuple[int, int] = ALL  # of the thumbnails: what is compared


PHOTO = SimilarityThreshold(0.35, True, 0.97, 25.0)
GRAY_PHOTO = SimilarityThreshold(0.35, True, 0.985, 25.0)
SMALL_COLOUR = SimilarityThreshold(0.35, True, 0.98, 10.0)
SMALL_GRAY = SimilarityThreshold(0.10, False, 0.997, 10.0)
# a caption over the lower or the upper quarter, which is not looked at; the rest has to agree better
CAPTION_BELOW = SimilarityThreshold(0.30, True, 0.985, 20.0, (0, 24))
CAPTION_ABOVE = SimilarityThreshold(0.30, True, 0.985, 20.0, (8, 32))
PHOTO_BARS = (PHOTO, CAPTION_BELOW, CAPTION_ABOVE)

SMALL = 64  # pixels on the long side
NEIGHBOURS = 8  # per image that are compared with it
CROWD = 16  # nearest neighbours that say how alike pictures are there by nature; a quarter of a small data set
LEAST_CROWD = 5  # in fewer pictures than that, copies and nature cannot be told apart
RATIO = 0.2  # of what is left over between pictures that are alike by nature: two pictures are one below it
SURE = 0.001  # what may always be left over between two of one picture, unless all pictures are that much alike
PLAIN = 4.0  # gray levels of contrast below which a picture is too plain to be compared (a white page, the sea)
ASPECT = 0.15  # log of width / height: a light crop changes it little


class NearDuplicates:
    """Which of the thumbnails (N, 32·32 + 8·8·3) show one picture; `sizes` (N, 2) are the pictures' (width, height).

        >>> likeness = NearDuplicates(thumbnails, sizes)
        >>> likeness.pairs                  # (P, 2) rows, each pair once
        >>> likeness.groups()               # (N,) numbers; those of one picture share one

    threshold: the correlation that counts as one picture, for all alike; None for what the pictures allow.
    """

    def __init__(self, thumbnails: NDArray[np.uint8], sizes: NDArray[np.int64], threshold: float | None = None) -> None:
        self.thumbnails = thumbnails
        self.threshold = threshold
        self.small = sizes.max(axis=1, initial=0) <= SMALL
        self.gray = np.empty(len(sizes), np.bool_)
        for start in range(0, len(sizes), BLOCK):
            block = slice(start, start + BLOCK)
            self.gray[block] = chroma(thumbnails[block]).max(axis=(1, 2), initial=0) <= 2
        self.aspect = np.log(sizes[:, 0] / sizes[:, 1])
        self._left_over: dict[
            SimilarityThreshold, Floats
        ] = {}  # per picture: what may be left over where it is compared
        bars = (SMALL_GRAY, GRAY_PHOTO, SMALL_COLOUR, *PHOTO_BARS) if threshold != 1 else ()
        found = [np.empty((0, 2), np.int64), *(self._search(bar) for bar in bars)]
        self.pairs: Rows = np.unique(np.concatenate(found), axis=0)

    def groups(self) -> Rows:
        """(N,) a number per picture, shared by those of one picture.

        Each group has one member that all others are like: a chain of pictures, each a little like the next, is no
        group. The first is the picture that most others are like.
        """
        count = len(self.thumbnails)
        group = np.full(count, -1, np.int64)
        links = _links(self.pairs, count)
        for leader in sorted(links, key=lambda i: (-len(links[i]), i)):
            if group[leader] >= 0:
                continue
            group[leader] = leader
            new = [i for i in links[leader] if group[i] < 0]
            tried = {leader, *new}
            while new:  # what is linked to a member is compared with the leader itself
                group[new] = leader
                others = sorted({i for member in new for i in links[member] if group[i] < 0} - tried)
                tried.update(others)
                alike = self.alike(np.full(len(others), leader), np.asarray(others, np.int64))
                new = [i for i, is_one in zip(others, alike.tolist(), strict=True) if is_one]
        alone = group < 0
        group[alone] = np.flatnonzero(alone)
        return group

    def alike(self, a: Rows, b: Rows) -> Mask:
        """(P,) is picture a[p] one with b[p]?"""
        found = np.zeros(len(a), np.bool_)
        for bar in self._left_over:
            open_ = np.flatnonzero(~found & self._of_kind(bar, a, b))
            if len(open_):
                found[open_] = self._judge(bar, a[open_], b[open_])[0]
        return found

    def _of_kind(self, bar: SimilarityThreshold, a: Rows, b: Rows) -> Mask:
        """(P,) is this the bar for the pair? A photo and its small or black-and-white copy are one picture, so the most
        lenient of their two counts, save for small gray ones: those resemble each other by nature.
        """
        small, gray = self.small[a] & self.small[b], self.gray[a] & self.gray[b]
        kind: Mask
        if bar is SMALL_GRAY:
            kind = small & gray
        elif bar is GRAY_PHOTO:
            kind = gray & ~self.small[a] & ~self.small[b]
        elif bar is SMALL_COLOUR:
            kind = small & ~self.gray[a] & ~self.gray[b]
        else:
            tiny = (self.small & self.gray)[a] | (self.small & self.gray)[b]
            kind = ~small & ~gray & ~tiny
        return kind

    def _members(self, bar: SimilarityThreshold) -> Rows:
        """The pictures that stand in pairs of this kind."""
        if bar is SMALL_GRAY:
            return np.flatnonzero(self.small & self.gray)
        if bar is GRAY_PHOTO:
            return np.flatnonzero(~self.small & self.gray)
        if bar is SMALL_COLOUR:
            return np.flatnonzero(self.small & ~self.gray)
        return np.flatnonzero(~(self.small & self.gray)) if (~self.small & ~self.gray).any() else np.empty(0, np.int64)

    def _search(self, bar: SimilarityThreshold) -> Rows:
        """(P, 2) the pairs of this kind that are one picture; sets what may be left over."""
        which = self._members(bar)
        limit, radius = 1 - bar.correlation, bar.radius
        if self.threshold is not None:
            asked = 1 - self.threshold
            limit = asked if bar.rows == ALL else min(limit, asked)
            radius = max(radius, 1.5 * float(np.sqrt(2 * limit)))
        allowed = np.full(len(self.thumbnails), limit, np.float32)
        self._left_over[bar] = allowed
        space = _Space(self.thumbnails[which], bar.rows)
        which = which[space.textured]
        pairs = which[_pairs(space.nearest(np.arange(len(which)), NEIGHBOURS, radius))]
        pairs = pairs[self._of_kind(bar, pairs[:, 0], pairs[:, 1])]
        one, left = self._judge(bar, pairs[:, 0], pairs[:, 1])
        pairs, left = np.sort(pairs[one], axis=1), left[one]
        if self.threshold is None and len(pairs):
            self._adapt(bar, space, which, np.searchsorted(which, np.unique(pairs)))
        near: Rows = pairs[left <= allowed[pairs].min(axis=1)]
        return near

    def _adapt(self, bar: SimilarityThreshold, space: "_Space", which: Rows, asked: Rows) -> None:
        """Where a picture has many neighbours it is like by nature, what may be left over is a part of what is there.

        X-rays, or products on one ground, differ by less than a photo and its crop. The farther neighbours say by how
        much: the nearest may be copies. `asked` are rows of the space.
        """
        k = min(CROWD, max(LEAST_CROWD, len(which) // 4))
        if len(which) <= k:
            return
        allowed = self._left_over[bar]
        limit = float(allowed.max())
        neighbours = space.nearest(asked, k, float(np.sqrt(2 * limit / RATIO)))
        crowded = (neighbours >= 0).all(axis=1)
        asked, neighbours = asked[crowded], neighbours[crowded]
        if not len(asked):
            return
        far = sorted({3 * k // 4, 7 * k // 8, k - 1})
        left = [self._judge(bar, which[asked], which[neighbours[:, rank]])[1] for rank in far]
        usual = np.median(np.stack(left), axis=0)
        # where that is so of most pictures, of the whole data set
        sure = min(SURE, RATIO * float(np.median(usual))) if 2 * len(asked) > len(which) else SURE
        allowed[which[asked]] = np.clip(RATIO * usual, sure, limit)

    def _judge(self, bar: SimilarityThreshold, a: Rows, b: Rows) -> tuple[Mask, Floats]:
        """(P,) is the pair one picture, and what of it is left over (1 − correlation)."""
        allowed = self._left_over[bar]
        one, left = np.empty(len(a), np.bool_), np.empty(len(a), np.float32)
        for start in range(0, len(a), BLOCK):
            i, j = a[start : start + BLOCK], b[start : start + BLOCK]
            correlation, colour = compare(self.thumbnails[i], self.thumbnails[j], bar.align, bar.rows)
            left[start : start + BLOCK] = 1 - correlation
            enough = 1 - correlation <= np.minimum(allowed[i], allowed[j])
            same_shape = np.abs(self.aspect[i] - self.aspect[j]) < ASPECT
            one[start : start + BLOCK] = enough & same_shape & (colour <= bar.colour)
        return one, left


def check_threshold(threshold: float | None) -> None:
    """Raises ValueError for what is no correlation of near duplicates."""
    if threshold is not None and not 0.8 <= threshold <= 1:  # also false for nan
        raise ValueError(
            f"--duplicate-threshold {threshold:g}: must be from 0.8 to 1; without it, photos are one picture from 0.97 "
            "on, and pictures that are alike by nature from a likeness that is rare among them."
        )


def _links(pairs: Rows, count: int) -> dict[int, list[int]]:
    links: dict[int, list[int]] = {}
    for a, b in pairs.tolist():
        links.setdefault(a, []).append(b)
        links.setdefault(b, []).append(a)
    return links


def _pairs(neighbours: Rows) -> Rows:
    """(P, 2) each pair of a row and one of its neighbours once."""
    rows = np.repeat(np.arange(len(neighbours)), neighbours.shape[1])
    others = neighbours.reshape(-1)
    there = others >= 0
    if not there.any():
        return np.empty((0, 2), np.int64)
    return np.unique(np.sort(np.stack([rows[there], others[there]], axis=1), axis=1), axis=0)


class _Space:
    """The pictures that have texture, as points; `textured` are their rows."""

    def __init__(self, thumbnails: NDArray[np.uint8], rows: tuple[int, int]) -> None:
        from scipy.spatial import cKDTree

        unit, contrast = points(thumbnails, rows)
        self.textured: Rows = np.flatnonzero(contrast >= PLAIN)
        self.unit = unit[self.textured]
        centred = self.unit - self.unit.mean(axis=0) if len(self.unit) else self.unit
        # the 16 directions that hold most: distances can only shrink, so no neighbour is lost
        _, axes = np.linalg.eigh(centred.T @ centred)
        self.low = centred @ axes[:, -16:]
        self.tree = cKDTree(self.low)

    def nearest(self, rows: Rows, k: int, radius: float) -> Rows:
        """(n, k) the nearest neighbours of these points, in order; −1 beyond the radius."""
        if len(self.low) < 2 or not len(rows):
            return np.full((len(rows), k), -1, np.int64)
        _, found = self.tree.query(self.low[rows], k=k + 1, distance_upper_bound=radius, workers=-1)
        found = np.asarray(found, np.int64)
        own = found == rows[:, None]
        own[~own.any(axis=1), -1] = True  # there are more than k in its very place
        found = found[~own].reshape(len(rows), k)
        found[found == len(self.low)] = -1
        for start in range(0, len(found), BLOCK):
            block = found[start : start + BLOCK]
            apart = np.linalg.norm(self.unit[rows[start : start + BLOCK], None] - self.unit[block], axis=2)
            block[apart >= radius] = -1
        neighbours: Rows = found
        return neighbours
