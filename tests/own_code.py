"""Networks, heads and data such as users bring along.

Each process of a trial imports their module, so this one imports nothing that takes seconds.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 8, 3)
        )
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class Gated(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.gate, self.out = nn.Conv2d(channels, 1, 1), nn.Linear(channels, classes)

    def forward(self, x):
        return self.out((x * self.gate(x).sigmoid()).mean((2, 3)))


class DropoutNet(nn.Module):
    """With dropout, whose random numbers must not depend on those of transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(4, 8, 3))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.body(x).mean((2, 3)))
        return logits


class Shifted(torch.utils.data.Dataset[Any]):
    """A Dataset with a random transform of its own."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], most: int) -> None:
        self.images, self.labels, self.most = images, labels, most

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, k: int) -> Any:
        return np.roll(self.images[k], int(torch.randint(-self.most, self.most + 1, ())), 1), int(self.labels[k])
