"""Measurements of a model: correct answers on test images, also moved ones; parameters, bytes, multiply-adds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.console.formatting import format_size
from gapstone.converting.before_and_after import Correct
from gapstone.fitting.image_batches import Images, View
from gapstone.images.shift import directions, largest_shift, shifted
from gapstone.models.classifier import Classifier
from gapstone.models.model_file import finite_logits
from gapstone.ragged import mixed_sizes
from gapstone.runtime.eval_mode import eval_mode
from gapstone.statistics.labels import Labels, all_right, answers_of_logits, is_multi_label
from gapstone.tracing.arithmetic import macs
from gapstone.training.loop import Rows

Change = Callable[[Tensor], Tensor]
"""Changes images (n, C, H, W) before the model sees them."""

MOST_MOVED = 1000
"""Largest number of test images that are also moved: four passes over all would take longer than the conversion."""


@dataclass(frozen=True)
class ModelCosts:
    """Size and cost of a model, and the input sizes that it takes."""

    head: str
    parameters: int
    head_parameters: int
    bytes: int
    """Of all parameters and buffers, as the file holds them."""
    macs: int
    """Multiply-adds for one image of the size of its preprocessing."""
    smallest_input: int
    """Smallest side of an image that it takes, in pixels."""
    only_input: tuple[int, int] | None
    """(H, W), if it takes one size only."""

    @property
    def sizes(self) -> str:
        """The input sizes it takes; its accuracy there may be low."""
        if self.only_input:
            return f"only {format_size(self.only_input)}"
        return f"any from {format_size((self.smallest_input, self.smallest_input))}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"only_input": list(self.only_input) if self.only_input else None}


def model_costs(
    model: nn.Module, trunk: Classifier, head: str, smallest: int, only_size: tuple[int, int] | None
) -> ModelCosts:
    """The costs of `model`, in eval mode, whose features are those of `trunk`."""
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
        smallest_input=smallest,
        only_input=only_size,
    )


def correct_answers(
    model: nn.Module,
    view: View,
    rows: Rows,
    labels: Labels,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
    change: Change | None = None,
    whose: str = "the model",
) -> Correct:
    """Whether each of the images is classified correctly, in eval mode: (len(rows),). With several labels per image:
    whether it gets all of them and no other.

    Raises NotFiniteError, whose message begins with `whose`, if a logit is NaN or infinite.
    """
    predictions: list[NDArray[Any]] = []
    with eval_mode(model), torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            for images in view(rows[start : start + batch_size]):
                logits = finite_logits(_logits(model, images, change), whose)
                predictions.append(answers_of_logits(logits.float().cpu().numpy(), is_multi_label(labels)))
            if progress is not None:
                progress(min(start + batch_size, len(rows)), len(rows))
    return all_right(labels, np.concatenate(predictions))


def _logits(model: nn.Module, images: Images, change: Change | None) -> Tensor:
    if not isinstance(images, Tensor):
        return mixed_sizes(model, [change(image[None])[0] for image in images] if change else images)
    logits: Tensor = model(change(images) if change else images)
    return logits


def moves(size: tuple[int, int]) -> tuple[int, list[Change]]:
    """The distance in pixels for images of `size`, and the moves by it in the four directions."""
    distance = largest_shift(size)
    return distance, [partial(shifted, down=down, right=right) for down, right in directions(distance)]
