"""Heads on a frozen backbone: they train and predict from cached features, never from the images."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.compare.predictor import STILL, Change
from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.pooling import Pool
from gapstone.storage.atomic import UNFINISHED
from gapstone.tracing.arithmetic import macs
from gapstone.tracing.placement import Placement
from gapstone.training.loop import Rows, checked_logits


@dataclass(frozen=True)
class RowCache:
    """Rows on disk: maps (N, C, h, w) or pooled vectors (N, pools, C) of the images `rows`, in ascending order."""

    path: Path
    rows: Rows

    @cached_property
    def array(self) -> NDArray[Any]:
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))

    def __getitem__(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.array[np.searchsorted(self.rows, rows)])

    def __reduce__(self) -> tuple[Any, ...]:
        return RowCache, (self.path, self.rows)  # without the loaded array


@dataclass(frozen=True)
class FeatureCache:
    """The result of a feature pass: all that heads and their measurements need of the backbone and the images."""

    maps: dict[Change, RowCache]
    """By the change of the images; only of the `shown` images if no head needs maps."""
    pooled: dict[Change, RowCache]
    pools: tuple[str, ...]
    """The pools, in the order of the vectors."""
    channels: int
    cells: tuple[int, int]
    """(h, w) of the maps."""
    fixed: bool
    placement: Placement
    sizes: frozenset[tuple[int, int]]
    """Of the sizes that robustness is measured at, those that the backbone takes."""
    parameters: int
    macs: int

    def unused_files(self, folder: Path) -> list[Path]:
        """Files of other passes in the folder, finished or not."""
        used = {rows.path.resolve() for rows in (*self.maps.values(), *self.pooled.values())}
        files = (path for pattern in ("*.npy", ".*.part", UNFINISHED) for path in folder.glob(pattern))
        return [path for path in files if path.resolve() not in used]


def pools_of(head: Head) -> tuple[str, ...] | None:
    """The pools whose vectors a head needs of a map; None if it needs the map itself.

    >>> pools_of(Head("avgmax", 512, 10)), pools_of(Head("gem:p=learned", 512, 10))
    (("'mean'", "'max'"), None)
    """
    if not head.recipe.pools or head.recipe.maps or any(True for _ in head.pools.parameters()):
        return None
    return tuple(layer.extra_repr() for layer in head.pools)


def fixed_pools(heads: list[str]) -> dict[str, Pool]:
    """All pools whose vectors these heads need, by name and parameters; sorted, whatever the order of the heads."""
    pools: dict[str, Pool] = {}
    for spec in heads:
        head = Head(spec, channels=1, classes=2, size=(1, 1))
        if pools_of(head) is not None:
            pools |= {layer.extra_repr(): layer for layer in head.pools if isinstance(layer, Pool)}
    return dict(sorted(pools.items()))


@dataclass(frozen=True)
class CachedPredictor:
    """A head that predicts from cached features: a `Predictor`."""

    head: Head
    cache: FeatureCache
    preprocessing: Preprocessing
    labels: NDArray[np.int64]
    device: str
    batch_size: int
    _vectors: dict[Change, Tensor] = field(default_factory=dict)

    @property
    def pooled(self) -> bool:
        return pools_of(self.head) is not None

    @property
    def trained_part(self) -> nn.Module:
        """The part of the head that turns `inputs` into logits."""
        return self.head.classifier if self.pooled and self.head.classifier is not None else self.head

    @property
    def fixed(self) -> bool:
        return self.cache.fixed

    def inputs(self, rows: Rows, change: Change = STILL) -> Tensor:
        """The inputs of `trained_part` for these images: their maps or pooled vectors, float32."""
        if not self.pooled:
            return self.cache.maps[change][rows].to(self.device).float()
        pooled = self.cache.pooled[change]
        if change not in self._vectors:  # all in memory, at 2 kB per image and pool: a batch is then one gather
            self._vectors[change] = self._join(pooled[pooled.rows]).to(self.device)
        return self._vectors[change][torch.from_numpy(np.searchsorted(pooled.rows, rows)).to(self.device)]

    def _join(self, vectors: Tensor) -> Tensor:
        pooled = vectors[:, [self.cache.pools.index(name) for name in pools_of(self.head) or ()]]
        return pooled.flatten(1) if self.head.recipe.join == "cat" else pooled.mean(1)

    @torch.inference_mode()
    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        self.head.eval()
        parts = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        return checked_logits(torch.cat([self.trained_part(self.inputs(part, change)).cpu() for part in parts]))

    def maps(self, rows: Rows) -> tuple[Tensor, Placement]:
        return self.cache.maps[STILL][rows].to(self.device).float(), self.cache.placement

    def accepts(self, size: tuple[int, int]) -> bool:
        return size in self.cache.sizes

    def cost(self) -> dict[str, int]:
        head_parameters = sum(p.numel() for p in self.head.parameters())
        maps = torch.zeros(1, self.cache.channels, *self.cache.cells, device=self.device)
        return {
            "parameters": self.cache.parameters + head_parameters,
            "head_parameters": head_parameters,
            "macs": self.cache.macs + macs(self.head, maps),
        }
