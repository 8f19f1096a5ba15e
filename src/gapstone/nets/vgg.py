"""VGG: 3×3 convolutions and 2×2 max pools, nothing else.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556, table 1.
Names of parameters are torchvision's, so its weights load here (`features.` alone: the classifier is the head's).
"""

from typing import final

from torch import Tensor, nn

from gapstone.nets.features import Features, initialise
from gapstone.pooling import Pool
from gapstone.regions import Window

# Convolutions before each of the five pools, table 1's A, B, D and E; 11 = 8 of them + 3 fully connected layers.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


@final
class Vgg(Features):
    """VGG-11 (configuration A), VGG-13 (B), VGG-16 (D) or VGG-19 (E), with or without batch norm.

    >>> features = build("vgg16")                       # 14,714,688 parameters
    >>> features(torch.rand(1, 3, 224, 224)).shape      # with the head fc:4096,4096 for 1000 classes: 138,357,544
    torch.Size([1, 512, 7, 7])

    Every pool halves and drops an odd last row, so 32 px is the smallest side.
    """

    channels, stride, smallest = 512, 32, 32

    def __init__(self, in_channels: int = 3, *, depth: int, norm: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        width = in_channels
        for convolutions, next_width in zip(CONVOLUTIONS[depth], WIDTHS, strict=True):
            start = len(layers)
            for _ in range(convolutions):
                # The bias stays before the batch norm too, idle as it is: torchvision's weights have it.
                layers.append(nn.Conv2d(width, next_width, 3, padding=1))
                if norm:
                    layers.append(nn.BatchNorm2d(next_width))
                layers.append(nn.ReLU(inplace=True))
                width = next_width
            layers.append(Pool("max", over=Window(2, stride=2)))
        self.features = nn.Sequential(*layers)
        self.last_stage = tuple(f"features.{number}" for number in range(start, len(layers)))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        maps: Tensor = self.features(x)
        return maps
