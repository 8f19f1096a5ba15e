"""Inception v4: a stem, then 4 blocks at 35×35, 7 at 17×17, 3 at 8×8, between them two that halve the maps.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
arXiv 1602.07261, figures 3 to 9. Names of parameters are timm's, and those of the checkpoints before it, so its weights
load here. Convolutions of 3×3 without padding eat the maps' border, as in the paper.
"""

from typing import final

import torch
from torch import Tensor, nn

from gapstone.nets.features import Features, initialise
from gapstone.nets.inception_blocks import Beside, Conv, chain
from gapstone.pooling import Pool
from gapstone.regions import Window


@final
class InceptionV4(Features):
    """Up to the last 8×8 maps; the paper's head is `gap:dropout=0.2`.

    >>> features = build("inception_v4")                    # 41,142,816 parameters, 42,679,816 with 1000 classes
    >>> features(torch.rand(1, 3, 299, 299)).shape
    torch.Size([1, 1536, 8, 8])
    """

    channels, stride, smallest = 1536, 32, 75
    last_stage = ("features.18", "features.19", "features.20", "features.21")

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.features = nn.Sequential(
            *_stem(in_channels),  # 0 to 5: 384 channels, 35×35 of 299 px
            *(_a() for _ in range(4)),  # 6 to 9
            _reduction_a(),  # 10: 1024, 17×17
            *(_b() for _ in range(7)),  # 11 to 17
            _reduction_b(),  # 18: 1536, 8×8
            *(InceptionC() for _ in range(3)),  # 19 to 21
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        maps: Tensor = self.features(x)
        return maps


def _stem(in_channels: int) -> list[nn.Module]:
    """Figure 3."""
    return [
        Conv(in_channels, 32, 3, stride=2),
        Conv(32, 32, 3),
        Conv(32, 64, 3, padding=1),
        Beside(maxpool=_halve(), conv=Conv(64, 96, 3, stride=2)),
        Beside(
            branch0=chain(160, (64, 1), last=(96, 3, 1)),
            branch1=chain(160, (64, 1), (64, (1, 7)), (64, (7, 1)), last=(96, 3, 1)),
        ),
        Beside(conv=Conv(192, 192, 3, stride=2), maxpool=_halve()),
    ]


def _a() -> Beside:
    """Figure 4."""
    return Beside(
        branch0=Conv(384, 96, 1),
        branch1=chain(384, (64, 1), (96, 3)),
        branch2=chain(384, (64, 1), (96, 3), (96, 3)),
        branch3=nn.Sequential(_average(), Conv(384, 96, 1)),
    )


def _reduction_a() -> Beside:
    """Figure 7, with k, l, m, n = 192, 224, 256, 384 of table 1."""
    return Beside(
        branch0=Conv(384, 384, 3, stride=2),
        branch1=chain(384, (192, 1), (224, 3), last=(256, 3, 2)),
        branch2=_halve(),
    )


def _b() -> Beside:
    """Figure 5."""
    return Beside(
        branch0=Conv(1024, 384, 1),
        branch1=chain(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
        branch2=chain(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
        branch3=nn.Sequential(_average(), Conv(1024, 128, 1)),
    )


def _reduction_b() -> Beside:
    """Figure 8."""
    return Beside(
        branch0=chain(1024, (192, 1), last=(192, 3, 2)),
        branch1=chain(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), last=(320, 3, 2)),
        branch2=_halve(),
    )


@final
class InceptionC(nn.Module):
    """Figure 6: two of the branches fork at their end."""

    def __init__(self) -> None:
        super().__init__()
        wide, high = (1, 3), (3, 1)
        self.branch0 = Conv(1536, 256, 1)
        self.branch1_0 = Conv(1536, 384, 1)
        self.branch1_1a = Conv(384, 256, wide, padding=(0, 1))
        self.branch1_1b = Conv(384, 256, high, padding=(1, 0))
        self.branch2_0 = Conv(1536, 384, 1)
        self.branch2_1 = Conv(384, 448, high, padding=(1, 0))
        self.branch2_2 = Conv(448, 512, wide, padding=(0, 1))
        self.branch2_3a = Conv(512, 256, wide, padding=(0, 1))
        self.branch2_3b = Conv(512, 256, high, padding=(1, 0))
        self.branch3 = nn.Sequential(_average(), Conv(1536, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.branch1_0(x)
        second = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        forks = self.branch1_1a(first), self.branch1_1b(first), self.branch2_3a(second), self.branch2_3b(second)
        return torch.cat([self.branch0(x), *forks, self.branch3(x)], 1)


def _halve() -> Pool:
    return Pool("max", over=Window(3, stride=2))


def _average() -> Pool:
    """Over the positions on the map alone."""
    return Pool("mean", over=Window(3, stride=1, padding=1))
