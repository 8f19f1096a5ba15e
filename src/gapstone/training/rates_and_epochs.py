"""How long a network is trained, and at which learning rate, where nobody says so."""

from torch import nn


def epochs_for(images: int) -> int:
    """Epochs that add up to about 75,000 images, between 10 and 40: a small NIN then trains in seconds to minutes.

    >>> epochs_for(1300), epochs_for(5000), epochs_for(50000)
    (40, 15, 10)
    """
    return max(10, min(40, round(75_000 / max(images, 1))))


def learning_rate_for(features: nn.Module, optimizer: str, trained: bool) -> float:
    """SGD: 0.05, but 0.01 for trained weights and for networks without a norm, which diverge at 0.05."""
    norms = ("BatchNorm", "LayerNorm", "GroupNorm")
    normed = any(norm in type(module).__name__ for module in features.modules() for norm in norms)
    low = trained or not normed
    if optimizer == "adamw":
        return 1e-4 if low else 1e-3
    return 0.01 if low else 0.05
