"""Window(size, stride, padding): a window that slides; padding adds places, never values.

Padded positions do not exist for the pool: a maximum ignores them, a mean divides by the real positions only (torch's
`count_include_pad=False`).
"""

from dataclasses import dataclass

from gapstone.regions.boxes import Axis
from gapstone.regions.region import PerAxis, check_whole_numbers, per_axis


@dataclass(frozen=True)
class Window:
    """`Window(3, 2, 1)`: (N, C, H, W) → (N, C, (H + 2 - 3) // 2 + 1, (W + 2 - 3) // 2 + 1).

    Args: `size`, `stride` (default: size) and `padding` (on each side, less than size) in positions, as one number or a
    tuple with one per axis.
    """

    size: PerAxis
    stride: PerAxis | None = None
    padding: PerAxis = 0

    def __post_init__(self) -> None:
        check_whole_numbers("Window", 1, size=self.size)
        check_whole_numbers("Window", 0, padding=self.padding)
        if self.stride is not None:
            check_whole_numbers("Window", 1, stride=self.stride)
        lengths = {len(v) for v in (self.size, self.stride, self.padding) if isinstance(v, tuple)}
        if len(lengths) > 1:
            raise ValueError(f"{self!r}: size, stride and padding name different numbers of axes.")
        example = (0,) * (lengths.pop() if lengths else 1)
        for size, padding in zip(
            per_axis(self.size, example, "size"), per_axis(self.padding, example, "padding"), strict=True
        ):
            if padding >= size:
                # such a window would see nothing but padding: torch's backward corrupts memory there
                raise ValueError(f"{self!r}: padding {padding} must be less than the window's size {size}.")

    def axes(self, sizes: tuple[int, ...]) -> tuple[Axis, ...]:
        size = per_axis(self.size, sizes, "Window size")
        stride = size if self.stride is None else per_axis(self.stride, sizes, "Window stride")
        padding = per_axis(self.padding, sizes, "Window padding")
        return tuple(map(self._axis, sizes, size, stride, padding))

    def _axis(self, length: int, size: int, stride: int, padding: int) -> Axis:
        how_many = (length + 2 * padding - size) // stride + 1
        if how_many < 1:
            raise ValueError(
                f"{self!r} does not fit on {length} positions"
                + (f" with {padding} more on each side" if padding else "")
                + ": use a smaller window or a larger map."
            )
        starts = [i * stride - padding for i in range(how_many)]
        return Axis(
            tuple(max(s, 0) for s in starts),
            tuple(min(s + size, length) for s in starts),
            ("window", size, stride, padding),
        )
