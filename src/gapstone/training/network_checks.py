"""What is checked of a network before it is trained: that its numbers are finite, and that its images may vary."""

from collections.abc import Callable
from pathlib import Path

import torch

from gapstone import nets
from gapstone.console.formatting import display
from gapstone.data.sources import DrawsImages
from gapstone.training.choose_backbone import SMALL, BackboneChoice


def check_drawn(drawn: DrawsImages, choice: BackboneChoice, log: Callable[[str], None]) -> None:
    """Raises ValueError if the backbone is frozen: it sees each image once."""
    if choice.freeze:
        raise ValueError(
            f"random transforms draw training images anew in each epoch, and {choice.backbone} is frozen here: it sees "
            "each image once, as it is. Train it (--finetune, --from-scratch, or a network of your own), or give the "
            "images without them."
        )
    if drawn.unknown is not None:
        log(
            "Trials cannot be used again after a stop: the random transforms could not be told from edited ones, since "
            f"they hold {display(drawn.unknown)}."
        )


@torch.inference_mode()
def check_finite(features: nets.Features, channels: int, weights: Path | None) -> None:
    """Raises ValueError if the feature maps are not finite, as finite weights can overflow.

    Otherwise every trial would fail in its first epoch.
    """
    side = features.fixed or (max(features.smallest, SMALL),) * 2
    noise = torch.randn(1, channels, *side, generator=torch.Generator().manual_seed(0))
    features.eval()
    maps: torch.Tensor = features(noise)
    features.train()
    if not bool(torch.isfinite(maps).all()):
        raise ValueError(
            f"--weights {display(weights or '')}: its weights are finite, but the maps they make are NaN or infinite: "
            f"its numbers overflow. Take another file."
        )
