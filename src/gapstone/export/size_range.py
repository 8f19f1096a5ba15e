"""Which images an exported network takes, and on which of them it is tried before it is kept."""

from dataclasses import dataclass

from gapstone.maps.open_model import ImageModel
from gapstone.models.classifier import Classifier
from gapstone.nets.zoo import survey

Shape = tuple[int, int, int, int]
"""Images, channels, height, width."""


@dataclass(frozen=True)
class SizeRange:
    """Any number of images, of one size or of any from `smallest` on."""

    channels: int
    usual: tuple[int, int]
    """(height, width) that the network was trained at."""
    smallest: int
    """Pixels a side."""
    fixed: bool
    """Only the usual size: the head flattens the maps, the network has a position for each of its tokens, or it cannot
    be exported otherwise."""

    def trials(self) -> list[Shape]:
        """One image and three; the usual size, then a wider, a larger and a smaller one of odd numbers."""
        h, w = self.usual
        shapes = [(1, h, w), (3, h, w)]
        if not self.fixed:
            small = max(self.smallest, h * 5 // 8 | 1), max(self.smallest, w * 3 // 4 | 1)
            shapes += [(2, h, w * 3 // 2), (2, h * 4 // 3 | 1, w * 5 // 4 | 1), (1, *small)]
        return [(n, self.channels, h, w) for n, h, w in shapes]


def size_range(opened: ImageModel) -> SizeRange:
    """What this network takes."""
    model, preprocessing = opened.model, opened.preprocessing
    if isinstance(model, Classifier):
        fixed = model.features.fixed is not None or model.head.size is not None
        return SizeRange(preprocessing.channels, preprocessing.size, model.features.smallest, fixed)
    facts = survey(opened.name.removeprefix("timm:"), preprocessing.channels)
    return SizeRange(preprocessing.channels, preprocessing.size, facts.smallest, facts.fixed is not None)
