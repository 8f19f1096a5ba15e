"""The frozen backbone of a comparison, and how it runs fastest: a few images at a time, without its batch norms."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from gapstone.comparing.trials import Trial
from gapstone.data.decoded_store import Store
from gapstone.heads import BackboneOutput, Reads
from gapstone.heads.reads import MAPS, read_backbone
from gapstone.models.classifier import Classifier
from gapstone.nets import Features, images_at_once
from gapstone.tracing.folded_norms import FoldedNorms, fold_norms
from gapstone.training.loop import Precision, Rows, read_features

PROBED = 1
"""Images on which the backbone must answer as before with its batch norms folded."""


def backbone(trial: Trial, reads: Reads = MAPS) -> Classifier:
    """The trial's frozen backbone, in eval mode, under a head that is not used."""
    model = replace(trial, head="own" if reads.own else "gap").build().eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


@torch.inference_mode()
def fold(model: Classifier, images: Tensor, reads: Reads, precision: Precision) -> FoldedNorms | None:
    """The backbone's batch norms, folded, in float32 on a CPU: 1.2 to 1.35 times as fast; in bfloat16 it is 1.08."""
    if images.device.type != "cpu" or precision != "float32":
        return None

    def values(features: Features, x: Tensor) -> list[Tensor]:
        output = read_backbone(features, x, reads)
        return [output] if isinstance(output, Tensor) else [x for x in output.values if x is not None]

    return fold_norms(
        lambda: values(model.features, images), lambda: values(deepcopy(model.features).double(), images.double())
    )


def normalised(model: Classifier, store: Store, rows: Rows) -> Tensor:
    pixels = torch.from_numpy(store.images[rows])
    device = next(model.parameters()).device
    return model.preprocessing.normalise(model.preprocessing.centre(pixels).to(device))


def read_in_pieces(
    model: Classifier, images: Tensor, precision: Precision, at_once: int, reads: Reads = MAPS
) -> BackboneOutput:
    """What heads read of a batch, of `at_once` images at a time."""
    pieces = [read_features(model, piece, precision, reads) for piece in torch.split(images, at_once)]
    return BackboneOutput.cat(pieces)


def how_many_at_once(model: Classifier, trial: Trial, size: tuple[int, int]) -> int:
    batch_size = trial.settings.batch_size
    if not trial.device.startswith("cpu"):
        return batch_size
    return images_at_once(model.features, trial.preprocessing.channels, size, batch_size)
