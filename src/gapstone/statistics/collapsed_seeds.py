"""Trials that collapsed: their metric is far worse than the median of the head's trials."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gapstone.statistics.unit import POINTS, Unit

LEAST = 0.05
"""Distance below the median from which on a trial may have collapsed, of shares."""
LEAST_OF_MEDIAN = 0.5
"""... and of metrics without a range, as a part of the median."""
SPREADS = 8.0
"""... and as many standard deviations, as the trials of all heads together show them."""
NORMAL = 1.4826
"""Standard deviation over median absolute deviation, of normal numbers."""
FEWEST = 3
"""Trials of a head: of two, nobody knows which is the usual one."""

Collapsed = dict[str, list[int]]
"""The seeds, or folds, by head; heads without one are not in it."""


def collapsed_seeds(scores: Mapping[str, Mapping[int, float]], unit: Unit = POINTS) -> Collapsed:
    """The seeds that collapsed, by head.

    >>> collapsed_seeds({"gap": {0: 0.91, 1: 0.92, 2: 0.91}, "fc": {0: 0.92, 1: 0.11, 2: 0.93}})
    {'fc': [1]}

    Args:
        scores: the metric by head and seed (or fold).
        unit: of the metric.
    """
    medians = {head: float(np.median(list(values.values()))) for head, values in scores.items() if values}
    away = [abs(value - medians[head]) for head in medians for value in scores[head].values()]
    usual = float(np.median(np.abs(list(medians.values())))) if medians else 0.0
    least = LEAST * unit.reach if np.isfinite(unit.reach) else max(LEAST, LEAST_OF_MEDIAN * usual)
    far = max(least, SPREADS * NORMAL * float(np.median(away))) if away else least
    found = {
        head: [seed for seed, value in sorted(scores[head].items()) if unit.gain(medians[head] - value) > far]
        for head in medians
        if len(scores[head]) >= FEWEST
    }
    return {head: seeds for head, seeds in found.items() if seeds}


def collapses(scores: Mapping[str, Mapping[int, float]], kind: str, unit: Unit = POINTS) -> list[dict[str, Any]]:
    """The "collapsed" entry of results.json: each with a sentence. `kind`: seed or fold."""
    entries = []
    for head, seeds in collapsed_seeds(scores, unit).items():
        usual = [value for seed, value in scores[head].items() if seed not in seeds]
        for seed in seeds:
            said = (
                f"{head}, {kind} {seed}, collapsed: {unit.value(scores[head][seed])} where its other {kind}s reach "
                f"{unit.values(min(usual), max(usual))}. All numbers of {head} count it."
            )
            entries.append({"head": head, kind: seed, "score": scores[head][seed], "sentence": said})
    return entries
