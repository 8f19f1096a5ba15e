"""The kinds of torch calls, as typed values: what `torch_calls.read_call` makes of a call.

Most have the fields of torch's own signature, in its order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gapstone.regions.places import Place

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Any call; of one that is not in the table, nothing but its name is known."""

    function: str


@dataclass(frozen=True, slots=True)
class Convolution(Operation):
    """A convolution ("conv") or its transpose ("conv_transpose"). kernel_size is None for weights without a shape."""

    kernel_size: Sizes | None
    stride: Sizes
    padding: tuple[tuple[int, int], ...]
    dilation: Sizes
    input: object
    weight: Any


@dataclass(frozen=True, slots=True)
class WindowPool(Operation):
    """Windows, reduced to their "max" or "avg"."""

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    ceil_mode: bool
    count_include_pad: bool = True
    divisor_override: int | None = None
    return_indices: bool = False


@dataclass(frozen=True, slots=True)
class AdaptivePool(Operation):
    """A fixed number of cells, reduced to their "max" or "avg"."""

    output_size: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class RegionPool(Operation):
    """gapstone's own operator; `function` is the pool's name."""

    place: Place
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reduce(Operation):
    """mean, sum, amax, …; dims is None for all dimensions at once."""

    dims: Sizes | None
    keepdim: bool
    dtype: torch.dtype | None = None


@dataclass(frozen=True, slots=True)
class Scale(Operation):
    """Lengths of vectors, or standard deviations, along dimensions: what a norm divides by."""

    dims: Sizes | None
    keepdim: bool
    dtype: torch.dtype | None = None


@dataclass(frozen=True, slots=True)
class BatchNorm(Operation):
    input: object
    running_mean: object = None
    running_var: object = None
    weight: object = None
    bias: object = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class LayerNorm(Operation):
    """layer_norm, and rms_norm, which does not subtract the mean. dims: how many of the last ones it is over."""

    dims: int
    weight: Any
    bias: Any
    eps: float | None


@dataclass(frozen=True, slots=True)
class GroupNorm(Operation):
    input: object
    num_groups: int
    weight: Any = None
    bias: Any = None
    eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class InstanceNorm(Operation):
    input: object
    running_mean: object = None
    running_var: object = None
    weight: Any = None
    bias: Any = None
    use_input_stats: bool = True
    momentum: float = 0.1
    eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class Normalize(Operation):
    """Vectors along `dim`, divided by their length."""

    input: object
    p: float = 2.0
    dim: int = 1
    eps: float = 1e-12
    out: object = None


@dataclass(frozen=True, slots=True)
class LinearLayer(Operation):
    input: object
    weight: Any
    bias: object = None


@dataclass(frozen=True, slots=True)
class MatrixProduct(Operation):
    """A product of matrices, or fused attention over tokens."""

    input: object


@dataclass(frozen=True, slots=True)
class Elementwise(Operation):
    """Each number by itself, or with those that are broadcast to it: input ∘ other."""

    input: object
    other: object
    rounding_mode: str | None = None


class PerPosition(Operation):
    """Each position by itself, over its channels: prelu, local_response_norm, zeros_like, …"""


@dataclass(frozen=True, slots=True)
class Dropout(Operation):
    p: float
    training: bool


@dataclass(frozen=True, slots=True)
class Softmax(Operation):
    """dim is None where it was not given."""

    dim: int | None


@dataclass(frozen=True, slots=True)
class Glu(Operation):
    input: object
    dim: int = -1


class Copy(Operation):
    """The same numbers: clone, detach, contiguous, alias."""


class Cast(Operation):
    """The same numbers in another type: to, float, half, …"""


class Expand(Operation):
    """expand, expand_as."""


class Reshape(Operation):
    """view, reshape, flatten, unflatten."""


class Squeeze(Operation):
    """squeeze, unsqueeze."""


@dataclass(frozen=True, slots=True)
class Permute(Operation):
    """Dimension i of the answer is dimension order[i] of the input."""

    order: Sizes


@dataclass(frozen=True, slots=True)
class Slice(Operation):
    """An index. slices: one per dimension; None where the index has something else (numbers, None, tensors)."""

    index: tuple[object, ...]
    slices: tuple[slice, ...] | None


@dataclass(frozen=True, slots=True)
class Chunk(Operation):
    """chunk, split, tensor_split."""

    dim: int


@dataclass(frozen=True, slots=True)
class Concat(Operation):
    """cat, or stack, which makes a new dimension."""

    tensors: Sequence[object]
    dim: int = 0


@dataclass(frozen=True, slots=True)
class Pad(Operation):
    """(before, after) of each dimension of the input."""

    padding: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Resize(Operation):
    """interpolate: to a size, or by factors, per axis. `function` is the mode."""

    size: Sizes | None
    scale_factor: tuple[float, ...] | None
    align_corners: bool
    antialias: bool


@dataclass(frozen=True, slots=True)
class PixelUnshuffle(Operation):
    """Positions become channels."""

    input: object
    downscale_factor: int


class Rearrange(Operation):
    """Positions change their order, or come from somewhere else, even where the shape stays: flip, gather, …"""


@dataclass(frozen=True, slots=True)
class Query(Operation):
    """What a model asks of a tensor, or a view that it takes as an attribute: size(), shape, mT, …"""

    dim: int | None = None
