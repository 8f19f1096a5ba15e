"""Traces a module to a graph of torch's operators with symbolic sizes, and writes and reads .pt2 files of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim, ExportedProgram

from gapstone.export.size_range import SizeRange
from gapstone.export.verify import ExportError, Run
from gapstone.runtime.torch_internals import any_number_of_images

FACTS = "gapstone.json"
"""The extra file in a .pt2 file with its metadata (`gapstone.export.file_metadata`)."""


def graph(module: nn.Module, sizes: SizeRange) -> tuple[ExportedProgram, SizeRange]:
    """Return the graph of a module, and the image sizes that it takes.

    The graph takes any number of images of any size from the smallest on; or only the usual size (`fixed`), if the
    network takes no other or torch.export cannot keep the size symbolic.

    Raises:
        ExportError: If torch cannot trace the network; the message has its reason.
    """
    pads = _pads_by_size()
    if any(isinstance(part, pads) for part in module.modules()):
        sizes = replace(sizes, fixed=True)
    try:
        try:
            return _graph(module, sizes), sizes
        except Exception:  # symbolic sizes failed: try a fixed size
            if sizes.fixed:
                raise
            fixed = replace(sizes, fixed=True)
            return _graph(module, fixed), fixed
    except Exception as error:  # torch.export raises many kinds
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"export: torch.export cannot trace this network ({reason})") from error


def _pads_by_size() -> tuple[type[nn.Module], ...]:
    """Layers whose padding is computed of the image's size, as TensorFlow's "same" is (timm's `tf_…`).

    torch.export does not keep that size symbolic: of EfficientNet-Lite0 it says so after a minute.
    """
    # where they are not loaded the network has none
    layers = [sys.modules.get(f"timm.layers.{name}") for name in ("conv2d_same", "pool2d_same")]
    found = [getattr(one, name, None) for one in layers for name in ("Conv2dSame", "AvgPool2dSame", "MaxPool2dSame")]
    return tuple(one for one in found if one is not None)


def _graph(module: nn.Module, sizes: SizeRange) -> ExportedProgram:
    height, width = sizes.usual
    dims: dict[int, Any] = {0: Dim("batch", min=1)}
    if not sizes.fixed:
        dims |= {2: Dim("height", min=sizes.smallest), 3: Dim("width", min=sizes.smallest)}
    example = torch.zeros(2, sizes.channels, height, width)
    # without any_number_of_images, torch.export records "never 1" for every size that is not 1 in the example: the file
    # would not take a single image, nor a picture whose last map is one cell
    with torch.no_grad(), any_number_of_images():
        program = torch.export.export(module, (example,), dynamic_shapes=(dims,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def write_pt2(program: ExportedProgram, metadata: dict[str, Any], path: Path) -> None:
    """Write graph, weights and metadata to one file, which torch reads without gapstone.

    >>> texts = {"gapstone.json": ""}
    >>> program = torch.export.load("photos.pt2", extra_files=texts)
    >>> logits, maps = program.module()(images)
    >>> labels = json.loads(texts["gapstone.json"])["labels"]
    """
    torch.export.save(program, path, extra_files={FACTS: json.dumps(metadata)})


def read_pt2(path: Path) -> Run:
    """Return a function that runs the file, loaded as any program would."""
    module = torch.export.load(path).module()

    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            outputs = module(torch.from_numpy(images))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run
