"""The images a head is fitted to, passed over once: whatever gives (images, labels), or stored images kept on disk."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.images.preprocessing import Preprocessing
from gapstone.kept import keep
from gapstone.training import Pictures, Rows

Make = Callable[[Tensor], Tensor]
"""Images (n, C, H, W), normalised, on the device → (n, …): a row for each."""

Batches = Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor]
"""A DataLoader, a list of (images, labels), or the two tensors of all images."""


class Data(Protocol):
    """Images with labels."""

    def rows(
        self, name: str, make: Make, dtype: torch.dtype, about: Any = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """What `make` makes of all images, and their labels, in one pass. dtype: float32 or float16. about: what the
        rows depend on besides the images and the model."""
        ...


class InMemory:
    """What a DataLoader gives, in the order it comes; the rows are kept in memory.

    >>> features, labels = InMemory(loader, "cpu").rows("vectors", make, torch.float32)
    """

    def __init__(self, batches: Batches, device: torch.device | str) -> None:
        self.batches, self.device = batches, torch.device(device)

    def rows(
        self, name: str, make: Make, dtype: torch.dtype, about: Any = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        made, labels = [], []
        for images, truth in self._each():
            exact = make(images.to(self.device)).detach().cpu()
            rows = exact.to(dtype)
            if dtype == torch.float16 and bool((rows.isinf() & exact.isfinite()).any()):
                largest = float(exact.abs().max())
                raise ValueError(f"{name}: values up to {largest:.3g} do not fit into half precision (65,504).")
            made.append(rows.numpy())
            labels.append(truth.detach().cpu().numpy())
        if not made:
            raise ValueError("data gave no images.")
        return np.concatenate(made), np.concatenate(labels)

    def _each(self) -> Iterable[tuple[Tensor, Tensor]]:
        given: Any = self.batches
        if isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, Tensor) for part in given):
            images, labels = given
            if len(images) != len(labels):
                raise ValueError(f"data: {len(images):,} images and {len(labels):,} labels; expected one for each.")
            yield from zip(images.split(64), labels.split(64), strict=True)
            return
        for batch in given:
            fine = isinstance(batch, tuple | list) and len(batch) == 2
            if not (fine and all(isinstance(part, Tensor) for part in batch) and len(batch[0]) == len(batch[1])):
                shown = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in batch]
                raise ValueError(
                    f"data: expected batches (images, labels), two tensors of one length, and got {shown}."
                )
            yield batch[0], batch[1]


class Stored:
    """Some rows of a store; what is made of them is kept in `folder`, and a pass that was stopped goes on.

    >>> data = Stored(store, split.train, preprocessing, "cpu", folder, {"model": digest, "store": store.key})
    """

    def __init__(
        self,
        pictures: Pictures,
        rows: Rows,
        preprocessing: Preprocessing,
        device: torch.device | str,
        folder: Path,
        about: Any,
        batch_size: int = 64,
        tell: Callable[[int, int], None] | None = None,
    ) -> None:
        self.pictures, self.chosen, self.preprocessing = pictures, rows, preprocessing
        self.device, self.folder, self.about = torch.device(device), folder, about
        self.batch_size, self.tell = batch_size, tell

    def rows(
        self, name: str, make: Make, dtype: torch.dtype, about: Any = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        def some(first: int, last: int) -> Tensor:
            return make(self._images(self.chosen[first:last]))

        facts = [self.about, about, self.chosen.tolist(), self.preprocessing.to_json()]
        made = keep(self.folder, name, facts, len(self.chosen), some, self.batch_size, dtype, self.tell)
        return made, self.pictures.labels[self.chosen].astype(np.int64)

    def _images(self, rows: Rows) -> Tensor:
        seen = self.preprocessing.centre(torch.from_numpy(self.pictures.images[rows]))
        return self.preprocessing.normalise(seen.to(self.device))
