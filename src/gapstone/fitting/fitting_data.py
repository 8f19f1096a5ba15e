"""The images a head is fitted to, passed over once: whatever gives (images, labels), or rows that are kept on disk."""

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

Make = Callable[[Tensor], Tensor]
"""Images (n, C, H, W), normalised, on the device → (n, …): a row for each."""

Batches = Iterable[tuple[Images, Tensor]] | tuple[Tensor, Tensor]
"""A DataLoader, a list of (images, labels), or the two tensors of all images."""


class Data(Protocol):
    """Images with labels."""

    def rows(
        self, name: str, make: Make, dtype: torch.dtype, about: Any = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """What `make` makes of all images, and their labels, in one pass. dtype: float32 or float16. about: what the
        rows depend on besides the images and the model.
        """
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
            exact = _made(make, images, self.device)
            rows = exact.to(dtype)
            if dtype == torch.float16 and bool((rows.isinf() & exact.isfinite()).any()):
                largest = float(exact.abs().max())
                raise ValueError(
                    f"what the last stage is given has values up to {largest:.3g}, and it is kept in half precision, "
                    f"which ends at 65,504: leave finetune= out, or convert the model with gapstone convert --finetune,"
                    f" which keeps such values in float32."
                )
            made.append(rows.numpy())
            labels.append(truth.detach().cpu().numpy())
        if not made:
            raise ValueError(
                "data gave no images. A generator is used up after one pass: give fit_head a new one each time, or a "
                "list or DataLoader, which can be passed over again."
            )
        found = np.concatenate(labels)  # whatever integers they were; others are refused by who needs them
        return np.concatenate(made), found.astype(np.int64) if np.issubdtype(found.dtype, np.integer) else found

    def _each(self) -> Iterable[tuple[Images, Tensor]]:
        given: Any = self.batches
        if isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, Tensor) for part in given):
            images, labels = given
            if len(images) != len(labels):
                raise ValueError(f"data: {len(images):,} images and {len(labels):,} labels; expected one for each.")
            yield from zip(images.split(64), labels.split(64), strict=True)
            return
        for batch in given:
            pair = isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor)
            if not (pair and _are_images(batch[0]) and len(batch[0]) == len(batch[1])):
                shown = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in batch]
                raise ValueError(
                    f"data: expected batches (images, labels), a tensor or a list of images and a tensor of as many "
                    f"labels, and got {shown}."
                )
            yield batch[0], batch[1]


def _made(make: Make, images: Images, device: torch.device) -> Tensor:
    """A row for each image, on the CPU; those of one size are seen together, so that each is seen as it is."""
    if isinstance(images, Tensor):
        return make(images.to(device)).detach().cpu()
    together: dict[torch.Size, list[int]] = {}
    for number, image in enumerate(images):
        together.setdefault(image.shape, []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in together.values():
        made = make(torch.stack([images[number] for number in numbers]).to(device)).detach().cpu()
        found |= zip(numbers, made, strict=True)
    shapes = {row.shape for row in found.values()}
    if len(shapes) > 1:
        raise ValueError(
            "images of different sizes give maps of different sizes, and finetune= needs them of one: leave it "
            "out, or give images of one size."
        )
    return torch.stack([found[number] for number in range(len(images))])


def _are_images(given: Any) -> bool:
    several = isinstance(given, tuple | list) and len(given) > 0
    return isinstance(given, Tensor) or (several and all(isinstance(x, Tensor) and x.dim() == 3 for x in given))


class _TooLargeError(Exception):
    """A number that half precision cannot hold."""


class OnDisk:
    """Some of the images of a view; what is made of them is kept in `folder`, and a pass that was stopped goes on.
    Where half precision is asked for and too small, it is made again and kept in float32.

    >>> data = OnDisk(view, labels, split.train, device, folder, {"model": digest, "images": key})

    labels: of all rows of the view. about: what the rows depend on besides which they are: model, images, view.
    """

    def __init__(
        self,
        view: View,
        labels: NDArray[np.int64],
        rows: Rows,
        device: torch.device | str,
        folder: Path,
        about: Any,
        batch_size: int = 64,
        tell: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.view, self.labels, self.chosen = view, labels, rows
        self.device, self.folder, self.about = torch.device(device), folder, about
        self.batch_size, self.tell, self.say = batch_size, tell, say

    def rows(
        self, name: str, make: Make, dtype: torch.dtype, about: Any = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        facts = [self.about, about, self.chosen.tolist()]

        def kept(kind: torch.dtype) -> NDArray[Any]:
            def some(first: int, last: int) -> Tensor:
                shown = self.view(self.chosen[first:last])
                made = torch.cat([_made(make, images, self.device) for images in shown])
                if kind == torch.float16 and not bool(made.half().isfinite().all()):
                    raise _TooLargeError
                return made

            return compute_rows(
                self.folder, name, facts, len(self.chosen), some, self.batch_size, kind, self.tell, self.say
            )

        try:
            made = kept(dtype)
        except _TooLargeError:
            made = kept(torch.float32)  # from the first image on: a file holds one type
        return made, self.labels[self.chosen]
