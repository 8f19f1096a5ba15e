"""How a model folder of Hugging Face prepares images, as `Preprocessing`: found by asking its own image processor."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import display, first_line
from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import Crop, Filter, Resizing
from gapstone.nets.hf_folder import read_json
from gapstone.nets.hf_model import transformers_for

FILES = ("preprocessor_config.json", "processor_config.json")

FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}
"""Of Pillow's numbers."""

SETTINGS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
)  # fmt: skip
"""Of image processors, which have them as attributes: what they write leaves some out."""

TRIED = ((375, 500), (401, 331), (97, 150))
"""Sizes (H, W) of the pictures on which both are compared; an odd number of pixels is left over in some."""

MOST = 1.0
"""Of 255: how far pixels may be off on average. Pillow and torchvision round differently, by 0.2 at the most; where a
crop is a pixel off it is 10 and more."""


def hf_input(folder: Path) -> Preprocessing:
    """How images are prepared for the network of a folder, in gapstone's terms.

    What its settings say is tried on pictures of noise against its own image processor, and taken only if all come out
    alike: a processor that does more (another order of colours, a second scale) is refused, not followed in part.

    Raises:
        ValueError: there is no image processor, or gapstone cannot prepare images as it does.
        ImportError: transformers is not installed, or lacks what this processor needs.
    """
    who = f"hf:{display(folder)}"
    name = next((name for name in FILES if (folder / name).is_file()), None)
    if name is None:
        raise ValueError(f"{who} has no {FILES[0]}, which says how images are prepared: copy the whole folder")
    read_json(folder / name, who)  # bounded, and an object
    processor = _open(folder, who)
    says = {key: getattr(processor, key) for key in SETTINGS if hasattr(processor, key)}
    pictures = [_noise(height, width) for height, width in TRIED]
    try:
        wanted = [processor(images=x, return_tensors="pt")["pixel_values"][0].numpy() for x in pictures]
    except Exception as error:  # each processor has its own way to refuse
        raise ValueError(f"{who}: its image processor takes no picture ({first_line(error)})") from error
    for candidate in _candidates(says):
        if all(map(_alike, [candidate] * len(pictures), pictures, wanted)):
            return candidate
    size = "×".join(map(str, wanted[0].shape[1:]))
    raise ValueError(
        f"{who}: gapstone cannot prepare images as its {processor.__class__.__name__} does (to {size} px; filters are "
        f"bilinear and bicubic; a centre crop, or no proportions kept; (x − mean) / std). Prepare them with it, and "
        f"call the model yourself: gs.explain(model, images)"
    )


def _open(folder: Path, who: str) -> Any:
    transformers = transformers_for(who)
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except ImportError as error:
        raise ImportError(f"{who}: {first_line(error)}") from error
    except Exception as error:  # as above
        raise ValueError(f"{who}: its image processor cannot be made ({first_line(error)})") from error


def _candidates(says: dict[str, Any]) -> Iterator[Preprocessing]:
    """What the settings may mean, plainest first; processors differ in what they leave unsaid."""
    filter = FILTERS.get(int(says.get("resample") or 0))
    size, crop = says.get("size"), says.get("crop_size")
    if filter is None or not says.get("do_resize", True) or size is None:
        return
    short = _number(size, "shortest_edge")
    cropped = _pair(crop) if says.get("do_center_crop") and crop is not None else None
    ways: list[tuple[tuple[int, int], tuple[int, int], tuple[Crop, ...]]] = []
    kept: tuple[Crop, ...] = ("whole pixels down", "whole pixels")
    if (whole := _pair(size)) is not None:
        ways.append((whole, cropped or whole, ("squash",)))
    if short is not None:
        square, share = (short, short), says.get("crop_pct")
        if isinstance(share, float) and share > 0:  # ConvNeXt, PoolFormer
            ways.append(((int(short / share),) * 2, cropped or square, kept))
        if cropped is not None:
            ways.append((square, cropped, kept))
            ways.append(((int(256 / 224 * short),) * 2, cropped, kept))  # LeViT
        ways.append((square, square, ("squash",)))  # ConvNeXt from 384 px on
    for stored, seen, crops in ways:
        for how in crops:
            try:
                yield Preprocessing(3, seen, stored, *_moments(says), resizing=Resizing(filter, how))
            except ValueError:  # a crop larger than the image is padded
                continue


def _moments(says: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) on the scale 0…1, whatever scale the processor works on."""
    scale = 255 * float(says.get("rescale_factor") or 1 / 255) if says.get("do_rescale", True) else 255.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if says.get("do_normalize", True):
        mean, std = (_three(says.get(key)) for key in ("image_mean", "image_std"))
    return tuple(m / scale for m in mean), tuple(s / scale for s in std)


def _three(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [value] * 3
    return tuple(float(v) for v in values)


def _number(size: Any, key: str) -> int | None:
    value = size.get(key) if hasattr(size, "get") else getattr(size, key, None)
    return None if value is None else int(value)


def _pair(size: Any) -> tuple[int, int] | None:
    height, width = _number(size, "height"), _number(size, "width")
    return None if height is None or width is None else (height, width)


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    """Blocks of 4 px, so that what is a pixel off is seen."""
    blocks = np.random.default_rng(0).integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return blocks.repeat(4, 0).repeat(4, 1)[:height, :width]


def _alike(ours: Preprocessing, pixels: NDArray[np.uint8], wanted: NDArray[np.floating[Any]]) -> bool:
    if wanted.shape != (3, *ours.size):
        return False
    seen = ours.centre(ours.fit(pixels)[None])[0] / 255
    there = wanted.transpose(1, 2, 0) * np.asarray(ours.std) + np.asarray(ours.mean)
    return bool(np.abs(seen - there).mean() * 255 <= MOST)
