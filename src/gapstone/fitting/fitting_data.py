"""The images that a head is fitted to, passed over once; the computed rows stay in memory or on disk."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.fitting.image_batches import Images, View
from gapstone.storage.resumable_rows import compute_rows
from gapstone.training.loop import Rows

Compute = Callable[[Tensor], Tensor]
"""Images (n, C, H, W), normalised, on the device → (n, …), one row per image."""

Batches = Iterable[tuple[Images, Tensor]] | tuple[Tensor, Tensor]
"""A DataLoader, a list of (images, labels), or the two tensors of all images."""


class Data(Protocol):
    """Images with labels."""

    def rows(
        self, name: str, compute: Compute, dtype: torch.dtype, about: object = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compute a row for every image, in one pass, and return the rows and the labels.

        Args:
            name: of the rows; names their file on disk.
            compute: applied to each batch of images.
            dtype: of the rows: float32 or float16.
            about: JSON of what the rows depend on besides the images and the model.
        """
        ...


class InMemory:
    """Batches of a DataLoader, a list or two tensors, in their order; the rows stay in memory.

    >>> features, labels = InMemory(loader, "cpu").rows("vectors", compute, torch.float32)
    """

    def __init__(self, batches: Batches, device: torch.device | str) -> None:
        self.batches, self.device = batches, torch.device(device)

    def rows(
        self, name: str, compute: Compute, dtype: torch.dtype, about: object = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        row_batches, label_batches = [], []
        for images, batch_labels in self._checked_batches():
            exact = _compute_batch(compute, images, self.device)
            rows = exact.to(dtype)
            if dtype == torch.float16 and bool((rows.isinf() & exact.isfinite()).any()):
                largest = float(exact.abs().max())
                raise ValueError(
                    f"what the last stage is given has values up to {largest:.3g}, and it is kept in half precision, "
                    f"which ends at 65,504: leave finetune= out, or convert the model with gapstone convert --finetune,"
                    f" which keeps such values in float32."
                )
            row_batches.append(rows.numpy())
            label_batches.append(batch_labels.detach().cpu().numpy())
        if not row_batches:
            raise ValueError(
                "data gave no images. A generator is used up after one pass: give fit_head a new one each time, or a "
                "list or DataLoader, which can be passed over again."
            )
        labels = np.concatenate(label_batches)
        if labels.ndim == 2 and np.isin(labels, (0, 1)).all():  # also as floats, which BCEWithLogitsLoss takes
            labels = labels.astype(bool)
        elif np.issubdtype(labels.dtype, np.integer):  # check_labels refuses the others
            labels = labels.astype(np.int64)
        return np.concatenate(row_batches), labels

    def _checked_batches(self) -> Iterable[tuple[Images, Tensor]]:
        batches: Any = self.batches
        if isinstance(batches, tuple) and len(batches) == 2 and all(isinstance(part, Tensor) for part in batches):
            images, labels = batches
            if len(images) != len(labels):
                raise ValueError(f"data: {len(images):,} images and {len(labels):,} labels; expected one for each.")
            yield from zip(images.split(64), labels.split(64), strict=True)
            return
        for batch in batches:
            pair = isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor)
            if not (pair and _are_images(batch[0]) and len(batch[0]) == len(batch[1])):
                parts = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in batch]
                raise ValueError(
                    f"data: expected batches (images, labels), a tensor or a list of images and a tensor of as many "
                    f"labels, and got {parts}."
                )
            yield batch[0], batch[1]


def _compute_batch(compute: Compute, images: Images, device: torch.device) -> Tensor:
    """A row for each image, on the CPU; images of a list are batched by size, so that none is padded or resized."""
    if isinstance(images, Tensor):
        return compute(images.to(device)).detach().cpu()
    by_size: dict[torch.Size, list[int]] = {}
    for number, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(number)
    rows: dict[int, Tensor] = {}
    for numbers in by_size.values():
        computed = compute(torch.stack([images[number] for number in numbers]).to(device)).detach().cpu()
        rows |= zip(numbers, computed, strict=True)
    if len({row.shape for row in rows.values()}) > 1:
        raise ValueError(
            "images of different sizes give maps of different sizes, and finetune= needs them of one: leave it "
            "out, or give images of one size."
        )
    return torch.stack([rows[number] for number in range(len(images))])


def _are_images(images: object) -> bool:
    if isinstance(images, tuple | list):
        return len(images) > 0 and all(isinstance(x, Tensor) and x.dim() == 3 for x in images)
    return isinstance(images, Tensor)


class _TooLargeError(Exception):
    """A number that half precision cannot hold."""


class OnDisk:
    """Some rows of a view; what is computed of them is stored in `folder`, so that a stopped pass can be resumed.

    Where half precision overflows, the rows are computed again and stored in float32.

    >>> data = OnDisk(view, labels, split.train, device, folder, {"model": digest, "images": key})

    Args:
        view: yields the images.
        labels: of all rows of the view, of which `rows` are used.
        about: JSON of what the rows depend on besides their numbers: model, images, view.
        progress: called with (done, total).
        log: called with a message for the user when a stored file is damaged.
    """

    def __init__(
        self,
        view: View,
        labels: NDArray[Any],
        rows: Rows,
        device: torch.device | str,
        folder: Path,
        about: object,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.view, self.labels, self.view_rows = view, labels, rows
        self.device, self.folder, self.about = torch.device(device), folder, about
        self.batch_size, self.progress, self.log = batch_size, progress, log

    def rows(
        self, name: str, compute: Compute, dtype: torch.dtype, about: object = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        facts = [self.about, about, self.view_rows.tolist()]

        def stored_rows(dtype: torch.dtype) -> NDArray[Any]:
            def compute_range(first: int, last: int) -> Tensor:
                batches = self.view(self.view_rows[first:last])
                rows = torch.cat([_compute_batch(compute, images, self.device) for images in batches])
                if dtype == torch.float16 and not bool(rows.half().isfinite().all()):
                    raise _TooLargeError
                return rows

            count = len(self.view_rows)
            return compute_rows(
                self.folder, name, facts, count, compute_range, self.batch_size, dtype, self.progress, self.log
            )

        try:
            rows = stored_rows(dtype)
        except _TooLargeError:
            rows = stored_rows(torch.float32)  # from the first image on: a file holds one dtype
        return rows, self.labels[self.view_rows]
