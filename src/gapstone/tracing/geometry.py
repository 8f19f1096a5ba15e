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

    def slide(
        self, size: Sequence[int], stride: Sequence[int], before: Sequence[int], step: Sequence[int]
    ) -> "Geometry | None":
        """Under windows of `size` positions, `step` apart, that begin `before` positions early and move by `stride`."""
        if len(size) != len(self.axes):  # an image without its batch
            return None
        rules = list(zip(self.stride, self.start, size, stride, before, step, strict=True))
        moved = tuple(a + ((k - 1) / 2 * d - p) * j for j, a, k, _, p, d in rules)
        return replace(self, stride=tuple(j * s for j, _, _, s, _, _ in rules), start=moved)


def kept(inputs: Sequence[tuple[Tensor, Geometry]], out: Tensor) -> Geometry | None:
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


def _conv(op: ops.Convolution, x: Tensor, geometry: Geometry) -> Geometry | None:
    kernel, n = op.kernel_size, len(geometry.axes)
    if kernel is None or len(kernel) != n or not geometry.are_last(x):
        return None
    before = [p for p, _ in op.padding]
    if op.function == "conv":
        return geometry.slide(kernel, op.stride, before, op.dilation)
    finer = tuple(j / s for j, s in zip(geometry.stride, op.stride, strict=True))
    rules = zip(geometry.start, finer, kernel, before, op.dilation, strict=True)
    return replace(geometry, stride=finer, start=tuple(a + (p - (k - 1) / 2 * d) * j for a, j, k, p, d in rules))


def _pool(op: ops.WindowPool, x: Tensor, geometry: Geometry) -> Geometry | None:
    return geometry.slide(op.kernel_size, op.stride, op.padding, op.dilation)


def _region_pool(op: ops.RegionPool, x: Tensor, geometry: Geometry) -> Geometry | None:
    windows = window_axes(op)
    if windows is None:
        return None
    return geometry.slide(
        [a.size for a in windows], [a.stride for a in windows], [a.before for a in windows], [a.step for a in windows]
    )


def window_axes(op: ops.RegionPool) -> list[Windows] | None:
    """Per axis the windows of one of gapstone's pools; None for other regions."""
    axes = op.place.axes if isinstance(op.place, Intervals) else None
    windows = [axis for axis in axes or () if isinstance(axis, Windows)]
    return windows if axes is not None and len(windows) == len(axes) else None


def _pad(op: ops.Pad, x: Tensor, geometry: Geometry) -> Geometry | None:
    ones = (1,) * len(geometry.axes)
    return geometry.slide(ones, ones, [op.padding[axis][0] for axis in geometry.axes], ones)


def _slice(op: ops.Slice, x: Tensor, geometry: Geometry) -> Geometry | None:
    if op.slices is None:
        return None
    ranges = [op.slices[axis].indices(x.shape[axis]) for axis in geometry.axes]
    ones = (1,) * len(ranges)
    return geometry.slide(ones, [step for _, _, step in ranges], [-begin for begin, _, _ in ranges], ones)


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


def _unshuffle(op: ops.PixelUnshuffle, x: Tensor, geometry: Geometry) -> Geometry | None:
    n = len(geometry.axes)
    return geometry.slide((op.downscale_factor,) * n, (op.downscale_factor,) * n, (0,) * n, (1,) * n)


def _lost(op: ops.Operation, x: Tensor, geometry: Geometry) -> Geometry | None:
    return None


RULES: dict[type[ops.Operation], Callable[[Any, Tensor, Geometry], Geometry | None]] = {
    ops.Convolution: _conv,
    ops.WindowPool: _pool,
    ops.RegionPool: _region_pool,
    ops.Pad: _pad,
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.Permute: _permute,
    ops.PixelUnshuffle: _unshuffle,
    ops.Rearrange: _lost,
    ops.Query: _lost,
}
"""Rules that ask the call and the tensor it takes, before a call in place changes that.

After all other calls than these and a reshape, places are `kept` by what keeps the shape."""
