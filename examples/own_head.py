"""Is a head of your own better than global average pooling? python examples/own_head.py photos/"""

import sys

from torch import Tensor, nn

import gapstone as gs


class Gated(nn.Module):
    """The mean of the places that a gate opens for."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.gate, self.out = nn.Conv2d(channels, 1, 1), nn.Linear(channels, classes)

    def forward(self, maps: Tensor) -> Tensor:  # (N, C, h, w) → (N, classes)
        gate = self.gate(maps).sigmoid()
        logits: Tensor = self.out((maps * gate).sum((2, 3)) / gate.sum((2, 3)))
        return logits


gated = {"gated": lambda channels, classes, size: Gated(channels, classes)}
result = gs.compare(sys.argv[1], heads=["gap", gated, "fc"], out="runs/own-head")
print(result)
print(result.pairs["gated"])
result.maps(4).savefig("runs/own-head/maps.png", dpi=150)
