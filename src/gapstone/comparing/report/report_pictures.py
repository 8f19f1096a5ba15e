"""Encodes images and class activation maps as data URIs; all maps of the page have one scale, in logit units.

    colour(v) = blue below 0, vermilion above;  opacity(v) = cbrt(|v| / largest)

A map is an image with a pixel per cell. The page lays it over the gray photo, each cell around the centre of its
receptive field, without interpolation. Maps, biases and logits are minus the mean of all classes; of images that may
have several classes they are as they are.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from gapstone.drawing.colours import ABOVE, BELOW, STRONGEST, opacity
from gapstone.images.as_picture import as_picture
from gapstone.statistics.labels import class_sets, is_multi_label
from gapstone.tracing.placement import Placement

POWER = 1 / 3
"""Of the opacity: a cell of gap holds 1/256 of its logit, one of gmp a tenth; with 1/2, maps of gap look blank."""
SMALL = 64  # px: smaller images are not resized, and the page shows their pixels as squares
SIDES = (224, 160, 112, 80)
MOST_BYTES = 2_500_000  # of data URIs: the page then has less than 5 MB
MOST_SHOWN = 24
MOST_MAPS = 3
"""Of an image under one head, where images have several classes."""

Array = NDArray[Any]


@dataclass(frozen=True)
class ReportPicture:
    uri: str
    width: int
    height: int
    pixelated: bool


@dataclass(frozen=True)
class Area:
    """A rectangle over a picture, in per cent of its width and height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def style(self) -> str:
        """As CSS; .cam hides what lies outside the picture."""
        return f"left:{self.left:.3f}%;top:{self.top:.3f}%;width:{self.width:.3f}%;height:{self.height:.3f}%"


@dataclass(frozen=True)
class Map:
    """The map of a head for a class and an image."""

    role: str
    """"true": the image's own class; "prediction": the class predicted instead. With several labels, in words, how it
    was answered."""
    label: str
    uri: str
    area: Area
    logit: float
    """Above the mean of all classes, as `bias` is."""
    probability: float
    bias: float
    positive: float
    """Sum of the positive contributions; 0: no positive evidence for the class."""
    boxes: Sequence[Area] = ()
    """The object boxes; with several labels those of its class."""


@dataclass(frozen=True)
class PictureRow:
    """A test image and the maps of each head, in order; None for a head without maps."""

    picture: ReportPicture
    name: str
    label: str
    cells: Sequence[Sequence[Map] | None]
    boxes: Sequence[Area] = ()
    """The object boxes."""
    labels: Sequence[str] = ()
    """The names of all its classes."""


@dataclass(frozen=True)
class Maps:
    rows: Sequence[PictureRow]
    largest: float
    """The contribution at the ends of the colour bar, in logit units."""
    additive: Sequence[bool | None]
    gaps: Sequence[float | None]
    held: Sequence[Sequence[str]]
    """What counts as a number of the image in the maps of each head."""
    learned: Sequence[bool]
    """Heads that are hardly better than the largest class do not set the scale: their contributions may be a hundred
    times as large, and the maps of all other heads would look blank."""


def read(
    npz: Path | BinaryIO | None,
    classes: Sequence[str],
    heads: int,
    learned: Callable[[int], Sequence[bool]] | None = None,
) -> tuple[Maps | None, list[ReportPicture]]:
    """The maps and the images of the worst predictions in pictures.npz; (None, []) without it.

    `learned` tells, for the seed of the maps, which heads are clearly better than the largest class.
    """
    if npz is None:
        return None, []
    with np.load(npz, allow_pickle=False) as stored:
        arrays = dict(stored)
    shown = arrays.get("images", np.zeros((0, 1, 1, 1), np.uint8))[:MOST_SHOWN]
    encoded = encode([*shown, *arrays.get("worst", ())])
    pictures, worst = encoded[: len(shown)], encoded[len(shown) :]
    if not len(shown):
        return None, worst
    scaling = learned(int(arrays["seed"])) if learned and "seed" in arrays else [True] * heads
    return _maps(arrays, pictures, classes, scaling), worst


def _maps(
    arrays: dict[str, Array], pictures: Sequence[ReportPicture], classes: Sequence[str], learned: Sequence[bool]
) -> Maps:
    heads, labels = len(learned), arrays["labels"]
    multi_label = is_multi_label(labels)
    sets = class_sets(labels)
    if not multi_label:
        arrays = arrays | _centred(arrays, heads)
    chosen = {
        (image, head): _classes(arrays[f"logits_{head}"][image], sets[image], multi_label)
        for head in range(heads)
        if f"maps_{head}" in arrays
        for image in range(len(pictures))
    }
    largest = _largest(arrays, chosen, learned)

    def cell(image: int, head: int) -> list[Map] | None:
        if (image, head) not in chosen:
            return None
        maps, logits = arrays[f"maps_{head}"][image], arrays[f"logits_{head}"][image].astype(np.float64)
        above = np.exp(logits - logits.max())
        probabilities = expit(logits) if multi_label else above / above.sum()
        around, area = placed(maps, arrays.get(f"placement_{head}"), arrays["images"].shape[1:3])
        return [
            Map(
                role=role,
                label=classes[k],
                uri=overlay(around[k], largest),
                area=area,
                logit=float(logits[k]),
                probability=float(probabilities[k]),
                bias=float(arrays[f"bias_{head}"][image, k]),
                positive=float(maps[k].clip(0).sum()),
                boxes=_boxes(arrays, image, k if multi_label else None),
            )
            for k, role in chosen[image, head]
        ]

    named = [[classes[k] for k in own] for own in sets]
    return Maps(
        rows=[
            PictureRow(
                picture,
                str(arrays["names"][image]),
                "|".join(named[image]),
                [cell(image, head) for head in range(heads)],
                _boxes(arrays, image),
                named[image],
            )
            for image, picture in enumerate(pictures)
        ],
        largest=largest,
        additive=[bool(arrays[f"additive_{i}"]) if f"additive_{i}" in arrays else None for i in range(heads)],
        held=[arrays[f"held_{i}"].tolist() if f"held_{i}" in arrays else [] for i in range(heads)],
        gaps=[float(arrays[f"gap_{i}"]) if f"gap_{i}" in arrays else None for i in range(heads)],
        learned=learned,
    )


