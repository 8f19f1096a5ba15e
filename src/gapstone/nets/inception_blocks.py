"""What the Inception networks are made of: convolution + batch norm + ReLU, and branches side by side."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PerAxis = int | tuple[int, int]


@final
class Conv(nn.Module):
    """relu(bn(conv(x))), its parameters named `conv` and `bn` as in the published checkpoints.

    >>> Conv(64, 96, (1, 7), padding=(0, 3))(torch.rand(1, 64, 17, 17)).shape
    torch.Size([1, 96, 17, 17])
    """

    def __init__(self, c_in: int, c_out: int, kernel: PerAxis, stride: int = 1, padding: PerAxis = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)  # what the published weights were trained with; torch's own is 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def chain(c_in: int, *steps: tuple[int, PerAxis], last: tuple[int, int, int] | None = None) -> nn.Sequential:
    """Convolutions one after the other, (channels, kernel) each, that keep the size of the map.

    last: one more, without padding: (channels, kernel, stride).

    >>> chain(64, (96, 1), (128, (1, 7)))(torch.rand(1, 64, 17, 17)).shape
    torch.Size([1, 128, 17, 17])
    """
    layers: list[nn.Module] = []
    for channels, kernel in steps:
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        layers.append(Conv(c_in, channels, kernel, padding=(high // 2, wide // 2)))
        c_in = channels
    if last is not None:
        layers.append(Conv(c_in, *last))
    return nn.Sequential(*layers)


@final
class Beside(nn.Module):
    """Branches of one input, their maps joined along the channels; each is kept under the name it is given.

    >>> Beside(branch0=Conv(64, 96, 1), branch1=Conv(64, 32, 3, padding=1))(torch.rand(1, 64, 9, 9)).shape
    torch.Size([1, 128, 9, 9])
    """

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)
