"""A network and a Dataset of your own, with transforms of torchvision: python examples/own_dataset.py photos/"""

import sys

import torchvision
from torch import nn
from torchvision.transforms import v2

import gapstone as gs

SIDE = 64
resize = v2.Compose([v2.Resize(SIDE), v2.CenterCrop(SIDE)])
draw = v2.Compose([v2.RandomResizedCrop(SIDE, scale=(0.5, 1)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2)])


def network() -> nn.Module:
    """A ResNet-18 for small images; its head is found and cut off."""
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


plain = torchvision.datasets.ImageFolder(sys.argv[1], transform=resize)
augmented = torchvision.datasets.ImageFolder(sys.argv[1], transform=draw)  # drawn anew in each epoch; no Normalize
result = gs.compare(plain, augmented=augmented, backbone=network, heads=["gap", "gmp", "gem"], out="runs/own-dataset")
print(result)
result.model("gap").save("runs/own-dataset/gap.safetensors")
