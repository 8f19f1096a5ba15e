"""Measured JSON → a page of tables, and the short table of the README.

    python benchmarks/render.py pools.json models.json calls.json --page benchmarks/results/2026-12-pools.md
    python benchmarks/render.py pools.json models.json --readme README.md

Files that `gapstone bench --json`, pools.py, models.py and call_overhead.py wrote, in any number. The README's table
stands between `<!-- bench -->` and `<!-- /bench -->`. Nothing is left out because it lost.
"""

import argparse
import json
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from gapstone.bench.case_result import OURS, TORCH, CaseResult
from gapstone.bench.case_table import LEGEND, between, factor, kept, milliseconds, times
from gapstone.bench.measure import TimeSpread

README = [  # what the README shows: pool and region, map
    ("max 3×3 s2", (16, 64, 112, 112)),
    ("max 2×2 s2", (16, 512, 28, 28)),
    ("max 3×3 s1", (16, 256, 28, 28)),
    ("max 13×13 s1", (8, 256, 20, 20)),
    ("mean 3×3 s1", (8, 384, 35, 35)),
    ("mean whole", (64, 2048, 7, 7)),
    ("max whole", (64, 2048, 7, 7)),
    ("gem p=3 whole", (64, 2048, 7, 7)),
    ("logsumexp whole", (64, 2048, 7, 7)),
]
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


# ---- the page


def page(files: list[dict[str, Any]]) -> str:
    parts = ["# The pools and models, measured\n", "Made by `benchmarks/render.py`; not written by hand.\n"]
    for found in files:
        parts.append(f"## {found['name']}, {found['date']}\n")
        machine = found["machine"]
        facts = [machine["processor"], machine["threads"].partition(" of ")[2].partition(" (")[0]]
        facts += [f"{key} {machine[key]}" for key in ("gapstone", "torch", "numba", "python")]
        facts += [f"at most {found['rounds']} rounds"] if "rounds" in found else []
        parts.append("; ".join(facts) + ".\n")
        if "results" in found:
            parts += pools([CaseResult.read(one) for one in found["results"]])
        if "models" in found:
            parts.append(models(found["models"]))
            parts += [f"**Wrong**, not timed: {one}\n" for one in found.get("wrong", [])]
        if "calls" in found:
            parts += calls(found["calls"])
    return "\n".join(parts).rstrip() + "\n"


def pools(results: list[CaseResult]) -> list[str]:
    parts = [
        LEGEND + " `~`: disturbed by other work on the machine. A bold ratio below 1 is a loss. "
        "ONNX Runtime and OpenVINO write into memory that is there already, gapstone only where it says `into`.\n"
    ]
    for (threads, section, group), some in groupby(results, lambda one: (one.threads, one.section, one.case.group)):
        rows = list(some)
        clock = "CPU time of one thread" if threads == 1 else f"wall time with {threads} threads"
        parts.append(f"### {f'{section}: ' if section else ''}{group}; {clock}\n")
        parts.append(table(rows))
    return parts


def table(rows: list[CaseResult]) -> str:
    peers = list(dict.fromkeys(name for row in rows for name in row.ratios if name != TORCH))
    keeps = any(row.kept for row in rows)
    head = ["pool", "map", "loop", "ours ms", "torch ms", "torch / ours", "GB/s", "of the limit"]
    head += [f"{name} / ours" for name in peers] + (["kept B/answer, ours", "torch"] if keeps else [])
    return markdown(head, [cells(row, peers, keeps) for row in rows])


def cells(row: CaseResult, peers: list[str], keeps: bool) -> list[str]:
    known = [row.case.title, "×".join(map(str, row.case.shape)), row.loop]
    if reason := row.wrong or row.refused:
        return [*known, f"{'**wrong**' if row.wrong else 'not timed'}: {reason}"]
    ours, theirs = row.seconds[OURS], row.seconds[TORCH]
    found = [*known, milliseconds(ours.median), milliseconds(theirs.median), won(row, TORCH, quartiles=True)]
    found += [f"{row.speed:.1f}", f"{row.fraction:.0%} {row.limit}"]
    for name in peers:
        note = row.notes.get(name, "")
        found.append(
            won(row, name)
            if name in row.ratios
            else note.partition(":")[0]
            if note.startswith(("wrong", "failed"))
            else ""
        )
    return found + ([kept(row, OURS), kept(row, TORCH)] if row.kept else ["", ""] if keeps else [])


