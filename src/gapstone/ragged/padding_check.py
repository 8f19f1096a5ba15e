"""Whether images of different sizes can share a batch of a network, and what such a batch costs: tried once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gapstone.ragged.extents import Unsupported
from gapstone.ragged.padded_batch import PaddedBatchTracer, run, together


@dataclass(frozen=True)
class PaddingCheck:
    refused: str | None
    """Why images of different sizes cannot share a batch."""
    plain: float = 0.0
    """What a batch costs beyond its pixels, in pixels."""
    watched: float = 0.0
    """The same of a batch of several sizes."""
    reads: bool = False
    """It asks for sizes: some images of each batch are asked again, alone."""


_checks: WeakKeyDictionary[nn.Module, dict[object, PaddingCheck]] = WeakKeyDictionary()


def check_padding(model: nn.Module, images: Sequence[Tensor]) -> PaddingCheck:
    """Of the first images that it was asked with."""
    known = _checks.setdefault(model, {})
    if _kind(images) not in known:
        known[_kind(images)] = _check(model, images)
    return known[_kind(images)]


def remember_unsupported(model: nn.Module, images: Sequence[Tensor], why: Unsupported) -> None:
    """A later batch was refused: from now on it goes by size."""
    _checks.setdefault(model, {})[_kind(images)] = PaddingCheck(str(why))


def _kind(images: Sequence[Tensor]) -> object:
    return images[0].dtype, images[0].device, images[0].dim()


def extremes(images: Sequence[Tensor]) -> list[int]:
    """The numbers of the images that are least like the padded batch: the shortest along each axis, and the smallest.

    Code that takes another way from some height, width or area on takes it for one of these too, if for any.
    """
    axes = range(1, images[0].dim())
    return sorted({
        min(range(len(images)), key=lambda number: images[number].numel()),
        *(min(range(len(images)), key=lambda number: images[number].shape[axis]) for axis in axes),
    })  # fmt: skip


def _check(model: nn.Module, images: Sequence[Tensor]) -> PaddingCheck:
    """Two small images of different sizes, padded and alone."""
    small = min(images, key=lambda image: image.numel())
    others = [image for image in images if image.shape != small.shape]
    # one that is longer along every axis, if there is: each axis has padding then
    longer = [o for o in others if all(a > b for a, b in zip(o.shape[1:], small.shape[1:], strict=True))]
    pair = [small, min(longer or others, key=lambda image: image.numel())]
    alone = [together(model, [image])[0] for image in pair]
    try:
        answers, tracer = run(model, pair)
    except Unsupported as refused:
        return PaddingCheck(str(refused))
    for row, expected in zip(answers, alone, strict=True):
        if not alike(row, expected):
            return PaddingCheck(str(different(model)))
    return PaddingCheck(None, *_overheads(model, tracer, pair), tracer.reads)


def different(model: nn.Module) -> Unsupported:
    return Unsupported(
        f"{type(model).__name__}: images answered differently padded and alone (its code depends on the map's size, or "
        f"calls something that cannot be watched)"
    )


def alike(a: Tensor, b: Tensor) -> bool:
    """Far above rounding, far below anything seen to be wrong."""
    if a.shape != b.shape:
        return False
    close = {torch.float64: 1e-8, torch.float32: 1e-4}.get(a.dtype, 0.03)
    return bool((a - b).abs().max() <= close * b.abs().max().clamp(min=1e-30))


def _overheads(model: nn.Module, tracer: PaddedBatchTracer, images: Sequence[Tensor]) -> tuple[float, float]:
    """In pixels, from the multiply-adds that take as long on a CPU: 40 for reading and laying out a weight, 0.06
    million for a call and its layer, 0.8 million for one that is watched.
    """
    lengths = map(max, zip(*(image.shape[1:] for image in images), strict=True))
    per_pixel = max(1.0, tracer.maps.products / prod(lengths))
    weights = 40 * sum(p.numel() for p in model.parameters()) / per_pixel
    # a GPU waits for work: as many together as fit
    more = 1.0 if images[0].device.type == "cpu" else 100.0
    return more * (weights + 6e4 * tracer.calls / per_pixel), more * (weights + 8e5 * tracer.calls / per_pixel)
