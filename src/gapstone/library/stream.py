"""`gs.stream`: a model's answer and maps for one image of any size, up to gigapixels."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from gapstone.any_size.given_image import ArrayImage, FileImage, GivenImage, NormalisedImage
from gapstone.any_size.kept_maps import MapsAsked
from gapstone.any_size.plan_bands import MEMORY, parse_bytes
from gapstone.any_size.stream_image import StreamOptions, stream_image
from gapstone.any_size.streamed import Streamed
from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.huge_images.huge_image import HugeImage
from gapstone.huge_images.open_huge_image import open_huge_image
from gapstone.huge_images.whole_image import WholeImage
from gapstone.images.preprocessing import Preprocessing
from gapstone.library.evaluate_models import open_given
from gapstone.library.given_arguments import given_path
from gapstone.library.python_words import console_of, errors_in_python
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.maps.targets import Classes
from gapstone.models.classifier import Classifier
from gapstone.training.training_data import pick_device

TOP = 5
"""Classes that maps are made of by default."""
CLOSE = 0.05
"""A level's µm per px may differ from what was asked for by so large a part."""


def stream(
    model: Any,
    image: Any,
    classes: Classes | None = None,
    *,
    top_k: int | None = None,
    maps: bool = True,
    level: int | None = None,
    level_um: float | None = None,
    memory: int | str = MEMORY,
    check: bool = True,
    checkpoint: str | Path | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool | None = None,
    head: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Streamed:
    """What a model answers for one image of any size, and why, exactly, without having the image in memory.

    Examples:
        >>> streamed = gs.stream(gs.load("photos.safetensors"), "board.tif", memory="500MB")
        >>> streamed.answers  # each class's probability, the most probable first
        {…}
        >>> streamed.maps.shape, streamed.evidence()[0].label  # in logit units, as those of gs.explain
        (torch.Size([1, …, …, …]), '…')
        >>> streamed.sheet().save("maps.png")
        >>> resnet = torchvision.models.resnet18().eval()  # any nn.Module, of an image that is normalised
        >>> gs.stream(resnet, torch.rand(3, 1031, 517), top_k=1).maps.shape
        torch.Size([1, 1, 33, 17])

    Rows go through the network in bands; each layer keeps the few rows that its next window needs, and pools keep a
    sum. So the answer is that of the network on the whole image, to rounding, at any height and width, and nothing is
    computed twice. Layers that need all positions before the next layer can begin (squeeze-excite, group norms) take
    one more pass over the image each. A network of which some layer cannot be played so is refused, with its name:
    attention over positions, pools to a grid, flattening heads, upsampling.

    The accuracy of a network on images much larger than those that it was trained on is another question.

    Args:
        model: what `gs.predict` takes (a file, the folder of a comparison, `timm:NAME`, a `gs.Classifier`, what
            `gs.open_model` returns); or any nn.Module from images to logits, for an image that is normalised.
        image: a file: TIFF, BigTIFF, OME-TIFF and Aperio's `.svs` are read piece by piece, others whole. An array (H,
            W) or (H, W, C) of uint8, or of the values that the model was trained on; also a memory map or a zarr array.
            A tensor (C, H, W) or (1, C, H, W), normalised.
        classes: those to make maps of, as `gs.explain` takes them; by default the five most probable.
        top_k: the most probable so many instead.
        maps: False: the answer alone, in less memory.
        level: of a file with several resolutions; by default 0, the finest.
        level_um: the level of so many µm per px instead, to 5 %.
        memory: about how many bytes it may take besides the model and the image that is given: 500_000_000, "2GB".
        check: compare a small image, whole and in bands, before the work.
        checkpoint: of an image that is a file, a file in which the run is kept, every ten seconds or so: after a stop
            or a kill the same call goes on from there, to the same numbers. It is deleted at the end.
        labels: of the classes of an nn.Module.
        multi_label: of an nn.Module: each class by itself, as `gs.explain` has it.
        head: of a comparison's folder, the head whose model is meant; None: the best.
        weights: a file of weights, where the model is a network's name.
        device: of a model that is opened here; `auto`: a GPU if there is one. A model that is open stays where it is.
        progress: show a bar.

    Returns:
        Logits, probabilities, maps, a small picture of the image, and what was left out of it.

    Raises:
        StreamError: the network, or the memory, does not allow it; a ValueError.
        ImageError: the image cannot be read; a ValueError.
        TypeError: of an nn.Module, an image that is not normalised.
    """
    console = console_of(progress, stderr=True)
    with errors_in_python(), ExitStack() as stack, Bars(console, idle="Preparing to stream") as bars:
        given: Any = model
        if isinstance(model, str | os.PathLike):
            given = open_given(model, head, device)
            if isinstance(given, str):
                with bars.during(f"Opening {given}"):
                    given = open_model(given, given_path(weights), pick_device(device))
        elif isinstance(model, Classifier):
            given = open_given(model, head, next(model.parameters()).device.type)
        if not isinstance(given, ImageModel | nn.Module):
            raise TypeError(f"stream takes a model, and got a {type(model).__name__}")
        preprocessing, smallest = None, 1
        if isinstance(given, ImageModel):
            network, preprocessing = given.model, given.preprocessing
            labels = given.labels if labels is None else labels
            multi_label = given.multi_label if multi_label is None else multi_label
            smallest = given.check_native()
        else:
            network = given
        source = _given(image, preprocessing, level, level_um, stack)
        if min(source.size) < smallest:
            raise ValueError(
                f"{source.size[0]}×{source.size[1]} px are too few: the network needs at least {smallest} a side"
            )
        top_k = TOP if classes is None and top_k is None else top_k
        asked = MapsAsked(classes, top_k, None if labels is None else tuple(labels), bool(multi_label))
        options = StreamOptions(asked, parse_bytes(memory), maps, check, given_path(checkpoint))
        return stream_image(network, source, options, bars)


def _given(
    image: Any, preprocessing: Preprocessing | None, level: int | None, level_um: float | None, stack: ExitStack
) -> GivenImage:
    is_file = isinstance(image, str | os.PathLike | HugeImage)
    if not is_file and (level is not None or level_um is not None):
        raise ValueError("level and level_um are of files with several resolutions")
    if isinstance(image, Tensor) and image.is_floating_point():
        values = image[None] if image.dim() == 3 else image
        if values.dim() != 4 or len(values) != 1 or not values.numel():
            raise ValueError(f"a tensor is one image (C, H, W) or (1, C, H, W), normalised, not {tuple(image.shape)}")
        return NormalisedImage(values.detach())
    if preprocessing is None:
        raise TypeError(
            f"an nn.Module does not say how its images are prepared: give it a tensor (C, H, W) that is normalised, "
            f"not a {type(image).__name__}; or open it with gs.open_model, or as a gs.Classifier"
        )
    if is_file:
        if isinstance(image, WholeImage):  # opened without the model's ranges
            image = image.path
        ranges = preprocessing.ranges
        huge = image if isinstance(image, HugeImage) else stack.enter_context(open_huge_image(image, ranges))
        return FileImage(huge, _level(huge, level, level_um), preprocessing)
    if isinstance(image, Tensor):
        image = (image.permute(1, 2, 0) if image.dim() == 3 else image).cpu().numpy()
    if not all(hasattr(image, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(f"an image is a file, an array (H, W, C) or a tensor (C, H, W), not a {type(image).__name__}")
    if len(image.shape) == 2:
        image = np.asarray(image)[:, :, None]
    if len(image.shape) != 3 or 0 in image.shape:
        raise ValueError(f"an array is one image (H, W) or (H, W, C), not {tuple(image.shape)}")
    return ArrayImage(image, preprocessing)


def _level(image: HugeImage, level: int | None, micrometres: float | None) -> int:
    if micrometres is None:
        return level or 0
    if level is not None:
        raise ValueError(f"give level={level} or level_um={micrometres}, not both")
    chosen, factor = image.level_for(micrometres)
    if abs(factor - 1) > CLOSE:
        assert image.micrometres is not None
        there = ", ".join(
            f"{number} ({image.micrometres * one.downsample:.3g})" for number, one in enumerate(image.levels)
        )
        raise ValueError(
            f"level_um={micrometres}: {display(image.path)} has the levels (µm per px) {there}; take one of these"
        )
    return chosen
