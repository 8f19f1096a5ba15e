"""Inception-ResNet v1: relu(x + scale · branches(x)), 5 blocks at 35×35, 10 at 17×17, 6 at 8×8.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
arXiv 1602.07261, figures 7 and 10 to 14. Names of parameters are facenet-pytorch's, whose weights are the ones people
have, so they load here. As there, and not in the paper, a sixth block at 8×8 closes the network, with neither scale nor
ReLU: the last map has both signs.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gapstone.nets.features import Features, initialise
from gapstone.nets.inception_blocks import Beside, Conv, chain
from gapstone.pooling import Pool
from gapstone.regions import Window


@final
class InceptionResNetV1(Features):
    """Up to the last 8×8 maps; the paper's head is `gap:dropout=0.2`.

    >>> features = build("inception_resnet_v1")             # 22,564,096 parameters
    >>> features(torch.rand(1, 3, 299, 299)).shape          # of the 160 px of facenet's faces: 3×3
    torch.Size([1, 1792, 8, 8])
    """

    channels, stride, smallest = 1792, 32, 75
    last_stage = ("mixed_7a", "repeat_3", "block8")

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        # Figure 14: 299 px become 35×35.
        self.conv2d_1a = Conv(in_channels, 32, 3, stride=2)
        self.conv2d_2a = Conv(32, 32, 3)
        self.conv2d_2b = Conv(32, 64, 3, padding=1)
        self.maxpool_3a = Pool("max", over=Window(3, stride=2))
        self.conv2d_3b = Conv(64, 80, 1)
        self.conv2d_4a = Conv(80, 192, 3)
        self.conv2d_4b = Conv(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _reduction_a()
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _reduction_b()
        self.repeat_3 = nn.Sequential(*(_block8(scale=0.2, relu=True) for _ in range(5)))
        self.block8 = _block8(scale=1.0, relu=False)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        maps: Tensor = self.block8(self.repeat_3(x))
        return maps


@final
class Residual(nn.Module):
    """x + scale · (what the branches see, brought to as many channels as x by a 1×1 convolution)."""

    def __init__(self, channels: int, joined: int, scale: float, relu: bool, **branches: nn.Module) -> None:
        super().__init__()
        self.names, self.scale, self.relu = tuple(branches), scale, relu
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(joined, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([getattr(self, name)(x) for name in self.names], 1)
        y = x + self.scale * self.conv2d(joined)
        return F.relu(y) if self.relu else y


def _block35() -> Residual:
    """Figure 10."""
    return Residual(
        256, 96, scale=0.17, relu=True, branch0=Conv(256, 32, 1), branch1=chain(256, (32, 1), (32, 3)),
        branch2=chain(256, (32, 1), (32, 3), (32, 3)),
    )  # fmt: skip


def _reduction_a() -> Beside:
    """Figure 7, with k, l, m, n = 192, 192, 256, 384 of table 1: 896 channels, 17×17."""
    return Beside(
        branch0=Conv(256, 384, 3, stride=2),
        branch1=chain(256, (192, 1), (192, 3), last=(256, 3, 2)),
        branch2=Pool("max", over=Window(3, stride=2)),
    )


def _block17() -> Residual:
    """Figure 11."""
    branch1 = (128, 1), (128, (1, 7)), (128, (7, 1))
    return Residual(896, 256, scale=0.1, relu=True, branch0=Conv(896, 128, 1), branch1=chain(896, *branch1))


def _reduction_b() -> Beside:
    """Figure 12: 1792 channels, 8×8."""
    return Beside(
        branch0=chain(896, (256, 1), last=(384, 3, 2)),
        branch1=chain(896, (256, 1), last=(256, 3, 2)),
        branch2=chain(896, (256, 1), (256, 3), last=(256, 3, 2)),
        branch3=Pool("max", over=Window(3, stride=2)),
    )


def _block8(scale: float, relu: bool) -> Residual:
    """Figure 13."""
    branch1 = (192, 1), (192, (1, 3)), (192, (3, 1))
    return Residual(1792, 384, scale=scale, relu=relu, branch0=Conv(1792, 192, 1), branch1=chain(1792, *branch1))
