"""Heads on a frozen backbone: trained and asked on what one pass over the images kept, never on the images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.compare.linear_sgd import LinearDescent
from gapstone.compare.predictor import STILL, Change
from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.pooling import Pool
from gapstone.storage.atomic import UNFINISHED
from gapstone.tracing.arithmetic import macs
from gapstone.tracing.placement import Placement
from gapstone.training.loop import History, Rows, TrainSettings, checked_logits, epoch_trainer, shuffled, train_epochs


@dataclass(frozen=True)
class RowCache:
    """Rows that lie on disk: maps (N, C, h, w) or pooled vectors (N, pools, C) of the images `rows`, ascending."""

    path: Path
    rows: Rows

    @cached_property
    def array(self) -> NDArray[Any]:
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))

    def __getitem__(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.array[np.searchsorted(self.rows, rows)])

    def __reduce__(self) -> tuple[Any, ...]:
        return RowCache, (self.path, self.rows)  # never the numbers


@dataclass(frozen=True)
class FeatureCache:
    """What the pass left: all that heads, and their measures, need of the backbone and the images."""

    maps: dict[Change, RowCache]
    """By what was done to the images; only of `shown` where no head needs more."""
    pooled: dict[Change, RowCache]
    pools: tuple[str, ...]
    """Which pools, in the order of the vectors."""
    channels: int
    cells: tuple[int, int]
    fixed: bool
    placement: Placement
    sizes: frozenset[tuple[int, int]]
    """Those the backbone takes, of the sizes it is tried at."""
    parameters: int
    macs: int

    def leavings(self, folder: Path) -> list[Path]:
        """What passes for something else, finished or not, left in the folder."""
        mine = {kept.path.resolve() for kept in (*self.maps.values(), *self.pooled.values())}
        found = (path for pattern in ("*.npy", ".*.part", UNFINISHED) for path in folder.glob(pattern))
        return [path for path in found if path.resolve() not in mine]


def pools_of(head: Head) -> tuple[str, ...] | None:
    """The pools whose vectors are all a head needs of a map; None where it needs the map.

    >>> pools_of(Head("avgmax", 512, 10)), pools_of(Head("gem:p=learned", 512, 10))
    (("'mean'", "'max'"), None)
    """
    if not head.recipe.pools or head.recipe.maps or any(True for _ in head.pools.parameters()):
        return None
    return tuple(layer.extra_repr() for layer in head.pools)


def fixed_pools(heads: list[str]) -> dict[str, Pool]:
    """Every pool that one of these heads needs the vectors of, by its name and parameters; in their order, since in
    whichever order the heads are named, the same is kept.
    """
    found: dict[str, Pool] = {}
    for spec in heads:
        head = Head(spec, channels=1, classes=2, size=(1, 1))
        if pools_of(head) is not None:
            found |= {layer.extra_repr(): layer for layer in head.pools if isinstance(layer, Pool)}
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class CachedPredictor:
    """A head, asked about images that the backbone has seen; `asking.Asked`."""

    head: Head
    seen: FeatureCache
    preprocessing: Preprocessing
    labels: NDArray[np.int64]
    device: str
    batch_size: int
    _vectors: dict[Change, Tensor] = field(default_factory=dict)

    @property
    def pooled(self) -> bool:
        return pools_of(self.head) is not None

    @property
    def trained(self) -> nn.Module:
        """The part that turns `inputs` into logits."""
        return self.head.classifier if self.pooled and self.head.classifier is not None else self.head

    @property
    def linear(self) -> nn.Linear | None:
        """The layer, where pooled vectors and one linear layer are all there is."""
        layers = list(self.trained.children()) if self.pooled else []
        return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear) else None

    @property
    def fixed(self) -> bool:
        return self.seen.fixed

    def inputs(self, rows: Rows, change: Change = STILL) -> Tensor:
        """What `trained` takes of these images: their maps, or their pooled vectors, float32."""
        if not self.pooled:
            return self.seen.maps[change][rows].to(self.device).float()
        kept = self.seen.pooled[change]
        if change not in self._vectors:  # 2 kB an image and pool: all at once, and a batch is one look-up
            self._vectors[change] = self._join(kept[kept.rows]).to(self.device)
        return self._vectors[change][torch.from_numpy(np.searchsorted(kept.rows, rows)).to(self.device)]

    def _join(self, vectors: Tensor) -> Tensor:
        mine = vectors[:, [self.seen.pools.index(name) for name in pools_of(self.head) or ()]]
        return mine.flatten(1) if self.head.recipe.join == "cat" else mine.mean(1)

    @torch.inference_mode()
    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        self.head.eval()
        parts = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        return checked_logits(torch.cat([self.trained(self.inputs(part, change)).cpu() for part in parts]))

    def maps(self, rows: Rows) -> tuple[Tensor, Placement]:
        return self.seen.maps[STILL][rows].to(self.device).float(), self.seen.placement

    def takes(self, size: tuple[int, int]) -> bool:
        return size in self.seen.sizes

    def cost(self) -> dict[str, int]:
        own = sum(p.numel() for p in self.head.parameters())
        maps = torch.zeros(1, self.seen.channels, *self.seen.cells, device=self.device)
        return {
            "parameters": self.seen.parameters + own,
            "head_parameters": own,
            "macs": self.seen.macs + macs(self.head, maps),
        }


def train_on(
    asked: CachedPredictor,
    rows: Rows,
    validation: Rows,
    settings: TrainSettings,
    seed: int,
    after_epoch: Callable[[int, History], None] | None = None,
) -> History:
    """`training.train`, with the kept maps in the place of the images: the same order of images, the same loop."""
    truth = torch.from_numpy(asked.labels).to(asked.device)

    def learn(inputs: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(asked.trained(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in shuffled(rows, settings.batch_size, np.random.default_rng((seed, epoch))):
            yield asked.inputs(chosen), truth[torch.from_numpy(chosen).to(asked.device)]

    def check() -> tuple[Tensor, Tensor]:
        return asked.logits(validation), torch.from_numpy(asked.labels[validation])

    run: Callable[[int], float]
    if (linear := asked.linear) is not None and settings.optimizer == "sgd":
        run = LinearDescent(linear, asked.inputs(rows), truth[torch.from_numpy(rows).to(asked.device)], settings, seed)
    else:
        run = epoch_trainer(asked.trained, len(rows), batches, learn, settings)
    return train_epochs(asked.trained, run, check if len(validation) else None, settings, seed, after_epoch)
