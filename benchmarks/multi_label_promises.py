"""Whether intervals and verdicts keep their promise with several labels per image, simulated where the truth is known.

    python benchmarks/multi_label_promises.py [--repetitions 200] [--out benchmarks/results/2026-12-multi-label.md]

Labels of an image are correlated (a normal number of the image in each class's). The logit of a class lies above or
below its threshold by what the image, image and class, the head, the seed and all together add; heads and seeds share
the first two, so that they are wrong on the same decisions. Images and seeds are drawn anew each time. Everything is
computed by the functions that `gapstone compare` uses. "False": the share of comparisons of equal heads that tell them
apart. "Covered": how often the 95 % interval of one head's metric holds the true one, of 400 seeds with 5,000 images
each.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gapstone.statistics.compare_pairs import share_interval
from gapstone.statistics.difference import crossed
from gapstone.statistics.metrics import MULTI_LABEL, Metric, added_by_worth, most_answers

NAMES = tuple(MULTI_LABEL)


class Kind(NamedTuple):
    """Simulated data."""

    shares: tuple[float, ...]
    """Of the images that each class has."""
    together: float
    """Correlation of the labels of an image, before they are cut to yes and no."""
    margin: float
    """How far logits lie above and below their threshold on average."""


KINDS = {
    "3 common, correlated": Kind((0.5, 0.3, 0.2), 0.5, 2.0),
    "12, common to rare": Kind((0.4, 0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02), 0.3, 2.0),
    "12, common to rare, easy": Kind((0.4, 0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02), 0.3, 4.0),
    "5 rare (2 %), correlated": Kind((0.02,) * 5, 0.6, 2.5),
}


def drawn(
    rng: np.random.Generator, kind: Kind, heads: int, seeds: int, images: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels (n, K), and probabilities (heads, seeds, n, K)."""
    shares, classes = np.array(kind.shares), len(kind.shares)
    common = np.sqrt(kind.together) * rng.normal(size=(images, 1))
    labels = common + np.sqrt(1 - kind.together) * rng.normal(size=(images, classes)) > stats.norm.isf(shares)
    above = kind.margin + 0.7 * rng.normal(size=(images, 1)) + 1.2 * rng.normal(size=(images, classes))
    above = above + 0.5 * rng.normal(size=(heads, 1, images, classes))
    above = (
        above
        + 0.2 * rng.normal(size=(heads, seeds, 1, classes))
        + 0.5 * rng.normal(size=(heads, seeds, images, classes))
    )
    logits = above * (2.0 * labels - 1) + 0.25 * np.log(shares / (1 - shares))
    logits *= np.exp(0.1 * rng.normal(size=(heads, seeds, 1, 1)))
    return labels, 1 / (1 + np.exp(-logits))


def values(metric: Metric, labels: NDArray[np.bool_], head: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([metric.values(labels, seed) for seed in head])


def worth(metric: Metric, labels: NDArray[np.bool_], p: NDArray[np.float64]) -> float | None:
    if metric.worth is None or metric.of_classes is None:
        return None
    return metric.worth(labels, p, metric.of_classes(labels, p))


def cell(
    rng: np.random.Generator, kind: Kind, seeds: int, images: int, repetitions: int, truth: dict[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Of each metric: share of equal heads told apart, share of intervals that cover, their mean width."""
    false, covered, width = ({name: [] for name in NAMES} for _ in range(3))
    while len(false[NAMES[0]]) < repetitions:
        labels, p = drawn(rng, kind, 2, seeds, images)
        if not (labels.any(0) & ~labels.all(0)).any():
            continue  # refused before anything is trained
        for name, metric in MULTI_LABEL.items():
            a, b = (values(metric, labels, head) for head in p)
            added = added_by_worth(metric, labels, [worth(metric, labels, seed) for head in p for seed in head])
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


def true_values(kind: Kind, images: int = 5_000, seeds: int = 400) -> dict[str, float]:
    """Of each metric, of many images and seeds: what 25 seeds say is off by half of what ten seeds are."""
    rng = np.random.default_rng(99)
    parts = [drawn(rng, kind, 1, 1, images) for _ in range(seeds)]
    return {
        name: float(np.mean([metric.values(labels, p[0, 0]).mean() for labels, p in parts]))
        for name, metric in MULTI_LABEL.items()
    }


def table(kinds: Sequence[str], repetitions: int, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """The lines of the table, printed as they are made."""
    lines = ["| classes | seeds × images | " + " | ".join(MULTI_LABEL[name].short for name in NAMES) + " |"]
    lines.append("|" + "---|" * (len(NAMES) + 2))
    print(lines[0], flush=True)
    for name in kinds:
        truth = true_values(KINDS[name])
        lines.append(f"| {name} | true | " + " | ".join(f"{truth[metric]:.3f}" for metric in NAMES) + " |")
        print(lines[-1], flush=True)
        for number, (seeds, images) in enumerate(sizes):
            found = cell(np.random.default_rng(number), KINDS[name], seeds, images, repetitions, truth)
            cells = (
                f"{100 * false:.1f} / {100 * covered:.0f} (±{width:.3f})" for false, covered, width in found.values()
            )
            lines.append(f"| {name} | {seeds} × {images:,} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = table(tuple(KINDS), arguments.repetitions, list(itertools.product((3, 5, 10), (100, 360, 2000))))
    if arguments.out:
        command = f"benchmarks/multi_label_promises.py --repetitions {arguments.repetitions}"
        about = (
            "Equal heads called different, in % / intervals of one head that cover the true metric, in % (half the "
            "width of the difference's interval)."
        )
        text = "\n".join(lines)
        arguments.out.write_text(
            f"# Several labels per image, simulated\n\n`{command}`\n\n{about}\n\n{text}\n", "utf-8"
        )


if __name__ == "__main__":
    main()
