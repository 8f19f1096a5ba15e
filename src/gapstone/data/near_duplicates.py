"""`NearDuplicates` finds pairs of thumbnails of the same image: re-encoded, resized, brighter, cropped or captioned.

1. Candidates: the 8×8 means of each thumbnail, without their mean and contrast, are a point on a sphere. The 16
   principal components of the points go into a k-d tree, which gives the nearest neighbours within a radius.
2. Verification: the two 32×32 thumbnails are aligned (shift and scale per axis, gain and offset, by Gauss–Newton
   steps), and the residual must be noise: the correlation and the colours decide (`thumbnail_similarity.compare`).
3. Where different images of a data set are similar, the allowed residual is a fraction of theirs (`_adapt`).

The reasons: docs/decisions/0022-one-picture-or-two.md. The thresholds of step 2 were chosen by looking at pairs of
images (each data set alone, then with copies made of 500 images; before step 3 existed; decision 22 has the numbers
with step 3):

- photos, 4,309 flowers of 128×128: all 26 pairs from .972 on are the same photo, some recoloured or black and white;
  from .965 down they are another field under another sky. Of the copies it finds: JPEG of quality 20, half size,
  brightness ±20 %: 99 to 100 %; up to 4 % cropped off each side: 97 %; 5 % off every side: 67 %; 8 %: 15 %. In 130
  photos of 800×600 nearly the same.
- colour, up to 64 pixels, 50,000 images of CIFAR-10: 534 pairs from .98 on, of which those looked at are the same image
  (a car occurs dozens of times); between .95 and .97 some are two planes or two ships. Of the copies it finds:
  brightness and 4 % crops 97 %, JPEG of quality 50 78 %, half size (16×16) 21 %.
- gray, up to 64 pixels, all 70,000 images of MNIST and the 1,797 digits: there are no copies, but two ones reach .9945
  and .9959 without any alignment. So only near-perfect copies count (JPEG of quality 75 still does); none is found in
  either. Gray photos (such as X-rays) were not measured and get a stricter threshold than colour photos.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapstone.data.thumbnail_similarity import ALL, BLOCK, Floats, chroma, compare, points

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SimilarityThreshold:
    """What a pair of a kind of image must fulfil to be near duplicates."""

    radius: float  # of the search for candidates on the unit sphere; 4 % cropped off a side moves .17, at most .4
    align: bool
    correlation: float  # at least
    colour: float  # difference in levels of 255, at most
    rows: tuple[int, int] = ALL  # rows of the thumbnails that are compared


PHOTO = SimilarityThreshold(0.35, True, 0.97, 25.0)
GRAY_PHOTO = SimilarityThreshold(0.35, True, 0.985, 25.0)
SMALL_COLOUR = SimilarityThreshold(0.35, True, 0.98, 10.0)
SMALL_GRAY = SimilarityThreshold(0.10, False, 0.997, 10.0)
# with a caption over the lower or the upper quarter, which is not compared; the rest must agree better
CAPTION_BELOW = SimilarityThreshold(0.30, True, 0.985, 20.0, (0, 24))
CAPTION_ABOVE = SimilarityThreshold(0.30, True, 0.985, 20.0, (8, 32))
PHOTO_THRESHOLDS = (PHOTO, CAPTION_BELOW, CAPTION_ABOVE)

SMALL = 64  # pixels on the long side
NEIGHBOURS = 8  # compared with each image
CROWD = 16  # nearest neighbours that tell how similar different images are; a quarter of a small data set
LEAST_CROWD = 5  # with fewer neighbours, copies and similar images cannot be told apart
RATIO = 0.2  # of the residual of different images: below it, two images are the same
SURE = 0.001  # residual that is always allowed, unless most images are as similar as that
PLAIN = 4.0  # gray levels of contrast below which an image is too plain to be compared (a white page, the sea)
ASPECT = 0.15  # log of width / height: a light crop changes it little


class NearDuplicates:
    """Finds near duplicates among images.

        >>> near = NearDuplicates(thumbnails, sizes)
        >>> near.pairs                  # (P, 2) rows, each pair once
        >>> near.groups()               # (N,) group numbers; near duplicates share one

    Thumbnails are (N, 32·32 + 8·8·3) uint8, sizes (N, 2) are (width, height). From the correlation `threshold` on, all
    pairs are near duplicates; None chooses it by the images.
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
        self._allowed: dict[SimilarityThreshold, Floats] = {}  # (N,) the residual that each image allows
        kinds = (SMALL_GRAY, GRAY_PHOTO, SMALL_COLOUR, *PHOTO_THRESHOLDS) if threshold != 1 else ()
        pairs = [np.empty((0, 2), np.int64), *(self._search(kind) for kind in kinds)]
        self.pairs: Rows = np.unique(np.concatenate(pairs), axis=0)

    def groups(self) -> Rows:
        """(N,) a group number per image; near duplicates share it.

        All members of a group are near duplicates of its leader, so a chain of pairs is no group. The first leader is
        the image with the most near duplicates.
        """
        count = len(self.thumbnails)
        group = np.full(count, -1, np.int64)
        links: dict[int, list[int]] = {}
        for a, b in [*self.pairs.tolist(), *self.pairs[:, ::-1].tolist()]:
            links.setdefault(a, []).append(b)
        for leader in sorted(links, key=lambda i: (-len(links[i]), i)):
            if group[leader] >= 0:
                continue
            group[leader] = leader
            new = [i for i in links[leader] if group[i] < 0]
            compared = {leader, *new}
            while new:  # images linked to a member are compared with the leader
                group[new] = leader
                others = sorted({i for member in new for i in links[member] if group[i] < 0} - compared)
                compared.update(others)
                same = self.are_duplicates(np.full(len(others), leader), np.asarray(others, np.int64))
                new = [i for i, is_same in zip(others, same.tolist(), strict=True) if is_same]
        alone = group < 0
        group[alone] = np.flatnonzero(alone)
        return group

    def are_duplicates(self, a: Rows, b: Rows) -> Mask:
        """(P,) whether images a[p] and b[p] are near duplicates."""
        result = np.zeros(len(a), np.bool_)
        for kind in self._allowed:
            undecided = np.flatnonzero(~result & self._is_of_kind(kind, a, b))
            if len(undecided):
                result[undecided] = self._verify(kind, a[undecided], b[undecided])[0]
        return result

    def _is_of_kind(self, kind: SimilarityThreshold, a: Rows, b: Rows) -> Mask:
        """(P,) whether the threshold of this kind applies to the pair.

        A photo and its small or black-and-white copy are the same image, so the more lenient of their thresholds
        applies, except for small gray images: different ones are often similar.
        """
        members = self._members(kind)
        applies: Mask = members[a] & members[b]
        if kind in PHOTO_THRESHOLDS:
            applies &= ~(self.small[a] & self.small[b]) & ~(self.gray[a] & self.gray[b])
        return applies

    def _members(self, kind: SimilarityThreshold) -> Mask:
        """(N,) the images that may be in pairs of this kind."""
        small, gray = self.small, self.gray
        masks = {SMALL_GRAY: small & gray, GRAY_PHOTO: ~small & gray, SMALL_COLOUR: small & ~gray}
        return np.asarray(masks.get(kind, ~(small & gray)))

    def _search(self, kind: SimilarityThreshold) -> Rows:
        """(P, 2) the near duplicates of this kind; sets the allowed residuals."""
        images = np.flatnonzero(self._members(kind))
        if kind in PHOTO_THRESHOLDS and not (~self.small & ~self.gray).any():
            images = images[:0]  # there is no photo
        limit, radius = 1 - kind.correlation, kind.radius
        if self.threshold is not None:
            user_limit = 1 - self.threshold
            limit = user_limit if kind.rows == ALL else min(limit, user_limit)
            radius = max(radius, 1.5 * float(np.sqrt(2 * limit)))
        allowed = np.full(len(self.thumbnails), limit, np.float32)
        self._allowed[kind] = allowed
        space = _Space(self.thumbnails[images], kind.rows)
        images = images[space.textured]
        pairs = images[_pairs(space.nearest(np.arange(len(images)), NEIGHBOURS, radius))]
        pairs = pairs[self._is_of_kind(kind, pairs[:, 0], pairs[:, 1])]
        same, residual = self._verify(kind, pairs[:, 0], pairs[:, 1])
        pairs, residual = np.sort(pairs[same], axis=1), residual[same]
        if self.threshold is None and len(pairs):
            self._adapt(kind, space, images, np.searchsorted(images, np.unique(pairs)))
        duplicates: Rows = pairs[residual <= allowed[pairs].min(axis=1)]
        return duplicates

    def _adapt(self, kind: SimilarityThreshold, space: "_Space", images: Rows, candidates: Rows) -> None:
        """Lower the allowed residual of images with many similar neighbours to a fraction of their residuals.

        X-rays, or products on the same background, differ by less than a photo and its crop. The farther neighbours
        tell by how much, because the nearest may be copies. `candidates` are rows of the space.
        """
        k = min(CROWD, max(LEAST_CROWD, len(images) // 4))
        if len(images) <= k:
            return
        allowed = self._allowed[kind]
        limit = float(allowed.max())
        neighbours = space.nearest(candidates, k, float(np.sqrt(2 * limit / RATIO)))
        crowded = (neighbours >= 0).all(axis=1)
        candidates, neighbours = candidates[crowded], neighbours[crowded]
        if not len(candidates):
            return
        far = sorted({3 * k // 4, 7 * k // 8, k - 1})
        residuals = [self._verify(kind, images[candidates], images[neighbours[:, rank]])[1] for rank in far]
        usual = np.median(np.stack(residuals), axis=0)
        # if that holds for most images, it holds for the whole data set
        sure = min(SURE, RATIO * float(np.median(usual))) if 2 * len(candidates) > len(images) else SURE
        allowed[images[candidates]] = np.clip(RATIO * usual, sure, limit)

    def _verify(self, kind: SimilarityThreshold, a: Rows, b: Rows) -> tuple[Mask, Floats]:
        """(P,) whether the pair are near duplicates, and (P,) the residual, 1 − correlation."""
        allowed = self._allowed[kind]
        same, residual = np.empty(len(a), np.bool_), np.empty(len(a), np.float32)
        for start in range(0, len(a), BLOCK):
            i, j = a[start : start + BLOCK], b[start : start + BLOCK]
            correlation, colour = compare(self.thumbnails[i], self.thumbnails[j], kind.align, kind.rows)
            residual[start : start + BLOCK] = 1 - correlation
            close = 1 - correlation <= np.minimum(allowed[i], allowed[j])
            same_shape = np.abs(self.aspect[i] - self.aspect[j]) < ASPECT
            same[start : start + BLOCK] = close & same_shape & (colour <= kind.colour)
        return same, residual


def check_threshold(threshold: float | None) -> None:
    """Raise ValueError for a number that cannot be the correlation of near duplicates."""
    if threshold is not None and not 0.8 <= threshold <= 1:  # also false for nan
        raise ValueError(
            f"--duplicate-threshold {threshold:g}: must be from 0.8 to 1; without it, photos are one picture from 0.97 "
            "on, and pictures that are alike by nature from a likeness that is rare among them."
        )


def _pairs(neighbours: Rows) -> Rows:
    """(P, 2) the pairs of each row and its neighbours, each pair once."""
    rows = np.repeat(np.arange(len(neighbours)), neighbours.shape[1])
    others = neighbours.reshape(-1)
    exists = others >= 0
    if not exists.any():
        return np.empty((0, 2), np.int64)
    return np.unique(np.sort(np.stack([rows[exists], others[exists]], axis=1), axis=1), axis=0)


class _Space:
    """The images that have texture, as points in a k-d tree; `textured` are their rows."""

    def __init__(self, thumbnails: NDArray[np.uint8], rows: tuple[int, int]) -> None:
        from scipy.spatial import cKDTree

        unit, contrast = points(thumbnails, rows)
        self.textured: Rows = np.flatnonzero(contrast >= PLAIN)
        self.unit = unit[self.textured]
        centred = self.unit - self.unit.mean(axis=0) if len(self.unit) else self.unit
        # the 16 principal components: a projection only shrinks distances, so no neighbour is lost
        _, axes = np.linalg.eigh(centred.T @ centred)
        self.low = centred @ axes[:, -16:]
        self.tree = cKDTree(self.low)

    def nearest(self, rows: Rows, k: int, radius: float) -> Rows:
        """(n, k) the nearest neighbours of points, nearest first; −1 beyond the radius."""
        if len(self.low) < 2 or not len(rows):
            return np.full((len(rows), k), -1, np.int64)
        _, indices = self.tree.query(self.low[rows], k=k + 1, distance_upper_bound=radius, workers=-1)
        indices = np.asarray(indices, np.int64)
        is_self = indices == rows[:, None]
        is_self[~is_self.any(axis=1), -1] = True  # more than k points lie at the same place
        neighbours: Rows = indices[~is_self].reshape(len(rows), k)
        neighbours[neighbours == len(self.low)] = -1
        for start in range(0, len(neighbours), BLOCK):
            block = neighbours[start : start + BLOCK]
            distance = np.linalg.norm(self.unit[rows[start : start + BLOCK], None] - self.unit[block], axis=2)
            block[distance >= radius] = -1
        return neighbours
