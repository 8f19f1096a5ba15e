"""The commands about this machine: doctor, bench."""

from pathlib import Path
from typing import Annotated

import typer

from gapstone.commands.option_types import loading, path_option


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, every case by itself.")] = False,
    wide: Annotated[bool, typer.Option("--all", help="A table for every dtype and layout, also where alike.")] = False,
) -> None:
    """What this machine has, and which loop serves which pool over which region, by device and dtype, and why."""
    with loading():
        from gapstone.bench.doctor import doctor as run

    run(as_json, wide)


def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds per case, at most.")] = 15,
    quick: Annotated[bool, typer.Option("--quick", help="Three rounds: a first look.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="1: CPU time, which repeats best; more: wall time.")] = 1,
    only: Annotated[str, typer.Option(metavar="REGEX", help="Only such cases: 'gem', 'backward', '×112'.")] = "",
    out: Annotated[Path | None, path_option("Also write all numbers here.", "--json", metavar="FILE")] = None,
) -> None:
    """Measure the pools networks run all day against torch on this machine, losses included.

    Two minutes with --quick, three without; most of the first run compiles kernels, which later runs load from disk.
    Every answer is checked before it is timed; a wrong one gets no time, and exit code 1.
    """
    with loading():
        from gapstone.bench.run_bench import bench as run
        from gapstone.console.terminal import Terminal

    if not run(Terminal(), 3 if quick else rounds, threads, out, only):
        raise typer.Exit(1)
