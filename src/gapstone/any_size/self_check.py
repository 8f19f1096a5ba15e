"""Before a long run: a small image of the same remainders, whole and in bands, must give the same."""

import torch
from torch import nn

from gapstone.runtime.eval_mode import eval_mode
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_pass import RowStream, play_bands
from gapstone.streaming.row_recorder import record_rows

SMALL = 96
"""px: the least side of the image that is tried, where the image itself has as many."""
LARGEST = 768
BAND = 17
"""Rows of a band: no stride divides it."""
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of a logit, as a part of the largest logit."""


def self_check(network: nn.Module, channels: int, size: tuple[int, int], stride: int, device: torch.device) -> float:
    """The largest difference, as a part of the largest logit. Raises StreamError where it is more than rounding."""
    side = SMALL
    while True:
        small = (alike(size[0], side, stride), alike(size[1], side, stride))
        try:
            recording = record_rows(network, channels, small)
            break
        except StreamError:  # the network takes no image as small as that
            if side >= LARGEST or small == size:
                raise
            side *= 2
    image = torch.randn(1, channels, *small, generator=torch.Generator().manual_seed(0))
    image = image.to(device, recording.slots[0].dtype)
    stream = RowStream(recording, device)
    while stream.logits is None:
        play_bands(stream, (image[:, :, top : top + BAND] for top in range(0, small[0], BAND)))
    with eval_mode(network), torch.no_grad():
        whole = network(image)
    whole = getattr(whole, "logits", whole)
    error = float((stream.logits - whole).abs().max() / whole.abs().max().clamp(min=1e-12))
    if not error <= TOLERANCE.get(image.dtype, 1e-4):
        raise StreamError(
            f"{type(network).__name__}, row by row, differs from itself on an image of {small[0]}×{small[1]} px by "
            f"{error:.1e} of its largest logit, which is no rounding: it is not streamed. Please report the network"
        )
    return error


def alike(side: int, least: int, stride: int) -> int:
    """A length with the remainder of `side` by the stride, at least `least`; `side` itself where it is no longer.

    >>> alike(16384, 96, 32), alike(10001, 96, 32), alike(50, 96, 32)
    (96, 113, 50)
    """
    return min(side, least + (side - least) % stride) if side > least else side
