"""Trials that collapsed: their metric lies far below the median of the head's trials."""

from collections.abc import Mapping
from typing import Any

import numpy as np

LEAST = 0.05
"""Distance below the median from which on a trial may have collapsed."""
SPREADS = 8.0
"""... and as many standard deviations, as the trials of all heads together show them."""
NORMAL = 1.4826
"""Standard deviation over median absolute deviation, of normal numbers."""
FEWEST = 3
"""Trials of a head: of two, nobody knows which is the usual one."""

Collapsed = dict[str, list[int]]
"""The seeds, or folds, by head; heads without one are not in it."""


def collapsed_seeds(scores: Mapping[str, Mapping[int, float]]) -> Collapsed:
    """The seeds that collapsed, by head.

    >>> collapsed_seeds({"gap": {0: 0.91, 1: 0.92, 2: 0.91}, "fc": {0: 0.92, 1: 0.11, 2: 0.93}})
    {'fc': [1]}

    Args:
        scores: the metric, 0 to 1, by head and seed (or fold).
    """
    medians = {head: float(np.median(list(values.values()))) for head, values in scores.items() if values}
    away = [abs(value - medians[head]) for head in medians for value in scores[head].values()]
    far = max(LEAST, SPREADS * NORMAL * float(np.median(away))) if away else LEAST
    found = {
        head: [seed for seed, value in sorted(scores[head].items()) if medians[head] - value > far]
        for head in medians
        if len(scores[head]) >= FEWEST
    }
    return {head: seeds for head, seeds in found.items() if seeds}


def collapses(scores: Mapping[str, Mapping[int, float]], kind: str) -> list[dict[str, Any]]:
    """The "collapsed" entry of results.json: each with a sentence. `kind`: seed or fold."""
    entries = []
    for head, seeds in collapsed_seeds(scores).items():
        usual = [100 * value for seed, value in scores[head].items() if seed not in seeds]
        for seed in seeds:
            said = (
                f"{head}, {kind} {seed}, collapsed: {100 * scores[head][seed]:.1f} % where its other {kind}s reach "
                f"{min(usual):.1f} to {max(usual):.1f} %. All numbers of {head} count it."
            )
            entries.append({"head": head, kind: seed, "score": scores[head][seed], "sentence": said})
    return entries
