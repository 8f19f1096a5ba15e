"""Layers between a network and its head: they rearrange the map to (N, C, *cells), and add axes to the logits."""

from math import prod
from typing import final

from torch import Tensor, nn

from gapstone.console.formatting import format_size


@final
class ChannelsFirst(nn.Module):
    """(N, h, w, C) → (N, C, h, w)"""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 1)


@final
class TokenGrid(nn.Module):
    """Tokens (N, prefix + h·w, C) or (N, C, h·w) → a map (N, C, h, w) without the `prefix` tokens (class token, …).

    `grid` is (h, w) for images of `size`; another number of tokens becomes a grid of the same proportions, or raises
    ValueError if there is none. The number does not determine the grid (7×28 = 14×14): call `checked` with the images.
    """

    def __init__(self, grid: tuple[int, ...], prefix: int, channels_last: bool, size: tuple[int, ...]) -> None:
        super().__init__()
        self.grid, self.prefix, self.channels_last, self.size = grid, prefix, channels_last, size

    def checked(self, images: Tensor) -> None:
        """Raise ValueError for images of other proportions, whose tokens form another grid."""
        size = images.shape[2:]
        if len(size) != len(self.size) or any(
            n * self.size[0] != m * size[0] for n, m in zip(size, self.size, strict=True)
        ):
            raise ValueError(
                f"images of {format_size(size)}: this head stands on tokens, found as a grid of "
                f"{format_size(self.grid)} in images of "
                f"{format_size(self.size)}: give images of those proportions, or swap again with images= of these"
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            x = x[:, self.prefix :].transpose(1, 2)
        grid = self.grid
        if x.shape[2] != prod(grid):
            wide = round((x.shape[2] * grid[1] / grid[0]) ** 0.5)
            if len(grid) != 2 or x.shape[2] % wide:
                raise ValueError(
                    f"{x.shape[2]} tokens are no grid of the proportions {format_size(grid)}, in which these "
                    f"features were found: give images of those proportions"
                )
            grid = (x.shape[2] // wide, wide)
        return x.reshape(*x.shape[:2], *grid)

    def extra_repr(self) -> str:
        return format_size(self.grid) + (f", without the first {self.prefix}" if self.prefix else "")


@final
class Passed(nn.Module):
    """Adds axes of length 1 to logits (N, K), so that the network's pool and flatten do not change them."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        for axis in self.axes:
            x = x.unsqueeze(axis)
        return x

    def extra_repr(self) -> str:
        return "(N, K)" if not self.axes else "(N, K, 1, 1)" if self.axes[0] > 1 else "(N, 1, 1, K)"
