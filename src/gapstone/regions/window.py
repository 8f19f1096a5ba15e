"""Window(size, stride, padding): a window that slides; padding adds places, never values.

Padded places do not exist for the pool: a maximum ignores them, a mean divides by the real positions, unless `divisor`
says otherwise. A window without any real position (with dilation, say) gives the pool's answer over nothing (max: −∞),
and no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch

from gapstone.regions.places import Divisor, Intervals, Windows
from gapstone.regions.region import PerAxis, check_extent, check_whole_numbers, per_axis, read_as, settle

Padding = PerAxis | Sequence[Sequence[int]] | Literal["same"]


@dataclass(frozen=True)
class Window:
    """Sliding windows, as torch's pools have them: (N, C, H, W) → (N, C, h, w).

    Examples:
        >>> gs.pool(torch.rand(2, 64, 112, 112), "max", over=gs.Window(3, stride=2, padding=1)).shape
        torch.Size([2, 64, 56, 56])

    Args:
        size: in positions; this and the next three are one number, or a tuple with one per axis.
        stride: from window to window; default: the size.
        padding: places added on both sides; or a pair (before, after) per axis, `((0, 1), (0, 1))`; or "same": as many
            as give ceil(length / stride) windows, the odd one after. It must be less than a window's span.
        dilation: from position to position inside a window.
        ceil_mode: also the last window that hangs over the end, if it starts on the map or on the padding before it.
        divisor: what a mean divides by: "positions" (those on the map), "padded" (those on the map or its padding:
            torch's `count_include_pad=True`), "window" (all of size), or a number (torch's `divisor_override`). The
            last three only for the mean.
    """

    size: PerAxis
    stride: PerAxis | None = None
    padding: Padding = 0
    dilation: PerAxis = 1
    ceil_mode: bool = False
    divisor: Divisor = "positions"

    def __post_init__(self) -> None:
        settle(self, "size", "stride", "padding", "dilation", "ceil_mode", "divisor")
        check_whole_numbers("Window", 1, size=self.size, dilation=self.dilation)
        if self.stride is not None:
            check_whole_numbers("Window", 1, stride=self.stride)
        if not isinstance(self.ceil_mode, bool):
            raise ValueError(f"Window: ceil_mode={self.ceil_mode!r} must be True or False.")
        if self.divisor not in ("positions", "padded", "window"):
            if isinstance(self.divisor, str):
                raise ValueError(
                    f"Window: divisor={self.divisor!r} must be 'positions', 'padded', 'window' or a whole number."
                )
            if isinstance(self.divisor, bool) or not isinstance(self.divisor, int) or self.divisor == 0:
                raise ValueError(f"Window: divisor={self.divisor!r} must be a whole number other than 0.")
        self._check_padding()
        given = (self.size, self.stride, self.padding, self.dilation)
        lengths = {len(v) for v in given if isinstance(v, tuple)}
        if len(lengths) > 1:
            raise ValueError(f"{self!r}: size, stride, padding and dilation name different numbers of axes.")
        axes = lengths.pop() if lengths else 1
        for size, step, sides in zip(
            per_axis(self.size, axes, ""), per_axis(self.dilation, axes, ""), self._sides(axes) or (), strict=False
        ):
            span = (size - 1) * step + 1
            if max(sides) >= span:
                # the window at the edge would see nothing but padding: torch's backward corrupts memory there
                raise ValueError(f"{self!r}: padding {max(sides)} must be less than the {span} places of a window.")

    def place(self, shape: tuple[int, ...]) -> Intervals:
        axes = len(shape) - 2
        size = per_axis(self.size, axes, "Window size")
        stride = size if self.stride is None else per_axis(self.stride, axes, "Window stride")
        step = per_axis(self.dilation, axes, "Window dilation")
        sides = self._sides(axes) or tuple(map(_same, shape[2:], size, stride, step))
        return Intervals(tuple(map(self._windows, shape[2:], size, stride, sides, step)), self.divisor)

    def _windows(self, length: int, size: int, stride: int, sides: tuple[int, int], step: int) -> Windows:
        before, after = sides
        room = length + before + after - (size - 1) * step - 1
        # written without a branch on the map's size, which may be a symbol under torch.export
        if room < (1 - stride if self.ceil_mode else 0):
            raise ValueError(
                f"{self!r} does not fit on {length} positions"
                + (f" with {before} more before and {after} after" if before or after else "")
                + ": use a smaller window or a larger map."
            )
        cells = room // stride + 1
        if self.ceil_mode:
            # one more hangs over the end, if it starts on the map or on the padding before it
            cells = (room + stride - 1) // stride + 1
            if (size - 1) * step + 1 - after < stride:
                # only then can it start beyond; asked of every map, torch.export of GoogLeNet takes 150 s, not 15
                cells = least(cells, -(-(length + before) // stride))
        check_extent(self, cells, size, length)
        return Windows(cells, size, stride, before, after, step)

    def _check_padding(self) -> None:
        padding = self.padding
        if isinstance(padding, str):
            if padding != "same":
                raise ValueError(f"Window: padding={padding!r} must be 'same', a number, one per axis, or pairs.")
        elif isinstance(padding, tuple) and any(isinstance(side, tuple) for side in padding):
            for pair in padding:
                if not isinstance(pair, tuple) or len(pair) != 2:
                    raise ValueError(f"Window: padding={padding!r} needs a pair (before, after) for every axis.")
                check_whole_numbers("Window", 0, padding=pair)
        else:
            check_whole_numbers("Window", 0, padding=padding)  # type: ignore[arg-type]

    def _sides(self, axes: int) -> tuple[tuple[int, int], ...] | None:
        """(before, after) per axis; None where it depends on the map."""
        if isinstance(self.padding, str):
            return None
        if isinstance(self.padding, int):
            return ((self.padding, self.padding),) * axes
        sides = tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in self.padding)
        if len(sides) != axes:
            raise ValueError(f"{self!r}: padding names {len(sides)} axes, and {read_as(axes)}")
        return sides


def least(a: int, b: int) -> int:
    """The smaller; under torch.export a symbol for it, and no branch."""
    return cast(int, torch.sym_min(a, b))


def _same(length: int, size: int, stride: int, step: int) -> tuple[int, int]:
    """As many places as give ceil(length / stride) windows, the odd one after."""
    cells = -(-length // stride)
    total = -least(length - (cells - 1) * stride - (size - 1) * step - 1, 0)
    return total // 2, total - total // 2
