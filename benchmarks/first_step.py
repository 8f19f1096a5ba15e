"""The first training step of a network in a new process: torch's pools, gapstone's with no kernel compiled, with all.

    python benchmarks/first_step.py             five rounds, about twenty minutes on two cores

Every measurement is a process of its own; those of one round take turns. "waiting": as gapstone's commands do, which
promise repeatable numbers. Seconds from the first call to the end of the backward pass; of imports those are counted
that the first call makes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NETWORKS = {"nin": (16, 32), "resnet18:small": (16, 32), "googlenet": (4, 96), "inception_v4": (2, 139)}
"""Images in a batch, pixels a side."""

CODE = """
import json, sys, time
import torch, torch.nn.functional as F
import gapstone as gs
from gapstone import nets
name, images, side, pools, amp = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5] == "amp"
torch.manual_seed(0)
torch.set_num_threads(2)
net = torch.nn.Sequential(nets.build(name), gs.Head("gap", channels=nets.build(name).channels, classes=10))
if pools == "torch":  # the same network with torch's pools
    from gapstone.loops import native
    from gapstone.loops.pool_call import PoolCall
    from gapstone.pooling import pool_layer
    from gapstone.pools import POOLS
    def theirs(x, pool, over, **_):
        return native.forward(PoolCall.of(POOLS[pool], x, over.place(tuple(x.shape))), x)
    pool_layer.pool = theirs
x, labels = torch.randn(images, 3, side, side), torch.randint(0, 10, (images,))
seconds = []
for _ in range(3):
    begin = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        loss = F.cross_entropy(net(x).float(), labels)
    loss.backward()
    seconds.append(time.perf_counter() - begin)
print(json.dumps(seconds))
"""


def first(network: str, pools: str, amp: str, cache: Path, wait: bool) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "GAPSTONE_WAIT_FOR_KERNELS"}
    environment["GAPSTONE_CACHE"] = str(cache)
    if wait:
        environment["GAPSTONE_WAIT_FOR_KERNELS"] = "1"
    images, side = NETWORKS[network]
    command = [sys.executable, "-c", CODE, network, str(images), str(side), pools, amp]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| first step, seconds | torch's pools | no kernel yet | no kernel, waiting | all kernels on disk |")
    print("| --- | --- | --- | --- | --- |")
    for network in NETWORKS:
        for amp in ("float32", "amp"):
            found: dict[str, list[float]] = {"torch": [], "cold": [], "wait": [], "warm": []}
            with tempfile.TemporaryDirectory() as kept:
                first(network, "gapstone", amp, Path(kept), wait=True)
                for _ in range(rounds):
                    found["torch"].append(first(network, "torch", amp, Path(kept), wait=False))
                    for name in ("cold", "wait"):
                        with tempfile.TemporaryDirectory() as empty:
                            found[name].append(first(network, "gapstone", amp, Path(empty), wait=name == "wait"))
                    found["warm"].append(first(network, "gapstone", amp, Path(kept), wait=False))
            cells = [f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in found.values()]
            print(f"| {network}, {'bf16 autocast' if amp == 'amp' else amp} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
