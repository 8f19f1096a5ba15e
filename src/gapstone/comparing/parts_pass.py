"""What each position of the shown images adds to a vector that heads answer from: once, for all heads and seeds."""

from collections.abc import Callable

import torch
from torch import Tensor

from gapstone.comparing.feature_cache import OWN, RowCache, StoredParts, StoredVector
from gapstone.maps.vector_parts import VectorOf, vector_parts
from gapstone.nets import Features
from gapstone.tracing.tape import SplitError


def store_parts(
    vector: StoredVector,
    features: Features,
    images: Callable[[int, int], Tensor],
    at_once: int,
    store: Callable[[Callable[[int, int], Tensor]], RowCache],
) -> StoredParts | str:
    """What they add; or, where that is not known, a sentence that says why.

    `images` makes those of some rows, of which the backbone takes `at_once`; `store` keeps what is computed.
    """
    network = VectorOf(features, vector.name == OWN, vector.back)
    try:
        like = vector_parts(network, images(0, 1))
    except SplitError as error:
        return f"heads that answer from {vector} have no maps: {error}"

    def compute(first: int, last: int) -> Tensor:
        pieces = torch.split(images(first, last), at_once)
        return torch.cat([vector_parts(network, piece).parts.cpu() for piece in pieces])

    return StoredParts(store(compute), like)
