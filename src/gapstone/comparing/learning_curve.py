"""The metric against labelled images: `--curve 5,10,30,100,all`, on a frozen backbone.

Every point has trials of its own: those of the comparison, with part of their labelled images (`labelled_subset`) and
the same test images. All of them is the comparison itself. With several labels per image a point is a number of images
in all: a class cannot be given so many and no other class more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.comparing.labelled_subset import labelled_share, labelled_subset
from gapstone.comparing.trials import Trial
from gapstone.comparing.tuning import tuned
from gapstone.console.formatting import signed
from gapstone.statistics.by_group import Groups
from gapstone.statistics.compare_pairs import holm, look_level, share_stat, verdict
from gapstone.statistics.difference import AGREEMENT, FEWEST_FOR_INTERVAL, Estimate, crossed
from gapstone.statistics.labels import Labels, is_multi_label
from gapstone.statistics.unit import Unit
from gapstone.training.loop import Rows
from gapstone.training.training_data import TrainingPlan, TrainOptions

OF_EACH_CLASS, IN_ALL = "labelled images of each class", "labelled images"
"""What points count, where images have one label or several."""

Values = Mapping[str, Mapping[int, NDArray[Any]]]
"""By head and seed: what each test image counts for the metric."""


def parse_curve(text: str) -> tuple[int, ...]:
    """The numbers of labelled images, of each class where images have one, ascending; "all" is always a point.

        >>> parse_curve("5,10,30,all")
        (5, 10, 30)

    Raises: ValueError for what is not a list of whole numbers from 1 on.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [part for part in parts if part != "all"]
    if not numbers or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in numbers):
        raise ValueError(
            f"--curve {text!r}: give numbers of labelled images of each class, from 1 on, such as 5,10,30,100,all; "
            f"with several labels per image numbers of images in all, such as 50,100,300,all."
        )
    return tuple(sorted({int(part) for part in numbers}))


def check_frozen(curve: str | None, training: TrainingPlan) -> None:
    """Raises ValueError if the backbone is trained, as each point would take as long as the whole comparison."""
    if curve is not None and not training.frozen:
        raise ValueError(
            f"--curve trains heads on a frozen backbone, and {training.backbone} is trained here: add --freeze, with a "
            f"backbone that has trained weights."
        )


def curve_trials(
    curve: str | None,
    trials: Sequence[Trial],
    labels: Labels,
    options: TrainOptions,
    groups: NDArray[np.integer] | None = None,
) -> dict[int, tuple[Trial, ...]]:
    """By number of labelled images: the trials with so many, without points at which all are taken.

    `groups`: as in `labelled_subset`.
    """
    found: dict[int, tuple[Trial, ...]] = {}
    part = cache(partial(_part, trials, labels, groups))
    for count in () if curve is None else parse_curve(curve):
        made = []
        for trial in trials:
            train, validation = part(trial.seed, count)
            settings, _ = tuned(options, trial.settings, len(train))
            made.append(replace(trial, train=train, validation=validation, settings=settings, test_only=True))
        if any(len(part.train) < len(whole.train) for part, whole in zip(made, trials, strict=True)):
            found[count] = tuple(made)
    return found


def _part(
    trials: Sequence[Trial], labels: Labels, groups: NDArray[np.integer] | None, seed: int, count: int
) -> tuple[Rows, Rows]:
    """The labelled images of the trials of a seed."""
    trial = next(trial for trial in trials if trial.seed == seed)
    parts = trial.train, trial.validation
    if is_multi_label(labels):
        return labelled_share(*parts, np.asarray(labels, bool), count, seed, groups)
    return labelled_subset(*parts, np.asarray(labels, np.int64), count, seed, groups)


def labelled(trial: Trial) -> int:
    return len(trial.train) + len(trial.validation)


