"""One pass over the images: the inputs of the new head's linear layer, and of the last stage where needed."""

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

CHUNK = 64  # images in one forward pass of the last stage


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """The inputs of the parts that are fitted, one row per image."""

    vectors: NDArray[np.float32]
    """(n, D) inputs of the linear layer."""
    labels: NDArray[Any]
    """(n,) int64, or (n, K) bool of several labels per image."""
    logits: NDArray[np.float32] | None
    """(n, K) of the old head, if requested."""
    stage_inputs: NDArray[Any] | None
    """(n, …) inputs of the last stage, in half precision, or in float32 where that overflows; if requested."""

    def take(self, rows: NDArray[np.integer[Any]]) -> "HeadInputs":
        """The same of some images."""
        return HeadInputs(
            self.vectors[rows],
            self.labels[rows],
            None if self.logits is None else self.logits[rows],
            None if self.stage_inputs is None else self.stage_inputs[rows],
        )


def linear_layer(head: Head) -> nn.Linear:
    """The one linear layer of a head that can be fitted."""
    assert head.classifier is not None
    layer = head.classifier[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def head_inputs(
    model: nn.Module, head: Head, data: Data, *, logits: bool = False, stage_inputs: bool = False
) -> HeadInputs:
    """Compute the inputs of `head`, which is to be fitted, for the images of `data`, by the features of `model`.

    In eval mode, without gradients. `logits`: also those of the model's own head. `stage_inputs`: also the inputs of
    the last stage of `model.features`; the pass over the images then computes those alone, and everything else is
    computed from them.
    """

    def row(maps: Tensor, old_head: Callable[[Tensor], Tensor]) -> Tensor:
        head.check(maps)
        pooled = head.vectors(maps.float())
        return torch.cat([pooled, old_head(maps).float()], 1) if logits else pooled

    def row_of_images(images: Tensor) -> Tensor:
        if isinstance(model, Classifier):  # its head may not take maps of that size: it runs only for logits
            return row(model.features(images), model.head)
        maps, own_logits = _maps_and_logits(model, images)
        return row(maps, lambda _: own_logits)

    stages: NDArray[Any] | None = None
    with eval_mode(model), torch.inference_mode():
        if stage_inputs:
            assert isinstance(model, Classifier)
            stages, labels = data.rows("between", model.features.before_last, torch.float16)
            weight = next(model.features.parameters())
            parts = []
            for first in range(0, len(stages), CHUNK):
                chunk = torch.from_numpy(np.array(stages[first : first + CHUNK])).to(weight.device, weight.dtype)
                parts.append(row(model.features.last(chunk, model.preprocessing.size), model.head).cpu())
            rows = torch.cat(parts).numpy()
        else:
            rows, labels = data.rows("vectors", row_of_images, torch.float32, [head.spec, logits])
    width = linear_layer(head).in_features
    return HeadInputs(rows[:, :width], labels, rows[:, width:] if logits else None, stages)


def _maps_and_logits(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The maps that the model's head takes, and the logits it returns."""
    _, head = head_of(model)
    inputs: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        logits = model(images)
    finally:
        handle.remove()
    if len(inputs) != 1:
        raise ValueError(
            f"the head of {type(model).__name__} ran {len(inputs)} times in one forward pass; expected one."
        )
    return inputs[0], logits
