"""A head of the user's own: any nn.Module that makes logits (N, K) of the map (N, C, *cells)."""

import torch
from torch import Tensor, nn

from gapstone.runtime.eval_mode import eval_mode
from gapstone.swapping.last_map import LocatedMap

WAY = "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear({}, {}))"


def custom_head(head: nn.Module, found: LocatedMap, classes: int | None) -> int:
    """How many classes a head tells apart: it is moved to the map's device and type, and asked about it once.

    Raises: ValueError for one that does not take the map, gives no logits (N, K), or others than `classes`.
    """
    features = found.features
    head.to(features.device, features.dtype)
    says = f"swap_head: the head {type(head).__name__}, given the map {tuple(features.shape)},"
    takes = (
        f"a head takes the map (N, C, h, w) and gives logits (N, classes), such as "
        f"{WAY.format(features.shape[1], classes or 10)}"
    )
    try:
        with eval_mode(head), torch.no_grad():
            logits = head(features)
    except Exception as error:  # whatever a user's module raises at what it does not take
        raise ValueError(f"{says} failed ({type(error).__name__}: {error}); {takes}") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(features):
        what = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"{says} gave {what}; {takes}")
    if classes is not None and logits.shape[1] != classes:
        raise ValueError(f"{says} gave {logits.shape[1]} logits, and num_classes={classes}: leave num_classes out")
    return int(logits.shape[1])
