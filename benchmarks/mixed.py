"""Images of different sizes through one network: padded batches against image by image, and what else is done.

python benchmarks/mixed.py --out mixed.json --page mixed.md     # a quarter of an hour on two cores
python benchmarks/mixed.py --only 'resnet18' --rounds 5

"""

import argparse
import itertools
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from render import markdown
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import gapstone as gs
from gapstone.bench.case_table import between, milliseconds, times
from gapstone.bench.doctor import machine
from gapstone.bench.measure import TimeSpread, interleaved, ratio, spread
from gapstone.nets import NAMES, build
from gapstone.ragged import mixed_sizes, plan
from gapstone.storage.paths import output_file

Images = Sequence[Tensor]
Answer = Callable[[Images], Tensor]

LEGEND = (
    "Sizes are drawn at random, each side by itself, others in every round. Same size: a batch of square images of as "
    "many pixels in all, the yardstick; small squares repeat, as in a pipeline of one size. One by one: the model "
    "called for each image. Mixed: gapstone.mixed_sizes, planning included. Resized: all to that square. Padded: zeros "
    "added, and nothing kept out. Off: largest difference from the images alone, of the largest logit; resized "
    "and padded ones are wrong. Nothing wasted: multiply-adds of the squares over those of the images, since every "
    "stage rounds sides up. Weights are random, batch norms have statistics of their own; throughput over that of the "
    "same size, round by round: median and quartiles."
)


@dataclass(frozen=True)
class Case:
    network: str
    images: int
    low: int
    high: int

    @property
    def title(self) -> str:
        return f"{self.network}, {self.images} images of {self.low} to {self.high} px"

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        if self.network in NAMES:
            features = build(self.network)
            model: nn.Module = nn.Sequential(features, gs.Head("gap", features.channels, 10))
        else:
            more = {"init_weights": False, "aux_logits": False} if "googlenet" in self.network else {}
            model = getattr(torchvision.models, self.network.removeprefix("torchvision "))(**more)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 1.5)
        return model.eval()

    def pictures(self, seed: int = 0) -> list[Tensor]:
        rng = random.Random(seed)
        torch.manual_seed(seed + 1)
        sides = [(rng.randint(self.low, self.high), rng.randint(self.low, self.high)) for _ in range(self.images)]
        return [torch.randn(3, *size) for size in sides]


CASES = [
    Case("nin", 64, 24, 40),
    Case("nin", 256, 24, 40),
    Case("nin:paper", 32, 24, 40),
    Case("vgg11", 8, 96, 160),
    Case("resnet18", 32, 48, 80),
    Case("resnet18", 12, 160, 288),
    Case("torchvision googlenet", 32, 48, 80),
    Case("torchvision googlenet", 12, 160, 288),
    Case("torchvision densenet121", 8, 96, 160),
    Case("torchvision efficientnet_b0", 8, 96, 160),
]


def square(images: Images) -> int:
    return round((sum(i[0].numel() for i in images) / len(images)) ** 0.5)


def contenders(model: nn.Module, sets: Sequence[Images]) -> dict[str, Answer]:
    squares = {id(images): torch.randn(len(images), 3, square(images), square(images)) for images in sets}

    def resized(images: Images) -> Tensor:
        size = {"size": (square(images),) * 2, "mode": "bilinear", "antialias": True}
        return model(torch.cat([F.interpolate(i[None], **size) for i in images]))  # type: ignore[arg-type]

    def padded(images: Images) -> Tensor:
        height, width = (max(i.shape[axis] for i in images) for axis in (1, 2))
        pads = [(0, width - i.shape[2], 0, height - i.shape[1]) for i in images]
        return model(torch.stack([F.pad(i, pad) for i, pad in zip(images, pads, strict=True)]))

    return {
        "same size": lambda images: model(squares[id(images)]),
        "one by one": lambda images: torch.cat([model(i[None]) for i in images]),
        "mixed": lambda images: mixed_sizes(model, images),
        "resized": resized,
        "padded": padded,
    }