def won(row: CaseResult, name: str, quartiles: bool = False) -> str:
    """The ratio; a loss in bold."""
    said = times(row.ratios[name])
    said = f"**{said}**" if row.verdict(name) == "slower" else said
    noisy = " ~" if row.ratios[name].disturbed else ""
    return f"{said} ({between(row.ratios[name])}){noisy}" if quartiles else said + noisy


def models(found: list[dict[str, Any]]) -> str:
    head = ["model", "", "layout", "threads", "", "torch ms", "accelerated ms", "torch / accelerated", "off"]
    rows = []
    for one in found:
        ratio = TimeSpread(**one["ratio"])
        said = times(ratio) if ratio.high >= 0.98 else f"**{times(ratio)}**"
        medians = [milliseconds(one[name]["median"]) for name in ("torch", "gapstone")]
        rows.append([one["model"], one["mode"], one["layout"], str(one["threads"]),
                     "compiled" if one["compiled"] else "eager", *medians,
                     f"{said} ({between(ratio)}){' ~' if ratio.disturbed else ''}", f"{one['error']:.0e}"])  # fmt: skip
    return markdown(head, rows)


def calls(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    parts = []
    for mode, sizes in found.items():
        names = list(next(iter(sizes.values())))
        rows = [[f"8×{size}×{size}", *(f"{taken[name]:.1f}" for name in names)] for size, taken in sizes.items()]
        parts += [f"### µs per call, {mode}\n", markdown(["map", *names], rows)]
    return parts


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *(row + [""] * (len(head) - len(row)) for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


# ---- the README


def short(files: list[dict[str, Any]]) -> str:
    """One line per pool: how many times torch's time ours takes, forward and backward, in both layouts."""
    results = [CaseResult.read(one) for found in files for one in found.get("results", [])]
    columns = [(d, layout) for layout in ("contiguous", "channels-last") for d in ("forward", "backward")]
    rows = []
    for title, shape in README:
        mine = [one for one in results if (one.case.title, one.case.shape, one.threads) == (title, shape, 1)]
        by = {(one.case.direction, one.case.layout): one for one in mine}
        if mine:
            rows.append([title, "×".join(map(str, shape)), *(brief(by.get(column)) for column in columns)])
    head = ["torch / ours, one thread", "map", *(f"{layout}, {direction}" for direction, layout in columns)]
    parts = [markdown(head, rows)] if rows else []
    models = [one for found in files for one in found.get("models", []) if one["threads"] == 1 and not one["compiled"]]
    if models:
        layouts = list(dict.fromkeys(one["layout"] for one in models))
        parts.append(markdown(["torch / accelerated, one thread", "", *layouts], whole_models(models, layouts)))
    return "\n".join(parts)


def brief(one: CaseResult | None) -> str:
    if one is None or not one.ratios:
        return "wrong" if one and one.wrong else ""
    return won(one, TORCH)


def whole_models(found: list[dict[str, Any]], layouts: list[str]) -> list[list[str]]:
    rows = []
    for (model, mode), some in groupby(found, lambda one: (one["model"], one["mode"])):
        by = {one["layout"]: one["ratio"] for one in some}
        said = {name: f"{factor(one['median'])}×" for name, one in by.items()}
        said = {name: f"**{text}**" if by[name]["high"] < 0.98 else text for name, text in said.items()}
        rows.append([model, mode, *(said.get(layout, "") for layout in layouts)])
    return rows


def put(text: str, between_markers: str) -> str:
    """The text with the table between its markers; the same again when it is put again."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"no {BEGIN} and {END} to put the table between")
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{between_markers}\n{END}", text, flags=re.DOTALL)


def load(path: Path) -> dict[str, Any]:
    return {"name": path.stem, **json.loads(path.read_text("utf-8"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--page", type=Path, help="the Markdown file of all tables [default: printed]")
    parser.add_argument("--readme", type=Path, help="the file that holds the markers")
    options = parser.parse_args()
    files = [load(path) for path in options.files]
    if options.page:
        options.page.write_text(page(files), "utf-8")
    if options.readme:
        options.readme.write_text(put(options.readme.read_text("utf-8"), short(files)), "utf-8")
    if not (options.page or options.readme):
        sys.stdout.write(page(files) + "\n" + short(files))


if __name__ == "__main__":
    main()
