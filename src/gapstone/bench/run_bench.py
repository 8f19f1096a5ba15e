"""`gapstone bench`: measures case by case, and prints and writes the results, also after Ctrl-C."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gapstone.bench import case_table
from gapstone.bench.case_result import CaseResult, measure, select
from gapstone.bench.cases import Case, daily
from gapstone.bench.contenders import Contender
from gapstone.bench.doctor import machine
from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.runtime.environment import BackgroundLoad
from gapstone.runtime.interrupts import stoppable
from gapstone.runtime.timing import busy
from gapstone.storage.atomic import write_atomic
from gapstone.storage.owned_folder import own_file

FIRST = "the first run a minute or two longer: it compiles the kernels, and keeps them on disk"
SECONDS = 1.0  # of measuring per case, after at least five rounds


def bench(
    console: Console,
    rounds: int = 15,
    threads: int = 1,
    out: Path | None = None,
    only: str = "",
    tiny: bool = False,
) -> bool:
    """Measure the pools of common networks; return False if an output was wrong. `tiny`: small maps, for tests."""
    cases = select(daily(tiny), only)
    if not cases:
        raise ValueError(f"bench: no case matches {only!r}; try 'max', 'whole', 'forward' or 'channels-last'.")
    if out is not None:
        own_file(out, "bench.json", "--json")
    facts = machine()
    for name in ("processor", "gapstone", "torch", "numba"):
        console.print(f"{name:>16}  {facts[name]}", highlight=False)
    console.print(f"{'measured':>16}  {how(threads, rounds)}", highlight=False, soft_wrap=True)
    console.print(f"{'takes':>16}  {FIRST}", highlight=False, soft_wrap=True)
    results = run(console, {"": cases}, rounds, SECONDS, threads, out)
    return not any(result.wrong for result in results)


def run(
    console: Console,
    sections: Mapping[str, list[Case]],
    rounds: int,
    seconds: float,
    threads: int,
    out: Path | None = None,
    others: Mapping[str, Contender] | None = None,
    before: list[CaseResult] | None = None,
) -> list[CaseResult]:
    """Measure and print cases; write them to `out` after the results `before`, such as of other numbers of threads."""
    results: list[CaseResult] = []
    threads_before = torch.get_num_threads()
    work = [(section, case) for section, cases in sections.items() for case in cases]
    load = BackgroundLoad()
    try:
        with (
            load,
            stoppable(lambda: f"Stopped: {len(results)} of {len(work)} cases measured."
                      + (f" Written: {display(out)}" if out else "")),
            Bars(console, idle="Measuring") as bars,
        ):  # fmt: skip
            update = bars("Measuring")
            for section, case in work:
                update(len(results), len(work), f"{case.title}, {case.group}")
                results.append(measure(case, rounds, seconds, threads, others, section))
                show(console, results)
    finally:
        torch.set_num_threads(threads_before)
        if results:
            console.print()
            for text in (*case_table.summary(results), case_table.LEGEND):
                console.print(text, highlight=False, markup=False)
            if reason := busy(load.cores, ()):
                console.print(f"The machine was busy ({reason}): times are uncertain.", style="yellow", highlight=False)
        if out:
            write(out, (before or []) + results, rounds)
    return results


def show(console: Console, results: list[CaseResult]) -> None:
    """Print the last result, with a heading if a new group starts."""
    latest, before = results[-1], results[-2] if len(results) > 1 else None
    if before is None or (before.section, before.case.group) != (latest.section, latest.case.group):
        console.print(case_table.heading(latest), highlight=False, markup=False, soft_wrap=True, style="bold")
    console.print(case_table.line(latest), soft_wrap=True)


def how(threads: int, rounds: int) -> str:
    clock = "CPU time of one thread" if threads == 1 else f"wall time with {threads} threads"
    return f"{clock}, at most {rounds} interleaved rounds, medians; every answer is checked first"


def write(out: Path, results: list[CaseResult], rounds: int) -> None:
    facts = {"machine": machine(), "date": date.today().isoformat(), "rounds": rounds}
    document = {**facts, "results": [result.as_json() for result in results]}
    write_atomic(out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def read(path: Path) -> tuple[dict[str, Any], list[CaseResult]]:
    """Read a file of results: (facts of the machine, results)."""
    document = json.loads(path.read_text("utf-8"))
    return document, [CaseResult.read(result) for result in document.pop("results")]
