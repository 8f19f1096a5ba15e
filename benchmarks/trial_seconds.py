"""Seconds per trial: gapstone's training loop against the plain loop a user would write.

    python benchmarks/trial_seconds.py [--rounds 5] [--epochs 3] [--threads 1]

Same network (the small NIN with a GAP head), same images (2,000 colour ones of random pixels, 32×32), same optimizer,
schedule and number of epochs, validation after each. Interleaved, in one process; medians and ratios. The plain loop:
float32 tensors made once, DataLoader, torch's own pooling layers, contiguous memory.
"""

import argparse
import copy
import platform
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.loop import TrainSettings, train


class Pictures:
    def __init__(self, how_many: int, size: int) -> None:
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (how_many, size, size, 3), np.uint8)
        self.labels = random.integers(0, 10, how_many)


class Plain(nn.Module):
    """The same network as a user would write it."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, width: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                    nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]  # fmt: skip

        self.net = nn.Sequential(
            *block(3, 16), nn.MaxPool2d(3, 2, 1), *block(16, 32), nn.MaxPool2d(3, 2, 1), *block(32, 64),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def plain(model: nn.Module, pictures: Pictures, rows: np.ndarray, held: np.ndarray, settings: TrainSettings) -> None:
    x = (torch.from_numpy(pictures.images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    x, y = x.contiguous(), torch.from_numpy(pictures.labels)
    loader = DataLoader(TensorDataset(x[rows], y[rows]), settings.batch_size, shuffle=True)
    check = DataLoader(TensorDataset(x[held], y[held]), 256)
    optimizer = torch.optim.SGD(model.parameters(), settings.learning_rate, 0.9, nesterov=True, weight_decay=5e-4)
    steps = settings.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps, pct_start=settings.warmup)
    for _ in range(settings.epochs):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            sum((model(images).argmax(1) == labels).sum().item() for images, labels in check)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = arguments.size
    pictures = Pictures(2000, size)
    rows, held = np.arange(1800), np.arange(1800, 2000)
    settings = TrainSettings(epochs=arguments.epochs)
    preprocessing = Preprocessing(3, (size, size), (size, size), (0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(0)
    ours = Classifier("nin", "gap", [str(k) for k in range(10)], preprocessing)
    theirs = Plain()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    seconds: dict[str, list[float]] = {"gapstone": [], "plain": []}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for name in seconds:
            model = copy.deepcopy(ours if name == "gapstone" else theirs)
            began = time.process_time()
            if name == "gapstone":
                train(model, pictures, rows, held, settings, seed=turn)
            else:
                plain(model, pictures, rows, held, settings)
            if turn:
                seconds[name].append(time.process_time() - began)
    where = f"{platform.machine()}, torch {torch.__version__}, {arguments.threads} thread(s), {size} px"
    print(f"{where}: CPU seconds per trial of {arguments.epochs} epochs, {arguments.rounds} rounds")
    for name, taken in seconds.items():
        print(f"  {name:9} median {statistics.median(taken):6.2f}   {min(taken):.2f} … {max(taken):.2f}")
    ratio = statistics.median(p / g for p, g in zip(seconds["plain"], seconds["gapstone"], strict=True))
    print(f"  plain / gapstone: {ratio:.2f}")


if __name__ == "__main__":
    main()
