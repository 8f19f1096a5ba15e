"""Whether intervals and verdicts of `gapstone evaluate` keep their promise with several labels per image, simulated.

    python benchmarks/multi_label_models.py [--repetitions 300] [--out benchmarks/results/2026-12-multi-label-models.md]

Two models that are equal: what differs between them is drawn anew for each image and class. "False": the share of pairs
that are told apart. "Covered": how often the 95 % interval of one model's metric holds the true one, of 150,000 images.
"""

import argparse
from pathlib import Path

import numpy as np
from multi_label_promises import KINDS, Kind
from numpy.typing import NDArray
from scipy import stats

from gapstone.evaluating.measured import Answered, added_of, metric_stat, strata_of
from gapstone.statistics.metrics import MULTI_LABEL, Metric
from gapstone.statistics.one_seed import compare_models

SIZES = {100: 1, 360: 1, 1000: 3}
"""Images, and by what the repetitions are divided."""


def drawn(rng: np.random.Generator, kind: Kind, images: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels (n, K) and the logits of two models (2, n, K)."""
    shares, classes = np.array(kind.shares), len(kind.shares)
    common = np.sqrt(kind.together) * rng.normal(size=(images, 1))
    labels = common + np.sqrt(1 - kind.together) * rng.normal(size=(images, classes)) > stats.norm.isf(shares)
    above = kind.margin + 0.7 * rng.normal(size=(images, 1)) + 1.2 * rng.normal(size=(images, classes))
    above = above + np.sqrt(0.5) * rng.normal(size=(2, images, classes))
    logits = above * (2.0 * labels - 1) + 0.25 * np.log(shares / (1 - shares))
    return np.asarray(labels), np.asarray(logits, np.float32)


def cell(metric: Metric, models: list[Answered], truth: float) -> tuple[bool, bool]:
    """Whether two equal models are told apart, and whether the interval of the first one covers."""
    values, labels = {one.name: one.values(metric) for one in models}, models[0].labels
    (pair,) = compare_models(values, metric.unit, added_of(models, metric), strata=strata_of(metric, labels))
    low, high = metric_stat(models[0], metric)["ci95"]
    return pair.p < 0.05, low <= truth <= high


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = ["| classes | images | " + " | ".join(metric.short for metric in MULTI_LABEL.values()) + " |"]
    lines.append("|" + "---|" * (len(MULTI_LABEL) + 2))
    for name, kind in KINDS.items():
        labels, logits = drawn(np.random.default_rng(99), kind, 150_000)
        many = Answered("", labels, logits[0], np.arange(labels.shape[1]))
        truth = {metric.name: float(many.values(metric).mean()) for metric in MULTI_LABEL.values()}
        for images, fewer in SIZES.items():
            rng, found = np.random.default_rng(1), []
            for _ in range(options.repetitions // fewer):
                labels, logits = drawn(rng, kind, images)
                if (labels.any(0) & ~labels.all(0)).any():  # otherwise refused
                    models = [Answered(str(i), labels, logits[i], np.arange(labels.shape[1])) for i in range(2)]
                    found.append([cell(metric, models, truth[metric.name]) for metric in MULTI_LABEL.values()])
            shares = 100 * np.mean(found, 0)
            lines.append(f"| {name} | {images:,} | " + " | ".join(f"{a:.1f} / {b:.0f}" for a, b in shares) + " |")
            print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text(
            "# Several labels per image: models as they are, simulated\n\n"
            f"`benchmarks/multi_label_models.py --repetitions {options.repetitions}`\n\n"
            "Equal models called different, in % / intervals of one model that cover the true metric, in % (a third of "
            "the repetitions with 1,000 images).\n\n" + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    main()
