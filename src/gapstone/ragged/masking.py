"""What each kind of call does to the sizes of images in a padded batch, and what it must not see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from gapstone.pooling import pool
from gapstone.ragged.extents import Extents, PaddedMaps, Unsupported
from gapstone.ragged.own_pools import largest, mean
from gapstone.regions import Window
from gapstone.tracing import operations as ops


@dataclass(slots=True)
class MapCall:
    """A call that takes maps of a padded batch."""

    function: Callable[..., Any]
    name: str
    inputs: Sequence[Tensor]
    """Those of its tensors that have positions of images."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first map."""
        return tuple(self.inputs[0].shape)

    def run(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def run_on(self, x: Tensor) -> Any:
        """The same call on another map."""
        if self.args:
            return self.function(x, *self.args[1:], **self.kwargs)
        return self.function(**{**self.kwargs, "input": x})

    def run_apart(self, extents: Extents) -> list[Any]:
        """The same call on the images of each size by themselves."""
        return [self.run_on(extents.crop(self.inputs[0], images, size)) for images, size in extents.runs()]

    def unsupported(self, why: str = "") -> Unsupported:
        return Unsupported(f"{self.name}{why} of a map of shape {self.shape}")


def _same(maps: PaddedMaps, call: MapCall) -> Extents:
    extents = maps.known(call.inputs[0])
    if any(maps.of(x) is not extents and maps.of(x) != extents for x in call.inputs[1:]):
        raise Unsupported(f"{call.name} of maps of shapes {', '.join(str(tuple(x.shape)) for x in call.inputs)}")
    return extents


def _put(maps: PaddedMaps, out: Any, extents: Extents) -> Any:
    for y in out if isinstance(out, tuple | list) else [out]:
        maps.put(y, extents)
    return out


def _spatial_last(call: MapCall, extents: Extents) -> None:
    """Raises Unsupported for maps that are not (N, C, *spatial)."""
    if extents.flat or extents.axes != tuple(range(2, call.inputs[0].dim())):
        raise call.unsupported()


# ---- calls that look at one position


def _pointwise(maps: PaddedMaps, op: ops.Operation, call: MapCall) -> Any:
    """Together with what has no positions, or one for all."""
    extents, dims = _same(maps, call), len(call.shape)
    for part in (*call.args, *call.kwargs.values()):
        if isinstance(part, Tensor) and maps.of(part) is None:
            over = [axis for axis in extents.axes if part.dim() >= dims - axis and part.shape[axis - dims] != 1]
            if part.dim() > dims or over:
                raise Unsupported(f"{call.name} of a map {call.shape} and a tensor {tuple(part.shape)}")
    return _put(maps, call.run(), extents)


def _by_position(maps: PaddedMaps, op: ops.Operation, call: MapCall) -> Any:
    """With weights that have no positions."""
    return _put(maps, call.run(), _same(maps, call))


def _cast(maps: PaddedMaps, op: ops.Cast, call: MapCall) -> Any:
    """x.to(y), x.type_as(y): of what is converted; y only says to what."""
    extents = maps.of(call.args[0])
    out = call.run()
    return out if extents is None else _put(maps, out, extents)


def _batch_norm(maps: PaddedMaps, op: ops.BatchNorm, call: MapCall) -> Any:
    if op.training:
        raise Unsupported("batch_norm with the batch's own statistics: they are of all images together")
    return _by_position(maps, op, call)


def _last(maps: PaddedMaps, op: ops.LayerNorm | ops.LinearLayer, call: MapCall) -> Any:
    """Over the last dimensions, which must not be positions."""
    over = op.dims if isinstance(op, ops.LayerNorm) else 1
    if max(maps.known(call.inputs[0]).axes) >= len(call.shape) - over:
        raise call.unsupported(" over the positions")
    in_channels = call.shape[-1]
    out = _by_position(maps, op, call)
    if isinstance(op, ops.LinearLayer):
        maps.products += out[0].numel() * in_channels
    return out


def _along(maps: PaddedMaps, op: ops.Glu | ops.Normalize | ops.Softmax | ops.Chunk, call: MapCall) -> Any:
    """Along one dimension, which must not be of positions."""
    extents = _beside(maps, op.dim, call)
    return _put(maps, call.run(), extents)


def _beside(maps: PaddedMaps, dim: int | None, call: MapCall) -> Extents:
    """The extents of maps that are joined or cut along a dimension, which is not of images or positions."""
    extents, dims = _same(maps, call), len(call.shape)
    if dim is None:  # torch's softmax
        dim = 0 if dims == 3 else 1
    if not isinstance(dim, int) or dim % dims in (0, *extents.axes):
        raise call.unsupported(f" along dimension {dim}")
    return extents


def _concat(maps: PaddedMaps, op: ops.Concat, call: MapCall) -> Any:
    if op.function == "stack":
        return _stack(maps, op, call)
    extents = _beside(maps, op.dim, call)
    if len(op.tensors) != len(call.inputs):
        raise Unsupported(f"{call.name} of a map with something that is none")
    return maps.put(call.run(), extents)


def _stack(maps: PaddedMaps, op: ops.Concat, call: MapCall) -> Any:
    extents, dim = _same(maps, call), op.dim % (len(call.shape) + 1)
    if dim == 0 or len(op.tensors) != len(call.inputs):
        raise Unsupported(f"stack of a map of shape {call.shape} along dimension {dim}, or with what is none")
    return maps.put(call.run(), replace(extents, axes=tuple(a + (a >= dim) for a in extents.axes)))


def _expand(maps: PaddedMaps, op: ops.Expand, call: MapCall) -> Any:
    """y.expand_as(map)."""
    if op.function != "expand_as" or len(call.inputs) != 1 or call.inputs[0] is call.args[0]:
        raise call.unsupported()
    # memory of its own: what is beyond the images may be cleared
    return maps.put(call.run().clone(), maps.known(call.inputs[0]))


def _permute(maps: PaddedMaps, op: ops.Permute, call: MapCall) -> Any:
    extents = maps.known(call.inputs[0])
    axes = tuple(op.order.index(axis) for axis in extents.axes)
    if op.order[0] != 0 or sorted(axes) != list(axes):
        raise Unsupported(f"{call.name} of a map of shape {call.shape} to the order {op.order}")
    return maps.put(call.run(), replace(extents, axes=axes))


def _slice(maps: PaddedMaps, op: ops.Slice, call: MapCall) -> Any:
    """Channels, and positions from the first on."""
    extents, slices = maps.known(call.inputs[0]), op.slices
    unsupported = call.unsupported(f" {op.index}")
    if slices is None or slices[0] != slice(None) or (extents.flat and slices[extents.axes[0]] != slice(None)):
        raise unsupported
    ends = []
    for axis in extents.axes:
        part = slices[axis]
        if part.start not in (None, 0) or part.step not in (None, 1) or (part.stop is not None and part.stop < 0):
            raise unsupported
        ends.append(call.shape[axis] if part.stop is None else part.stop)
    sizes = extents.sizes if extents.flat else tuple(tuple(map(min, size, ends)) for size in extents.sizes)
    return maps.put(call.run(), replace(extents, sizes=sizes))


def _reshape(maps: PaddedMaps, op: ops.Reshape, call: MapCall) -> Any:
    """Other dimensions cut or joined; or all positions put into one axis, where a pool follows."""
    shape, extents = call.shape, maps.known(call.inputs[0])
    out = call.run()
    n, lengths = len(extents.axes), tuple(shape[axis] for axis in extents.axes)
    if extents.axes == tuple(range(len(shape) - n, len(shape))) and out.dim() > 1 and len(out) == shape[0]:
        if out.dim() > n and tuple(out.shape[-n:]) == lengths:
            return maps.put(out, replace(extents, axes=tuple(range(out.dim() - n, out.dim()))))
        if out.dim() > 2 and extents.flat is None and out.shape[-1] == prod(lengths):
            return maps.put(out, Extents((out.dim() - 1,), extents.sizes, flat=lengths))
    raise Unsupported(
        f"{call.name} of a map of shape {shape} to {tuple(out.shape)}: its positions become features, and every size "
        f"has others"
    )


# ---- calls that look across positions


def _conv(maps: PaddedMaps, op: ops.Convolution, call: MapCall) -> Any:
    x, extents = call.inputs[0], maps.known(call.inputs[0])
    _spatial_last(call, extents)
    if op.function != "conv" or op.kernel_size is None or len(op.kernel_size) != len(extents.axes):
        raise call.unsupported()
    if len(call.inputs) != 1:
        raise Unsupported(f"{call.name} of a map of shape {call.shape} with weights made of the images")
    reach = [(k - 1) * d for k, d in zip(op.kernel_size, op.dilation, strict=True)]
    rules = [(sum(pads), r, s) for pads, r, s in zip(op.padding, reach, op.stride, strict=True)]
    after = extents
    if any(p != r or s != 1 for p, r, s in rules):  # most leave the size as it is
        after = extents.moved(
            lambda size: tuple((n + p - r - 1) // s + 1 for n, (p, r, s) in zip(size, rules, strict=True))
        )
        _some(call, after)
    if any(p for p, _, _ in rules):
        maps.clear(x)
    out = call.run()
    maps.products += out[0].numel() * op.weight[0].numel()
    return maps.put(out, after)


def _some(call: MapCall, after: Extents) -> None:
    if min(min(size) for size in after.sizes) < 1:
        raise Unsupported(f"{call.name} of a map of shape {call.shape}: it leaves nothing of the smallest image")


def _pool(maps: PaddedMaps, op: ops.WindowPool, call: MapCall) -> Any:
    """max_pool, avg_pool."""
    x, extents, largest_of = call.inputs[0], maps.known(call.inputs[0]), op.function == "max"
    _spatial_last(call, extents)
    if op.return_indices:
        raise Unsupported(f"{call.name} with indices, which count the positions of the padded map")
    if len(op.kernel_size) != len(extents.axes):
        raise call.unsupported()
    rules = list(zip(op.kernel_size, op.stride, op.padding, op.dilation, strict=True))
    after = extents.moved(lambda size: tuple(_cells(n, *r, op.ceil_mode) for n, r in zip(size, rules, strict=True)))
    _some(call, after)
    run: Callable[[Tensor], Tensor] = call.run_on
    if largest_of and x.is_cpu:  # the same numbers; torch's own loop took 40 % of GoogLeNet's time
        over = Window(op.kernel_size, op.stride, op.padding, op.dilation, bool(op.ceil_mode))
        run = lambda filled: pool(filled, "max", over)  # noqa: E731
    if not _reaches_beyond(op, extents, after):
        return maps.put(run(x), after)
    if largest_of:
        return largest(maps, x, after, run)
    if op.count_include_pad and not op.ceil_mode:  # every window divides by its own size
        maps.clear(x)
        return maps.put(call.run(), after)
    return maps.put(*extents.joined(call.run_apart(extents), extents.axes))


def _reaches_beyond(op: ops.WindowPool, before: Extents, after: Extents) -> bool:
    """Whether a window of an image looks beyond it."""
    return any(op.padding) or (op.ceil_mode and any(
        (cells - 1) * s + (k - 1) * d >= length
        for lengths, counts in zip(before.sizes, after.sizes, strict=True)
        for length, cells, k, s, d in zip(lengths, counts, op.kernel_size, op.stride, op.dilation, strict=True)
    ))  # fmt: skip


def _cells(length: int, size: int, stride: int, padding: int, step: int, ceil: bool) -> int:
    room = length + 2 * padding - (size - 1) * step - 1
    if not ceil:
        return room // stride + 1
    # the last window must begin on the map or on the padding before it
    return min(-(-room // stride), -(-(length + padding) // stride) - 1) + 1


# ---- calls over all positions: of each image by itself


def _adaptive(maps: PaddedMaps, op: ops.AdaptivePool, call: MapCall) -> Any:
    x, extents = call.inputs[0], maps.known(call.inputs[0])
    if extents.flat or extents.axes != tuple(range(2, x.dim())) or None in op.output_size:
        raise call.unsupported(f"({op.output_size})")
    if op.function == "avg" and set(op.output_size) == {1} and x.dtype.itemsize >= 4:
        return mean(maps, x, extents.axes, keepdim=True)
    parts = call.run_apart(extents)
    if not all(isinstance(part, Tensor) for part in parts):
        raise Unsupported(f"{call.name} with indices, which count the positions of the padded map")
    return torch.cat(parts)


def _reduce(maps: PaddedMaps, op: ops.Reduce | ops.Scale, call: MapCall) -> Any:
    """mean, sum, amax, logsumexp, norm, …: over all positions, or over none."""
    x, extents = call.inputs[0], maps.known(call.inputs[0])
    if op.function in ("linalg_norm", "std", "std_mean"):  # linalg_norm over two dimensions is a matrix norm
        raise call.unsupported()
    if op.dims is None:
        raise Unsupported(f"{call.name} of a whole batch of shape {call.shape}")
    over = set(op.dims)
    if not over & {0, *extents.axes}:
        axes = tuple(axis if op.keepdim else axis - sum(d < axis for d in over) for axis in extents.axes)
        return _put(maps, call.run(), replace(extents, axes=axes))
    if 0 in over or not over >= set(extents.axes):
        raise call.unsupported(f" over dimensions {sorted(over)}")
    if op.function == "mean" and over == set(extents.axes) and x.dtype.itemsize >= 4 and op.dtype is None:
        return mean(maps, x, extents.axes, op.keepdim)
    parts = call.run_apart(extents)
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if op.function in ("max", "min"):  # (values, indices); the indices count the positions of each image
        return type(parts[0])(tuple(torch.cat(pair) for pair in zip(*parts, strict=True)))
    raise call.unsupported()


def _own_statistics(maps: PaddedMaps, op: ops.GroupNorm | ops.InstanceNorm, call: MapCall) -> Any:
    """group_norm, instance_norm: the statistics of each image's own positions."""
    extents = maps.known(call.inputs[0])
    _spatial_last(call, extents)
    if isinstance(op, ops.InstanceNorm) and not op.use_input_stats:
        return _by_position(maps, op, call)
    return maps.put(*extents.joined(call.run_apart(extents), extents.axes))


RULES: dict[type[ops.Operation], Callable[[PaddedMaps, Any, MapCall], Any]] = {
    ops.AdaptivePool: _adaptive,
    ops.BatchNorm: _batch_norm,
    ops.Cast: _cast,
    ops.Concat: _concat,
    ops.Convolution: _conv,
    ops.Copy: _by_position,
    ops.Dropout: _pointwise,
    ops.Elementwise: _pointwise,
    ops.Expand: _expand,
    ops.Glu: _along,
    ops.GroupNorm: _own_statistics,
    ops.InstanceNorm: _own_statistics,
    ops.LayerNorm: _last,
    ops.LinearLayer: _last,
    ops.Normalize: _along,
    ops.Permute: _permute,
    ops.PerPosition: _by_position,
    ops.WindowPool: _pool,
    ops.Reduce: _reduce,
    ops.Reshape: _reshape,
    ops.Slice: _slice,
    ops.Softmax: _along,
    ops.Chunk: _along,
    ops.Scale: _reduce,
}
"""Calls of other kinds are refused where they give a tensor. gapstone's own pools are met before, by `listen`."""
