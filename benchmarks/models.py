"""Whole models: torch's pools against `gapstone.accelerate`, inference and a training step.

    python benchmarks/models.py [--only googlenet] [--threads 1,2] [--compile] [--out models.json]

GoogLeNet and ResNet-18 (torchvision), Inception-v4 (timm), NIN (gapstone); random weights, which take as long. Both
models have the same weights and see the same images; their answers, or in training the gradients of their
first layer, are compared before anything is timed. Pairs, interleaved: one thread in CPU time, more in wall time.

Layouts: NCHW; NHWC, where both models are channels-last; and `to NHWC`, where a contiguous model is accelerated with
`channels_last=True`, so that its convolutions change too.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gapstone as gs
from gapstone.bench import case_table
from gapstone.bench.doctor import machine
from gapstone.bench.measure import TimeSpread, interleaved, ratio, spread
from gapstone.storage.paths import output_file

LAYOUTS = ("NCHW", "NHWC", "to NHWC")


def googlenet() -> nn.Module:
    from torchvision.models import googlenet as make

    model: nn.Module = make(weights=None, aux_logits=False, init_weights=False)
    return model


def resnet18() -> nn.Module:
    from torchvision.models import resnet18 as make

    model: nn.Module = make(weights=None)
    return model


def inception_v4() -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("inception_v4", pretrained=False)
    return model


def nin() -> nn.Module:
    from gapstone.nets import build

    return nn.Sequential(build("nin:paper"), nn.Conv2d(192, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "googlenet": (googlenet, (4, 3, 224, 224)),
    "resnet18": (resnet18, (4, 3, 224, 224)),
    "inception_v4": (inception_v4, (2, 3, 299, 299)),
    "nin": (nin, (32, 3, 32, 32)),
}


class WrongError(Exception):
    """The two models do not answer alike."""


@dataclass(frozen=True)
class Measured:
    model: str
    mode: str
    layout: str
    threads: int
    compiled: bool
    error: float
    """Of the answers, or of the first layer's gradient: the largest difference over the largest number."""
    torch: TimeSpread
    gapstone: TimeSpread
    ratio: TimeSpread


def pair(make: Callable[[], nn.Module], layout: str, mode: str, compiled: bool) -> tuple[nn.Module, nn.Module]:
    """The same model twice: torch's pools, and ours."""
    torch.manual_seed(0)
    theirs = make().train(mode == "train")
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the same images must give the same answers
    if layout == "NHWC":
        theirs = theirs.to(memory_format=torch.channels_last)
    ours = gs.accelerate(theirs, channels_last=layout != "NCHW")
    if compiled:
        torch._dynamo.reset()
        theirs, ours = torch.compile(theirs), torch.compile(ours)  # type: ignore[assignment]
    return theirs, ours


def step(model: nn.Module, x: Tensor, mode: str) -> Callable[[], Tensor]:
    """One forward, or a forward and a backward; it gives the answers."""

    def infer() -> Tensor:
        with torch.inference_mode():
            answer: Tensor = model(x)
        return answer

    def train() -> Tensor:
        model.zero_grad(set_to_none=True)
        answer: Tensor = model(x)
        answer.square().mean().backward()
        return answer.detach()

    return infer if mode == "infer" else train


def outcome(model: nn.Module, x: Tensor, mode: str) -> Tensor:
    """What is compared: the answers, or the first layer's gradient."""
    answers = step(model, x, mode)()
    if mode == "infer":
        return answers
    gradient = next(model.parameters()).grad
    assert gradient is not None
    return gradient.clone()


def unlike(found: Tensor, right: Tensor) -> float:
    return float((found - right).abs().max() / right.abs().max())


def measure(name: str, layout: str, mode: str, threads: int, options: argparse.Namespace) -> Measured:
    torch.set_num_threads(threads)
    make, shape = MODELS[name]
    theirs, ours = pair(make, layout, mode, options.compile)
    x = torch.rand(options.batch or shape[0], *shape[1:])
    if layout == "NHWC":
        x = x.contiguous(memory_format=torch.channels_last)
    runs = {"torch": step(theirs, x, mode), "gapstone": step(ours, x, mode)}
    right, found = outcome(theirs, x, mode), outcome(ours, x, mode)
    # batch norms of a few images magnify the last digit: Inception-v4's gradient moves by a third with it
    shaken = unlike(outcome(theirs, x * (1 + 1e-6), mode), right)
    if (error := unlike(found, right)) > 1e-4 + 3 * shaken:
        raise WrongError(f"off by {error:.2g} where torch moves by {shaken:.2g}; not timed")
    samples = interleaved(runs, options.rounds, options.seconds, threads)
    return Measured(
        name, mode, layout, threads, options.compile, error,
        spread(samples["torch"]), spread(samples["gapstone"]), ratio(samples["torch"], samples["gapstone"]),
    )  # fmt: skip


def line(found: Measured) -> str:
    lost = "◄ slower" if found.ratio.high < 0.98 else ""
    noisy = "  ~ disturbed" if found.ratio.disturbed else ""
    times = "".join(f"{case_table.milliseconds(one.median):>10}" for one in (found.torch, found.gapstone))
    what = (
        f"{found.model:14}{found.mode:7}{found.layout:9}{found.threads} {'compiled' if found.compiled else 'eager':9}"
    )
    ratio = f"{case_table.times(found.ratio):>9}  {case_table.between(found.ratio):15}"
    return f"{what}{times}{ratio} {found.error:7.0e} {lost}{noisy}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="of 'model mode layout'")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=30.0, help="per line, after at least five rounds")
    parser.add_argument("--batch", type=int, help="images [default: 2 to 32, by model]")
    parser.add_argument("--compile", action="store_true", help="both models under torch.compile")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    if options.out:
        output_file("--out", options.out, "models.json")  # before the work, not after it
    print(
        f"{'model':14}{'mode':7}{'layout':9}threads{'torch ms':>14}{'ours ms':>10}{'ratio':>9}  {'quartiles':17} error"
    )
    found: list[Any] = []
    wrong: list[str] = []
    try:
        for threads in map(int, options.threads.split(",")):
            for name in MODELS:
                for mode in ("infer", "train"):
                    for layout in LAYOUTS:
                        if re.search(options.only, f"{name} {mode} {layout}"):
                            try:
                                found.append(measure(name, layout, mode, threads, options))
                                print(line(found[-1]), flush=True)
                            except WrongError as error:
                                wrong.append(f"{name}, {mode}, {layout}: {error}")
                                print(f"{name:14}{mode:7}{layout:9}wrong: {error}", flush=True)
    finally:
        if options.out:
            facts = {"machine": machine(), "date": date.today().isoformat(), "models": [asdict(one) for one in found]}
            options.out.write_text(json.dumps(facts | {"wrong": wrong}, indent=1) + "\n", "utf-8")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
