"""Whether the sentences around a verdict keep their promise, in simulated comparisons whose truth is known.

    python benchmarks/verdict_promises.py [--repetitions 400] [--out benchmarks/results/2026-12-verdict-promises.md]

Images have a difficulty, of which heads and seeds see a part in common: the probit of being right is a normal number of
the image (shared by all heads), one of image and head, one of seed and head (its spread gives the seeds'), and one of
all three. Heads have true accuracies; seeds and images are drawn anew each time. Everything is computed by the
functions that `gapstone compare` uses. None of it is in the tests' generator (a logistic one).
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gapstone.statistics.compare_pairs import compare_pairs, look_level, share_interval, verdict
from gapstone.statistics.difference import crossed
from gapstone.statistics.sample_size import needs
from gapstone.statistics.unit import Unit

Right = NDArray[np.bool_]
SHARED, OWN, REST = 1.0, 0.6, 0.5
"""Standard deviations of what an image is for all heads, for one head, and for one trial."""


def seed_spread(accuracy: float, points: float) -> float:
    """The probit's spread between seeds that moves an accuracy by so many percentage points (SD)."""
    if points == 0:
        return 0.0
    slope = stats.norm.pdf(stats.norm.ppf(accuracy)) / np.sqrt(1 + SHARED**2 + OWN**2 + REST**2)
    return points / 100 / float(slope)


def drawn(rng: np.random.Generator, accuracies: Sequence[float], seeds: int, images: int, points: float) -> list[Right]:
    """(seeds, images) right or wrong, for heads of these true accuracies."""
    shared = SHARED * rng.normal(size=images)
    heads = []
    for accuracy in accuracies:
        spread = seed_spread(accuracies[0], points)
        scale = np.sqrt(1 + SHARED**2 + OWN**2 + REST**2 + spread**2)  # over all, the accuracy is the true one
        level = stats.norm.ppf(accuracy) * scale
        own = OWN * rng.normal(size=images) + spread * rng.normal(size=(seeds, 1))
        heads.append(level + shared + own + np.hypot(REST, 1) * rng.normal(size=(seeds, images)) > 0)
    return heads


def pairs(heads: Sequence[Right], look: int = 1) -> list[dict]:
    """All others against the first."""
    return compare_pairs({f"h{i}": dict(enumerate(rows)) for i, rows in enumerate(heads)}, "h0", look=look)


SETTINGS = list(itertools.product((3, 5, 10), (100, 360, 2000), (0.0, 1.0, 3.0)))
"""Seeds, test images, and the seeds' standard deviation in percentage points."""
FIRST = (
    (5, 100, 0.0), (5, 360, 0.0), (5, 360, 1.0), (5, 360, 2.0), (3, 360, 1.0), (10, 360, 1.0), (5, 2000, 0.5),
)  # fmt: skip
"""First comparisons, that plans are made from."""


def one_accuracy(rng: np.random.Generator, repetitions: int) -> Iterator[list[str]]:
    yield ["seeds × images", "seeds' SD", "true 70 %", "90 %", "97 %"]
    for seeds, images, points in SETTINGS:
        row = []
        for accuracy in (0.7, 0.9, 0.97):
            ends = [share_interval(list(drawn(rng, [accuracy], seeds, images, points)[0])) for _ in range(repetitions)]
            row.append(percent(float(np.mean([low <= accuracy <= high for low, high in filter(None, ends)]))))
        yield [f"{seeds} × {images:,}", f"{points:g}", *row]


