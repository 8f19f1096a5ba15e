"""Checks a head of the user's own: any nn.Module from the map (N, C, *cells) to logits (N, K)."""

import torch
from torch import Tensor, nn

from gapstone.runtime.eval_mode import eval_mode
from gapstone.swapping.last_map import LocatedMap

EXAMPLE = "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear({}, {}))"


def custom_head(head: nn.Module, located: LocatedMap, classes: int | None) -> int:
    """Move a head to the device and type of the map, run it once, and return its number of classes.

    Raises:
        ValueError: If it does not take the map, or does not return logits (N, `classes`).
    """
    features = located.features
    head.to(features.device, features.dtype)
    failure = f"swap_head: the head {type(head).__name__}, given the map {tuple(features.shape)},"
    expectation = (
        f"a head takes the map (N, C, h, w) and gives logits (N, classes), such as "
        f"{EXAMPLE.format(features.shape[1], classes or 10)}"
    )
    try:
        with eval_mode(head), torch.no_grad():
            logits = head(features)
    except Exception as error:  # a user's module may raise anything
        raise ValueError(f"{failure} failed ({type(error).__name__}: {error}); {expectation}") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(features):
        received = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"{failure} gave {received}; {expectation}")
    if classes is not None and logits.shape[1] != classes:
        raise ValueError(f"{failure} gave {logits.shape[1]} logits, and num_classes={classes}: leave num_classes out")
    return int(logits.shape[1])
