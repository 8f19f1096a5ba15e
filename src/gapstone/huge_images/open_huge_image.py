"""`open_huge_image` picks the reader for a file."""

from pathlib import Path

from gapstone.huge_images.huge_image import HugeImage
from gapstone.huge_images.tiff_image import TiffImage
from gapstone.huge_images.whole_image import WholeImage
from gapstone.images.tiff import is_tiff
from gapstone.storage.paths import Name, open_input


def open_huge_image(path: Name) -> HugeImage:
    """Open an image file of any size; only ordinary files (JPEG, PNG, …) are decoded whole.

    Raises:
        ImageError: If it is damaged, or not supported; the message is the reason.
        PathError: If there is no such file.
        ImportError: If tifffile is needed and missing.
    """
    place = Path(path)
    with open_input(str(place), place) as file:
        head = file.read(1024)
    if not is_tiff(head):
        return WholeImage(place)
    try:
        import imagecodecs  # noqa: F401
        import tifffile  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{place} is a TIFF, which takes two more packages: pip install 'gapstone[slides]' (here: {error})"
        ) from error
    return TiffImage(place)
