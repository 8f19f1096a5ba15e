"""`gapstone export`: write, check, name; then say what was written."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gapstone.console.formatting import display, format_size
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.split import Duplicates
from gapstone.export import int8 as whole_numbers
from gapstone.export.export_module import logits_alone, logits_and_maps
from gapstone.export.file_metadata import file_metadata
from gapstone.export.size_range import SizeRange, size_range
from gapstone.export.to_onnx import NEWEST, OPSET, need_onnx, read_onnx, write_onnx
from gapstone.export.to_pt2 import graph, read_pt2, write_pt2
from gapstone.export.verify import TOLERANCE, Checked, Run, pictures, verify
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.runtime.interrupts import stoppable
from gapstone.runtime.timing import side_by_side, take_turns
from gapstone.storage.atomic import atomic_file
from gapstone.storage.owned_folder import own_file

SECONDS = 3.0  # of timing, after five rounds: an idea, not a benchmark


def export(
    model: str,
    onnx: Path | None = None,
    pt2: Path | None = None,
    *,
    maps: bool = True,
    opset: int = OPSET,
    int8: bool = False,
    data: str | None = None,
    weights: Path | None = None,
    duplicates: Duplicates = "group",
    duplicate_threshold: float | None = None,
    console: Console | None = None,
) -> None:
    """Write `onnx`, `pt2` or both, each checked against PyTorch on several sizes before it gets its name; a file that
    is there already is replaced then, and not earlier. With `int8` also NAME.int8.onnx, measured on `data`.

        >>> export("photos.safetensors", Path("photos.onnx"), int8=True, data="photos/")

    Raises: ValueError for paths and options that do not fit together, before any work; ExportError (a ValueError)
        for a file that does not answer as the model does; ImportError without gapstone[onnx]; as `open_model`, and with
        `int8` as `open_source` and `split`.
    """
    _fits(onnx, pt2, opset, int8, data)
    check_threshold(duplicate_threshold)
    if onnx:
        need_onnx()
    written: list[Path] = []
    with (
        stoppable(
            lambda: (
                f"Export was stopped; written: {', '.join(map(display, written)) or 'nothing'}. The same command "
                f"starts again."
            )
        ),
        Bars(console or Terminal(), idle=f"Exporting {display(model)}") as bars,
    ):
        with bars.during(f"Opening {model}"):
            opened = open_model(model, weights)
        images = None
        if int8 and data:
            tell = bars("Checking images")
            images = whole_numbers.choose(opened, data, tell, duplicates, duplicate_threshold)
        module = logits_and_maps(opened) if maps else logits_alone(opened)
        facts = file_metadata(opened, maps)
        with bars.during("Tracing the network"):
            program, takes = graph(module, given := size_range(opened))
        if takes.fixed and not given.fixed:
            bars.log("This network cannot be exported with its size left open: the file takes one size only.")
        if pt2:
            with bars.during(f"Writing and checking {pt2}"), atomic_file(pt2) as part:
                write_pt2(program, facts, part)
                read = read_pt2(part)
                checked = verify(read, opened, takes.trials(), "torch.export")
            written.append(pt2)
            _report(bars, pt2, opened, takes, maps, "torch.export", checked, read)
        if onnx:
            with bars.during(f"Writing and checking {onnx}"), atomic_file(onnx) as part:
                write_onnx(program, facts, opset, maps, part)
                read = read_onnx(part)
                checked = verify(read, opened, takes.trials(), "ONNX Runtime")
            written.append(onnx)
            _report(bars, onnx, opened, takes, maps, f"ONNX, opset {opset}", checked, read)
        if onnx and images:
            small = _int8_name(onnx)
            with atomic_file(small) as part:
                with bars.during("Calibrating and quantising"):
                    whole_numbers.quantise(onnx, opened, images, part)
                cost = whole_numbers.cost(onnx, part, opened, images, bars("Comparing float and int8"))
            written.append(small)
            _report_int8(bars, small, images, cost)


def _fits(onnx: Path | None, pt2: Path | None, opset: int, int8: bool, data: str | None) -> None:
    if onnx is None and pt2 is None:
        raise ValueError("export: name a file to write: --onnx model.onnx, --pt2 model.pt2, or both.")
    for option, path, ending in (("--onnx", onnx, ".onnx"), ("--pt2", pt2, ".pt2")):
        if path is None:
            continue
        own_file(path, f"model{ending}", option)
        if path.suffix != ending:
            raise ValueError(f"{option} {path}: the name must end in {ending}, such as {path.with_suffix(ending)}.")
    if not OPSET <= opset <= NEWEST:
        raise ValueError(f"--opset {opset}: must be from {OPSET}, the oldest that torch writes, to {NEWEST}.")
    if int8 and (onnx is None or data is None):
        raise ValueError("--int8 needs --onnx, the file to quantise, and --data, images to calibrate and measure with.")
    if onnx is not None and int8:
        own_file(_int8_name(onnx), "model.int8.onnx", "--int8:")
    if data is not None and not int8:
        raise ValueError(f"--data {data} is used with --int8 only; add it, or leave --data out.")


def _int8_name(onnx: Path) -> Path:
    return onnx.with_suffix(".int8.onnx")


def _report(
    bars: Bars,
    path: Path,
    opened: ImageModel,
    takes: SizeRange,
    maps: bool,
    kind: str,
    checked: Sequence[Checked],
    read: Run,
) -> None:
    h, w = takes.usual
    size = f"{h}×{w} px only" if takes.fixed else f"any size from {takes.smallest}×{takes.smallest} px"
    bars.log(f"{display(path)}: {path.stat().st_size / 1e6:.1f} MB, {kind}")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("images", "logits differ by", *(["maps differ by"] if maps else [])):
        table.add_column(name)
    for one in checked:
        table.add_row(
            format_size(one.shape), f"{one.logits:.1g}", *([f"{one.maps:.1g}"] if one.maps is not None else [])
        )
    bars.console.print(table)
    outputs = "logits (batch, K) and maps (batch, K, rows, columns)" if maps else "logits (batch, K)"
    with bars.during("Timing one image"):
        paces = _pace(opened, takes, read)
    bars.log(
        f"Takes images (batch, {takes.channels}, height, width), {size}, any number; gives {outputs}, "
        f"K = {len(opened.labels)}. Differences from PyTorch are shares of the largest number; up to {TOLERANCE:g} are "
        f"allowed. One image at {h}×{w}: {paces}"
    )


def _pace(opened: ImageModel, takes: SizeRange, read: Run) -> str:
    """Milliseconds of the file and of the model in PyTorch, logits alone: to have an idea."""
    image = pictures(opened, (1, takes.channels, *takes.usual), seed=0)

    def torch_run() -> object:
        with torch.inference_mode():
            return opened.model(image)

    return side_by_side(take_turns({"this file": lambda: read(image.numpy()), "PyTorch": torch_run}, longest=SECONDS))


def _report_int8(bars: Bars, path: Path, images: whole_numbers.Images, cost: whole_numbers.QuantisationCost) -> None:
    bars.log(
        f"\n{display(path)}: {cost.bytes_after / 1e6:.1f} MB (float {cost.bytes_before / 1e6:.1f} MB), trunk in int8"
    )
    bars.log(f"{cost.verdict} Calibrated on {cost.calibrated} others. {images.described.partition(';')[0]}.")
    maps = "" if cost.maps is None else f" Maps differ by {100 * cost.maps:.1f} % of their largest number on average."
    bars.log(f"One image: {cost.paces}{maps}")
