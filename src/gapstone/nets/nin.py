"""Network in Network: convolution, then 1×1 convolutions (a small perceptron at every position), three times.

Lin, Chen, Yan, "Network In Network", arXiv 1312.4400. The paper's last layer (one map per class) and its global average
belong to the head, `nin`; so does nothing here.
"""

from typing import final

from torch import Tensor, nn

from gapstone.nets.features import Features, initialise
from gapstone.pooling import Pool
from gapstone.regions import Window


@final
class Nin(Features):
    """The default for small images: widths 16, 32, 64, batch norm, 29,296 parameters from 3 channels.

    >>> build("nin")(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 64, 8, 8])

    32 px give 8×8 cells, 28 give 7×7, 16 give 4×4. Each block is a 3×3 and a 1×1 convolution, each with batch norm
    (without it nothing trains within minutes) and ReLU; a 3×3 max pool of stride 2 stands between blocks.
    """

    channels, stride, smallest = 64, 4, 1
    last_stage = ("block3",)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.block1 = nn.Sequential(*_normed(in_channels, 16, 3), *_normed(16, 16, 1))
        self.pool1 = Pool("max", over=Window(3, stride=2, padding=1))
        self.block2 = nn.Sequential(*_normed(16, 32, 3), *_normed(32, 32, 1))
        self.pool2 = Pool("max", over=Window(3, stride=2, padding=1))
        self.block3 = nn.Sequential(*_normed(32, 64, 3), *_normed(64, 64, 1))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        x = self.pool1(self.block1(x))
        x = self.pool2(self.block2(x))
        maps: Tensor = self.block3(x)
        return maps


@final
class NinPaper(Features):
    """The paper's network for CIFAR at full width: 192/160/96, 192, 192; dropout 0.5 after each pool; no batch norm.

    >>> build("nin:paper")(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 192, 8, 8])

    As the authors published it: a max pool, then an average pool, both 3×3 of stride 2 whose last window may reach over
    the edge and averages what is inside. For their Gaussian(0.05) stands Kaiming here: it trains from the start.
    """

    channels, stride, smallest = 192, 4, 4
    last_stage = ("block3",)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.block1 = nn.Sequential(*_plain(in_channels, 192, 5), *_plain(192, 160, 1), *_plain(160, 96, 1))
        self.pool1 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        self.dropout1 = nn.Dropout(0.5)
        self.block2 = nn.Sequential(*_plain(96, 192, 5), *_plain(192, 192, 1), *_plain(192, 192, 1))
        # torch's own here: gapstone's mean adds in another order, and results kept from before repeat to the last bit.
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.dropout2 = nn.Dropout(0.5)
        self.block3 = nn.Sequential(*_plain(192, 192, 3), *_plain(192, 192, 1))
        initialise(self, mode="fan_in")

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        x = self.dropout1(self.pool1(self.block1(x)))
        x = self.dropout2(self.pool2(self.block2(x)))
        maps: Tensor = self.block3(x)
        return maps


@final
class NinImageNet(Features):
    """The authors' public model for ImageNet: 96, 256, 384 and 1024 wide, each followed by 1×1 convolutions.

    >>> build("nin:imagenet")(torch.rand(1, 3, 224, 224)).shape       # 6,570,176 parameters
    torch.Size([1, 1024, 6, 6])

    As published for Caffe ("nin_imagenet"): 3×3 max pools of stride 2 whose last window may hang over the edge, dropout
    0.5 before the last block. Its last layer, one map per class (`cccp8`), and the average are the head `nin`:
    7,595,176 parameters with 1000 classes.
    """

    channels, stride, smallest = 1024, 32, 39
    last_stage = ("block4",)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.block1 = nn.Sequential(*_plain(in_channels, 96, 11, 4, 0), *_plain(96, 96, 1), *_plain(96, 96, 1))
        self.pool1 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        self.block2 = nn.Sequential(*_plain(96, 256, 5), *_plain(256, 256, 1), *_plain(256, 256, 1))
        self.pool2 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        self.block3 = nn.Sequential(*_plain(256, 384, 3), *_plain(384, 384, 1), *_plain(384, 384, 1))
        self.pool3 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        self.dropout = nn.Dropout(0.5)
        self.block4 = nn.Sequential(*_plain(384, 1024, 3), *_plain(1024, 1024, 1))
        initialise(self, mode="fan_in")

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        x = self.pool1(self.block1(x))
        x = self.pool2(self.block2(x))
        x = self.dropout(self.pool3(self.block3(x)))
        maps: Tensor = self.block4(x)
        return maps


def _normed(c_in: int, c_out: int, kernel: int) -> list[nn.Module]:
    # No bias: the batch norm's own shift does its work.
    convolution = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def _plain(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int | None = None) -> list[nn.Module]:
    padding = kernel // 2 if padding is None else padding
    return [nn.Conv2d(c_in, c_out, kernel, stride, padding), nn.ReLU(inplace=True)]
