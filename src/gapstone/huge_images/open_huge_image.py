"""`open_huge_image` picks the reader for a file."""

from pathlib import Path

from gapstone.huge_images.huge_image import HugeImage
from gapstone.huge_images.tiff_image import TiffImage
from gapstone.huge_images.whole_image import WholeImage
from gapstone.images.intensity_range import Ranges
from gapstone.images.tiff import is_tiff
from gapstone.images.tiff_bands import has_channel_pages
from gapstone.storage.paths import Name, open_input

SMALL = 64 << 20
"""Bytes of a file that is read to see whether its pages are channels of one image."""


def open_huge_image(path: Name, ranges: Ranges | None = None) -> HugeImage:
    """Open an image file of any size; only ordinary files (JPEG, PNG, …) are decoded whole.

    Whole are also TIFFs of up to 64 MB whose pages are channels in a way that their first page does not show. `ranges`:
    see `WholeImage`.

    Raises:
        ImageError: If it is damaged, or not supported; the message is the reason.
        PathError: If there is no such file.
        ImportError: If tifffile is needed and missing.
    """
    place = Path(path)
    with open_input(str(place), place) as file:
        head = file.read(1024)
    if not is_tiff(head):
        return WholeImage(place, ranges)
    try:
        import imagecodecs  # noqa: F401
        import tifffile  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{place} is a TIFF, which takes two more packages: pip install 'gapstone[slides]' (here: {error})"
        ) from error
    image = TiffImage(place)
    if image.channels == 1 and place.stat().st_size <= SMALL and has_channel_pages(place.read_bytes()):
        image.close()
        return WholeImage(place, ranges)
    return image
