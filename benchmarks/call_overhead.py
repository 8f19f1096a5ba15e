"""Microseconds per call on a tiny map, and the size from which ours is faster than torch's.

    python benchmarks/call_overhead.py [--rounds 15] [--out calls.json]

A 3×3 max of stride 2 over (1, 8, n, n): gapstone.pool, gapstone.Pool, and an nn.MaxPool2d after `gapstone.accelerate`,
each against nn.MaxPool2d and F.max_pool2d; inference, forward and backward; one thread, CPU time, interleaved.
"""

import argparse
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gapstone as gs
from gapstone.bench.doctor import machine
from gapstone.bench.measure import interleaved, spread
from gapstone.storage.paths import output_file

SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
CHANNELS = 8
Call = Callable[[Tensor], Tensor]


def calls() -> dict[str, Call]:
    window = gs.Window(3, 2, 1)
    layer = nn.MaxPool2d(3, 2, 1)
    found: dict[str, Call] = {
        "F.max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
        "nn.MaxPool2d": layer,
        "gs.pool": lambda x: gs.pool(x, "max", over=window),
        "gs.Pool": gs.Pool("max", over=window),
    }
    if "accelerate" in gs.PUBLIC:
        found["accelerated"] = gs.accelerate(nn.Sequential(nn.MaxPool2d(3, 2, 1)))[0]
    return found


def microseconds(size: int, mode: str, rounds: int) -> dict[str, float]:
    """Median per call, after all were seen to agree."""
    x = torch.rand(1, CHANNELS, size, size, requires_grad=mode == "train")
    right = F.max_pool2d(x, 3, 2, 1)
    grad = torch.ones_like(right)

    def train(call: Call) -> Callable[[], object]:
        return lambda: torch.autograd.grad(call(x), x, grad)

    def infer(call: Call) -> Callable[[], object]:
        return lambda: call(x)

    runs = {}
    for name, call in calls().items():
        if not torch.equal(call(x), right):
            raise ValueError(f"{name} on {tuple(x.shape)} does not give max_pool2d's answer; nothing is timed")
        runs[name] = (train if mode == "train" else infer)(call)
    with torch.inference_mode(mode == "infer"):
        return {name: spread(s).median * 1e6 for name, s in interleaved(runs, rounds, 1.0, 1).items()}


def crossover(found: dict[int, dict[str, float]], name: str) -> str:
    """The smallest size from which on ours is always the faster."""
    slower = [size for size, taken in found.items() if taken[name] >= taken["nn.MaxPool2d"]]
    later = [size for size in found if not slower or size > max(slower)]
    if not later:
        return "slower at all sizes"
    return f"faster from {CHANNELS}×{later[0]}×{later[0]} on ({CHANNELS * later[0] ** 2 * 4 / 1024:.0f} KB)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    if options.out:
        output_file("--out", options.out, "call_overhead.json")  # before the work, not after it
    torch.set_num_threads(1)
    everything: dict[str, dict[int, dict[str, float]]] = {}
    for mode in ("infer", "train"):
        found = everything[mode] = {}
        print(f"\n{mode}, µs per call" + "".join(f"{name:>16}" for name in calls()))
        for size in SIZES:
            found[size] = microseconds(size, mode, options.rounds)
            print(
                f"{CHANNELS}×{size}×{size}".ljust(len(mode) + 13) + "".join(f"{t:16.1f}" for t in found[size].values())
            )
        for name in calls():
            if name not in ("F.max_pool2d", "nn.MaxPool2d"):
                print(f"  {name} against nn.MaxPool2d: {crossover(found, name)}")
    if options.out:
        facts = {"machine": machine(), "date": date.today().isoformat(), "calls": everything}
        options.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
