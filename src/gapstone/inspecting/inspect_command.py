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
    """Print what `name` is made of, or one JSON document of it; and draw it.

    name: a file of gapstone's, a network of its own, `timm:NAME`, `torchvision:NAME`. size: (H, W), or as it is typed,
    "224" or "224x160". depth: of the modules shown; by default as many as can be read. Raises: as `models.named`,
    `inspect` and `picture.save`.
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
    shape = _parsed(size) if isinstance(size, str) else size
    with Bars(Terminal(stderr=True), idle=f"Looking into {display(name)}"):
        found = inspect(model_named(name, channels, shape), shape, channels, name)
        if picture is not None:
            found.save(picture)
    if as_json:
        print(json.dumps(found.as_json(), indent=2, allow_nan=False))  # ASCII: safe whatever the terminal's encoding
        return
    show(console, found, depth)
    if picture is not None:
        console.print()
        console.print(f"Picture: {display(picture)}", soft_wrap=True)


def _parsed(size: str) -> tuple[int, int]:
    sides = size.lower().replace("×", "x").split("x")
    if not (1 <= len(sides) <= 2 and all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides)):
        raise ValueError(f"--size {size}: expected a number of pixels such as 224, or 224x160 (height x width)")
    return int(sides[0]), int(sides[-1])