def _largest(
    arrays: dict[str, Array], chosen: dict[tuple[int, int], list[tuple[int, str]]], learned: Sequence[bool]
) -> float:
    """The largest contribution in the maps that are shown, of heads that have learned."""
    heads = range(len(learned))
    setting = [head for head in heads if learned[head] and (0, head) in chosen] or list(heads)
    values = [
        np.abs(arrays[f"maps_{head}"][image, k]).max()
        for (image, head), ks in chosen.items()
        if head in setting
        for k, _ in ks
    ]
    return float(max(values, default=0)) or 1.0


def _centred(arrays: dict[str, Array], heads: int) -> dict[str, Array]:
    """Maps, biases and logits of each head minus the mean of all classes: what softmax can see (docs/maps.md)."""
    names = [f"{name}_{head}" for head in range(heads) for name in ("maps", "bias", "logits")]
    return {name: arrays[name] - arrays[name].mean(1, keepdims=True) for name in names if name in arrays}


def _classes(logits: Array, labels: Sequence[int], multi_label: bool) -> list[tuple[int, str]]:
    """The true class, and the predicted one if it is another, each with its role.

    With several labels the true ones, then others that are answered, the most probable first; or the most probable one.
    """
    if not multi_label:
        predicted, (label,) = int(logits.argmax()), labels
        return [(label, "true")] if predicted == label else [(label, "true"), (predicted, "prediction")]
    order = [int(k) for k in np.argsort(-logits, kind="stable")]
    true = [(k, "found" if logits[k] >= 0 else "missed") for k in order if k in labels]
    false = [(k, "answered falsely") for k in order if logits[k] >= 0 and k not in labels]
    return (true + false)[:MOST_MAPS] or [(order[0], "not answered")]


def placed(maps: Array, stride_and_start: Array | None, size: Sequence[int]) -> tuple[Array, Area]:
    """Maps (…, h, w) with their outer cells repeated up to the edges of the picture (H, W), and the area they cover.

    `stride_and_start` (2, 2), each (y, x); None in results of earlier versions: the cells have equal shares.
    """
    placement = Placement.even(maps.shape[-2:], size)
    if stride_and_start is not None:
        stride, start = stride_and_start.tolist()
        placement = replace(placement, stride=tuple(stride), start=tuple(start))
    wider, ((top, bottom), (left, right)) = placement.covering(maps)
    across, down = 100 / size[1], 100 / size[0]
    return wider, Area(left * across, top * down, (right - left) * across, (bottom - top) * down)


def _boxes(arrays: dict[str, Array], image: int, k: int | None = None) -> list[Area]:
    """The boxes of an image, or of one of its classes, clipped to it."""
    boxes = arrays.get("boxes", np.zeros((0, 6)))
    height, width = arrays["images"].shape[1:3]
    chosen = boxes[(boxes[:, 0] == image) if k is None else (boxes[:, 0] == image) & (boxes[:, 5] == k)]
    edges = (chosen[:, 1:5] * 100 / [width, height, width, height]).clip(0, 100)
    areas = (Area(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in edges.tolist())
    return [area for area in areas if area.width and area.height]


def overlay(values: Array, largest: float) -> str:
    """A map (h, w) in logit units as an image of h × w pixels; 0 is transparent."""
    rgba = np.empty((*values.shape, 4), np.uint8)
    rgba[..., :3] = np.where((values > 0)[..., None], ABOVE, BELOW)
    rgba[..., 3] = np.round(255 * STRONGEST * opacity(values, largest, POWER))
    return _uri(Image.fromarray(rgba), "PNG")


def encode(images: Sequence[Array]) -> list[ReportPicture]:
    """Images (H, W, C) uint8, as large as MOST_BYTES allows."""
    encoded: list[ReportPicture] = []
    for side in SIDES:
        encoded = [_encode(image, side) for image in images]
        if sum(len(picture.uri) for picture in encoded) <= MOST_BYTES:
            break
    return encoded


def _encode(image: Array, side: int) -> ReportPicture:
    picture = as_picture(image)
    if max(picture.size) <= SMALL:
        return ReportPicture(_uri(picture, "PNG"), *picture.size, pixelated=True)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return ReportPicture(_uri(picture, "JPEG"), *picture.size, pixelated=False)


def _uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 82} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
