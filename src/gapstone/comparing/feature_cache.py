"""Heads on a frozen backbone: they train and predict from cached features, never from the images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.comparing.predictor import STILL, Change
from gapstone.heads import BackboneOutput, Head, Reads, parse
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain_head, has_maps
from gapstone.maps.explanation import Explanation
from gapstone.maps.vector_parts import VectorParts, explain_vectors, vectors_read
from gapstone.pooling import Pool
from gapstone.statistics.labels import is_multi_label
from gapstone.storage.atomic import UNFINISHED
from gapstone.tracing.arithmetic import macs
from gapstone.tracing.placement import Placement
from gapstone.training.loop import Rows, checked_logits


@dataclass(frozen=True)
class RowCache:
    """Rows on disk: maps (N, C, h, w) or vectors (N, vectors, C) of the images `rows`, in ascending order."""

    path: Path
    rows: Rows

    @cached_property
    def array(self) -> NDArray[Any]:
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))

    def __getitem__(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.array[np.searchsorted(self.rows, rows)])

    def __reduce__(self) -> tuple[Any, ...]:
        return RowCache, (self.path, self.rows)  # without the loaded array


@dataclass(frozen=True, order=True)
class StoredVector:
    """One of the vectors of an image that are stored.

    >>> str(StoredVector("'mean'")), str(StoredVector(CLASS_TOKEN, back=2))
    ("'mean'", 'class token, layer -2')
    """

    name: str
    """A pool with its parameters, `CLASS_TOKEN` or `OWN`."""
    back: int = 1
    """Of which layer, counted from the last."""

    def __str__(self) -> str:
        return self.name if self.back == 1 else f"{self.name}, layer -{self.back}"


CLASS_TOKEN, OWN = "class token", "own"


def vectors_of(head: Head) -> tuple[StoredVector, ...] | None:
    """The vectors that a head's linear layer reads, layer by layer from the earliest; None if it needs maps.

    >>> vectors_of(Head("avgmax", 512, 10)), vectors_of(Head("gem:p=learned", 512, 10))
    ((StoredVector(name="'mean'", back=1), StoredVector(name="'max'", back=1)), None)
    """
    if head.reads.own:
        return (StoredVector(OWN),)
    if head.module is not None or head.recipe.maps or any(True for _ in head.pools.parameters()):
        return None
    names = [CLASS_TOKEN] * head.recipe.class_token + [layer.extra_repr() for layer in head.pools]
    if not head.recipe.pools and not head.recipe.class_token:
        return None  # it flattens
    return tuple(StoredVector(name, back) for name in names for back in range(head.reads.layers, 0, -1))


def class_tokens_of(head: Head) -> tuple[StoredVector, ...]:
    """The class tokens that a head reads besides maps."""
    return tuple(StoredVector(CLASS_TOKEN, back) for back in range(head.reads.layers, 0, -1) if head.reads.class_token)


def answered_from(reads: Reads) -> list[StoredVector]:
    """The vectors that a head answers from, in its order; [] where it answers from maps or attends to tokens."""
    return [StoredVector(OWN if own else CLASS_TOKEN, back) for own, back in vectors_read(reads)]


def taken_apart(heads: Sequence[str]) -> list[StoredVector]:
    """The vectors that these heads answer from."""
    answering = [head for head in without_channels(heads) if not has_maps(head)]
    return sorted({vector for head in answering for vector in answered_from(head.reads)})


def without_channels(heads: Sequence[str]) -> list[Head]:
    """The heads on maps of one channel, to see what they read; without the user's own, which read maps."""
    return [Head(spec, channels=1, classes=2, size=(1, 1)) for spec in heads if parse(spec).own_head is None]


def layer_of(x: Tensor, back: int, channels: int) -> Tensor:
    """Of layers side by side, (N, layers · C, …), one, counted from the last."""
    return x[:, x.shape[1] - back * channels :][:, :channels]


def stored_vectors(heads: Sequence[str]) -> tuple[tuple[StoredVector, ...], dict[str, Pool]]:
    """All vectors that these heads need, and their pools; in an order that the heads' does not change, `OWN` last."""
    vectors: set[StoredVector] = set()
    pools: dict[str, Pool] = {}
    for head in without_channels(heads):
        found = vectors_of(head)
        vectors |= {*(class_tokens_of(head) if found is None else found)}
        if found is not None:
            pools |= {layer.extra_repr(): layer for layer in head.pools if isinstance(layer, Pool)}
    return tuple(sorted(vectors, key=lambda vector: (vector.name == OWN, vector))), pools


@dataclass(frozen=True)
class OwnPooler:
    """The backbone's own pooler."""

    width: int
    """Of its vector."""
    parameters: int
    macs: int


@dataclass(frozen=True)
class StoredParts:
    """What each position adds to a vector, of the images of the report and of those with boxes."""

    rows: RowCache
    """(N, D, 1 + cells)"""
    like: VectorParts
    """What is the same for all images; its parts are of one."""

    def __getitem__(self, rows: Rows) -> VectorParts:
        return replace(self.like, parts=self.rows[rows])


