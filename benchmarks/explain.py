"""Class activation maps: gapstone's `explain` against a plain forward, captum, torchcam, pytorch-grad-cam.

    pip install -r benchmarks/requirements.txt                           # the peers; missing ones are left out
    python benchmarks/explain.py --out explain.json --page explain.md    # half an hour on two cores
    python benchmarks/explain.py --only 'resnet50, 1$' --rounds 5

Every answer is compared with its own definition before it is timed (explain_peers.py); one that is off by more than
1e-5 is reported wrong and gets no ratio. Interleaved rounds: the CPU time of one thread, the wall time of two. Memory:
each contender in a process of its own, twice: what torch's allocator holds at the highest point of the call, and by how
much the process grew at its highest (anonymous memory, sampled every millisecond); model and images are there before.
"""

import argparse
import ctypes
import gc
import json
import re
import subprocess
import sys
import threading
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from explain_peers import CASES, CONTENDERS, PLAIN, Case, Run, definition, error
from render import markdown

from gapstone.bench.case_table import between, milliseconds, times
from gapstone.bench.doctor import machine
from gapstone.bench.measure import TimeSpread, interleaved, ratio, spread
from gapstone.storage.paths import output_file

WRONG = 1e-5
PEERS = ("torchvision", "captum", "torchcam", "grad-cam")


# ---- one case: check, then time


def ready(case: Case, wanted: list[str]) -> tuple[dict[str, Run], dict[str, float], dict[str, str]]:
    """The calls whose answers are right, by how much each is off, and why the others are not there."""
    model, x = case.build()
    with torch.no_grad():
        logits = model(x)
    classes = logits.argmax(1).tolist()
    # on a copy: each contender has a model of its own, so that no other's hooks run
    raw, averaged = (definition(case, case.build()[0], x, classes, how) for how in (False, True))
    runs: dict[str, Run] = {}
    off: dict[str, float] = {}
    notes: dict[str, str] = {}
    for name in wanted:
        try:
            run = CONTENDERS[name](case, case.build()[0], x, classes)
            off[name] = error(name, run(), case, raw, averaged, logits)
        except (ImportError, NotImplementedError) as why:
            notes[name] = str(why)
            continue
        except Exception as why:  # a peer that cannot: said, not hidden
            notes[name] = f"failed: {type(why).__name__}: {why}"
            continue
        if off[name] <= WRONG:
            runs[name] = run
        else:
            notes[name] = f"wrong by {off[name]:.1g} of its own definition"
    return runs, off, notes


def timed(case: Case, threads: int, options: argparse.Namespace, wanted: list[str]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    runs, off, notes = ready(case, wanted)
    samples = interleaved(runs, options.rounds, options.seconds, threads)
    found = {}
    for name, taken in samples.items():
        found[name] = {
            "seconds": vars(spread(taken)),
            "ratio": vars(ratio(taken, samples[PLAIN])),
            "off": off[name],
        }
    return {"case": case.title, "threads": threads, "found": found, "notes": notes}


# ---- memory, in a process of its own


def anonymous() -> int:
    """Bytes of the process that no file backs."""
    text = Path("/proc/self/status").read_text("ascii")
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024


def live(run: Run) -> int:
    """The most that torch's allocator held at once during the call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    del kept
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def grown(run: Run) -> int:
    """By how much the process's anonymous memory grew at its highest point."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = most = anonymous()
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, anonymous())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    over.set()
    watcher.join()
    return max(most, anonymous()) - before


def remember(case: Case, name: str) -> dict[str, int]:
    torch.set_num_threads(1)
    model, x = case.build()
    with torch.no_grad():
        classes = model(x).argmax(1).tolist()  # and oneDNN's own memory is there
    run = CONTENDERS[name](case, model, x, classes)
    run()
    return {"live": live(run), "grown": grown(run)}


