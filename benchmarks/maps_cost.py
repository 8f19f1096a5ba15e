"""What maps cost beside a plain forward pass: all classes, centred, contrasts; of a ViT and of a small CNN.

    python benchmarks/maps_cost.py                    # needs timm; three minutes on an idle machine; prints a table
    python benchmarks/maps_cost.py --rounds 40 --threads 2

Random weights (time does not depend on them), 1000 classes, 224 px. All contenders of a case in turn, in random order,
in each round; ratios are of the same round, and their medians and quartiles are shown.
"""

import argparse
from collections.abc import Callable

import timm
import torch

import gapstone as gs
from gapstone.bench.doctor import machine
from gapstone.bench.measure import interleaved, ratio, spread

NETWORKS = {"ViT-S/16": "vit_small_patch16_224", "EfficientNet-Lite0": "tf_efficientnet_lite0"}
FORWARD = "forward"


def contenders(model: torch.nn.Module, images: torch.Tensor) -> dict[str, Callable[[], object]]:
    @torch.no_grad()
    def forward() -> torch.Tensor:
        return model(images)

    return {
        FORWARD: forward,
        "all 1000 classes": lambda: gs.explain(model, images),
        "all, centred": lambda: gs.explain(model, images).centred(),
        "all, then a contrast": lambda: gs.explain(model, images).contrast(),
        "a contrast (top_k=2)": lambda: gs.explain(model, images, top_k=2).contrast(),
        "five classes": lambda: gs.explain(model, images, top_k=5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60, help="of a case, at most; never fewer than five rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a network's name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"\n{options.threads} threads\n\n| network | images | maps | ms | × forward (quartiles) |")
    print("|---|---|---|---|---|")
    for title, name in NETWORKS.items():
        if options.only not in title:
            continue
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        for count in (8, 1):
            runs = contenders(model, torch.randn(count, 3, 224, 224))
            samples = interleaved(runs, options.rounds, options.seconds, options.threads)
            for contender, taken in samples.items():
                by = ratio(taken, samples[FORWARD])
                times = f"{by.median:.3f} ({by.low:.3f} – {by.high:.3f})"
                print(f"| {title} | {count} | {contender} | {1000 * spread(taken).median:.1f} | {times} |", flush=True)


if __name__ == "__main__":
    main()
