"""Deletion and insertion (RISE, arXiv 1806.07421): how the output changes as the highest pixels of a map go or come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Fill = float | Literal["blur"] | Tensor


@dataclass(frozen=True)
class Curve:
    """The output of the model after each step."""

    fractions: NDArray[np.float64]
    """(steps + 1,): share of the pixels that were deleted or inserted, from 0 to 1."""
    answers: NDArray[np.float64]
    """(steps + 1,): probability or logit of the target class."""

    @property
    def auc(self) -> float:
        """Area under the curve of answers over fractions, by the trapezoid rule."""
        return float((np.diff(self.fractions) * (self.answers[1:] + self.answers[:-1]) / 2).sum())


def deletion(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    map: ArrayLike,
    target: int,
    steps: int = 100,
    fill: Fill = 0.0,
    answer: Literal["probability", "logit"] = "probability",
    batch: int = 32,
    multi_label: bool = False,
) -> Curve:
    """Replace pixels in descending order of the map. With a good map the output falls at once: a low area is good.

        >>> deletion(model, image, map, target=3).auc                 # probabilities: 0 is best
        >>> deletion(model, image, map, target=3, fill="blur", answer="logit")

    Args:
        model: (N, C, H, W) → (N, K) logits; its mode is not changed, and it runs without gradients.
        image: (C, H, W), as the model takes it.
        map: (H, W), signed. Equal values are taken row by row from the left, so the order is reproducible.
        target: The class whose output is recorded.
        steps: Points of the curve after its start.
        fill: What replaces a pixel: a number (0 is the mean colour of normalised images), "blur" (of RISE: a Gaussian
            of 11 × 11 pixels, sigma 5), or a whole picture (C, H, W).
        answer: The softmax probability, or the logit, which does not saturate.
        batch: Images per forward pass.
        multi_label: The probability is the sigmoid of the class's own logit.

    Raises:
        ValueError: If an argument is invalid, or does not fit the others.
    """
    return _curve(model, _filled(image, fill), image, map, target, steps, answer, batch, multi_label)


def insertion(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    map: ArrayLike,
    target: int,
    steps: int = 100,
    fill: Fill = "blur",
    answer: Literal["probability", "logit"] = "probability",
    batch: int = 32,
    multi_label: bool = False,
) -> Curve:
    """Start from `fill`, and insert pixels of the image in descending order of the map. A high area is good.

    Args and errors as for `deletion`.
    """
    return _curve(model, image, _filled(image, fill), map, target, steps, answer, batch, multi_label)


def _curve(
    model: Callable[[Tensor], Tensor],
    new: Tensor,
    old: Tensor,
    map: ArrayLike,
    target: int,
    steps: int,
    answer: str,
    batch: int,
    multi_label: bool,
) -> Curve:
    """Replace pixels of `old` by those of `new` in descending order of the map."""
    values = np.asarray(map)
    if values.shape != tuple(old.shape[1:]) or not values.size:
        raise ValueError(f"the map is {values.shape} and the image {tuple(old.shape)}: place the map in it first")
    if not np.isfinite(values).all():
        raise ValueError("the map holds NaN or infinity: there is no order of its pixels")
    if steps < 1 or batch < 1:
        raise ValueError(f"steps={steps}, batch={batch}: at least one each")
    if answer not in ("probability", "logit"):
        raise ValueError(f'answer={answer!r}: "probability" or "logit"')
    ranks = np.empty(values.size, np.int64)
    ranks[np.argsort(-values.astype(np.float64), axis=None, kind="stable")] = np.arange(values.size)
    rank = torch.from_numpy(ranks.reshape(values.shape)).to(old.device)
    counts = np.round(np.linspace(0, values.size, steps + 1)).astype(np.int64)
    answers = []
    with torch.no_grad():
        for first in range(0, steps + 1, batch):
            shown = torch.from_numpy(counts[first : first + batch]).to(old.device)
            logits = model(torch.where(rank < shown[:, None, None, None], new, old))
            if logits.ndim != 2 or len(logits) != len(shown) or not 0 <= target < logits.shape[1]:
                raise ValueError(f"target {target} in the model's answer {tuple(logits.shape)} to {len(shown)} images")
            outputs = logits.double()
            if answer == "probability":
                outputs = outputs.sigmoid() if multi_label else outputs.softmax(1)
            answers.append(outputs[:, target].cpu())
    return Curve(counts / values.size, torch.cat(answers).numpy())


def _filled(image: Tensor, fill: Fill) -> Tensor:
    if image.ndim != 3:
        raise ValueError(f"one image is (C, H, W); this is {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"the image is {image.dtype}: give it as the model is given it, in floating point")
    if isinstance(fill, Tensor):
        if fill.shape != image.shape:
            raise ValueError(f"fill is {tuple(fill.shape)} and the image {tuple(image.shape)}")
        return fill.to(image)
    if isinstance(fill, str):
        if fill != "blur":
            raise ValueError(f'fill={fill!r}: a number, "blur" or a tensor like the image')
        return _blurred(image)
    return torch.full_like(image, fill)


def _blurred(image: Tensor) -> Tensor:
    """Blur an image with repeated borders: the zeros of RISE would darken the edges."""
    weights = torch.exp(-((torch.arange(11, dtype=image.dtype, device=image.device) - 5) ** 2) / (2 * 5.0**2))
    weights = (weights / weights.sum()).expand(len(image), 1, -1)
    down, right = weights[:, :, :, None], weights[:, :, None, :]
    padded = F.pad(image[None], (5, 5, 5, 5), mode="replicate")
    return F.conv2d(F.conv2d(padded, down, groups=len(image)), right, groups=len(image))[0]
