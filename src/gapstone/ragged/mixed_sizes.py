"""mixed_sizes(model, images): one answer per image, each as of the image alone."""

import warnings
from collections.abc import Iterator, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gapstone.console.formatting import format_size
from gapstone.ragged.batching import MOST_PIXELS, BatchPlan, buckets, joined, singly
from gapstone.ragged.extents import Unsupported
from gapstone.ragged.padded_batch import run, together
from gapstone.ragged.padding_check import alike, check_padding, different, extremes, remember_unsupported
from gapstone.runtime.eval_mode import eval_mode

How = Literal["auto", "masked", "buckets"]


def mixed_sizes(model: nn.Module, images: Sequence[Tensor], how: How = "auto") -> Tensor:
    """The model's answers for images of different sizes, (N, D): row i is what it answers to image i alone.

    Examples:
        >>> images = [torch.rand(3, 240, 180), torch.rand(3, 200, 200), torch.rand(3, 180, 240)]
        >>> gs.mixed_sizes(torchvision.models.resnet18().eval(), images).shape
        torch.Size([3, 1000])

    Nothing is resized. Images of unlike sizes are padded into batches where that is faster, and the padding is kept
    out of every layer and of the pools, so that the answers are those of single images up to rounding (1e-5 in
    float32). Where a network has a call for which that cannot be (attention over positions, say), images of one size
    go together and the others alone; batch norm without running statistics makes every image go alone.

    What is checked by running: once per model, two images padded and alone; of a model whose own code asks for the size
    of a map, in every padded batch also the smallest image and the shortest along each axis, alone. Code that takes
    another way from some side or area on is found by that; code that does so for certain sizes in between (odd ones,
    say) is found only where one of those images is such: give how="buckets" for it.

    Args:
        model: makes (N, D) of (N, C, *spatial): a classifier, or features and a pool. It runs in eval mode, without
            gradients.
        images: (C, *spatial) each, normalised, on the model's device.
        how: "auto": what should be fastest; "masked": as many together as fit into memory, refused where padding cannot
            be kept out; "buckets": only images of one size together.

    Returns:
        The answers, in the order of the images.

    Raises:
        ValueError: a network that cannot take an image; images that are not alike in type, device and channels; with
            "masked", a call from which padding cannot be kept out, by its name.
    """
    _check(images)
    rows: list[Tensor | None] = [None] * len(images)
    for number, out in outputs(model, images, how):
        if out.dim() != 1:
            raise ValueError(
                f"{type(model).__name__} answers an image of {format_size(images[number].shape[1:])} px with a "
                f"tensor of shape "
                f"{tuple(out.shape)}, not with one row of numbers: add a pool, or take gapstone.ragged.outputs"
            )
        rows[number] = out
    return torch.stack([row for row in rows if row is not None]) if rows else torch.empty(0, 0)


def outputs(model: nn.Module, images: Sequence[Tensor], how: How = "auto") -> Iterator[tuple[int, Tensor]]:
    """(number, the model's answer for that image), batch by batch, in the order of the plan.

        >>> for number, maps in outputs(features, images): ...        # (C, h, w), each of its own size

    Arguments and errors as `mixed_sizes`; the model may also make maps.
    """
    _check(images)
    with eval_mode(model):
        chosen = plan(model, images, how)
        if chosen.refused:
            warnings.warn(f"{type(model).__name__}: {chosen}", stacklevel=3)
        for batch in chosen.batches:
            given = [images[number] for number in batch.images]
            yield from zip(batch.images, _answers(model, given, how), strict=True)


def plan(model: nn.Module, images: Sequence[Tensor], how: How = "auto") -> BatchPlan:
    """How these images would go through the model, and why so.

        >>> print(plan(model, images))
        256 images in 5 batches, 5 of several sizes (19% padding, kept out): a batch costs as much as 665 pixels more…

    The first time a model is asked, two of the images go through it padded and alone, and must come out the same.
    """
    if how not in ("auto", "masked", "buckets"):
        raise ValueError(f'how={how!r}: "auto", "masked" or "buckets"')
    _check(images)
    sizes = [tuple(image.shape[1:]) for image in images]
    if any(isinstance(module, _BatchNorm) and module.running_mean is None for module in model.modules()):
        why = "batch norm without running statistics takes those of its batch, of all images in it"
        if how == "masked":
            raise Unsupported(f"{type(model).__name__}: {why}")
        return singly(sizes, why)
    if how == "buckets":
        return buckets(sizes, "asked for")
    if len(set(sizes)) < 2:
        return buckets(sizes, "all images are of one size")
    if how == "auto" and sum(sorted(map(prod, set(sizes)))[:2]) > MOST_PIXELS:
        return buckets(sizes, f"no two sizes fit into one batch of {MOST_PIXELS:,} pixels")
    with eval_mode(model):
        check = check_padding(model, images)
    if check.refused is not None:
        if how == "masked":
            raise Unsupported(f"{type(model).__name__}: padding cannot be kept out of {check.refused}")
        return buckets(sizes, f"padding cannot be kept out of {check.refused}", refused=True)
    if how == "masked":
        return joined(sizes, 1e12, 1e12, "asked for")
    watched = check.watched
    if check.reads:  # three images of each batch are asked again
        watched += 3 * sum(map(prod, sizes)) / len(sizes)
    why = f"a batch costs as much as {check.plain:,.0f} pixels more than its own, of several sizes {watched:,.0f}"
    return joined(sizes, check.plain, watched, why)


def _answers(model: nn.Module, images: Sequence[Tensor], how: How) -> list[Tensor]:
    if len({image.shape for image in images}) == 1:
        return together(model, images)
    try:
        return _masked(model, images)
    except Unsupported as refused:  # not met in the trial: its code depends on the images, or on their sizes
        if how == "masked":
            raise
        remember_unsupported(model, images, refused)
        warnings.warn(f"{len(images)} images go one by one: padding cannot be kept out of {refused}", stacklevel=4)
        return [together(model, [image])[0] for image in images]


def _masked(model: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
    answers, tracer = run(model, images)
    if tracer.reads:
        for number in extremes(images):
            alone = together(model, [images[number]])[0]
            if bool(answers[number].isfinite().all()) and not alike(answers[number], alone):
                raise different(model)
            answers[number] = alone
    # what is no number may have come from the padding: ask again, alone
    return [
        row if bool(row.isfinite().all()) else together(model, [image])[0]
        for row, image in zip(answers, images, strict=True)
    ]


def _check(images: Sequence[Tensor]) -> None:
    if not isinstance(images, Sequence | Tensor) or (isinstance(images, Tensor) and images.dim() < 3):
        given = f"a tensor {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ValueError(f"images of mixed sizes are a list of tensors (C, H, W), normalised; got {given}")
    for image in images:
        if not isinstance(image, Tensor):
            raise ValueError(f"images of mixed sizes are tensors (C, H, W), normalised; got a {type(image).__name__}")
        if image.dim() < 2 or not image.is_floating_point() or image.numel() == 0:
            given = f"{image.dtype} {tuple(image.shape)}"
            raise ValueError(f"images of mixed sizes are tensors (C, H, W) of numbers, normalised; got {given}")
        if _kind(image) != _kind(images[0]):
            given = " and ".join(f"{x.dtype} {tuple(x.shape)} on {x.device}" for x in (images[0], image))
            raise ValueError(
                f"images of mixed sizes are tensors (C, H, W) of as many channels, of one type and on one device; "
                f"got {given}"
            )


def _kind(image: Tensor) -> object:
    return image.dim(), len(image), image.dtype, image.device
