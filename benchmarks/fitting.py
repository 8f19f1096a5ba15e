"""How long the closed forms take: features of 10,000 images, 2,048 wide, 100 classes; 2,000 more to choose λ by.

    OMP_NUM_THREADS=2 python benchmarks/fitting.py

Features like a network's: class centres and noise of 200 dimensions, mixed into 2,048, ReLU. Each form ends with the
head's weights; λ chosen. `halves` is ridge from the sums of two halves, and how far it is from the whole.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from gapstone.fitting.logistic import logistic
from gapstone.fitting.ridge import Ridge


def made(images: int, width: int, classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    centres, mix = random.standard_normal((classes, 200)), random.standard_normal((200, width))
    noise = random.standard_normal((images, 200))
    hidden = (0.25 * centres[labels] + noise) @ mix / 14 + 0.3 * random.standard_normal((images, width))
    return np.maximum(hidden, 0).astype(np.float32), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=100)
    asked = parser.parse_args()
    features, labels = made(asked.images + 2_000, asked.width, asked.classes)
    train, other = slice(0, asked.images), slice(asked.images, None)
    targets = np.eye(asked.classes)[labels]

    def report(name: str, wall: float, cpu: float, extra: str) -> None:
        print(f"{name:10} {wall:6.1f} s wall {cpu:6.1f} s CPU   {extra}", flush=True)

    def right(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> str:
        answers = (features[other] @ weight.T + bias).argmax(1)
        return f"{100 * (answers == labels[other]).mean():.1f} % of the others right"

    wall, cpu = time.perf_counter(), time.process_time()
    fitted = logistic(features[train], labels[train], (features[other], labels[other]))
    extra = f"λ {fitted.penalty:.2g}, {right(fitted.weight, fitted.bias)}"
    report("logistic", time.perf_counter() - wall, time.process_time() - cpu, extra)

    wall, cpu = time.perf_counter(), time.process_time()
    whole = Ridge.of(features[train], targets[train])
    summed = time.perf_counter() - wall
    solved = whole.solve()
    extra = f"λ {solved.penalty:.2g}, {right(solved.weight, solved.bias)}; {summed:.1f} s of it the sums"
    report("ridge", time.perf_counter() - wall, time.process_time() - cpu, extra)

    half = asked.images // 2
    parts = Ridge.of(features[:half], targets[:half]) + Ridge.of(
        features[half : asked.images], targets[half : asked.images]
    )
    apart = np.abs(parts.solve(solved.penalty).weight - solved.weight).max() / np.abs(solved.weight).max()
    sums = max(
        np.abs(getattr(parts, n) - getattr(whole, n)).max() / np.abs(getattr(whole, n)).max() for n in ("xx", "xy")
    )
    print(f"halves     sums differ by {sums:.1g} of their largest, weights by {apart:.1g}")


if __name__ == "__main__":
    main()
