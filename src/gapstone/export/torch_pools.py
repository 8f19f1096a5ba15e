"""Pooling with torch's own operators at any size, for `torch.export` and every ONNX runtime.

It uses no operator of gapstone, no loop over positions, and no constant size.
"""

import math
from collections.abc import Callable
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gapstone.heads.attention_queries import AttentionQueries
from gapstone.pooling import Pool
from gapstone.pools import POOLS
from gapstone.pools.gem import LEAST
from gapstone.regions import Grid, Whole, Window

Pooled = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(N, C, h, w) → pooled vector (N, C), and each position's part of it (N, C, h, w): x · d pooled / d x."""


OF_WHOLE_MAPS = ("mean", "max", "gem", "logsumexp")


def whole(name: str, parameters: dict[str, float]) -> Pooled:
    """Return a pool over the whole map, with the formula of `gapstone.pools`.

    >>> pooled, parts = whole("gem", {"p": 3.0})(x)
    """
    if name == "mean":
        return _mean
    if name == "max":
        return _max
    if name == "gem":
        return lambda x: _gem(x, parameters["p"])
    if name == "logsumexp":
        return lambda x: _logsumexp(x, parameters["r"])
    raise ValueError(f"export: the pool {name!r} has no form for other runtimes yet; take gap, gmp, gem or lse.")


