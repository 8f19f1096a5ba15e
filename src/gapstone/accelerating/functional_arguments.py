"""The arguments of torch.nn.functional's pools as a place; None where the call is torch's to serve, or to refuse."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gapstone.regions import Window
from gapstone.regions.places import Cells, Divisor, Intervals

# below, torch's own call is over before gapstone's has begun (1 thread, µs, torch : gapstone):
# max 3x3 of 1,024 numbers 9 : 11, of 3,136 21 : 12; with its gradient of 3,136 81 : 134, of 12,544 197 : 152
SMALL = 1 << 12
SMALL_GRADIENT = 1 << 13
# lists of positions take longer to begin, and their gradients longer than torch's throughout:
# max over 2 x 2 cells of 50,176 numbers 105 : 105, of 200,704 354 : 178; mean 48 : 99 and 213 : 167
SMALL_GRID = {"max": 1 << 16, "mean": 1 << 17}

Numbers = tuple[int, ...]


def gradient(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def max_window(
    axes: int, input: Tensor, kernel_size: object = None, stride: object = None, padding: object = 0,
    dilation: object = 1, ceil_mode: object = False, return_indices: object = False, *more: object, **unknown: object,
) -> Intervals | None:  # fmt: skip
    # indices are int64 in torch's layout, as MaxUnpool wants them
    if return_indices is not False or more or unknown:
        return None
    return _window(axes, input, kernel_size, stride, padding, dilation, ceil_mode, "positions")


def mean_window(
    axes: int, input: Tensor, kernel_size: object = None, stride: object = None, padding: object = 0,
    ceil_mode: object = False, count_include_pad: object = True, divisor_override: object = None, *more: object,
    **unknown: object,
) -> Intervals | None:  # fmt: skip
    # torch has no avg_pool3d of half precision: the error is its own
    if (axes == 3 and input.dtype.itemsize == 2) or type(count_include_pad) is not bool or more or unknown:
        return None
    divisor: Divisor = "padded" if count_include_pad else "positions"
    if divisor_override is not None:
        if type(divisor_override) is not int or divisor_override == 0 or axes == 1:
            return None
        divisor = divisor_override
    return _window(axes, input, kernel_size, stride, padding, 1, ceil_mode, divisor)


def max_grid(
    axes: int, input: Tensor, output_size: object = None, return_indices: object = False, *more: object,
    **unknown: object,
) -> Intervals | None:  # fmt: skip
    return None if return_indices is not False or more or unknown else _grid(axes, "max", input, output_size)


def mean_grid(
    axes: int, input: Tensor, output_size: object = None, *more: object, **unknown: object
) -> Intervals | None:
    return None if more or unknown else _grid(axes, "mean", input, output_size)


def _window(
    axes: int,
    x: Tensor,
    size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
    divisor: Divisor,
) -> Intervals | None:
    if x.dim() != axes + 2 or x.numel() < (SMALL_GRADIENT if gradient(x) else SMALL) or not isinstance(ceil_mode, bool):
        return None
    sizes, sides, steps = _per_axis(size, axes), _per_axis(padding, axes), _per_axis(dilation, axes)
    unset = stride is None or (isinstance(stride, tuple | list) and not stride)
    strides = sizes if unset else _per_axis(stride, axes)
    if sizes is None or strides is None or sides is None or steps is None:
        return None
    if min(*sizes, *strides, *steps) < 1 or min(sides) < 0:
        return None
    if any(2 * side > size for side, size in zip(sides, sizes, strict=True)):
        return None
    make = windows if torch.compiler.is_compiling() else _kept_windows
    return make(tuple(x.shape), sizes, strides, sides, steps, ceil_mode, divisor)


def windows(
    shape: Numbers, sizes: Numbers, strides: Numbers, sides: Numbers, steps: Numbers, ceil_mode: bool, divisor: Divisor
) -> Intervals | None:
    """None where no window fits: torch says so."""
    for length, size, stride, side, step in zip(shape[2:], sizes, strides, sides, steps, strict=True):
        if length + 2 * side - (size - 1) * step - 1 < (1 - stride if ceil_mode else 0):
            return None
    return Window(sizes, strides, sides, steps, ceil_mode, divisor).place(shape)


_kept_windows = lru_cache(maxsize=1024)(windows)


def _grid(axes: int, name: str, x: Tensor, size: Any) -> Intervals | None:
    if x.dim() != axes + 2 or x.numel() < SMALL_GRID[name] or gradient(x) or not x.is_contiguous():
        return None
    lengths = tuple(x.shape[2:])
    if axes > 1 and type(size) in (tuple, list) and len(size) == axes:
        size = tuple(length if n is None else n for n, length in zip(size, lengths, strict=True))
    cells = _per_axis(size, axes)
    # one cell: torch's own mean is at the memory's limit
    if cells is None or min(cells) < 1 or (name == "mean" and max(cells) == 1):
        return None
    return Intervals(tuple(Cells(n, length) for n, length in zip(cells, lengths, strict=True)))


def _per_axis(value: object, axes: int) -> Numbers | None:
    """One number per axis; None for anything but whole numbers."""
    if type(value) is int:
        return (value,) * axes
    if not isinstance(value, tuple | list) or len(value) not in (1, axes) or any(type(n) is not int for n in value):
        return None
    return tuple(value) * (axes // len(value))
