"""What training from a Dataset with random transforms costs, against a plain loop over a DataLoader.

    $ python benchmarks/own_dataset.py FOLDER

FOLDER holds train/CLASS/*.jpg. The same network, Dataset, transforms, batch size and optimizer, without validation, one
epoch each in turns; the first two turns warm up and are not counted. CPU seconds of one process with one thread, as
trials have on a CPU, whose other cores run other trials; so the plain DataLoader has no workers either.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets
from torchvision.transforms import v2

import gapstone as gs
from gapstone.data.open_source import open_source
from gapstone.data.sources import Source
from gapstone.images.preprocessing import Preprocessing
from gapstone.training.drawn_rows import DrawnRows
from gapstone.training.loop import TrainSettings, train

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
DRAWN = [v2.RandomResizedCrop(64, antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.2)]


class Images:
    """What the loop of gapstone reads labels from; its pixels are never asked for."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.images = np.empty((len(labels), 0, 0, 3), np.uint8)


def plain(model: nn.Module, dataset: Dataset) -> float:
    """CPU seconds of an epoch of the loop that tutorials show, with channels last, which is faster."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = nn.CrossEntropyLoss()
    began = time.process_time()
    for images, labels in DataLoader(dataset, 64, shuffle=True):
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(images.contiguous(memory_format=torch.channels_last)), labels).backward()
        optimizer.step()
    return time.process_time() - began


def ours(model: gs.Classifier, source: Source) -> float:
    """CPU seconds of an epoch of the loop that trials run."""
    rows = np.arange(len(source))
    drawn = DrawnRows(source.drawn, rows)
    began = time.process_time()
    train(model, Images(source.labels), rows, rows[:0], TrainSettings(epochs=1, batch_size=64), drawn=drawn)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=14)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = str(options.folder / "train")
    count = len(datasets.ImageFolder(folder))
    rows = np.linspace(0, count - 1, options.images).astype(int).tolist()
    source = open_source(
        Subset(datasets.ImageFolder(folder), rows),
        augmented=Subset(datasets.ImageFolder(folder, v2.Compose(DRAWN)), rows),
    )
    tensors = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    dataset = Subset(datasets.ImageFolder(folder, v2.Compose([*DRAWN, *tensors])), rows)
    network = torchvision.models.resnet18(num_classes=5).to(memory_format=torch.channels_last).train()
    preprocessing = Preprocessing(3, (64, 64), (64, 64), MEAN, STD)
    classifier = gs.Classifier(torchvision.models.resnet18(), "gap", source.classes, preprocessing)
    ratios = []
    for turn in range(options.turns):
        a, b = plain(network, dataset), ours(classifier, source)
        print(f"turn {turn}: plain {a:.2f} s, gapstone {b:.2f} s, ratio {b / a:.3f}", flush=True)
        ratios += [b / a] * (turn > 1)
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(f"median ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
