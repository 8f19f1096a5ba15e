"""Whether verdicts keep their promise where test images come in groups, in simulated comparisons whose truth is known.

    python benchmarks/groups_promises.py [--repetitions 400] [--out benchmarks/results/2026-12-groups.md]

As in verdict_promises.py, but a share of each image's difficulty, and of what it is for one head, is that of its group.
Groups are of equal size, or of sizes that vary as an exponential number does. Everything is computed by the functions
that `gapstone compare` uses; settings in which there are too few groups for an interval are counted as refused.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gapstone.statistics.by_group import too_few
from gapstone.statistics.compare_pairs import share_interval
from gapstone.statistics.difference import crossed

SHARED, OWN, REST = 1.0, 0.6, 0.5
"""Standard deviations of what an image is for all heads, for one head, and for one trial."""
GAP = 0.03
"""The third head is better by it."""
Right = NDArray[np.float64]


def drawn(
    rng: np.random.Generator,
    accuracies: Sequence[float],
    seeds: int,
    images: int,
    each: int,
    shared: float,
    points: float,
    uneven: bool = False,
) -> tuple[list[Right], NDArray[np.int64]]:
    """(seeds, images) right or wrong of heads of these true accuracies, and the group of each image.

    `each`: images of a group, `shared`: of their difficulty, `points`: the seeds' standard deviation.
    """
    groups = max(1, images // each)
    group = np.arange(images) // each
    if uneven:
        group = np.unique(rng.choice(groups, images, p=rng.dirichlet(np.ones(groups))), return_inverse=True)[1]

    def part() -> Right:
        return np.sqrt(shared) * rng.normal(size=groups + 1)[group] + np.sqrt(1 - shared) * rng.normal(size=images)

    slope = stats.norm.pdf(stats.norm.ppf(accuracies[0])) / np.sqrt(1 + SHARED**2 + OWN**2 + REST**2)
    spread, hard = points / 100 / float(slope), SHARED * part()
    scale = np.sqrt(1 + SHARED**2 + OWN**2 + REST**2 + spread**2)
    heads = []
    for accuracy in accuracies:
        own = OWN * part() + spread * rng.normal(size=(seeds, 1))
        rest = np.hypot(REST, 1) * rng.normal(size=(seeds, images))
        heads.append((stats.norm.ppf(accuracy) * scale + hard + own + rest > 0).astype(np.float64))
    return heads, group.astype(np.int64)


def measured(images: int, each: int, uneven: bool, repetitions: int) -> list[list[str]]:
    """A row for each share of difficulty and number of seeds, over accuracies of 70, 90 and 96 %; and all together."""
    rows, pooled, rng = [], [], np.random.default_rng([images, each, uneven])
    for shared, seeds in itertools.product((0.3, 0.7, 1.0), (3, 5, 10)):
        found: dict[str, list[bool]] = {name: [] for name in ("by image", "by group", "covers", "one")}
        refused = total = 0
        for accuracy, points in ((0.7, 1.0), (0.9, 0.0), (0.9, 1.0), (0.96, 0.5)):
            for _ in range(repetitions if images < 2000 else repetitions // 2):
                heads, group = drawn(
                    rng, [accuracy, accuracy, accuracy + GAP], seeds, images, each, shared, points, uneven
                )
                total += 1
                found["by image"].append(crossed(heads[0], heads[1]).p < 0.05)
                if too_few(group) is not None:
                    refused += 1
                    continue
                found["by group"].append(crossed(heads[0], heads[1], groups=group).p < 0.05)
                low, high = crossed(heads[2], heads[0], groups=group).interval()
                found["covers"].append(low <= GAP <= high)
                ends = share_interval(list(heads[0]), groups=group)
                found["one"].append(ends is not None and ends[0] <= accuracy <= ends[1])
        shares = [f"{100 * np.mean(values):.1f} %" if values else "–" for values in found.values()]
        rows.append([f"{shared:g}", str(seeds), *shares, f"{100 * refused / total:.0f} %"])
        pooled.append(found)
    together = [np.concatenate([found[name] for found in pooled]) for name in pooled[0]]
    rows.append(["**all**", "", *(f"**{100 * values.mean():.1f} %**" for values in together), ""])
    return rows


ABOUT = f"""\
Equal heads called different at 5 %; 95 % intervals that cover a true difference of {100 * GAP:g} points, and those that
cover one head's accuracy. Over accuracies of 70, 90 and 96 %. Refused: too few groups for an interval."""
HEADER = """\
| difficulty shared | seeds | false, by image | false, by group | difference covered | accuracy covered | refused |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = f"benchmarks/groups_promises.py --repetitions {arguments.repetitions}"
    text = f"# Test images in groups, simulated\n\n`{command}`\n\n{ABOUT}\n"
    for uneven, (images, each) in itertools.product((False, True), itertools.product((100, 360, 2000), (5, 10, 20))):
        title = f"{images:,} images, {each} of each group{', of unequal size' if uneven else ''}"
        print(title, flush=True)
        lines = [" | ".join(["", *row, ""]).strip() for row in measured(images, each, uneven, arguments.repetitions)]
        print("\n".join(lines), flush=True)
        text += f"\n## {title}\n\n{HEADER}" + "\n".join(lines) + "\n"
        if arguments.out:
            arguments.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
