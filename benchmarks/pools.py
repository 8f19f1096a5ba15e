"""Every pool of the networks, against torch, and torch.compile, ONNX Runtime, OpenVINO, JAX and views.

    pip install -r benchmarks/requirements.txt                      # the peers; those that are missing are left out
    python benchmarks/pools.py --out pools.json                     # an hour and a half on two cores
    python benchmarks/pools.py --only 'GoogLeNet' --rounds 5 --peers torch
    python benchmarks/render.py pools.json

Cases, checks, rounds and the table are those of `gapstone bench`; more cases and more contenders here. First the CPU
time of one thread, then the wall time of two.
"""

import argparse
import re
import sys
from pathlib import Path

from peers import PEERS
from rich.console import Console

from gapstone.bench.case_result import CaseResult
from gapstone.bench.cases import Case, both, whole_maps
from gapstone.bench.run_bench import how, run
from gapstone.storage.paths import output_file

HALVES = ("bfloat16", "float16")


def networks() -> dict[str, list[Case]]:
    """Window pools by the network they are from, at the sizes of its own input, for batches that fit a laptop."""

    def case(pool: str, shape: tuple[int, ...], window: tuple[int, int, int]) -> Case:
        return Case(pool, shape, window)

    return {
        "GoogLeNet": [
            case("max", (16, 64, 112, 112), (3, 2, 0)),
            case("max", (16, 192, 28, 28), (3, 1, 1)),
            case("max", (16, 256, 28, 28), (3, 1, 1)),
            case("max", (16, 480, 14, 14), (3, 1, 1)),
            case("max", (16, 512, 14, 14), (3, 1, 1)),
            case("max", (16, 832, 7, 7), (3, 1, 1)),
        ],
        "ResNet": [case("max", (16, 64, 112, 112), (3, 2, 1))],
        "VGG": [
            case("max", (4, 64, 224, 224), (2, 2, 0)),
            case("max", (8, 128, 112, 112), (2, 2, 0)),
            case("max", (16, 256, 56, 56), (2, 2, 0)),
            case("max", (16, 512, 28, 28), (2, 2, 0)),
            case("max", (16, 512, 14, 14), (2, 2, 0)),
        ],
        "Inception-v4": [
            case("mean", (8, 384, 35, 35), (3, 1, 1)),
            case("mean", (8, 1024, 17, 17), (3, 1, 1)),
            case("mean", (8, 1536, 8, 8), (3, 1, 1)),
        ],
        "NIN": [
            case("max", (64, 192, 32, 32), (3, 2, 0)),
            case("mean", (64, 192, 16, 16), (3, 2, 0)),
        ],
        "SPP": [case("max", (8, 256, 20, 20), (size, 1, size // 2)) for size in (5, 9, 13)],
    }


def cases() -> dict[str, list[Case]]:
    """Sections of the table, each with its cases."""
    found = {name: list(both(*some)) for name, some in networks().items()}
    found["heads"] = [
        case
        for shape in ((64, 2048, 7, 7), (8, 1536, 8, 8), (16, 256, 56, 56))
        for case in both(*whole_maps(shape), Case("mean", shape, masked=True))
    ]
    stem, inception = (16, 64, 112, 112), (16, 256, 28, 28)
    found["positions kept"] = [
        Case("max", shape, window, layout=layout, keep=True)
        for layout in ("contiguous", "channels-last")
        for shape, window in ((stem, (3, 2, 1)), (stem, (2, 2, 0)), (inception, (3, 1, 1)))
    ]
    found["dtypes"] = [
        case
        for dtype in HALVES
        for case in both(
            Case("max", stem, (3, 2, 1), dtype=dtype),
            Case("max", inception, (3, 1, 1), dtype=dtype),
            Case("mean", stem, (3, 2, 1), dtype=dtype),
            Case("mean", (64, 2048, 7, 7), dtype=dtype),
            Case("gem", (64, 2048, 7, 7), dtype=dtype, parameter=3.0),
        )
    ]
    # contiguous only: channels-last, torch refuses uint8 maps of more than 255 positions
    found["dtypes"].append(Case("max", stem, (3, 2, 1), dtype="uint8"))
    found["1-d"] = list(
        both(*(Case(pool, (32, 64, 4096), (3, 2, 1)) for pool in ("max", "mean")), layouts=("contiguous",))
    )
    found["3-d"] = list(both(*(Case(pool, (2, 64, 16, 56, 56), (3, 2, 1)) for pool in ("max", "mean"))))
    found["205 MB"] = [
        Case(pool, (64, 64, 112, 112), window, layout=layout, into=into)
        for layout in ("contiguous", "channels-last")
        for pool in ("max", "mean")
        for window in ((3, 2, 1), (2, 2, 0))
        for into in (False, True)
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring per case, after at least five rounds")
    parser.add_argument("--only", default="", metavar="REGEX", help="of 'section: title shape direction, layout'")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; torch: nobody else")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    if options.out:
        output_file("--out", options.out, "pools.json")  # before the work, not after it
    others = {name: PEERS[name] for name in options.peers.split(",") if name in PEERS}
    console = Console()
    chosen = {
        section: [case for case in some if matches(options.only, section, case)] for section, some in cases().items()
    }
    results: list[CaseResult] = []
    try:
        for threads in map(int, options.threads.split(",")):
            console.print(f"\n==== {how(threads, options.rounds)}", style="bold", highlight=False)
            results += run(console, chosen, options.rounds, options.seconds, threads, options.out, others, results)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(any(result.wrong for result in results))


def matches(only: str, section: str, case: Case) -> bool:
    return bool(re.search(only, f"{section}: {case.title} {'×'.join(map(str, case.shape))} {case.group}"))


if __name__ == "__main__":
    main()
