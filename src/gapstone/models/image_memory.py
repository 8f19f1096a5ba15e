"""How much memory one image may need in a network."""

import os

from gapstone.runtime.environment import memory

LARGEST_IMAGE = 1 << 30
"""Bytes that one image may need in a step of the network. $GAPSTONE_IMAGE_MEMORY (GB) replaces it; the limit is never
more than half of the machine's memory."""


def check_memory(backbone: str, size: tuple[int, int], needed: int) -> None:
    """Raises ValueError if a single image of that size needs more memory than is allowed."""
    variable = os.environ.get("GAPSTONE_IMAGE_MEMORY", "")
    try:
        allowed = int(float(variable) * (1 << 30)) if variable else LARGEST_IMAGE
    except (ValueError, OverflowError):
        raise ValueError(f"GAPSTONE_IMAGE_MEMORY={variable!r}: expected a number of GB, such as 8") from None
    allowed = min(allowed, memory() // 2)
    if needed > allowed:
        raise ValueError(
            f"an image of {size[0]}×{size[1]} px needs at least {needed / (1 << 30):.1f} GB in {backbone}, and "
            f"{allowed / (1 << 30):.1f} GB are allowed: take smaller images, or set GAPSTONE_IMAGE_MEMORY to more GB "
            f"(at most half of this machine's {memory() / (1 << 30):.0f} GB)"
        )
