"""Which image sizes an exported network takes, and on which it is checked."""

from dataclasses import dataclass

from gapstone.maps.open_model import ImageModel

Shape = tuple[int, int, int, int]
"""Images, channels, height, width."""


@dataclass(frozen=True)
class SizeRange:
    """The images that a file takes: any number, of one size or of any size from `smallest` on."""

    channels: int
    usual: tuple[int, int]
    """(height, width) at which the network was trained."""
    smallest: int
    """The smallest side in px."""
    fixed: bool
    """Whether only the usual size is taken: the head flattens the maps, the network has position embeddings, or
    torch.export needs a fixed size."""

    def trials(self) -> list[Shape]:
        """Return shapes to check: one and three images of the usual size, then a wider, a larger and a smaller size."""
        h, w = self.usual
        shapes = [(1, h, w), (3, h, w)]
        if not self.fixed:
            small = max(self.smallest, h * 5 // 8 | 1), max(self.smallest, w * 3 // 4 | 1)
            shapes += [(2, h, w * 3 // 2), (2, h * 4 // 3 | 1, w * 5 // 4 | 1), (1, *small)]
        return [(n, self.channels, h, w) for n, h, w in shapes]


def size_range(image_model: ImageModel) -> SizeRange:
    """Return the image sizes that a network takes."""
    preprocessing, (smallest, only_size) = image_model.preprocessing, image_model.input_sizes
    return SizeRange(preprocessing.channels, preprocessing.size, smallest, only_size is not None)
