"""`gapstone inspect MODEL`."""

import json
from pathlib import Path

from rich.console import Console

from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.inspecting.cost_picture import ENDINGS
from gapstone.inspecting.inspect import inspect
from gapstone.inspecting.inspection_table import show
from gapstone.inspecting.model_names import model_named
from gapstone.storage.owned_folder import own_file


def inspect_model(
    name: str,
    size: str | tuple[int, int] | None = None,
    channels: int | None = None,
    as_json: bool = False,
    depth: int | None = None,
    picture: Path | None = None,
    console: Console | None = None,
) -> None:
    """Print the costs of a network as tables or as a JSON document, and draw them.

    `name` is as `model_named` takes it, `size` (H, W) or text such as "224x160". `depth`: of the modules shown; by
    default as deep as `MOST_ROWS` rows allow. `picture`: where to draw the costs, PNG or SVG.

    Raises:
        ValueError: If an argument is invalid. Also what `model_named`, `inspect` and `Inspection.save` raise.
    """
    console = console or Terminal()
    if depth is not None and depth < 0:
        raise ValueError(f"--depth {depth}: 0 shows the whole only, 1 its parts, …")
    if channels is not None and channels < 1:
        raise ValueError(f"--channels {channels}: an image has at least one channel")
    if picture is not None and picture.suffix.lower() not in ENDINGS:
        raise ValueError(f"--picture {picture}: a picture ends in {' or '.join(ENDINGS)}")
    if picture is not None:
        own_file(picture, "network.png", "--picture")
    shape = _parse_size(size) if isinstance(size, str) else size
    with Bars(Terminal(stderr=True), idle=f"Looking into {display(name)}"):
        inspection = inspect(model_named(name, channels, shape), shape, channels, name)
        if picture is not None:
            inspection.save(picture)
    if as_json:
        print(json.dumps(inspection.as_json(), indent=2, allow_nan=False))  # ASCII: safe in any terminal encoding
        return
    show(console, inspection, depth)
    if picture is not None:
        console.print()
        console.print(f"Picture: {display(picture)}", soft_wrap=True)


def _parse_size(size: str) -> tuple[int, int]:
    sides = size.lower().replace("×", "x").split("x")
    if not (1 <= len(sides) <= 2 and all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides)):
        raise ValueError(f"--size {size}: expected a number of pixels such as 224, or 224x160 (height x width)")
    return int(sides[0]), int(sides[-1])
