"""What a model answers for an image that is too large to enter the network whole (`--native`): it is streamed."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gapstone.any_size.given_image import ArrayImage, FileImage, GivenImage
from gapstone.any_size.kept_maps import MapsAsked
from gapstone.any_size.stream_image import Progress, StreamOptions, stream_image
from gapstone.any_size.streamed import Streamed
from gapstone.huge_images.huge_image import HugeImage
from gapstone.huge_images.open_huge_image import open_huge_image
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import LARGEST
from gapstone.images.tiff import is_tiff
from gapstone.maps.open_model import ImageModel
from gapstone.models.model_file import finite_logits
from gapstone.storage.paths import open_input


def streamed_answer(
    model: ImageModel, image: Path | NDArray[np.uint8], memory: int, announce: Callable[[str], Progress]
) -> tuple[torch.Tensor, tuple[str, ...]] | None:
    """(the probability of each class (K,), notes); None: the image is not too large, or a file that is decoded whole.

    Raises what `gs.stream` raises.
    """
    if isinstance(image, Path):
        huge = open_large_tiff(image)
        if huge is None:
            return None
        with huge:
            return _answer(model, FileImage(huge, 0, model.preprocessing), memory, announce)
    if image.shape[0] * image.shape[1] <= LARGEST**2:
        return None
    return _answer(model, ArrayImage(image, model.preprocessing), memory, announce)


def open_large_tiff(path: Path) -> HugeImage | None:
    """A TIFF that is too large to enter the network whole; None: it is another file.

    Raises ImageError: it is too large, and cannot be read piece by piece.
    """
    large = _is_large_tiff(path)
    if large is False:
        return None
    try:
        huge = open_huge_image(path)
    except (ImageError, ImportError) as error:
        if large:
            raise ImageError(str(error)) from error
        return None
    if huge.height * huge.width <= LARGEST**2:
        huge.close()
        return None
    return huge


def _is_large_tiff(path: Path) -> bool | None:
    """By its first directory alone; None where Pillow, which knows more kinds of small ones, cannot open it."""
    with open_input(str(path), path) as file:
        if not is_tiff(file.read(4)):
            return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about many pixels
            with Image.open(path) as picture:
                return picture.width * picture.height > LARGEST**2
    except Image.DecompressionBombError:
        return True
    except Exception:  # whatever Pillow raises
        return None


def _answer(
    model: ImageModel, image: GivenImage, memory: int, announce: Callable[[str], Progress]
) -> tuple[torch.Tensor, tuple[str, ...]]:
    options = StreamOptions(MapsAsked(multi_label=model.multi_label), maps=False, memory=memory)
    streamed = stream_image(model.model, image, options, announce)
    finite_logits(streamed.logits)
    return streamed.probabilities[0].float().cpu(), (*streamed.notes, said(streamed))


def said(streamed: Streamed) -> str:
    times = "" if streamed.passes == 1 else f", in {streamed.passes} passes"
    return f"more than {LARGEST:,}² px: it went through the network in bands of rows{times}"
