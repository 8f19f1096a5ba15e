"""What the trials of a head make of the kept maps of all images, once for all of them.

In files beside the maps, which appear whole; trials in other processes take what is there. Removed after the last one.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gapstone.storage.atomic import atomic_file

FOLDER = "shared"


def shared(maps: Path, name: str, make: Callable[[], Tensor]) -> Tensor:
    """The tensor of that name, made of the file `maps`; not to be written to.

    Two processes that need it at the same time both make it, and it is the same.
    """
    path = maps.parent / FOLDER / f"{maps.stem}-{name}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        made = make().cpu().numpy()
        with atomic_file(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, made, allow_pickle=False)
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def remove_shared(folder: Path) -> None:
    """`folder`: of the maps."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
