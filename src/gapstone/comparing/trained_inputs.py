"""What the layers of a head read of cached images, batch by batch, while they are trained."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gapstone.comparing.feature_cache import CachedPredictor, RowCache
from gapstone.comparing.feature_scale import FeatureScale, layers_of, mean_and_variance
from gapstone.comparing.pool_table import USUAL, PoolTable, learns_one_number
from gapstone.comparing.predictor import STILL
from gapstone.comparing.shared_answers import shared
from gapstone.heads import Head
from gapstone.heads.feature_norm import FeatureNorm, norm_of
from gapstone.training.loop import Rows

MOST_HELD = 1 << 29
"""Bytes of what a linear layer reads that are held in memory; more are read again from the maps in each epoch."""
MOST_IN_TABLE = 1 << 32
"""Bytes on disk of the answers of a pool that learns; where they were more, its maps are read in each epoch."""


def is_linear(head: Head) -> bool:
    """Whether all that the head learns is one linear layer, or one layer of class maps."""
    if head.module is not None:
        return False
    plain = [layer for layer in layers_of(head) if not isinstance(layer, nn.ReLU | FeatureNorm)]
    return len(plain) == 1 and not learns_pool(head)


def learns_pool(head: Head) -> bool:
    return any(True for _ in head.pools.parameters())


class TrainedInputs:
    """The inputs of a head's layers, and the labels, of images by their rows.

    `form` says what a batch is: "vectors" (N, D) that the classifier reads; "cells" (N, cells, C) that one layer of
    class maps reads; "maps" (N, C, h, w), for a head whose pool learns, or class maps of several layers; "places" (N,)
    of the images in `table`, for a pool that learns one number.
    """

    def __init__(self, predictor: CachedPredictor, rows: Rows, whole: bool, count: int | None = None) -> None:
        """`rows`: of all images that will be asked for; `whole`: class maps are trained by the head itself.

        `count`: do as with so many images, to time it.
        """
        head = predictor.head
        self.predictor, self.rows, self.count = predictor, rows, count or len(rows)
        self.all_labels = torch.from_numpy(predictor.labels).to(predictor.device)
        self.norm = norm_of(head.classifier)
        self.normed = self.norm is not None and not whole
        """Batches come as the linear layer behind the norm reads them; copies of a head have its norm themselves."""
        self.form: Literal["vectors", "cells", "maps", "places"] = "vectors"
        self.table: PoolTable | None = None
        if head.maps is not None:
            self.form = "maps" if whole else "cells"
        elif head.module is None and learns_one_number(pools := list(head.pools)) and self._table_fits():
            self.form, self.table = "places", PoolTable(pools[0], self._pooled_by)
        elif head.module is not None or learns_pool(head):
            self.form = "maps"
        self.held: Tensor | None = None
        if self.form in ("vectors", "cells") and not predictor.pooled and len(rows):
            self.held = self._all()

    def _all(self) -> Tensor | None:
        """What is read of all images; None if it is too large."""
        one = self.read(self.rows[:1])
        if one.numel() * self._held_as(one).itemsize * self.count > MOST_HELD:
            return None
        every = one.new_empty(len(self.rows), *one.shape[1:], dtype=self._held_as(one))
        size = self.predictor.batch_size
        for first in range(0, len(every), size):
            every[first : first + size] = self.read(self.rows[first : first + size])
        return every

    def _held_as(self, one: Tensor) -> torch.dtype:
        """Cells are numbers of the maps, which are kept in half precision: none is lost."""
        return self.maps[self.rows[:1]].dtype if self.form == "cells" else one.dtype

    def release(self) -> Tensor:
        """What a linear layer reads of all that is held, which is the caller's from now on."""
        held, self.held = self.held, None
        assert held is not None
        held = held.float()
        return held if self.norm is None else self.norm(held)

    def parts(self, rows: Rows) -> Iterator[Rows]:
        size = self.predictor.batch_size
        return (rows[first : first + size] for first in range(0, len(rows), size))

    def labels(self, rows: Rows) -> Tensor:
        return self.all_labels[torch.from_numpy(rows).to(self.predictor.device)]

    def batches(self, parts: Iterable[Rows]) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels) of each part; inputs that are held are overwritten by those of the next part."""
        norm = self.norm if self.normed and self.norm is not None else nn.Identity()
        return ((norm(inputs), self.labels(part)) for part, inputs in self._before_the_norm(parts))

    def _before_the_norm(self, parts: Iterable[Rows]) -> Iterator[tuple[Rows, Tensor]]:
        held, batch = self.held, None
        for part in parts:
            if held is None:
                yield part, self.read(part)
                continue
            if batch is None or len(batch) < len(part):  # once: fresh memory costs three times as much as the copy
                batch = held.new_empty(len(part), *held.shape[1:])
            yield part, torch.index_select(held, 0, self.places_in(self.rows, part), out=batch[: len(part)]).float()

    def places_in(self, among: Rows, rows: Rows) -> Tensor:
        return torch.from_numpy(np.searchsorted(among, rows)).to(self.predictor.device)

    @property
    def maps(self) -> RowCache:
        """Of all images of the comparison."""
        return self.predictor.cache.maps[STILL]

    @property
    def of_all(self) -> int:
        """How many they are, or as many as are to be done as with."""
        return len(self.maps.rows) if self.count == len(self.rows) else self.count

    def _table_fits(self) -> bool:
        return self.of_all * self.predictor.head.depth * 4 * USUAL <= MOST_IN_TABLE

    def _pooled_by(self, name: str, pool: Callable[[Tensor], Tensor]) -> Tensor:
        def every() -> Tensor:
            return torch.cat([pool(self.predictor.inputs(part)) for part in self.parts(self.maps.rows)])

        return shared(self.maps.path, f"{self.predictor.head.depth}-{name}", every).to(self.predictor.device)

    @torch.no_grad()
    def _vectors(self, rows: Rows) -> Iterator[Tensor]:
        """What the first layer, or the norm before it, reads; a pool that learns is as it begins."""
        for _, inputs in self._before_the_norm(self.parts(rows)):
            if self.table is not None:
                (inputs,) = self.table(inputs, self.predictor.head.pools)
            yield (self._first_layer_reads(inputs) if self.form == "maps" else inputs).flatten(0, -2)

    def fix_norm(self, rows: Rows) -> None:
        """Give the head's norm, if it has one, the mean and variance of these images."""
        if self.norm is not None:
            self.norm.fix(*mean_and_variance(self._vectors(rows)))

    def read(self, rows: Rows) -> Tensor:
        """The inputs of these images, before the norm."""
        if self.table is not None:
            return self.places_in(self.maps.rows, rows)  # in the table
        inputs = self.predictor.inputs(rows)
        return inputs if self.form == "maps" else self._first_layer_reads(inputs)

    @torch.no_grad()
    def _first_layer_reads(self, inputs: Tensor) -> Tensor:
        head = self.predictor.head
        if head.maps is not None:
            return inputs.flatten(2).transpose(1, 2)
        return inputs if self.predictor.pooled else head.vectors(inputs)

    def scale(self, rows: Rows) -> FeatureScale:
        """Of what the first layer reads of these images; a pool that learns is as it begins."""
        norm = self.norm or nn.Identity()
        return FeatureScale.of(norm(vectors) for vectors in self._vectors(rows))
