"""One pass over the images: what the new head's linear layer sees of each, and what else is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.fitting.fitting_data import Data
from gapstone.heads import Head
from gapstone.models.classifier import Classifier
from gapstone.runtime.eval_mode import eval_mode
from gapstone.swapping.swap_report import head_of

CHUNK = 64


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """A row for each image."""

    vectors: NDArray[np.float32]
    """(n, D) what the linear layer is given."""
    labels: NDArray[np.int64]
    """(n,)"""
    logits: NDArray[np.float32] | None
    """(n, K) of the old head, where asked for."""
    between: NDArray[Any] | None
    """(n, …) what the last stage is given, in half precision or, where that is too small, float32; if asked for."""

    def some(self, rows: NDArray[np.integer[Any]]) -> "HeadInputs":
        logits = None if self.logits is None else self.logits[rows]
        return HeadInputs(
            self.vectors[rows], self.labels[rows], logits, None if self.between is None else self.between[rows]
        )


def vectors(head: Head, maps: Tensor) -> Tensor:
    """Maps (N, C, h, w) → (N, D), float32: what `head.classifier`, a linear layer, is given in eval mode.

    Raises: ValueError for maps of a size that the head does not take.
    """
    head.check(maps)
    maps = maps.float()
    each = [pool(maps).flatten(1) for pool in head.pools] or [maps.flatten(1)]
    return torch.cat(each, 1) if head.recipe.join == "cat" else torch.stack(each).mean(0)


def head_inputs(model: nn.Module, head: Head, data: Data, *, logits: bool = False, between: bool = False) -> HeadInputs:
    """What `head` would see of `data` under `model`, whose own head is another; in eval mode, without gradient.

    between: also what the last stage of `model.features` is given. It is made in the pass over the images, and all the
    rest from it: the images are seen once.
    """

    def row(maps: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        made = vectors(head, maps)
        return torch.cat([made, answer(maps).float()], 1) if logits else made

    def of_images(images: Tensor) -> Tensor:
        if isinstance(model, Classifier):  # whose head may not take maps of that size: asked only where it must be
            return row(model.features(images), model.head)
        maps, answer = _watched(model, images)
        return row(maps, lambda _: answer)

    kept: NDArray[Any] | None = None
    with eval_mode(model), torch.inference_mode():
        if between:
            assert isinstance(model, Classifier)
            kept, labels = data.rows("between", model.features.before_last, torch.float16)
            weight = next(model.features.parameters())
            rows = []
            for first in range(0, len(kept), CHUNK):
                some = torch.from_numpy(np.array(kept[first : first + CHUNK])).to(weight.device, weight.dtype)
                maps = model.features.last(some)
                rows.append(row(maps, model.head).cpu())
            made = torch.cat(rows).numpy()
        else:
            made, labels = data.rows("vectors", of_images, torch.float32, [head.spec, logits])
    assert head.classifier is not None
    layer = head.classifier[-1]
    assert isinstance(layer, nn.Linear)
    width = layer.in_features
    return HeadInputs(made[:, :width], labels, made[:, width:] if logits else None, kept)


def _watched(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The maps that the model's head was given, and the logits it made of them."""
    _, head = head_of(model)
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        answer = model(images)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"the head of {type(model).__name__} ran {len(seen)} times in one forward pass; expected one.")
    return seen[0], answer
