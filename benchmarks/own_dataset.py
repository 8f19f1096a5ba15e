"""What training from a Dataset with random transforms costs, against a plain loop over a DataLoader.

    $ python benchmarks/own_dataset.py FOLDER --threads 1 --workers 0

FOLDER holds train/CLASS/*.jpg. The same network, Dataset, transforms, batch size, optimizer and epochs, without
validation, in turns; the first turn warms up and is not counted. `--workers` are those of the plain DataLoader.
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


def plain(dataset: Dataset, epochs: int, workers: int) -> float:
    """Seconds of the loop that tutorials show, with channels last, which is faster."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).to(memory_format=torch.channels_last).train()
    loader = DataLoader(dataset, 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = nn.CrossEntropyLoss()
    began = time.perf_counter()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(images.contiguous(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
    return time.perf_counter() - began


def ours(source, epochs: int) -> float:
    """Seconds of the loop that trials run."""
    torch.manual_seed(0)
    preprocessing = Preprocessing(3, (64, 64), (64, 64), MEAN, STD)
    model = gs.Classifier(torchvision.models.resnet18(), "gap", source.classes, preprocessing)
    settings = TrainSettings(epochs=epochs, batch_size=64)
    rows = np.arange(len(source))
    history = train(model, Images(source.labels), rows, rows[:0], settings, drawn=DrawnRows(source.drawn, rows))
    return history.seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--images", type=int, default=640)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = str(options.folder / "train")
    count = len(datasets.ImageFolder(folder))
    rows = np.linspace(0, count - 1, options.images).astype(int).tolist()
    source = open_source(
        Subset(datasets.ImageFolder(folder), rows),
        augmented=Subset(datasets.ImageFolder(folder, v2.Compose(DRAWN)), rows),
    )
    tensors = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    dataset = Subset(datasets.ImageFolder(folder, v2.Compose([*DRAWN, *tensors])), rows)
    ratios = []
    for turn in range(options.turns):
        a, b = plain(dataset, options.epochs, options.workers), ours(source, options.epochs)
        print(f"turn {turn}: plain {a:.2f} s, gapstone {b:.2f} s, ratio {b / a:.3f}", flush=True)
        ratios += [b / a] * bool(turn)
    print(f"median ratio {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