def headline(rng: np.random.Generator, repetitions: int) -> Iterator[list[str]]:
    """The largest of four differences, all of which are 1 point in truth: what covers it."""
    yield ["seeds × images", "seeds' SD", "shown on average", "by itself covers", "for all together covers", "all four"]
    for seeds, images, points in SETTINGS:
        shown, alone, together, all_four = [], [], [], []
        for _ in range(repetitions // 2):
            found = pairs(drawn(rng, [0.90, *[0.91] * 4], seeds, images, points))
            if any(pair["ci95"] is None for pair in found):
                continue
            best = max(found, key=lambda pair: pair["difference"])
            shown.append(best["difference"])
            alone.append(best["ci95"][0] <= 1 <= best["ci95"][1])
            together.append(best["ci95_together"][0] <= 1 <= best["ci95_together"][1])
            all_four.append(all(p["ci95_together"][0] <= 1 <= p["ci95_together"][1] for p in found))
        covered = [percent(float(np.mean(inside))) for inside in (alone, together, all_four)]
        yield [f"{seeds} × {images:,}", f"{points:g}", f"+{np.mean(shown):.1f}", *covered]


def sensitivity(rng: np.random.Generator, repetitions: int) -> Iterator[list[str]]:
    """Four heads beside the baseline; one differs by what such comparisons say they detect in 80 %."""
    yield ["seeds × images", "seeds' SD", "said to be detected", "found"]
    for seeds, images, points in SETTINGS:
        said = [pairs(drawn(rng, [0.8] * 5, seeds, images, points))[0]["detectable"] for _ in range(60)]
        size = float(np.mean([number for number in said if number is not None]))
        if size > 15:
            yield [f"{seeds} × {images:,}", f"{points:g}", f"{size:.1f} points", "–"]
            continue
        accuracies = [0.8, 0.8 + size / 100, 0.8, 0.8, 0.8]
        again = (pairs(drawn(rng, accuracies, seeds, images, points))[0] for _ in range(repetitions // 2))
        found = float(np.mean([pair["verdict"] == "better" for pair in again]))
        yield [f"{seeds} × {images:,}", f"{points:g}", f"{size:.1f} points", percent(found)]


def plans(rng: np.random.Generator, repetitions: int) -> Iterator[list[str]]:
    """What a first comparison says would show a difference; then that is done, as a second look."""
    yield ["first: seeds × images", "seeds' SD", "to show", "asked for (median)", "shown"]
    level = look_level(2)
    for seeds, images, points in FIRST:
        for gap in (0.05, 0.02, 0.0):
            asked, shown = [], []
            for _ in range(repetitions // 8):
                first = crossed(*drawn(rng, [0.8 + gap, 0.8], seeds, images, points))
                need = next((n for n in needs(first, Unit(margin=0.02), level) if n.difference == gap), None)
                if need is None or need.seeds is None or need.images is None or need.seeds * need.images > 400_000:
                    continue
                asked.append((need.seeds, need.images))
                again = crossed(*drawn(rng, [0.8 + gap, 0.8], need.seeds, need.images, points))
                bounds = again.equivalence_interval(1 - level)
                word = verdict(again.difference, again.p, 0.0 if gap else 0.02, level, bounds)
                shown.append(word == ("better" if gap else "equivalent"))
            if len(shown) < 20:
                continue
            typical = sorted(asked, key=lambda one: one[0] * one[1])[len(asked) // 2]
            what = f"{100 * gap:g} points" if gap else "none beyond ±2"
            share = f"{percent(float(np.mean(shown)))} of {len(shown)}"
            yield [f"{seeds} × {images:,}", f"{points:g}", what, f"{typical[0]} × {typical[1]:,}", share]


def looks(rng: np.random.Generator, repetitions: int) -> Iterator[list[str]]:
    """Equal heads, looked at after 5, 10 and 20 seeds: the share that is called different at one of them."""
    yield ["images", "seeds' SD", "5 % each time", "5 % / look", "5 % / look²"]
    for images, points in ((100, 1.0), (360, 0.0), (360, 1.0), (360, 3.0), (2000, 0.5), (2000, 2.0)):
        found = np.zeros(3)
        for _ in range(2 * repetitions):
            a, b = drawn(rng, [0.9, 0.9], 20, images, points)
            ps = [crossed(a[:count], b[:count]).p for count in (5, 10, 20)]
            for place, level in enumerate((lambda _: 0.05, lambda look: 0.05 / look, look_level)):
                found[place] += any(p < level(look) for look, p in enumerate(ps, 1))
        yield [f"{images:,}", f"{points:g}", *(percent(share, 1) for share in found / (2 * repetitions))]


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def table(rows: Iterator[list[str]]) -> str:
    lines = []
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
        if len(lines) == 1:
            lines.append("|" + "---|" * len(row))
    return "\n".join(lines)


PARTS = {
    "The interval of one head's accuracy covers the true one": one_accuracy,
    "The largest of four differences that are all 1 point: its intervals": headline,
    "“A true difference of X would be detected with a power of 80 %”, four heads beside the baseline": sensitivity,
    "Plans: what would show it, done": plans,
    "Looking again after 5, 10 and 20 seeds: equal heads called different": looks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = f"benchmarks/verdict_promises.py --repetitions {arguments.repetitions}"
    text = f"# What surrounds a verdict, simulated\n\n`{command}`\n"
    for number, (title, part) in enumerate(PARTS.items()):
        print(f"\n{title}", flush=True)
        text += f"\n## {title}\n\n{table(part(np.random.default_rng(number), arguments.repetitions))}\n"
    if arguments.out:
        arguments.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
