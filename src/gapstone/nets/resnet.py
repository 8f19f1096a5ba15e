"""ResNet: relu(x + f(x)), block after block.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385. Names and order of parameters are
torchvision's, so its weights load here unchanged.
"""

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

from gapstone.nets.features import Features, initialise
from gapstone.pooling import Pool
from gapstone.regions import Window

# Blocks in each of the four stages, and whether they are bottlenecks: the columns of the paper's table 1.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECKS = (50, 101)


@final
class Basic(nn.Module):
    """Two 3×3 convolutions: the block of ResNet-18 and 34."""

    widening = 1

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(c_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


@final
class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions, the last four times as wide: the block of ResNet-50 and 101.

    The stride sits in the 3×3 ("v1.5", as in torchvision), not in the paper's first 1×1, which skips 3 of 4 inputs.
    """

    widening = 4

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(c_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


@final
class ResNet(Features):
    """ResNet-18, 34, 50 or 101; `small` for images of some 32 px.

    >>> build("resnet18")(torch.rand(1, 3, 224, 224)).shape       # 11,176,512 parameters
    torch.Size([1, 512, 7, 7])
    >>> build("resnet18:small")(torch.rand(1, 3, 32, 32)).shape   # stem 3×3 of stride 1, no max pool: stride 8
    torch.Size([1, 512, 4, 4])
    """

    smallest = 1
    last_stage = ("layer4",)

    def __init__(self, in_channels: int = 3, *, depth: int, small: bool = False) -> None:
        super().__init__()
        block = Bottleneck if depth in BOTTLENECKS else Basic
        self.in_channels = in_channels
        self.channels = 512 * block.widening
        self.stride = 8 if small else 32
        # A 7×7 of stride 2 and a pool would leave a 32 px image 8×8 cells before the first block has seen it.
        self.conv1 = nn.Conv2d(in_channels, 64, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else Pool("max", over=Window(3, stride=2, padding=1))
        c = block.widening
        self.layer1 = _stage(block, 64, 64, BLOCKS[depth][0], stride=1)
        self.layer2 = _stage(block, 64 * c, 128, BLOCKS[depth][1], stride=2)
        self.layer3 = _stage(block, 128 * c, 256, BLOCKS[depth][2], stride=2)
        self.layer4 = _stage(block, 256 * c, 512, BLOCKS[depth][3], stride=2)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return maps


def _stage(block: type[Basic] | type[Bottleneck], c_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first, rest = block(c_in, width, stride), range(blocks - 1)
    return nn.Sequential(first, *(block(width * block.widening, width, stride=1) for _ in rest))


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    if c_in == c_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
