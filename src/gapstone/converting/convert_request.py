"""What `gapstone convert` is asked for."""

from dataclasses import dataclass
from pathlib import Path

from gapstone.data.split import Duplicates
from gapstone.fitting.fit_head import Method


@dataclass(frozen=True)
class ConvertRequest:
    """What is asked for."""

    model: str
    head: str
    data: str | None
    out: Path
    finetune: int = 0
    method: Method = "logistic"
    limit: int | None = None
    weights: Path | None = None
    native: bool = False
    """Images as they are, neither cut nor resized; before, too, where the old head takes any size."""
    device: str = "auto"
    seed: int = 0
    """As the model was trained with: the validation images that λ and the epoch are chosen by depend on it."""
    batch_size: int = 64
    duplicates: Duplicates = "group"
    """As the model was trained with: what is tested depends on it, and on the next."""
    duplicate_threshold: float | None = None
