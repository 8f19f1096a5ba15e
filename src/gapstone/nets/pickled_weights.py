"""Files of torch.save (.pth, .pt, .ckpt, .bin): their tensors alone, by torch's `weights_only`; no code of theirs runs.

What that refuses is refused here, in a sentence; there is no other way in.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gapstone.console.formatting import display
from gapstone.runtime.environment import memory

State = dict[str, Tensor]

WRAPPINGS = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "teacher", "student",
    "backbone", "encoder", "weights", "params",
)  # fmt: skip
"""Keys of checkpoints that hold the weights beside an optimizer's state, an epoch and so on; the first one counts."""
DEEPEST = 3
"""Such keys in each other."""
SAVE = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def is_pickled(path: Path) -> bool:
    """Whether torch.save has written the file, by its first bytes: an archive, or before torch 1.6 a pickle."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")


def read_pickled(path: Path) -> tuple[State, str]:
    """The tensors of the file, and the keys that they were found under: `state_dict`, or "" for those at the top.

    Raises:
        ValueError: it holds more than weights, or none, or is damaged, or needs more memory than there is.
    """
    _check_unpacked(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript, which is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{display(path)}: {_why(error)}") from None  # torch's own advice is to open it unsafely
    state, where = _tensors(content)
    if not state:
        raise ValueError(f"{display(path)}: {_found_instead(content)}; expected a state_dict: names and their tensors.")
    return {name: _plain(path, name, tensor) for name, tensor in state.items()}, where


def _check_unpacked(path: Path) -> None:
    """Raises ValueError for an archive whose parts are larger unpacked than this machine can hold three times."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return  # an old pickle; a damaged archive torch tells of
    if 3 * size > memory():
        raise ValueError(
            f"{display(path)}: unpacked it has {size / 1e9:.1f} GB, and opening it takes three times that; this "
            f"machine has {memory() / 1e9:.1f} GB."
        )


def _why(error: Exception) -> str:
    text = str(error)
    if found := re.search(r"(?:GLOBAL|class|type) ([\w.<>]+)", text) if "Unsupported" in text else None:
        return (
            f"it holds more than weights: {display(found[1], 100)}, which torch.load(weights_only=True) does not open, "
            f"since it may be code. In the program that made it: {SAVE}."
        )
    if "TorchScript" in text:
        return f"it is a TorchScript archive, which holds code. In the program that made it: {SAVE}."
    # not all that torch says: it advises to open the file unsafely
    said = text.partition("WeightsUnpickler error:")[2].strip() if "WeightsUnpickler" in text else text
    reason = said.splitlines()[0] if said and "weights_only" not in said.splitlines()[0] else type(error).__name__
    return f"it is damaged or incomplete, or no file of torch.save ({display(reason, 200)}); copy it again."


def _tensors(content: object, depth: int = 0, where: str = "") -> tuple[State, str]:
    """The state_dict in what was loaded, and where."""
    if not isinstance(content, Mapping):
        return {}, where
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if state:
        return state, where
    for key in WRAPPINGS if depth < DEEPEST else ():
        found, there = _tensors(content.get(key), depth + 1, f"{where}.{key}".lstrip("."))
        if found:
            return found, there
    return {}, where


def _found_instead(content: object) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(display(str(key), 40) for key in list(content)[:8]) or "nothing"
        return f"no weights were found in it (it has {keys})"
    return f"it holds a {type(content).__name__}"


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    """The tensor with numbers of its own; what stands for more numbers than the file has is refused before it grows."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise ValueError(
            f"{display(path)}: {display(name, 100)} is {kind}, and weights are plain numbers; save those of the "
            f"network as it was trained."
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"{display(path)}: {display(name, 100)} claims {tensor.numel():,} numbers, and the file has fewer: it is "
            f"damaged."
        )
    return tensor.detach().clone(memory_format=torch.contiguous_format)
