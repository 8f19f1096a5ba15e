"""`gapstone inspect FILE` of an image: what it holds, read without decoding more than its smallest level."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.huge_images.huge_image import HugeImage
from gapstone.huge_images.open_huge_image import open_huge_image
from gapstone.images.file_type import begins_like_image
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import LARGEST
from gapstone.inspecting.amounts import size
from gapstone.storage.paths import open_input

MOST_LOOKED_AT = 1 << 24
"""Pixels of the smallest level up to which it is read, for the share that has no data."""


def is_image(name: str) -> bool:
    """Whether it is a file that begins like an image, whatever its ending."""
    path = Path(name)
    if not path.is_file():
        return False
    with open_input(name, path) as file:
        return begins_like_image(file.read(1024))


def inspect_image(name: str, as_json: bool = False, console: Console | None = None) -> None:
    """Print the size, levels, resolution, packing and missing parts of an image as tables, or as a JSON document.

    Raises:
        ImageError: it is damaged, or not supported; the message begins with the file's name.
        ImportError: a TIFF needs gapstone[slides].
    """
    path = Path(name)
    with Bars(Terminal(stderr=True), idle=f"Looking into {display(name)}"):
        try:
            image = open_huge_image(path)
        except ImageError as error:
            said = str(error)
            raise ImageError(said if said.startswith(display(name)) else f"{display(name)}: {said}") from None
        with image:
            facts = _facts(image)
    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        _show(facts, console or Terminal())


def _facts(image: HugeImage) -> dict[str, Any]:
    channel = image.dtype.itemsize
    levels = [
        {
            "height": level.height,
            "width": level.width,
            "downsample": round(level.downsample, 4),
            "um_per_px": None if image.micrometres is None else round(image.micrometres * level.downsample, 6),
            "tile": list(level.tile),
            "decoded_bytes": level.height * level.width * image.channels * channel,
        }
        for level in image.levels
    ]
    return {
        "file": str(image.path),
        "file_bytes": image.path.stat().st_size,
        "kind": image.kind,
        "height": image.height,
        "width": image.width,
        "channels": image.channels,
        "dtype": image.dtype.name,
        "packed_by": image.compression,
        "um_per_px": image.micrometres,
        "levels": levels,
        **_missing(image),
        "notes": list(image.notes),
        "streamed": image.height * image.width > LARGEST**2,
    }


def _missing(image: HugeImage) -> dict[str, Any]:
    """Of the smallest level: the share of its pixels without data, and its parts that cannot be decoded."""
    number = len(image.levels) - 1
    level = image.levels[number]
    if level.height * level.width > MOST_LOOKED_AT:
        return {"looked_at_level": None, "no_data": None, "damaged_parts": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is damaged is counted
        none = level.height * level.width - sum(
            band.pixels.shape[0] * level.width if band.valid is None else int(np.count_nonzero(band.valid))
            for band in image.bands(level.tile[0], number)
        )
    share = none / (level.height * level.width)
    return {"looked_at_level": number, "no_data": round(share, 6), "damaged_parts": len(image.damage)}


def _show(facts: dict[str, Any], console: Console) -> None:
    title = Text(display(facts["file"]), "bold")
    title.append(f"  {facts['height']:,}×{facts['width']:,} px (height × width)", "not bold")
    console.print(title, soft_wrap=True)
    about = Table(box=None, show_header=False, pad_edge=False)
    about.add_column(style="bold", no_wrap=True)
    about.add_column(overflow="fold")

    def fact(name: str, text: str) -> None:
        about.add_row(Text(name), Text(display(text)))

    packed = f", packed by {facts['packed_by']}" if facts["packed_by"] else ""
    fact("file", f"{facts['kind']}{packed}, {size(facts['file_bytes'])}")
    fact("pixels", f"{count_noun(facts['channels'], 'channel')} of {facts['dtype']}")
    micrometres = facts["um_per_px"]
    fact("resolution", "not said" if micrometres is None else f"{micrometres:.4g} µm per px")
    fact("without data", _no_data(facts))
    fact("read", _how(facts))
    console.print()
    console.print(about)
    if len(facts["levels"]) > 1 or facts["streamed"]:
        console.print()
        console.print(_levels(facts))
    for note in facts["notes"]:
        console.print(Text(f"Note: {display(note)}", "yellow"), soft_wrap=True)


def _no_data(facts: dict[str, Any]) -> str:
    number = facts["looked_at_level"]
    if number is None:
        return "not looked for: its smallest level is large"
    where = f" in level {number}" if len(facts["levels"]) > 1 else ""
    damaged = facts["damaged_parts"]
    broken = f"; {count_noun(damaged, 'part')} cannot be decoded and count as that" if damaged else ""
    return f"{100 * facts['no_data']:.3g} %{where}{broken}" if facts["no_data"] else f"nowhere{where}"


def _how(facts: dict[str, Any]) -> str:
    if not facts["streamed"]:
        return f"whole, as any image: it has at most {LARGEST}² px"
    return (
        f"more than {LARGEST}² px: in bands of rows by `gapstone predict --native`, `explain --native` and gs.stream, "
        f"which takes a level, too" + ("" if facts["um_per_px"] is None else ", or µm per px")
    )


def _levels(facts: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("level", "height × width", "downsample", "µm per px", "tile", "decoded"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, level in enumerate(facts["levels"]):
        micrometres = level["um_per_px"]
        table.add_row(
            str(number),
            f"{level['height']:,}×{level['width']:,}",
            f"{level['downsample']:.4g}",
            "–" if micrometres is None else f"{micrometres:.4g}",
            "×".join(map(str, level["tile"])),
            size(level["decoded_bytes"]),
        )
    return table
