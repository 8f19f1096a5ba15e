"""What `gapstone evaluate` promises of models of one training each: coverage of its intervals, equal models told apart.

    python benchmarks/one_seed_promises.py [--rounds 1000]

Two equal models answer the same images: logits are normal, the true class's are `sharp` higher, and the two models'
correlate with 0.6, as trainings of one network do. The truth is the metric of 200,000 such images.
"""

import argparse

import numpy as np

from gapstone.statistics.metrics import METRICS, agreement
from gapstone.statistics.one_seed import compare_models, image_interval

SETTINGS = [
    ("3 equal classes", (1, 1, 1)),
    ("10 equal classes", (1,) * 10),
    ("2 classes, 30 : 1", (30, 1)),
    ("3 classes, 30 : 30 : 1", (30, 30, 1)),
]
ALIKE = 0.6


def simulate(metric, counts, sharp, rounds, seed):
    """(share of intervals that cover the truth, share of equal models that are told apart)."""
    random, chosen = np.random.default_rng(seed), METRICS[metric]
    labels, classes = np.repeat(np.arange(len(counts)), counts), len(counts)
    many = np.repeat(np.arange(classes), np.asarray(counts) * (200_000 // sum(counts)))
    truth = chosen.values(
        many, _softmax(sharp * np.eye(classes)[many] + random.normal(size=(len(many), classes)))
    ).mean()
    covered = false = 0
    for _ in range(rounds):
        first, second = random.normal(size=(2, len(labels), classes))
        noises = first, ALIKE * first + np.sqrt(1 - ALIKE**2) * second
        values = [chosen.values(labels, _softmax(sharp * np.eye(classes)[labels] + noise)) for noise in noises]
        added = agreement(metric, labels)
        low, high = image_interval(values[0], chosen.unit, added)
        covered += low <= truth <= high
        (pair,) = compare_models({"a": values[0], "b": values[1]}, chosen.unit, added)
        false += pair.verdict in ("better", "worse")
    return covered / rounds, false / rounds


def _softmax(logits):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    rounds = parser.parse_args().rounds
    print("| classes | images | sharp | " + " | ".join(METRICS) + " |")
    print("|---|---|---|" + "---|" * len(METRICS))
    for words, shares in SETTINGS:
        for images in (100, 360, 2000):
            for sharp in (1.5, 3.0):
                counts = [max(3, round(images * share / sum(shares))) for share in shares]
                cells = []
                for metric in METRICS:
                    covered, false = simulate(metric, counts, sharp, rounds, seed=images)
                    cells.append(f"{100 * covered:.1f} / {100 * false:.1f}")
                print(f"| {words} | {images} | {sharp} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
