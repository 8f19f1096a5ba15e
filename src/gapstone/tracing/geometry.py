"""Where the positions of a tensor lie in the input: stride ← stride · s, start ← start + ((k−1)/2 · d − p) · stride.

Every kind of call that moves positions has a rule here; calls that keep the shape keep the places. A call that is not
known and changes the shape loses them, and what is made of its answer has none: better none than wrong ones.
(The arithmetic: Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks, Distill 2019.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gapstone.regions.places import Intervals, Windows
from gapstone.tracing import operations as ops

SlidingWindow = tuple[int, int, int, int]
"""A window along an axis: its positions, its stride, how many positions before the map it begins, its dilation."""
Sliding = ops.Convolution | ops.WindowPool | ops.RegionPool | ops.PixelUnshuffle
"""Calls that look through such windows."""


@dataclass(frozen=True)
class Geometry:
    """Positions along the spatial axes of one tensor, in pixels of the input."""

    axes: tuple[int, ...]
    """Which dimensions of the tensor are spatial, in the order of the input's."""
    stride: tuple[float, ...]
    start: tuple[float, ...]

    @classmethod
    def of_input(cls, x: Tensor) -> "Geometry":
        axes = tuple(range(2, x.dim()))
        return cls(axes, (1.0,) * len(axes), (0.0,) * len(axes))

    def sizes(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[axis] for axis in self.axes)

    def are_last(self, x: Tensor) -> bool:
        """Whether the spatial axes are the last ones, in order."""
        return self.axes == tuple(range(x.dim() - len(self.axes), x.dim()))

    def slide(self, windows: Sequence[SlidingWindow]) -> "Geometry | None":
        """The positions of what is computed in one window per axis."""
        if len(windows) != len(self.axes):  # an image without its batch
            return None
        axes = list(zip(self.stride, self.start, windows, strict=True))
        start = tuple(a + ((k - 1) / 2 * d - p) * j for j, a, (k, _, p, d) in axes)
        return replace(self, stride=tuple(j * s for j, _, (_, s, _, _) in axes), start=start)


def same_positions(inputs: Sequence[tuple[Tensor, Geometry]], out: Tensor) -> Geometry | None:
    """The places of what has as many positions as the tensors it was made of: the middle of theirs.

    None where they lie more than half a cell apart: then no place is right.
    """
    alike = [
        geometry
        for x, geometry in inputs
        if x.dim() == out.dim() and all(x.shape[axis] == out.shape[axis] for axis in geometry.axes)
    ]
    if not alike or any((g.axes, g.stride) != (alike[0].axes, alike[0].stride) for g in alike):
        return None
    starts = list(zip(*(g.start for g in alike), strict=True))
    if any(max(axis) - min(axis) > stride / 2 for axis, stride in zip(starts, alike[0].stride, strict=True)):
        return None
    return replace(alike[0], start=tuple(sum(axis) / len(axis) for axis in starts))


def reshaped(x: Tensor, geometry: Geometry, out: Tensor) -> Geometry | None:
    """Where only other dimensions are cut or joined: positions last (channel shuffle), or right behind the images."""
    sizes, n = geometry.sizes(x), len(geometry.axes)
    if geometry.are_last(x) and tuple(out.shape[-n:]) == sizes and out.dim() > n:
        return replace(geometry, axes=tuple(range(out.dim() - n, out.dim())))
    if geometry.axes == tuple(range(1, n + 1)) and tuple(out.shape[: n + 1]) == (x.shape[0], *sizes):
        return geometry
    return None


def sliding_windows(op: Sliding, axes: int) -> list[SlidingWindow] | None:
    """The windows that a call slides along so many axes; None where they are not known, or there are none."""
    if isinstance(op, ops.PixelUnshuffle):
        return [(op.downscale_factor, op.downscale_factor, 0, 1)] * axes
    if isinstance(op, ops.RegionPool):
        intervals = (op.place.axes if isinstance(op.place, Intervals) else None) or ()
        windows = [(w.size, w.stride, w.before, w.step) for w in intervals if isinstance(w, Windows)]
        return windows if windows and len(windows) == len(intervals) else None
    if op.kernel_size is None or len(op.kernel_size) != axes:
        return None
    before = [p for p, _ in op.padding] if isinstance(op, ops.Convolution) else op.padding
    return list(zip(op.kernel_size, op.stride, before, op.dilation, strict=True))


def _window(op: Sliding, x: Tensor, geometry: Geometry) -> Geometry | None:
    windows = sliding_windows(op, len(geometry.axes))
    return None if windows is None else geometry.slide(windows)


def _conv(op: ops.Convolution, x: Tensor, geometry: Geometry) -> Geometry | None:
    if not geometry.are_last(x):
        return None
    if op.function == "conv":
        return _window(op, x, geometry)
    windows = sliding_windows(op, len(geometry.axes))
    if windows is None:
        return None
    finer = tuple(j / s for j, (_, s, _, _) in zip(geometry.stride, windows, strict=True))
    axes = zip(geometry.start, finer, windows, strict=True)
    return replace(geometry, stride=finer, start=tuple(a + (p - (k - 1) / 2 * d) * j for a, j, (k, _, p, d) in axes))


def _pad(op: ops.Pad, x: Tensor, geometry: Geometry) -> Geometry | None:
    return geometry.slide([(1, 1, op.padding[axis][0], 1) for axis in geometry.axes])


def _slice(op: ops.Slice, x: Tensor, geometry: Geometry) -> Geometry | None:
    if op.slices is None:
        return None
    ranges = [op.slices[axis].indices(x.shape[axis]) for axis in geometry.axes]
    return geometry.slide([(1, step, -begin, 1) for begin, _, step in ranges])


def _resize(op: ops.Resize, x: Tensor, geometry: Geometry) -> Geometry | None:
    if op.align_corners:
        return None
    now = geometry.sizes(x)
    new = op.size or tuple(int(s * f) for s, f in zip(now, op.scale_factor or (), strict=True))
    ratio = [a / b for a, b in zip(now, new, strict=True)]
    rules = zip(geometry.stride, geometry.start, ratio, strict=True)
    return replace(
        geometry,
        stride=tuple(j * r for j, r in zip(geometry.stride, ratio, strict=True)),
        start=tuple(a + j * (r - 1) / 2 for j, a, r in rules),
    )


def _permute(op: ops.Permute, x: Tensor, geometry: Geometry) -> Geometry | None:
    if not set(geometry.axes) <= set(op.order):
        return None
    return replace(geometry, axes=tuple(op.order.index(axis) for axis in geometry.axes))


def _lost(op: ops.Operation, x: Tensor, geometry: Geometry) -> Geometry | None:
    return None


RULES: dict[type[ops.Operation], Callable[[Any, Tensor, Geometry], Geometry | None]] = {
    ops.Convolution: _conv,
    ops.WindowPool: _window,
    ops.RegionPool: _window,
    ops.Pad: _pad,
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.Permute: _permute,
    ops.PixelUnshuffle: _window,
    ops.Rearrange: _lost,
    ops.Query: _lost,
}
"""Rules that ask the call and the tensor it takes, before a call in place changes that.

After all other calls than these and a reshape, places are `same_positions` by what keeps the shape."""
