"""The position on the map that a compiled loop saves as a number within its cell, in one byte."""

import torch
from torch import Tensor

from gapstone.regions.places import Axis, Intervals, Labels, Place, Rectangles, Windows, spread


def argmax_positions(place: Place, saved: Tensor, shape: tuple[int, ...], of_window: bool) -> Tensor:
    """For each answer the number of its largest position on the flattened map, int64; 0 where it has no position.

    `of_window`: numbers count all places of a window, on the map or not; else only those on the map.
    """
    numbers, sizes = saved.long(), shape[2:]
    if isinstance(place, Labels):
        return _of_labels(place, numbers)
    if isinstance(place, Rectangles):
        firsts = [spread(t, i, len(sizes)) for i, t in enumerate(place.starts)]
        radices = [
            spread(stop - start, i, len(sizes))
            for i, (start, stop) in enumerate(zip(place.starts, place.stops, strict=True))
        ]
        steps = [1] * len(sizes)
    else:
        assert isinstance(place, Intervals)
        axes: tuple[Axis, ...] = place.axes or tuple(Windows(1, size, 1, 0, 0, 1) for size in sizes)
        if place.axes is None:
            numbers = numbers.reshape(*numbers.shape, *(1,) * len(sizes))
        firsts, radices = [], []
        for i, (axis, length) in enumerate(zip(axes, sizes, strict=True)):
            begin, end = axis.bounds(length)
            many = [max(0, -(-(b - a) // axis.step)) for a, b in zip(begin, end, strict=True)]
            if of_window:
                assert isinstance(axis, Windows)
                begin = [cell * axis.stride - axis.before for cell in range(axis.cells)]
                many = [axis.size] * axis.cells
            firsts.append(spread(torch.tensor([begin], device=saved.device), i, len(sizes)))
            radices.append(spread(torch.tensor([many], device=saved.device), i, len(sizes)))
        steps = [axis.step for axis in axes]
    at, stride = torch.zeros_like(numbers), 1
    for first, radix, step, size in zip(firsts[::-1], radices[::-1], steps[::-1], sizes[::-1], strict=True):
        radix = radix.clamp(min=1)
        at = at + (first + numbers % radix * step).clamp(0, size - 1) * stride
        numbers, stride = numbers // radix, stride * size
    return at


def _of_labels(place: Labels, numbers: Tensor) -> Tensor:
    labels = place.labels.flatten(1)
    ordered, order = labels.sort(dim=1, stable=True)
    wanted = torch.arange(place.count, device=labels.device).expand(len(labels), place.count).contiguous()
    first = torch.searchsorted(ordered.contiguous(), wanted)[:, None]
    at = numbers.reshape(*numbers.shape[:2], place.count) + first
    images = len(numbers)
    found = order.expand(images, -1)[:, None].expand(*numbers.shape[:2], -1).gather(2, at.clamp(0, labels.shape[1] - 1))
    return found.reshape(numbers.shape)
