"""GoogLeNet, or Inception v1: nine times 1×1, 3×3 and "5×5" convolutions and a max pool, side by side.

Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842, table 1. Names of parameters are torchvision's, so
its weights load here; as there, batch norm stands in for the paper's local response normalisation, and the branch of
the paper's 5×5 convolutions is of 3×3 (github.com/pytorch/vision/issues/906).
"""

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

from gapstone.nets.features import Features, initialise
from gapstone.nets.inception_blocks import Beside, Conv, chain
from gapstone.pooling import Pool
from gapstone.regions import Grid, Window


@final
class GoogLeNet(Features):
    """Up to the last Inception block; the paper's head is `gap:dropout=0.4`, torchvision's `gap:dropout=0.2`.

    >>> features = build("googlenet")                       # 5,599,904 parameters, 6,624,904 with 1000 classes
    >>> features(torch.rand(1, 3, 224, 224)).shape
    torch.Size([1, 1024, 7, 7])

    The paper trains two more heads on maps half way, and drops them afterwards. They are modules of their own
    (`Auxiliary`), not part of the network; what they look at comes from `on_the_way`, in one pass:

    >>> first, second = Auxiliary(512, classes=10), Auxiliary(528, classes=10)
    >>> early, late, maps = features.on_the_way(images)
    >>> loss = cross_entropy(head(maps), y) + 0.3 * (cross_entropy(first(early), y) + cross_entropy(second(late), y))
    """

    channels, stride, smallest = 1024, 32, 15
    last_stage = ("inception5a", "inception5b")

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        # Max pools whose last window may hang over the edge, as in the authors' framework: 112 → 56 → 28 → 14 → 7.
        self.conv1 = Conv(in_channels, 64, 7, stride=2, padding=3)
        self.maxpool1 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        self.conv2 = Conv(64, 64, 1)
        self.conv3 = Conv(64, 192, 3, padding=1)
        self.maxpool2 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        # The columns of table 1: #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj.
        self.inception3a = _inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = _inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = Pool("max", over=Window(3, stride=2, ceil_mode=True))
        self.inception4a = _inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = _inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = _inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = _inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = _inception(528, 256, 160, 320, 32, 128, 128)
        # The paper's is 3×3; the published weights were trained with 2×2.
        self.maxpool4 = Pool("max", over=Window(2, stride=2, ceil_mode=True))
        self.inception5a = _inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = _inception(832, 384, 192, 384, 48, 128, 128)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.on_the_way(x)[-1]

    def on_the_way(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps after blocks 4a (512 channels) and 4d (528), which auxiliary heads look at, and the last ones."""
        self.check(x)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        early = self.inception4a(x)
        late = self.inception4d(self.inception4c(self.inception4b(early)))
        x = self.maxpool4(self.inception4e(late))
        return early, late, self.inception5b(self.inception5a(x))


@final
class Auxiliary(nn.Module):
    """A head for maps half way, used in training alone (section 5): means on a 4×4 grid, 1×1 convolution, two layers.

    >>> Auxiliary(512, classes=10)(torch.rand(2, 512, 14, 14)).shape
    torch.Size([2, 10])

    The paper's 5×5 means of stride 3 over 14×14 maps are 4×4; the grid makes them so at any size, as in torchvision,
    whose `aux1.` and `aux2.` load here.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.7) -> None:
        super().__init__()
        self.pool = Pool("mean", over=Grid(4))
        self.conv = Conv(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 16, 1024)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool(x)).flatten(1)
        logits: Tensor = self.fc2(self.dropout(F.relu(self.fc1(x))))
        return logits


def _inception(c_in: int, c1: int, c3_reduce: int, c3: int, c5_reduce: int, c5: int, projected: int) -> Beside:
    return Beside(
        branch1=Conv(c_in, c1, 1),
        branch2=chain(c_in, (c3_reduce, 1), (c3, 3)),
        branch3=chain(c_in, (c5_reduce, 1), (c5, 3)),
        branch4=nn.Sequential(Pool("max", over=Window(3, stride=1, padding=1)), Conv(c_in, projected, 1)),
    )
