"""mixed_sizes(model, images): one answer per image, each as of the image alone."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gapstone.mixed.masked import Masked, answer, padded, run
from gapstone.mixed.planning import MOST_PIXELS, Plan, buckets, joined
from gapstone.mixed.valid import Refused

How = Literal["auto", "masked", "buckets"]


def mixed_sizes(model: nn.Module, images: Sequence[Tensor], how: How = "auto") -> Tensor:
    """The model's answers for images of different sizes, (N, D): row i is what it answers to image i alone.

        >>> images = [torch.rand(3, 240, 180), torch.rand(3, 200, 200), torch.rand(3, 180, 240)]
        >>> gs.mixed_sizes(torchvision.models.resnet18().eval(), images).shape
        torch.Size([3, 1000])

    Nothing is resized. Images of unlike sizes are padded into batches where that is faster, and the padding is kept
    out of every layer and of the pools, so that the answers are those of single images up to rounding (1e-5 in
    float32). Where a network has a call for which that cannot be (attention over positions, say), images of one size
    go together and the others alone; `plan` says which way is taken, and why.

    Args:
        model: makes (N, D) of (N, C, *spatial): a classifier, or features and a pool. It runs in eval mode, without
            gradients.
        images: (C, *spatial) each, normalised, on the model's device.
        how: "auto": what should be fastest; "masked": as many together as fit into memory, refused where padding cannot
            be kept out; "buckets": only images of one size together.

    Raises: ValueError where a network cannot take an image, or with "masked" the name of the call that is in the way.
    """
    rows: list[Tensor | None] = [None] * len(images)
    for number, out in outputs(model, images, how):
        if out.dim() != 1:
            raise ValueError(
                f"{type(model).__name__} answers an image of {_by(images[number].shape[1:])} with a tensor of shape "
                f"{tuple(out.shape)}, not with one row of numbers: add a pool, or take gapstone.mixed.outputs"
            )
        rows[number] = out
    return torch.stack([row for row in rows if row is not None]) if rows else torch.empty(0, 0)


def outputs(model: nn.Module, images: Sequence[Tensor], how: How = "auto") -> Iterator[tuple[int, Tensor]]:
    """(number, the model's answer for that image), batch by batch, in the order of the plan.

        >>> for number, maps in outputs(features, images): ...        # (C, h, w), each of its own size

    Arguments and errors as `mixed_sizes`; the model may also make maps.
    """
    _check(images)
    with _quiet(model):
        chosen = plan(model, images, how)
        if chosen.refused:
            warnings.warn(f"{type(model).__name__}: {chosen}", stacklevel=3)
        for batch in chosen.batches:
            given = [images[number] for number in batch.images]
            yield from zip(batch.images, _answers(model, given, how), strict=True)


def plan(model: nn.Module, images: Sequence[Tensor], how: How = "auto") -> Plan:
    """How these images would go through the model, and why so.

        >>> print(plan(model, images))
        256 images in 5 batches, 5 of several sizes (19% padding, kept out): a batch costs as much as 665 pixels more…

    The first time a model is asked, two of the images go through it padded and alone, and must come out the same.
    """
    if how not in ("auto", "masked", "buckets"):
        raise ValueError(f'how={how!r}: "auto", "masked" or "buckets"')
    _check(images)
    sizes = [tuple(image.shape[1:]) for image in images]
    if how == "buckets":
        return buckets(sizes, "asked for")
    if len(set(sizes)) < 2:
        return buckets(sizes, "all images are of one size")
    if how == "auto" and sum(sorted(map(prod, set(sizes)))[:2]) > MOST_PIXELS:
        return buckets(sizes, f"no two sizes fit into one batch of {MOST_PIXELS:,} pixels")
    with _quiet(model):
        trial = _tried(model, images)
    if trial.refused is not None:
        if how == "masked":
            raise Refused(f"{type(model).__name__}: padding cannot be kept out of {trial.refused}")
        return buckets(sizes, f"padding cannot be kept out of {trial.refused}", refused=True)
    if how == "masked":
        return joined(sizes, 1e12, 1e12, "asked for")
    why = f"a batch costs as much as {trial.plain:,.0f} pixels more than its own, of several sizes {trial.watched:,.0f}"
    return joined(sizes, trial.plain, trial.watched, why)


def _answers(model: nn.Module, images: Sequence[Tensor], how: How) -> list[Tensor]:
    if len({image.shape for image in images}) == 1:
        return together(model, images)
    try:
        answers, _ = run(model, images)
    except Refused as refused:  # not met in the trial: its code depends on the images
        if how == "masked":
            raise
        warnings.warn(f"{len(images)} images go one by one: padding cannot be kept out of {refused}", stacklevel=4)
        return [together(model, [image])[0] for image in images]
    # what is no number may have come from the padding: ask again, alone
    return [
        row if bool(row.isfinite().all()) else together(model, [image])[0]
        for row, image in zip(answers, images, strict=True)
    ]


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards each module's own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _check(images: Sequence[Tensor]) -> None:
    for image in images:
        alike = isinstance(image, Tensor) and image.dim() == images[0].dim() and len(image) == len(images[0])
        if not alike or image.dim() < 2 or not image.is_floating_point() or image.numel() == 0:
            given = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"images of mixed sizes are tensors (C, H, W) of as many channels, normalised; got {given}"
            )


def _by(size: Sequence[int]) -> str:
    return "×".join(map(str, size)) + " px"
