"""The kinds of torch calls, as typed values: what `torch_calls.read_call` makes of a call."""

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
class Conv(Operation):
    """A convolution ("conv") or its transpose ("conv_transpose"). kernel_size is None for weights without a shape."""

    kernel_size: Sizes | None
    stride: Sizes
    padding: tuple[tuple[int, int], ...]
    dilation: Sizes
    input: object
    weight: Any


@dataclass(frozen=True, slots=True)
class Pool(Operation):
    """Windows, reduced to their "max" or "avg"."""

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None
    return_indices: bool


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
class VectorNorm(Operation):
    """Lengths along dimensions."""

    dims: Sizes | None
    keepdim: bool
    dtype: torch.dtype | None = None


class Deviation(Operation):
    """Standard deviations, alone or with means."""


@dataclass(frozen=True, slots=True)
class BatchNorm(Operation):
    training: bool


@dataclass(frozen=True, slots=True)
class LayerNorm(Operation):
    """layer_norm, and rms_norm, which does not subtract the mean. dims: how many of the last ones it is over."""

    dims: int
    weight: Any
    bias: Any
    eps: float | None


@dataclass(frozen=True, slots=True)
class GroupNorm(Operation):
    groups: int
    weight: Any
    bias: Any
    eps: float


@dataclass(frozen=True, slots=True)
class InstanceNorm(Operation):
    weight: Any
    bias: Any
    own_statistics: bool
    eps: float


@dataclass(frozen=True, slots=True)
class Normalize(Operation):
    """Vectors along `dim` divided by their length."""

    p: float
    dim: int
    eps: float


@dataclass(frozen=True, slots=True)
class Linear(Operation):
    input: object
    weight: Any


@dataclass(frozen=True, slots=True)
class MatrixProduct(Operation):
    input: object


@dataclass(frozen=True, slots=True)
class Elementwise(Operation):
    """Each number by itself, or with those that are broadcast to it: input ∘ other."""

    input: object
    other: object
    rounding_mode: str | None


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
    dim: int


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
    order: Sizes
    """Dimension i of the answer is dimension order[i] of the input."""


@dataclass(frozen=True, slots=True)
class Slice(Operation):
    """An index. slices: one per dimension; None where the index has something else (numbers, None, tensors)."""

    index: tuple[object, ...]
    slices: tuple[slice, ...] | None


@dataclass(frozen=True, slots=True)
class Split(Operation):
    """chunk, split, tensor_split."""

    dim: int


@dataclass(frozen=True, slots=True)
class Concat(Operation):
    """cat, or stack, which makes a new dimension."""

    tensors: Sequence[object]
    dim: int


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
class PixelShuffle(Operation):
    """Positions become channels (pixel_unshuffle), or channels positions (pixel_shuffle)."""

    factor: int


class Attention(Operation):
    """Fused attention over tokens."""


class Rearrange(Operation):
    """Positions change their order, or come from somewhere else, even where the shape stays: flip, gather, …"""


@dataclass(frozen=True, slots=True)
class Query(Operation):
    """What a model asks of a tensor, or a view that it takes as an attribute: size(), shape, mT, …"""

    dim: int | None = None