def _mean(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((2, 3)), x / (x.shape[2] * x.shape[3])


def _max(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(2)
    winner = flat.argmax(2, keepdim=True)  # the first of equal maxima, in torch and in ONNX
    here = torch.arange(flat.shape[2], device=x.device) == winner
    return flat.amax(2), torch.where(here, flat, 0.0).reshape(x.shape)


def _gem(x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    counted = x.clamp(min=LEAST)
    top = counted.amax((2, 3), keepdim=True)
    ratio = counted / top
    power = ratio.pow(p).mean((2, 3), keepdim=True)
    share = ratio.pow(p - 1) * (power.pow(1 / p - 1) / (x.shape[2] * x.shape[3]))
    return (top * power.pow(1 / p)).flatten(1), torch.where(x > LEAST, x * share, 0.0)


def _logsumexp(x: Tensor, r: float) -> tuple[Tensor, Tensor]:
    top = x.amax((2, 3), keepdim=True)
    z = r * (x - top)
    e = z.exp()
    mean = e.mean((2, 3), keepdim=True)
    # Near r = 0 the logarithm of the mean loses its digits, and ONNX has neither expm1 nor log1p:
    # exp(z) − 1 = tanh(z/2) (exp(z) + 1), and log1p(y) is log(1 + y) corrected by the rounding error of 1 + y.
    less = ((z / 2).tanh() * (e + 1)).mean((2, 3), keepdim=True)
    one = 1 + less
    near = one.log() - ((one - 1) - less) / one
    pooled = top + torch.where(mean > 0.5, near, mean.log()) / r
    return pooled.flatten(1), x * (e / (mean * (x.shape[2] * x.shape[3])))


def grid_matrix(cells: tuple[int, int], x: Tensor) -> Tensor:
    """Return the matrix (a·b, h·w) of the means over the cells of an a×b grid on a map (…, h, w) of any size.

    >>> grid_matrix((1, 2), torch.zeros(1, 1, 1, 3))    # cell i is [floor(i·3/2), ceil((i+1)·3/2))
    tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])

    It is one matrix for both axes: with a matrix left of a stack, torch.export records that no size may be 1.
    """
    rows, columns = (_axis_matrix(n, x.shape[2 + axis], x) for axis, n in enumerate(cells))
    return (rows[:, None, :, None] * columns[None, :, None, :]).flatten(2).flatten(0, 1)


def _axis_matrix(cells: int, length: int, x: Tensor) -> Tensor:
    position, cell = torch.arange(length, device=x.device), torch.arange(cells, device=x.device)[:, None]
    start = torch.div(cell * length, cells, rounding_mode="trunc")
    end = torch.div((cell + 1) * length + (cells - 1), cells, rounding_mode="trunc")
    inside = (position >= start) & (position < end)
    return inside.to(x.dtype) / (end - start).to(x.dtype)


def without_operators(network: nn.Module) -> nn.Module:
    """Replace, in place, layers that other runtimes or other image sizes do not support by torch's own operators.

    Raises:
        ValueError: If a pool of gapstone has no such form.
    """
    replacements: dict[nn.Module, nn.Module] = {}  # a shared layer stays shared
    for path, layer in list(network.named_modules(remove_duplicate=False)):
        if layer not in replacements:
            replacements[layer] = _replacement(layer, path)
        if replacements[layer] is not layer:
            network.set_submodule(path, replacements[layer])
    return network


def contiguous(network: nn.Module) -> nn.Module:
    """Add hooks that make the inputs of convolutions and the output of the network contiguous.

    For a channels-last map (ConvNeXt's), torch.export would record that no size, not even the batch's, may be 1. ONNX
    files do not have the copies.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(_contiguous_input)
    network.register_forward_hook(lambda _network, _inputs, maps: _contiguous_input(None, (maps,))[0])
    return network


def _contiguous_input(_layer: nn.Module | None, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (inputs[0].clone(memory_format=torch.contiguous_format),)


def _replacement(layer: nn.Module, path: str) -> nn.Module:
    if isinstance(layer, AttentionQueries):
        return AttentionByProducts(layer)
    if isinstance(layer, Pool):
        layer = _torch_layer(layer, path)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) and layer.ceil_mode:
        size, stride, padding = (pair(n) for n in (layer.kernel_size, layer.stride, layer.padding))
        # otherwise a further window might start beyond the map
        fits = all(s + p <= k for k, s, p in zip(size, stride, padding, strict=True))
        if isinstance(layer, nn.MaxPool2d) and fits and layer.dilation in (1, (1, 1)):
            return HangingMax(size, stride, padding)
        if isinstance(layer, nn.AvgPool2d) and fits and padding == (0, 0) and layer.divisor_override is None:
            return HangingMean(size, stride)
    if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        cells = pair(layer.output_size)
        if None not in cells and cells != (1, 1):
            return GridMean(cells) if isinstance(layer, nn.AdaptiveAvgPool2d) else GridMax(cells)
    return layer


def _torch_layer(layer: Pool, path: str) -> nn.Module:
    over = layer.over
    if isinstance(over, Whole) and layer.name in OF_WHOLE_MAPS:
        return WholePool(layer)
    if isinstance(over, Window) and isinstance(over.padding, int) and layer.name in ("max", "mean"):
        size, stride = pair(over.size), pair(over.size if over.stride is None else over.stride)
        if 2 * over.padding <= min(size):
            if layer.name == "max":
                return nn.MaxPool2d(size, stride, over.padding, pair(over.dilation), ceil_mode=over.ceil_mode)
            if pair(over.dilation) == (1, 1) and over.divisor in ("positions", "padded"):
                padded = over.divisor == "padded"
                return nn.AvgPool2d(size, stride, over.padding, over.ceil_mode, count_include_pad=padded)
    if isinstance(over, Grid) and layer.name in ("max", "mean"):
        return GridMax(pair(over.size)) if layer.name == "max" else GridMean(pair(over.size))
    raise ValueError(
        f"export: the layer {path}, {layer}, has no form for other runtimes yet; max and mean pools over windows "
        f"and grids have, and what heads pool over the whole map."
    )


def numbers(layer: Pool) -> dict[str, float]:
    """The pool's parameters, by default or given; learned ones are numbers once training is over."""
    defaults = {key: knob.default for key, knob in POOLS[str(layer.name)].parameters.items()}
    return {
        key: float(torch.as_tensor(value).detach())
        for key, value in (defaults | layer.parameters_of_pool()).items()
        if value is not None
    }


@final
class WholePool(nn.Module):
    """A pool over the whole map."""

    def __init__(self, layer: Pool) -> None:
        super().__init__()
        self.pool = whole(str(layer.name), numbers(layer))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)[0]


@final
class AttentionByProducts(nn.Module):
    """Attention with learned queries. Of an einsum over tokens, torch.export would record that there is never one image
    alone.
    """

    def __init__(self, layer: AttentionQueries) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.stack(list(layer.queries)).detach())

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        queries = (self.queries / math.sqrt(x.shape[1]))[None].expand(x.shape[0], -1, -1)
        return torch.bmm(torch.bmm(queries, x).softmax(2), x.transpose(1, 2)).flatten(1)


def pair(number: object) -> tuple[int, int]:
    return cast(tuple[int, int], tuple(number) if isinstance(number, tuple | list) else (number, number))


@final
class HangingMax(nn.Module):
    """Max pooling with `ceil_mode`: the last window may extend beyond the map, whose edges are repeated.

    torch's own rule for the last window would become a condition on the size in `torch.export`.
    """

    def __init__(self, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        (sy, sx), (py, px) = stride, padding
        self.padding = (px, px + sx - 1, py, py + sy - 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, self.padding, mode="replicate"), self.size, self.stride)


@final
class HangingMean(nn.Module):
    """Average pooling with `ceil_mode`: windows may extend beyond the map; positions on the map count."""

    def __init__(self, size: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.padding = (0, stride[1] - 1, 0, stride[0] - 1)

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones_like(x[:1, :1])
        sums, counts = (F.avg_pool2d(F.pad(part, self.padding), self.size, self.stride) for part in (x, ones))
        return sums / counts


@final
class GridMean(nn.Module):
    """The mean of each cell of a grid on a map of any size, by a product with `grid_matrix`."""

    def __init__(self, cells: tuple[int, int]) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        means = x.flatten(2) @ grid_matrix(self.cells, x).T
        return means.reshape(x.shape[0], x.shape[1], *self.cells)


@final
class GridMax(nn.Module):
    """The maximum of each cell of a grid on a map of any size, over rows and then over columns."""

    def __init__(self, cells: tuple[int, int]) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        for axis, cells in zip((2, 3), self.cells, strict=True):
            length = x.shape[axis]
            ends = [(i * length // cells, ((i + 1) * length + cells - 1) // cells) for i in range(cells)]
            x = torch.cat([x.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in ends], axis)
        return x