def curve_results(
    points: Sequence[tuple[int | None, int]],
    values: Sequence[Values],
    baseline: str,
    unit: Unit,
    confidence: float,
    look: int = 1,
    agreement: float = AGREEMENT,
    groups: Groups | None = None,
    most: float | None = None,
    by_tails: bool = False,
    level_by_tails: bool = False,
    of: str = OF_EACH_CLASS,
) -> dict[str, Any]:
    """The "curve" entry of results.json.

    Args:
        points: (number that was asked for, None for all; labelled images).
        values: of each point.
        baseline: the head that all others are compared with.
        unit: of the metric.
        confidence: as `gapstone.statistics.compare_pairs.compare_pairs`.
        look: likewise.
        agreement: likewise.
        groups: likewise.
        most: as `gapstone.statistics.compare_pairs.share_stat`.
        by_tails: likewise, of differences.
        level_by_tails: likewise, of each head's scores.
        of: what the points count.
    """
    heads, level = list(values[-1]), look_level(look, 1 - confidence)
    estimated = [
        (per_class, head, *_difference(scores[head], scores[baseline], agreement, unit, groups, by_tails))
        for (per_class, _), scores in zip(points, values, strict=True)
        for head in heads
        if head != baseline and scores[head].keys() & scores[baseline].keys()
    ]
    # one family: all heads at all points
    adjusted = iter(holm([estimate.p for *_, estimate in estimated if estimate is not None]))
    pairs: list[dict[str, Any]] = []
    for per_class, head, repeats, difference, estimate in estimated:
        p_holm = None if estimate is None else next(adjusted)
        bounds = estimate.interval(confidence) if estimate and repeats >= FEWEST_FOR_INTERVAL else None
        equivalence = None if estimate is None else estimate.equivalence_interval(1 - level)
        pairs.append(
            {
                "per_class": per_class,
                "a": head,
                "b": baseline,
                "unit": unit.name,
                "digits": unit.digits,
                "lower_is_better": unit.lower_is_better,
                "difference": unit.factor * difference,
                "ci95": None if bounds is None else [unit.factor * bounds[0], unit.factor * bounds[1]],
                "p": None if estimate is None else estimate.p,
                "p_holm": p_holm,
                "verdict": verdict(unit.gain(difference), p_holm, unit.margin, level, equivalence),
                "repeats": repeats,
            }
        )
    return {
        "of": of,
        "points": [{"per_class": per_class, "images": images} for per_class, images in points],
        "heads": [
            {
                "head": head,
                "score": [
                    share_stat(scores[head], confidence, None, agreement, unit, groups, most, level_by_tails)
                    for scores in values
                ],
            }
            for head in heads
        ],
        "pairs": pairs,
        "findings": overtaking(pairs, baseline, of),
    }


def _difference(
    a: Mapping[int, NDArray[Any]],
    b: Mapping[int, NDArray[Any]],
    agreement: float,
    unit: Unit,
    groups: Groups | None,
    by_tails: bool,
) -> tuple[int, float, Estimate | None]:
    """Seeds in common, the mean difference over them, and its estimate; None with too few seeds, images or groups."""
    seeds = sorted(a.keys() & b.keys())
    ours, theirs = (np.stack([np.asarray(head[seed], np.float64) for seed in seeds]) for head in (a, b))
    known = min(ours.shape) > 1 and (groups is None or groups.refused is None)
    together = groups.at(seeds[0]) if known and groups is not None else None
    estimate = replace(crossed(ours, theirs, agreement, together, by_tails), reach=unit.reach) if known else None
    return len(seeds), estimate.difference if estimate else float(ours.mean() - theirs.mean()), estimate


def overtaking(pairs: Sequence[dict[str, Any]], baseline: str, of: str = OF_EACH_CLASS) -> list[str]:
    """A sentence for each head that is better than the baseline at one point, and worse at another.

    >>> points = {"a": "fc", "unit": "percentage points", "digits": 1}
    >>> overtaking([points | {"per_class": 5, "verdict": "worse", "difference": -3.0},
    ...             points | {"per_class": None, "verdict": "better", "difference": 1.2}], "gap")
    ['fc overtakes gap: −3.0 percentage points with 5 labelled images of each class, +1.2 with all.']
    """
    sentences = []
    for head in dict.fromkeys(pair["a"] for pair in pairs):
        apart = [pair for pair in pairs if pair["a"] == head and pair["verdict"] in ("better", "worse")]
        for before, after in pairwise(apart):
            if before["verdict"] != after["verdict"]:
                first, second = (head, baseline) if after["verdict"] == "better" else (baseline, head)
                sign = 1 if first == head else -1
                points, now = (signed(sign * pair["difference"], pair["digits"]) for pair in (before, after))
                with_all = "all" if after["per_class"] is None else f"{after['per_class']:,}"
                points = f"{points} {before['unit']}".strip()
                sentences.append(
                    f"{first} overtakes {second}: {points} with {before['per_class']:,} {of}, {now} with {with_all}."
                )
    return sentences
