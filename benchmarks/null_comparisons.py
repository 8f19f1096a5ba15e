"""How often equal heads are called "better" or "worse": the same head, tuned within each trial, under other seeds.

    python benchmarks/null_comparisons.py DATA [--heads gap,gmp,gem,catavgmax] [--comparisons 25] [--seeds 5]
                                               [--per-class 40,all] [--json FILE]

The frozen backbone looks at every image once. For each head and number of labelled images there are `comparisons` × 2 ×
`seeds` trials; no trial is part of two comparisons. A comparison takes the trials of `seeds` seeds for one head and
those of as many other seeds for another, as `gapstone compare` would. A verdict that tells them apart is false: at a
level of 5 %, about 5 % may be.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from gapstone.compare.feature_cache import FeatureCache
from gapstone.compare.feature_pass import run_feature_pass
from gapstone.compare.labelled_subset import labelled_subset
from gapstone.compare.plan import CompareRequest, ComparisonPlan, plan_comparison
from gapstone.compare.trials import Trial, train_on_cache
from gapstone.statistics.compare_pairs import compare_pairs
from gapstone.training.loop import make_repeatable
from gapstone.training.training_data import TrainOptions


def features(data: str, heads: tuple[str, ...], seeds: int, folder: Path) -> tuple[ComparisonPlan, FeatureCache]:
    """The plan of a comparison with so many seeds, and one pass over its images, without moved and resized ones."""
    (folder / "trials").mkdir(exist_ok=True, parents=True)
    request = CompareRequest(TrainOptions(data), heads, seeds, freeze=True).checked()
    plan = plan_comparison(request, folder, print, lambda name: lambda done, total: None)
    assert plan.feature_pass is not None
    still = replace(plan.feature_pass, robust=plan.feature_pass.robust[:0])
    return plan, run_feature_pass(still, plan.prepared.store.folder, folder / "kept", lambda done, total: None, print)


def correct(trial: Trial, cache: FeatureCache, labels: NDArray[np.int64], per_class: int | None) -> NDArray[np.bool_]:
    """Which test images the trial's head classifies correctly."""
    if per_class is not None:
        train, validation = labelled_subset(trial.train, trial.validation, labels, per_class, trial.seed)
        trial = replace(trial, train=train, validation=validation)
    predictor, *_ = train_on_cache(trial, cache, labels)
    return np.asarray(predictor.logits(trial.test).argmax(1).numpy() == labels[trial.test])


def verdicts(right: list[NDArray[np.bool_]], seeds: int) -> list[tuple[str, float]]:
    """(verdict, difference in percentage points) of each comparison of 2 × seeds trials."""
    found = []
    for first in range(0, len(right), 2 * seeds):
        ours, others = right[first : first + seeds], right[first + seeds : first + 2 * seeds]
        (pair,) = compare_pairs({"a": dict(enumerate(ours)), "b": dict(enumerate(others))}, baseline="b")
        found.append((str(pair["verdict"]), float(pair["difference"])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="any DATA of gapstone's, of photos")
    parser.add_argument("--heads", default="gap,gmp,gem,catavgmax")
    parser.add_argument("--comparisons", type=int, default=25, help="of each head and number of labelled images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", default="40,all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps the features for the next time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make_repeatable()
    heads = tuple(arguments.heads.split(","))
    count = arguments.comparisons * 2 * arguments.seeds
    budgets = [None if part == "all" else int(part) for part in arguments.per_class.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        plan, cache = features(arguments.data, heads, count, arguments.folder or Path(temporary))
        labels = plan.prepared.store.labels
        rows, everything = [], []
        for head in heads:
            for budget in budgets:
                began = time.process_time()
                trials = [trial for trial in plan.trials if trial.head == head]
                right = [correct(trial, cache, labels, budget) for trial in trials]
                found = verdicts(right, arguments.seeds)
                everything += found
                accuracies = np.array([part.mean() for part in right])
                row = {
                    "head": head,
                    "labelled images of each class": budget or "all",
                    "accuracy": float(accuracies.mean()),
                    "SD over seeds, points": float(100 * accuracies.std(ddof=1)),
                    "verdicts": dict(Counter(word for word, _ in found)),
                    "CPU s per trial": (time.process_time() - began) / count,
                }
                rows.append(row)
                print(row, flush=True)
    false = sum(word in ("better", "worse") for word, _ in everything)
    low, high = binomtest(false, len(everything)).proportion_ci(method="wilson")
    print(f"{false} of {len(everything)} false: {false / len(everything):.1%} (95 % CI {low:.1%} to {high:.1%})")
    print(
        "differences of the false ones:",
        [round(points, 2) for word, points in everything if word in ("better", "worse")],
    )
    if arguments.json:
        found_rows = {"data": arguments.data, "seeds": arguments.seeds, "rows": rows, "verdicts": everything}
        arguments.json.write_text(json.dumps(found_rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()
