"""The folder of a trial on disk: trial.json, arrays.npz, and the weights that are kept."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import nn

from gapstone.storage.atomic import remove, sync_folder, write_atomic
from gapstone.storage.sealed_json import DamagedError, digests, read_sealed, read_vouched, write_sealed

HEAD, MOST_STORED = "head.safetensors", 16 << 20
"""The file of a head's weights on a frozen backbone, and its most bytes: larger ones are trained again if needed."""
WEIGHTS = "weights.safetensors"
"""The file of the weights of a network that was trained whole, until its model is written."""


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the JSON and the arrays that `run` wrote to the folder, which is named by the trial's id.

    Raises FileNotFoundError if there is no such trial, and DamagedError if its files have changed.
    """
    if not os.path.lexists(folder):
        raise FileNotFoundError(folder)
    try:
        facts = read_sealed(folder / "trial.json", folder.name)
    except FileNotFoundError:
        raise DamagedError(folder / "trial.json", "is missing") from None
    with np.load(io.BytesIO(read_vouched(folder, "arrays.npz", facts)), allow_pickle=False) as arrays:
        return facts, dict(arrays)


def read_stored(folder: Path, facts: dict[str, Any]) -> bytes | None:
    """The safetensors of the trial's head, or of its network; None if they are not stored. Raises DamagedError."""
    name = next((name for name in (HEAD, WEIGHTS) if name in facts["files"]), None)
    if name is None or (name == WEIGHTS and not (folder / name).exists()):  # dropped, as those of a better trial
        return None
    return read_vouched(folder, name, facts)


def write_trial(
    id: str, facts: dict[str, object], arrays: dict[str, Any], trials: Path, kept: tuple[str, nn.Module] | None
) -> Path:
    """Write the folder `trials/<id>` atomically; `kept`: a file's name, and the module whose weights it holds."""
    trials.mkdir(parents=True, exist_ok=True)
    unfinished, done = trials / f".{id}.{os.getpid()}.unfinished", trials / id
    try:
        remove(unfinished)
        unfinished.mkdir()
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        write_atomic(unfinished / "arrays.npz", packed.getvalue())
        names = ["arrays.npz"]
        name, module = kept or ("", nn.Module())
        weights = {key: tensor.cpu().contiguous().clone() for key, tensor in module.state_dict().items()}
        if kept and (name == WEIGHTS or sum(tensor.nbytes for tensor in weights.values()) <= MOST_STORED):
            write_atomic(unfinished / name, save(weights))
            names.append(name)
        write_sealed(unfinished / "trial.json", facts | {"files": digests(unfinished, names)}, id)
        remove(done)
        unfinished.rename(done)
        sync_folder(trials)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)  # free the space of a full disk
        raise
    return done