@dataclass(frozen=True)
class FeatureCache:
    """The result of a feature pass: all that heads and their measurements need of the backbone and the images."""

    maps: dict[Change, RowCache]
    """By the change of the images; empty if no head needs the maps of all. Of several layers: side by side."""
    shown: RowCache
    """Maps of the images of the report and of those with boxes, of as many layers as any head reads maps of."""
    pooled: dict[Change, RowCache]
    vectors: tuple[StoredVector, ...]
    """In the order of their numbers in a row."""
    channels: int
    own: OwnPooler | None
    """None if no head reads it."""
    cells: tuple[int, int]
    """(h, w) of the maps."""
    fixed: bool
    placement: Placement
    sizes: frozenset[tuple[int, int]]
    """Of the sizes that robustness is measured at, those that the backbone takes."""
    parameters: int
    macs: int
    """Both without the backbone's own pooler."""
    parts: dict[StoredVector, StoredParts] = field(default_factory=dict)
    """Of the vectors that heads answer from; without those of which it is not known what the positions add."""

    def unused_files(self, folder: Path) -> list[Path]:
        """Files of other passes in the folder, finished or not."""
        parts = [stored.rows for stored in self.parts.values()]
        used = {rows.path.resolve() for rows in (*self.maps.values(), *self.pooled.values(), *parts, self.shown)}
        files = (path for pattern in ("*.npy", ".*.part", UNFINISHED) for path in folder.glob(pattern))
        return [path for path in files if path.resolve() not in used]


@dataclass(frozen=True)
class CachedPredictor:
    """A head that predicts from cached features: a `Predictor`."""

    head: Head
    cache: FeatureCache
    preprocessing: Preprocessing
    labels: NDArray[Any]
    device: str
    batch_size: int
    _vectors: dict[Change, Tensor] = field(default_factory=dict)

    @property
    def pooled(self) -> bool:
        return vectors_of(self.head) is not None

    @property
    def trained_part(self) -> nn.Module:
        """The part of the head that turns `inputs` into logits."""
        return self.head.classifier if self.pooled and self.head.classifier is not None else self.head

    @property
    def only_size(self) -> tuple[int, int] | None:
        return self.preprocessing.size if self.cache.fixed or self.head.size is not None else None

    def inputs(self, rows: Rows, change: Change = STILL) -> Tensor:
        """The inputs of `trained_part` for these images, float32: maps, tokens (N, C, 1 + cells), or vectors."""
        if self.pooled:
            return self._vectors_of(rows, change)
        maps = self._last(self.cache.maps[change][rows])
        return BackboneOutput(maps, self._vectors_of(rows, change)).tokens if self.head.reads.class_token else maps

    def _last(self, maps: Tensor) -> Tensor:
        """Of the layers that the head reads."""
        return maps.to(self.device).float()[:, -self.head.depth :]

    def _vectors_of(self, rows: Rows, change: Change) -> Tensor:
        stored = self.cache.pooled[change]
        if change not in self._vectors:  # all in memory, at 2 kB per image and vector: a batch is then one gather
            self._vectors[change] = self._join(stored[stored.rows].flatten(1)).to(self.device)
        return self._vectors[change][torch.from_numpy(np.searchsorted(stored.rows, rows)).to(self.device)]

    def _join(self, stored: Tensor) -> Tensor:
        vectors, width = vectors_of(self.head) or class_tokens_of(self.head), self.cache.channels
        first = [self.cache.vectors.index(vector) * width for vector in vectors]
        if self.head.reads.own:
            return stored[:, first[0] :]
        parts = torch.stack([stored[:, n : n + width] for n in first], 1)
        if self.head.recipe.join == "cat":
            return parts.flatten(1)
        return parts.view(len(parts), -1, self.head.depth).mean(1)

    @torch.inference_mode()
    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        self.head.eval()
        parts = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        return checked_logits(torch.cat([self.trained_part(self.inputs(part, change)).cpu() for part in parts]))

    def explain(self, rows: Rows, classes: Tensor | None = None) -> Explanation | None:
        explained = self._explain(rows, classes)
        return explained and replace(explained, multi_label=is_multi_label(self.labels))

    def _explain(self, rows: Rows, classes: Tensor | None) -> Explanation | None:
        reads = self.head.reads
        maps = self._last(self.cache.shown[rows]) if reads.maps else None
        if maps is not None and has_maps(self.head):
            given = BackboneOutput(maps, self._vectors_of(rows, STILL)) if reads.class_token else maps
            return explain_head(self.head, given, classes, placement=self.cache.placement)
        stored = [self.cache.parts.get(vector) for vector in answered_from(reads)]
        parts = [VectorParts.to(one[rows], self.device) for one in stored if one is not None]
        return explain_vectors(self.head, VectorParts.cat(parts), maps, classes) if len(parts) == len(stored) else None

    def accepts(self, size: tuple[int, int]) -> bool:
        return size in self.cache.sizes

    def cost(self) -> dict[str, int]:
        head_parameters = sum(p.numel() for p in self.head.parameters())
        reads, own = self.head.reads, self.cache.own if self.head.reads.own else None
        maps, token, vector = (
            torch.zeros(1, *shape, device=self.device)
            for shape in ((self.head.depth, *self.cache.cells), (self.head.depth,), (own.width if own else 0,))
        )
        given = maps if reads.maps_alone else BackboneOutput(maps, token, vector)
        return {
            "parameters": self.cache.parameters + (own.parameters if own else 0) + head_parameters,
            "head_parameters": head_parameters,
            "macs": self.cache.macs + (own.macs if own else 0) + macs(self.head, given),
        }
