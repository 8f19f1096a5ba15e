"""A file's tensors, checked: its size, its header, finite numbers, the shapes of the network's own."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gapstone.console.formatting import display
from gapstone.nets.pickled_weights import is_pickled, read_pickled
from gapstone.runtime.environment import memory
from gapstone.storage.paths import check_input

State = dict[str, Tensor]

LONGEST_HEADER = 8_000_000  # bytes; 21,000 labels and 2,000 tensors take 1 MB, and as JSON in memory 20 times that


def check_size(path: Path) -> None:
    """Raises ValueError for a safetensors file, or what is taken for one, that this machine cannot open."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if LONGEST_HEADER < header < size:
        raise ValueError(
            f"{path}: its header claims {header:,} bytes, and a network's has at most {LONGEST_HEADER:,}: it is no "
            f"safetensors file, or a damaged one"
        )
    if 3 * size > memory():  # as bytes, as tensors, and as a model
        raise ValueError(
            f"{path}: it has {size / 1e9:.1f} GB, and opening it takes three times that; this machine has "
            f"{memory() / 1e9:.1f} GB"
        )


WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel and DistributedDataParallel, torch.compile, and Lightning put before every name."""


def unwrapped(state: State) -> State:
    """The state_dict of the network itself, where it was saved through what it was wrapped in.

    >>> list(unwrapped({"module._orig_mod.fc.weight": w, "module._orig_mod.fc.bias": b}))
    ['fc.weight', 'fc.bias']
    """
    while state:
        prefix = next((wrapper for wrapper in WRAPPERS if all(key.startswith(wrapper) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def read_state(path: Path) -> State:
    """The tensors of a file, under the names of the network itself. Raises ValueError as `read_placed_state`."""
    return read_placed_state(path)[0]


def read_placed_state(path: Path) -> tuple[State, str]:
    """The same, and the keys that they were found under in a file of torch.save: `state_dict`; "" at its top.

    Raises ValueError for what is neither a safetensors file nor one of torch.save that holds weights alone.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_input(display(path), path)
    check_size(path)
    if is_pickled(path):
        state, where = read_pickled(path)
        return unwrapped(state), where
    try:
        return unwrapped(load_file(path)), ""
    except SafetensorError as error:
        raise ValueError(
            f"{path}: neither a safetensors file ({error}) nor one of torch.save; write one with "
            f"safetensors.torch.save_file(model.state_dict(), …)"
        ) from error


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights that can be taken as float32. Others were made from weights (quantised), or are none."""


def not_sound(state: State) -> str | None:
    """In words, the first tensor that no trained network has: with NaN, infinity, or a variance below 0."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        numbers = tensor.detach().cpu()
        # NumPy's is 20 times faster, and knows no bfloat16
        exact = numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.float()
        fine = np.isfinite(exact.numpy())
        if not fine.all():
            return f"{int((~fine).sum()):,} of {tensor.numel():,} numbers in {name} are not finite"
        if name.endswith("running_var") and bool((tensor < 0).any()):
            return f"{int((tensor < 0).sum()):,} of {tensor.numel():,} variances in {name} are below 0"
    return None


def check_sound(what: str, own: State, given: State) -> None:
    """Raises ValueError that begins with `what` where a tensor given is no weights, or none of the network's kind.

    Else `load_state_dict` would cast whole numbers, truth values and complex numbers without a word.
    """
    for name, tensor in own.items():
        given_type = given[name].dtype
        if not (given_type in FLOATS if tensor.is_floating_point() else given_type == tensor.dtype):
            wanted = "float32, float16, bfloat16 or float64" if tensor.is_floating_point() else str(tensor.dtype)[6:]
            raise ValueError(
                f"{what}: {name} is {str(given_type)[6:]}, and should be {wanted}; save the weights of the network "
                f"itself, not of a quantised or converted one"
            )
    if wrong := not_sound({name: given[name].to(tensor.dtype) for name, tensor in own.items()}):
        raise ValueError(f"{what}: {wrong}; the file is damaged, or the training diverged: take another")


def check_same(what: str, own: State, given: State) -> None:
    """Raises ValueError that begins with `what` where names, shapes or types differ, or numbers are none."""
    lacks, more = own.keys() - given.keys(), given.keys() - own.keys()
    other = [key for key in own.keys() & given.keys() if own[key].shape != given[key].shape]
    if lacks or more or other:
        some = ", ".join(sorted([*lacks, *more, *other])[:3])
        raise ValueError(
            f"{what}: {len(lacks)} of its tensors are missing, {len(more)} belong elsewhere, {len(other)} have another "
            f"shape ({some}, …)"
        )
    check_sound(what, own, given)
