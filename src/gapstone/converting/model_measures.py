"""What a model is before and after: right or wrong on the test images, also moved; parameters, bytes, multiply-adds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.console.formatting import format_size
from gapstone.converting.paired_difference import Right
from gapstone.fitting.image_batches import Images, View
from gapstone.images.shift import directions, largest_shift, shifted
from gapstone.models.classifier import Classifier
from gapstone.models.model_file import finite_logits
from gapstone.ragged import mixed_sizes
from gapstone.runtime.eval_mode import eval_mode
from gapstone.tracing.arithmetic import macs
from gapstone.training.loop import Rows

Change = Callable[[Tensor], Tensor]
"""Of images (n, C, H, W), before the model sees them."""

MOST_MOVED = 1000
"""Test images that are also moved: four more passes over all of them would take longer than the conversion."""


@dataclass(frozen=True)
class ModelCosts:
    """What a model costs."""

    head: str
    parameters: int
    head_parameters: int
    bytes: int
    """Of all its numbers, as the file holds them."""
    macs: int
    """Multiply-adds for one image of the usual size."""
    smallest: int
    only: tuple[int, int] | None

    @property
    def sizes(self) -> str:
        """Legal input sizes; how well it works at them is another matter."""
        return (
            f"only {format_size(self.only)}" if self.only else f"any from {format_size((self.smallest, self.smallest))}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "head": self.head,
            "parameters": self.parameters,
            "head_parameters": self.head_parameters,
            "bytes": self.bytes,
            "macs": self.macs,
            "smallest_input": self.smallest,
            "only_input": list(self.only) if self.only else None,
        }


def model_costs(
    model: nn.Module,
    trunk: Classifier,
    head: str,
    smallest: int,
    only: tuple[int, int] | None,
) -> ModelCosts:
    """Of `model`, whose features are those of `trunk`; in eval mode."""
    state = model.state_dict().values()
    image = torch.zeros(1, trunk.preprocessing.channels, *trunk.preprocessing.size, device=next(iter(state)).device)
    parameters = sum(p.numel() for p in model.parameters())
    features = sum(p.numel() for p in trunk.features.parameters())
    return ModelCosts(
        head=head,
        parameters=parameters,
        head_parameters=parameters - features,
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in state),
        macs=macs(model, image),
        smallest=smallest,
        only=only,
    )


def correct_answers(
    model: nn.Module,
    view: View,
    rows: Rows,
    labels: NDArray[np.int64],
    batch_size: int,
    tell: Callable[[int, int], None] | None = None,
    change: Change | None = None,
    whose: str = "the model",
) -> Right:
    """(len(rows),) whether each of these images is classified right; in eval mode.

    Raises: NotFiniteError, which begins with `whose`, where a logit is NaN or infinite.
    """
    answers = []
    with eval_mode(model), torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            for images in view(rows[start : start + batch_size]):
                logits = finite_logits(_logits(model, images, change), whose)
                answers.append(logits.argmax(1).cpu().numpy())
            if tell is not None:
                tell(min(start + batch_size, len(rows)), len(rows))
    answered: Right = np.concatenate(answers) == labels
    return answered


def _logits(model: nn.Module, images: Images, change: Change | None) -> Tensor:
    if not isinstance(images, Tensor):
        return mixed_sizes(model, [change(image[None])[0] for image in images] if change else images)
    logits: Tensor = model(change(images) if change else images)
    return logits


def moves(size: tuple[int, int]) -> tuple[int, list[Change]]:
    """How many pixels, and the moves in the four directions."""
    far = largest_shift(size)
    return far, [partial(shifted, down=down, right=right) for down, right in directions(far)]
