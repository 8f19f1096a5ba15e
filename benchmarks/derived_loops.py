"""The derived CPU loop against plain torch: windows and whole maps, one thread and two.

    python benchmarks/derived_loops.py [--rounds 15] [--only gem]

The same arrays, interleaved in one run, medians. One thread: CPU time; two: wall time. GB/s: x read once and the answer
written once; `copy`: y.copy_(x), measured in the same rounds. Ratio: torch's time over ours; below 1 torch is faster.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.loops import numba as loop
from gapstone.regions.places import Boxes, Windows

WINDOWS = [
    (3, 2, 1, (16, 64, 112, 112)),
    (2, 2, 0, (16, 64, 112, 112)),
    (3, 1, 1, (16, 256, 28, 28)),
    (3, 1, 1, (16, 256, 14, 14)),
    (3, 1, 1, (16, 256, 7, 7)),
]
MAPS = [(64, 2048, 7, 7), (8, 1536, 8, 8), (16, 256, 56, 56)]
Case = tuple[str, Tensor, Callable[[Tensor], object], Callable[[Tensor], object]]


def windows(size: int, stride: int, padding: int, shape: tuple[int, ...]) -> Boxes:
    return Boxes(
        tuple(Windows((n + 2 * padding - size) // stride + 1, size, stride, padding, padding, 1) for n in shape[2:])
    )


def gem(x: Tensor, p: float | Tensor) -> Tensor:
    return x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)


def softmax(x: Tensor) -> Tensor:
    w = torch.exp(x - x.amax((2, 3), keepdim=True))
    return (x * (w / w.sum((2, 3), keepdim=True))).sum((2, 3))


def lse(x: Tensor) -> Tensor:
    return torch.logsumexp(5.0 * x, (2, 3)) / 5.0


def cases(only: str) -> Iterator[Case]:
    for channels_last in (False, True):
        layout = " NHWC" if channels_last else ""

        def make(shape: tuple[int, ...], last: bool = channels_last) -> Tensor:
            x = torch.rand(shape)
            return x.contiguous(memory_format=torch.channels_last) if last else x

        for k, s, p, shape in WINDOWS:
            place = windows(k, s, p, shape)
            title = f"{k}x{k}s{s} {shape}{layout}"
            calls: list[tuple[str, Callable[[Tensor], object], Callable[[Tensor], object]]] = [
                ("max", lambda x, w=place: loop.forward("max", x, w), lambda x, a=(k, s, p): F.max_pool2d(x, *a)),
                (
                    "max keep",
                    lambda x, w=place: loop.forward("max", x, w, (), True),
                    lambda x, a=(k, s, p): F.max_pool2d(x, *a, return_indices=True),
                ),
                ("mean", lambda x, w=place: loop.forward("mean", x, w), lambda x, a=(k, s, p): F.avg_pool2d(x, *a)),
            ]
            for name, ours, theirs in calls:
                if only in name:
                    yield f"{name} {title}", make(shape), ours, theirs
        whole, learned = Boxes(None), torch.tensor(2.7)
        for shape in MAPS:
            for name, ours, theirs in [
                ("gem p=3", lambda x, w=whole: loop.forward("gem", x, w, (3.0,)), lambda x: gem(x, 3.0)),
                (
                    "gem p learned",
                    lambda x, w=whole, p=learned: loop.forward("gem", x, w, (p,)),
                    lambda x, p=learned: gem(x, p),
                ),
                ("logsumexp", lambda x, w=whole: loop.forward("logsumexp", x, w, (5.0,)), lse),
                ("softmax", lambda x, w=whole: loop.forward("softmax", x, w, (1.0,)), softmax),
                ("mean", lambda x, w=whole: loop.forward("mean", x, w), lambda x: x.mean((2, 3))),
                ("max", lambda x, w=whole: loop.forward("max", x, w), lambda x: x.amax((2, 3))),
            ]:
                if only in name:
                    yield f"{name} whole {shape}{layout}", make(shape), ours, theirs


def measure(case: Case, rounds: int, clock: Callable[[], float]) -> list[float]:
    """Median seconds of ours, torch's, and a copy of x."""
    _, x, ours, theirs = case
    y = torch.empty_like(x)
    runs: list[Callable[[], object]] = [lambda: ours(x), lambda: theirs(x), lambda: y.copy_(x)]
    seconds: list[list[float]] = [[], [], []]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, found in zip(runs, seconds, strict=True):
            start = clock()
            run()
            found.append(clock() - start)
    return [statistics.median(found) for found in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {options.rounds} rounds")
    print(f"{'':48}{'1 thread, CPU ms':>34}{'2 threads, wall ms':>30}")
    print(f"{'':48}{'ours':>8}{'torch':>9}{'ratio':>7}{'GB/s':>6}{'copy':>6}{'ours':>10}{'torch':>9}{'ratio':>7}")
    with torch.inference_mode():
        for case in cases(options.only):
            x = case[1]
            torch.set_num_threads(1)
            ours, theirs, copy = measure(case, options.rounds, time.process_time)
            result = case[2](x)
            assert isinstance(result, tuple)
            moved = (x.numel() + result[0].numel()) * 4 / 1e9
            line = f"{case[0]:48}{ours * 1e3:8.2f}{theirs * 1e3:9.2f}{theirs / ours:6.1f}x{moved / ours:6.1f}"
            line += f"{2 * x.numel() * 4 / 1e9 / copy:6.1f}"
            torch.set_num_threads(2)
            ours, theirs, _ = measure(case, options.rounds, time.perf_counter)
            print(f"{line}{ours * 1e3:10.2f}{theirs * 1e3:9.2f}{theirs / ours:6.1f}x", flush=True)


if __name__ == "__main__":
    main()