def memories(case: Case, names: list[str]) -> dict[str, dict[str, int]]:
    found = {}
    for name in names:
        order = [sys.executable, __file__, "--memory", case.title, name]
        done = subprocess.run(order, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---- the page


def page(facts: dict[str, Any]) -> str:
    here = facts["machine"]
    said = [here["processor"], here["threads"].partition(" of ")[2].partition(" (")[0]]
    said += [f"{key} {here[key]}" for key in ("gapstone", "torch", "python")]
    said += [f"{name} {number}" for name, number in facts["peers"].items()]
    parts = [
        "# Class activation maps, measured\n",
        "Made by `benchmarks/explain.py`; not written by hand.\n",
        f"{facts['date']}; {'; '.join(said)}; at most {facts['rounds']} rounds.\n",
        "Random weights, 224 px, eval mode, contiguous. × plain: time over a plain forward's under `no_grad`, round "
        "by round: median and quartiles. `~`: disturbed by other work on the machine. Memory: the highest point of "
        "one call, model and images not counted; live: what torch's allocator held; process: growth of its "
        "anonymous memory (sampled). Off: largest difference from the contender's own definition, in float64.\n",
        "What a contender keeps from the call before (pytorch-grad-cam: the gradients of all weights) counts in "
        "live, not in process. captum is told its class before it runs: the top class costs it a forward more. "
        "Frozen: after `model.requires_grad_(False)`; torchcam's and pytorch-grad-cam's Grad-CAM have no "
        "gradients then. pytorch-grad-cam also scales each map to 0…1 and resizes it to the image; it cannot be "
        "told not to. VGG-16 has hidden layers: gradient × activation, where all 1000 classes are 1000 backward "
        "passes through its head; ask for the classes you want. Its Grad-CAM (gradients averaged over positions) "
        "is another map. ConvNeXt has a norm after the pool: a plain CAM, which ignores it, does not add up to "
        "the logits, and none is timed.\n",
    ]
    for one in facts["explain"]:
        clock = "CPU time of one thread" if one["threads"] == 1 else f"wall time with {one['threads']} threads"
        parts.append(f"### {one['case']} image{'s' if not one['case'].endswith(', 1') else ''}; {clock}\n")
        parts.append(rows(one, facts["memory"].get(one["case"], {})))
        parts += [f"{name}: {why}.\n" for name, why in one["notes"].items()]
    return "\n".join(parts).rstrip() + "\n"


def rows(one: dict[str, Any], memory: dict[str, dict[str, int]]) -> str:
    lines = []
    for name, what in one["found"].items():
        seconds, over = TimeSpread(**what["seconds"]), TimeSpread(**what["ratio"])
        cells = [name, milliseconds(seconds.median), f"{times(over)} ({between(over)}){' ~' * over.disturbed}"]
        for kind in ("live", "grown"):
            if name in memory and PLAIN in memory:
                mine, plain = memory[name][kind], memory[PLAIN][kind]
                cells.append(f"{mine / 2**20:.1f} MiB, {mine / max(plain, 1):.2f}×")
            else:
                cells.append("")
        lines.append([*cells, f"{what['off']:.0e}"])
    return markdown(["", "ms", "× plain", "memory, live", "memory, process", "off"], lines)


def versions() -> dict[str, str]:
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="of 'model, images'")
    parser.add_argument("--names", default="", metavar="REGEX", help="of the contenders; the plain forward always runs")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="per case, after at least five rounds")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--page", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    if options.out:
        output_file("--out", options.out, "explain.json")  # before the work, not after it
    if options.memory:
        title, name = options.memory
        print(json.dumps(remember(next(case for case in CASES if case.title == title), name)))
        return
    wanted = [name for name in CONTENDERS if name == PLAIN or re.search(options.names, name)]
    facts: dict[str, Any] = {"machine": machine(), "date": date.today().isoformat(), "rounds": options.rounds}
    facts |= {"peers": versions(), "explain": [], "memory": {}}
    for case in CASES:
        if not re.search(options.only, case.title):
            continue
        for threads in map(int, options.threads.split(",")):
            found = timed(case, threads, options, wanted)
            facts["explain"].append(found)
            if case.title not in facts["memory"] and not options.no_memory:
                facts["memory"][case.title] = memories(case, list(found["found"]))
            print(
                f"\n{case.title}, {threads} thread(s)\n{rows(found, facts['memory'].get(case.title, {}))}", flush=True
            )
            for name, why in found["notes"].items():
                print(f"{name}: {why}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        if options.page:
            options.page.write_text(page(facts), "utf-8")


if __name__ == "__main__":
    main()
