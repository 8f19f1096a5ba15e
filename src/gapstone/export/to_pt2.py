"""logits and maps as one graph of torch's operators, sizes as symbols: what a .pt2 file holds, and ONNX begins with."""

import json
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
"""The extra file inside a .pt2 that says what the numbers mean (`gapstone.export.file_metadata`)."""


def graph(module: nn.Module, sizes: SizeRange) -> tuple[ExportedProgram, SizeRange]:
    """The graph, and what it takes: any number of images; any height and width from the smallest on. The usual size
    alone where the network takes no other, or where torch.export cannot leave it open: `fixed` then says so.

    Raises: ExportError with torch's reason for a network that it cannot trace.
    """
    try:
        try:
            return _graph(module, sizes), sizes
        except Exception:  # not with open sizes; whether at all, the second try tells
            if sizes.fixed:
                raise
            alone = replace(sizes, fixed=True)
            return _graph(module, alone), alone
    except Exception as error:  # whatever a network does that cannot be traced
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"export: torch.export cannot trace this network ({reason})") from error


def _graph(module: nn.Module, sizes: SizeRange) -> ExportedProgram:
    height, width = sizes.usual
    dims: dict[int, Any] = {0: Dim("batch", min=1)}
    if not sizes.fixed:
        dims |= {2: Dim("height", min=sizes.smallest), 3: Dim("width", min=sizes.smallest)}
    example = torch.zeros(2, sizes.channels, height, width)
    # Without it every size that is not 1 in the example is written down as "never 1": no single image would be taken,
    # and no picture whose last map is one cell.
    with torch.no_grad(), any_number_of_images():
        program = torch.export.export(module, (example,), dynamic_shapes=(dims,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def write_pt2(program: ExportedProgram, facts: dict[str, Any], path: Path) -> None:
    """The graph, the weights and the facts in one file, which torch reads without gapstone.

    >>> texts = {"gapstone.json": ""}
    >>> program = torch.export.load("photos.pt2", extra_files=texts)
    >>> logits, maps = program.module()(images)
    >>> labels = json.loads(texts["gapstone.json"])["labels"]
    """
    torch.export.save(program, path, extra_files={FACTS: json.dumps(facts)})


def read_pt2(path: Path) -> Run:
    """The file as any program would read it."""
    module = torch.export.load(path).module()

    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            answer = module(torch.from_numpy(images))
        return [part.numpy() for part in (answer if isinstance(answer, tuple) else (answer,))]

    return run
