"""Images that a tiny network can tell apart: coloured noise, a class per colour; and a trained model for them."""

import torch
from torch import Tensor

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing

LABELS = ("red", "green", "blue")
PREPROCESSING = Preprocessing(3, (16, 16), (16, 16), (0.5,) * 3, (0.25,) * 3)


def images(count: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """(count, 3, 16, 16) as the model takes them, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    x = torch.randn(count, 3, 16, 16, generator=generator)
    x[torch.arange(count), labels % 3] += 0.8
    return x, labels


def classifier(head: str = "fc:8", seed: int = 0, labels: tuple[str, ...] = LABELS) -> gs.Classifier:
    """Random weights, but statistics of the batch norms as if it had seen such images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = gs.Classifier("nin", head, labels, PREPROCESSING)
        model.train()
        with torch.no_grad():
            for step in range(30):
                model(images(32, 1000 + step)[0])
    return model.eval()