def each_in_turn(answer: Answer, sets: Sequence[Images]) -> Callable[[], Tensor]:
    """Other images in every call, the same for all contenders: images come in sizes that were not met before, and
    what a library keeps for a size (oneDNN its kernels) seldom serves the next. Two contenders that see images singly
    warm each other's; the squares of small images repeat."""
    turns = itertools.cycle(sets)
    return lambda: answer(next(turns))


def multiply_adds(model: nn.Module, *shape: int) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2


def needed(case: Case, sets: Sequence[Images]) -> float:
    """Multiply-adds of the square batches over those of the images: sides are rounded up in each stage, so that some
    squares are much less work than images of as many pixels, or more. A throughput of this would waste nothing."""
    model = case.model().to("meta")
    squares = sum(multiply_adds(model, len(images), 3, square(images), square(images)) for images in sets)
    return squares / sum(multiply_adds(model, 1, *image.shape) for images in sets for image in images)


@torch.no_grad()
def measured(case: Case, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(threads)
    model, sets = case.model(), [case.pictures(seed) for seed in range(options.rounds + 2)]
    answers, images = contenders(model, sets), sets[0]
    alone = answers["one by one"](images)
    off = {
        name: float((answer(images) - alone).abs().max() / alone.abs().max())
        for name, answer in answers.items()
        if name != "same size"
    }
    runs = {name: each_in_turn(answer, sets) for name, answer in answers.items()}
    samples = interleaved(runs, options.rounds, options.seconds, threads)
    found = {
        name: {"seconds": vars(spread(taken)), "ratio": vars(ratio(samples["same size"], taken)), "off": off.get(name)}
        for name, taken in samples.items()
    }
    chosen = plan(model, images)
    padding = 1 - sum(i[0].numel() for i in images) / sum(
        len(batch.images) * batch.size[0] * batch.size[1] for batch in chosen.batches
    )
    return {
        "case": case.title,
        "threads": threads,
        "found": found,
        "plan": str(chosen),
        "batches": len(chosen.batches),
        "padding": padding,
        "needed": needed(case, sets),
    }


def rows(one: dict[str, Any]) -> str:
    lines = []
    for name, what in one["found"].items():
        seconds, over = TimeSpread(**what["seconds"]), TimeSpread(**what["ratio"])
        off = "" if what["off"] is None else f"{what['off']:.0e}"
        lines.append(
            [name, milliseconds(seconds.median), f"{times(over)} ({between(over)}){' ~' * over.disturbed}", off]
        )
    return markdown(["", "ms", "throughput, × same size", "off"], lines)


def page(facts: dict[str, Any]) -> str:
    here = facts["machine"]
    said = [here["processor"], *(f"{key} {here[key]}" for key in ("gapstone", "torch", "python"))]
    parts = ["# Images of mixed sizes, measured\n", "Made by `benchmarks/mixed.py`; not written by hand.\n"]
    parts += [f"{facts['date']}; {'; '.join(said)}; at most {facts['rounds']} rounds.\n", LEGEND + "\n"]
    for one in facts["mixed"]:
        clock = "CPU time of one thread" if one["threads"] == 1 else f"wall time with {one['threads']} threads"
        parts.append(f"### {one['case']}; {clock}\n")
        parts.append(rows(one))
        parts.append(
            f"Nothing wasted would be {one['needed']:.2f}. Mixed, of the first images: {one['plan']}; "
            f"{100 * one['padding']:.0f} % of the pixels are padding.\n"
        )
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="of the case")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=60.0, help="per case, after at least five rounds")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--page", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    if options.out:
        output_file("--out", options.out, "mixed.json")  # before the work, not after it
    facts: dict[str, Any] = {"machine": machine(), "date": date.today().isoformat(), "rounds": options.rounds}
    facts["mixed"] = []
    for case in CASES:
        for threads in map(int, options.threads.split(",")):
            if re.search(options.only, case.title):
                facts["mixed"].append(found := measured(case, threads, options))
                print(f"\n{case.title}, {threads} thread(s)\n{rows(found)}{found['plan']}")
        if options.out:
            options.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        if options.page:
            options.page.write_text(page(facts), "utf-8")


if __name__ == "__main__":
    main()
