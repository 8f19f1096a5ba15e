"""A set as a clinic has it, made of handwritten digits: few findings, patients with many images each.

    python benchmarks/medical_like.py MNIST_FOLDER OUT [--patients 300] [--images 10] [--findings 0.033] [--seed 0]
    gapstone compare OUT/images.csv --group patient

Normal is a 4, a finding is a 9: a loop that is closed, while strokes, slant and width are the writer's. A patient is a
writer: digits that lie close together in those are the patient's images, so that these are no independent ones.
OUT/images.csv has path, label and patient.

`OUT` must not exist. MNIST_FOLDER holds train-images-idx3-ubyte.gz and its labels.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans

from gapstone.data.open_source import open_source

NORMAL, FINDING = 4, 9


def styles(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n, 4): ink, slant, width and height of each digit, standardised."""
    ink = images / 255.0
    y, x = np.mgrid[:28, :28]
    mass = ink.sum((1, 2))
    cx, cy = ((ink * axis).sum((1, 2)) / mass for axis in (x, y))
    dx, dy = x[None] - cx[:, None, None], y[None] - cy[:, None, None]
    xx, yy, xy = ((ink * a * b).sum((1, 2)) / mass for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    found = np.stack([mass, xy / yy, np.sqrt(xx - xy**2 / yy), np.sqrt(yy)], 1)
    return np.asarray((found - found.mean(0)) / found.std(0))


def patients(images: NDArray[np.uint8], count: int, per_patient: int, random: np.random.Generator) -> list[list[int]]:
    """The images of each of `count` patients, about `per_patient` of one style each."""
    some = random.permutation(len(images))[: 4 * count * per_patient]
    clusters = KMeans(2 * count, n_init=1, max_iter=20, random_state=int(random.integers(2**31))).fit_predict(
        styles(images[some])
    )
    found = [some[clusters == k] for k in random.permutation(2 * count)]
    sizes = random.poisson(per_patient - 2, len(found)) + 2
    large = [part[:size].tolist() for part, size in zip(found, sizes.tolist(), strict=True) if len(part) >= size]
    return large[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--images", type=int, default=10, help="of a patient")
    parser.add_argument("--findings", type=float, default=1 / 31, help="share of patients")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    source = open_source(str(options.mnist))
    labels = source.labels
    options.out.mkdir(parents=True)
    rows, number = [], 0
    few = max(5, round(options.patients * options.findings))
    for digit, name, count in ((NORMAL, "normal", options.patients - few), (FINDING, "finding", few)):
        of_class = np.flatnonzero(labels == digit)[:6000]
        images = np.stack([np.asarray(source.pixels(i)).squeeze() for i in of_class.tolist()])
        for part in patients(images, count, options.images, random):
            for image in part:
                path = f"{number:04d}-{image:05d}.png"
                Image.fromarray(images[image]).save(options.out / path)
                rows.append((path, name, f"P{number:04d}"))
            number += 1
    with (options.out / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient"), *rows])
    print(f"{len(rows):,} images of {number} patients: {options.out / 'images.csv'}")


if __name__ == "__main__":
    main()
