"""How well parts of multi-label images have each class's share: by gapstone, by simpler rules, over seeds.

    python benchmarks/multi_label_splits.py [--seeds 12] [--out benchmarks/results/2026-12-multi-label-splits.md]

A tenth of the images for validation. Labels of an image are correlated; classes' shares fall geometrically. Errors are
in images, from a tenth of the images that a class has. "As for one label": images in random order, as long as none of
their classes has more than its share. "Rarest class": Sechidis et al. (2011), each image to the part that lacks most of
the class that is shared out; with the size of the part free, and fixed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.data.carve import carve
from gapstone.data.stratify import strata

SHARE = 0.1
SETS = {"300 images, 3 classes": (300, 3, 0.1), "800, 6": (800, 6, 0.01), "2,000, 40": (2000, 40, 0.005)}
"""Images, classes, and the share of the rarest; the most frequent has 0.4."""
Bools = NDArray[np.bool_]
Rule = Callable[[Bools, int], Bools]
"""Labels (n, K) and a seed → which images are in the part."""


def made(images: int, classes: int, rarest: float) -> Bools:
    """Labels that occur together: an image has more or fewer of all of them."""
    random, shares = np.random.default_rng(4), np.geomspace(0.4, rarest, classes)
    odds = np.log(shares / (1 - shares)) + 0.8 * random.normal(size=(images, 1))
    return np.asarray(1 / (1 + np.exp(-odds)) > random.random((images, classes)))


def at_random(labels: Bools, seed: int) -> Bools:
    chosen = np.zeros(len(labels), np.bool_)
    chosen[np.random.default_rng(seed).permutation(len(labels))[: round(SHARE * len(labels))]] = True
    return chosen


def as_for_one_label(labels: Bools, seed: int) -> Bools:
    target, taken = np.round(labels.sum(0) * SHARE), np.zeros(labels.shape[1])
    chosen = np.zeros(len(labels), np.bool_)
    for image in np.random.default_rng(seed).permutation(len(labels)):
        if np.all(taken + labels[image] <= target):
            taken += labels[image]
            chosen[image] = True
    return chosen


def by_rarest_class(labels: Bools, seed: int, fixed: bool = False) -> Bools:
    every = strata(labels)
    lacking = np.outer([1 - SHARE, SHARE], every.sum(0))
    room = np.array([1 - SHARE, SHARE]) * len(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    part = np.full(len(labels), -1)
    while (part < 0).any():
        left = (every & (part < 0)[:, None]).sum(0)
        k = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        for image in order[every[order, k] & (part[order] < 0)]:
            fits = [s for s in (0, 1) if room[s] >= 1] if fixed and (room >= 1).any() else [0, 1]
            best = max(fits, key=lambda s: (lacking[s, k], room[s]))
            part[image] = best
            lacking[best] -= every[image]
            room[best] -= 1
    return part == 1


def gapstones(labels: Bools, seed: int) -> Bools:
    rows = np.arange(len(labels))
    return np.isin(rows, carve(rows, labels, rows, SHARE, seed)[1])


RULES: dict[str, Rule] = {
    "at random": at_random,
    "as for one label": as_for_one_label,
    "rarest class, size free": by_rarest_class,
    "rarest class, size fixed": lambda labels, seed: by_rarest_class(labels, seed, fixed=True),
    "gapstone": gapstones,
}


def errors(labels: Bools, chosen: Bools) -> tuple[float, ...]:
    """Of classes on average and at most, of images without a label, of the size, and of pairs of classes."""
    of_class = np.abs(labels[chosen].sum(0) - SHARE * labels.sum(0))
    empty = ~labels.any(1)
    pairs = [of.T.astype(float) @ of for of in (labels[chosen], labels)]
    off = np.abs(pairs[0] - SHARE * pairs[1])[np.triu_indices(labels.shape[1], 1)]
    none, size = (abs(of[chosen].sum() - SHARE * of.sum()) for of in (empty, np.ones(len(labels))))
    return float(of_class.mean()), float(of_class.max()), float(none), float(size), float(off.mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [
        "# Splits of images with several labels",
        "",
        f"A tenth of the images, {options.seeds} seeds; errors in images, means over seeds (of the worst class: the "
        "largest). By `benchmarks/multi_label_splits.py`.",
        "",
        "| images | rule | a class | the worst class | without any label | size | a pair of classes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (images, classes, rarest) in SETS.items():
        labels = made(images, classes, rarest)
        for rule, choose in RULES.items():
            found = np.array([errors(labels, choose(labels, seed)) for seed in range(options.seeds)])
            mean = found.mean(0)
            cells = [mean[0], found[:, 1].max(), *mean[2:]]
            lines.append(f"| {name} | {rule} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
