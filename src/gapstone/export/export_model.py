"""`gapstone export`: writes files, checks them before they get their names, and reports them."""

from collections.abc import Callable, Sequence
from functools import partial
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
from gapstone.export import int8 as int8_export
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

SECONDS = 3.0  # of timing after five rounds: an estimate, not a benchmark


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
    """Write an ONNX file, a .pt2 file or both.

    Each file is compared with PyTorch on several image sizes before it gets its name and replaces an existing file.

        >>> export("photos.safetensors", Path("photos.onnx"), int8=True, data="photos/")

    Model and weights are as `open_model` takes them. `maps`: whether the files have maps as a second output. `int8`:
    also write NAME.int8.onnx, calibrated and measured on the images `data`, which are split as `split` does with
    `duplicates` and `duplicate_threshold`.

    Raises:
        ValueError: If paths or options do not fit together; before any work.
        ExportError: If the outputs of a file differ from those of the model. A ValueError.
        ImportError: If gapstone[onnx] is missing. Also what `open_model` raises, and with `int8` `open_source` and
            `split`.
    """
    _check_options(onnx, pt2, opset, int8, data)
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
            image_model = open_model(model, weights)
        images = None
        if int8 and data:
            progress = bars("Checking images")
            images = int8_export.choose_images(image_model, data, progress, duplicates, duplicate_threshold)
        module = logits_and_maps(image_model) if maps else logits_alone(image_model)
        metadata = file_metadata(image_model, maps)
        with bars.during("Tracing the network"):
            program, sizes = graph(module, model_sizes := size_range(image_model))
        if sizes.fixed and not model_sizes.fixed:
            bars.log("This network cannot be exported with its size left open: the file takes one size only.")

        def finish(
            path: Path, write: Callable[[Path], None], read: Callable[[Path], Run], reader: str, kind: str
        ) -> None:
            with bars.during(f"Writing and checking {path}"), atomic_file(path) as part:
                write(part)
                run = read(part)
                comparisons = verify(run, image_model, sizes.trials(), reader)
            written.append(path)
            _report(bars, path, image_model, sizes, maps, kind, comparisons, run)

        if pt2:
            finish(pt2, partial(write_pt2, program, metadata), read_pt2, "torch.export", "torch.export")
        if onnx:
            write = partial(write_onnx, program, metadata, opset, maps)
            finish(onnx, write, read_onnx, "ONNX Runtime", f"ONNX, opset {opset}")
        if onnx and images:
            int8_path = _int8_name(onnx)
            with atomic_file(int8_path) as part:
                with bars.during("Calibrating and quantising"):
                    int8_export.quantise(onnx, image_model, images, part)
                cost = int8_export.cost(onnx, part, image_model, images, bars("Comparing float and int8"))
            written.append(int8_path)
            _report_int8(bars, int8_path, images, cost)


def _check_options(onnx: Path | None, pt2: Path | None, opset: int, int8: bool, data: str | None) -> None:
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
    image_model: ImageModel,
    sizes: SizeRange,
    maps: bool,
    kind: str,
    comparisons: Sequence[Checked],
    run: Run,
) -> None:
    h, w = sizes.usual
    size = f"{h}×{w} px only" if sizes.fixed else f"any size from {sizes.smallest}×{sizes.smallest} px"
    bars.log(f"{display(path)}: {path.stat().st_size / 1e6:.1f} MB, {kind}")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("images", "logits differ by", *(["maps differ by"] if maps else [])):
        table.add_column(name)
    for comparison in comparisons:
        table.add_row(
            format_size(comparison.shape),
            f"{comparison.logits:.1g}",
            *([f"{comparison.maps:.1g}"] if comparison.maps is not None else []),
        )
    bars.console.print(table)
    outputs = "logits (batch, K) and maps (batch, K, rows, columns)" if maps else "logits (batch, K)"
    with bars.during("Timing one image"):
        timing = _time_image(image_model, sizes, run)
    sigmoid = " The sigmoid of each logit is its probability." if image_model.multi_label else ""
    bars.log(
        f"Takes images (batch, {sizes.channels}, height, width), {size}, any number; gives {outputs}, "
        f"K = {len(image_model.labels)}.{sigmoid} Differences from PyTorch are shares of the largest number; up to "
        f"{TOLERANCE:g} are allowed. One image at {h}×{w}: {timing}"
    )


def _time_image(image_model: ImageModel, sizes: SizeRange, run: Run) -> str:
    """Return the milliseconds per image of the file, and of the model in PyTorch (logits only), as text."""
    image = pictures(image_model, (1, sizes.channels, *sizes.usual), seed=0)

    def torch_run() -> object:
        with torch.inference_mode():
            return image_model.model(image)

    return side_by_side(take_turns({"this file": lambda: run(image.numpy()), "PyTorch": torch_run}, longest=SECONDS))


def _report_int8(bars: Bars, path: Path, images: int8_export.Images, cost: int8_export.QuantisationCost) -> None:
    bars.log(
        f"\n{display(path)}: {cost.bytes_after / 1e6:.1f} MB (float {cost.bytes_before / 1e6:.1f} MB), trunk in int8"
    )
    bars.log(f"{cost.verdict} Calibrated on {cost.calibrated} others. {images.described.partition(';')[0]}.")
    maps = "" if cost.maps is None else f" Maps differ by {100 * cost.maps:.1f} % of their largest number on average."
    bars.log(f"One image: {cost.paces}{maps}")
