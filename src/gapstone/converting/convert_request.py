"""The arguments of `gapstone convert`."""

from dataclasses import dataclass
from pathlib import Path

from gapstone.data.split import Duplicates
from gapstone.fitting.fit_head import Method


@dataclass(frozen=True)
class ConvertRequest:
    """The arguments of one conversion."""

    model: str
    head: str
    data: str | None
    out: Path
    finetune: int = 0
    method: Method = "logistic"
    limit: int | None = None
    weights: Path | None = None
    native: bool = False
    """Do not crop or resize the images; for the old model only if its head takes any size."""
    device: str = "auto"
    seed: int = 0
    """Should be the seed of the model's training: it decides which validation images choose λ and the epoch."""
    batch_size: int = 64
    duplicates: Duplicates = "group"
    """Should be that of the model's training, as should the threshold: they decide which images are tested."""
    duplicate_threshold: float | None = None
