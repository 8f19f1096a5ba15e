"""What the examples of the documentation find: names, and files in the working folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing

LABELS = ("cat", "dog")


def make_files(folder: Path) -> None:
    """Pictures and models, under the names that the examples use."""
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg", "b.png", "cat.jpg", "new/1.jpg", "new/2.jpg"):
        _picture(folder / name, random, (40, 40))
    _picture(folder / "wide.jpg", random, (40, 56))
    _picture(folder / "high.jpg", random, (56, 40))
    for label in LABELS:
        for number in range(6):
            _picture(folder / "photos" / label / f"{number}.png", random, (40, 40))
    model().save(folder / "pets.safetensors")
    gs.Classifier("resnet18", "gap", LABELS, preprocessing()).eval().save(folder / "photos.safetensors")
    for name in ("out", "runs", "models", "runs/first"):
        (folder / name).mkdir(exist_ok=True)


def _picture(path: Path, random: np.random.Generator, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(path)


def preprocessing() -> Preprocessing:
    """Of small photos."""
    return Preprocessing(3, (32, 32), (36, 36), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def model() -> gs.Classifier:
    """A classifier of small photos, untrained."""
    return gs.Classifier("nin", "gap", LABELS, preprocessing()).eval()


def names() -> dict[str, Any]:
    """The names that examples use without making them."""
    torch.manual_seed(0)
    images = torch.rand(16, 3, 32, 32)
    labels = torch.arange(16) % 2
    return {
        "gs": gs,
        "torch": torch,
        "np": np,
        "nn": nn,
        "F": nn.functional,
        "Path": Path,
        "x": torch.rand(2, 512, 14, 14),
        "images": images,
        "labels": labels,
        "y": labels,
        "model": model(),
        "preprocessing": preprocessing(),
        "loader": [(images[:8], labels[:8]), (images[8:], labels[8:])],
        "out": Path("out"),
    }


def compared() -> gs.Comparison:
    """The results of a small comparison, in runs/flowers; made by the first example that needs them."""
    if not Path("runs/flowers/results.json").exists():
        gs.compare("digits", backbone="nin", heads=["gap", "gmp"], seeds=2, epochs=1, limit=40, out="runs/flowers",
                   workers=1, progress=False)  # fmt: skip
    return gs.Comparison.open("runs/flowers")


def evaluated() -> gs.Evaluation:
    """The results of an evaluation of two models, in runs/old-new; made by the first example that needs them."""
    if not Path("runs/old-new/evaluated.json").exists():
        for name in ("old", "new"):
            model().save(f"{name}.safetensors")
        gs.evaluate(["old.safetensors", "new.safetensors"], "photos/", out="runs/old-new", quick=True, progress=False)
    return gs.Evaluation.open("runs/old-new")
