"""Whether intervals and verdicts keep their promise for every metric, in simulated comparisons whose truth is known.

    python benchmarks/metric_promises.py [--repetitions 400] [--out benchmarks/results/2026-12-metric-promises.md]

Probabilities are the softmax of logits: the true class's is higher by what the image, the head, the seed and all three
add; every class's has noise that all heads share, noise of one head and of one trial; each trial has a temperature of
its own. Images and seeds are drawn anew each time. Everything is computed by the functions that `gapstone compare`
uses. "False": the share of comparisons of equal heads that tell them apart. "Covered": how often the 95 % interval of
one head's metric holds the true one, of 400 seeds with 5,000 images each.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.statistics.compare_pairs import share_interval
from gapstone.statistics.difference import crossed
from gapstone.statistics.metrics import METRICS, Metric, added_images, most_answers

NAMES = tuple(METRICS)
KINDS = {
    "2 classes, equal, hard": ((0.5, 0.5), 1.0),
    "2 classes, 9:1": ((0.9, 0.1), 1.6),
    "5 classes, equal": ((0.2,) * 5, 2.2),
    "5 classes, equal, easy": ((0.2,) * 5, 4.5),
}
"""Shares of the classes, and how far the true class's logit lies above the others on average."""


def drawn(
    rng: np.random.Generator, shares: Sequence[float], margin: float, heads: int, seeds: int, images: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (n,), and probabilities (heads, seeds, n, K)."""
    classes = len(shares)
    labels = np.repeat(np.arange(classes), np.round(np.array(shares) * images).astype(int))
    n = len(labels)
    above = (
        margin
        + 1.2 * rng.normal(size=n)
        + 0.5 * rng.normal(size=(heads, 1, n))
        + 0.2 * rng.normal(size=(heads, seeds, 1))
    )
    noise = rng.normal(size=(n, classes)) + 0.5 * rng.normal(size=(heads, 1, n, classes))
    logits = noise + 0.5 * rng.normal(size=(heads, seeds, n, classes))
    logits += above[..., None] * np.eye(classes)[labels]
    logits *= np.exp(0.1 * rng.normal(size=(heads, seeds, 1, 1)))
    logits = np.exp(logits - logits.max(-1, keepdims=True))
    return labels, logits / logits.sum(-1, keepdims=True)


def values(metric: Metric, labels: NDArray[np.int64], head: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([metric.values(labels, seed) for seed in head])


def cell(
    rng: np.random.Generator, kind: str, seeds: int, images: int, repetitions: int, truth: dict[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Of each metric: share of equal heads told apart, share of intervals that cover, their mean width."""
    shares, margin = KINDS[kind]
    false, covered, width = ({name: [] for name in NAMES} for _ in range(3))
    for _ in range(repetitions):
        labels, p = drawn(rng, shares, margin, 2, seeds, images)
        right = [seed.argmax(1) == labels for head in p for seed in head]
        for name in NAMES:
            metric = METRICS[name]
            a, b = (values(metric, labels, head) for head in p)
            added = added_images(metric, labels, [(labels, v, r) for v, r in zip([*a, *b], right, strict=True)])
            estimate = crossed(a, b, added, by_tails=metric.by_tails)
            false[name].append(estimate.p < 0.05)
            most = most_answers(metric, labels, added)
            tails = metric.level_by_tails
            bounds = share_interval(list(a), agreement=added, unit=metric.unit, most=most, by_tails=tails)
            assert bounds
            covered[name].append(bounds[0] <= truth[name] <= bounds[1])
            low, high = estimate.interval()
            width[name].append((high - low) / 2)
    return {name: (np.mean(false[name]), np.mean(covered[name]), np.mean(width[name])) for name in NAMES}


def true_values(shares: Sequence[float], margin: float, images: int = 5_000, seeds: int = 400) -> dict[str, float]:
    """Of each metric, of many images and seeds: what 25 seeds say is off by half of what ten seeds are."""
    rng = np.random.default_rng(99)
    parts = [drawn(rng, shares, margin, 1, 1, images) for _ in range(seeds)]
    return {
        name: float(np.mean([METRICS[name].values(labels, p[0, 0]).mean() for labels, p in parts])) for name in NAMES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = ["| classes | seeds × images | " + " | ".join(METRICS[name].short for name in NAMES) + " |"]
    lines.append("|" + "---|" * (len(NAMES) + 2))
    print(lines[0], flush=True)
    for kind, (shares, margin) in KINDS.items():
        truth = true_values(shares, margin)
        lines.append(f"| {kind} | true | " + " | ".join(f"{truth[name]:.3f}" for name in NAMES) + " |")
        print(lines[-1], flush=True)
        for number, (seeds, images) in enumerate(itertools.product((3, 5, 10), (100, 360, 2000))):
            found = cell(np.random.default_rng(number), kind, seeds, images, arguments.repetitions, truth)
            cells = (
                f"{100 * false:.1f} / {100 * covered:.0f} (±{width:.3f})" for false, covered, width in found.values()
            )
            lines.append(f"| {kind} | {seeds} × {images:,} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    if arguments.out:
        command = f"benchmarks/metric_promises.py --repetitions {arguments.repetitions}"
        about = (
            "Equal heads called different, in % / intervals of one head that cover the true metric, in % (half the "
            "width of the difference's interval)."
        )
        text = "\n".join(lines)
        arguments.out.write_text(f"# Every metric, simulated\n\n`{command}`\n\n{about}\n\n{text}\n", "utf-8")


if __name__ == "__main__":
    main()
