"""How often equal heads are called "better" or "worse": the same head, tuned within each trial, under other seeds.

    python benchmarks/null_comparisons.py DATA [--heads gap,gmp,gem,catavgmax] [--comparisons 25] [--seeds 5]
                                               [--per-class 40,all] [--json FILE]

The frozen backbone looks at every image once. For each head and number of labelled images there are `comparisons` × 2 ×
`seeds` trials; no trial is part of two comparisons. A comparison takes the trials of `seeds` seeds for one head and
those of as many other seeds for another, as `gapstone compare` would, by every metric. A verdict that tells them apart
is false: at a level of 5 %, about 5 % may be.
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

from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.feature_pass import run_feature_pass
from gapstone.comparing.labelled_subset import labelled_subset
from gapstone.comparing.plan import ComparisonPlan, plan_comparison
from gapstone.comparing.trial_measures import Answers
from gapstone.comparing.trials import Trial, train_on_cache
from gapstone.statistics.compare_pairs import compare_pairs
from gapstone.statistics.metrics import Metric, added_images, find_metric, metric_names
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


def probabilities(
    trial: Trial, cache: FeatureCache, labels: NDArray[np.int64], per_class: int | None
) -> NDArray[np.float64]:
    """What the trial's head gives to each class of each test image."""
    if per_class is not None:
        train, validation = labelled_subset(trial.train, trial.validation, labels, per_class, trial.seed)
        trial = replace(trial, train=train, validation=validation)
    predictor, *_ = train_on_cache(trial, cache, labels)
    return np.exp(Answers.of(predictor.logits(trial.test)).log_probabilities.astype(np.float64))


def verdicts(
    metric: Metric, labels: NDArray[np.int64], given: list[NDArray[np.float64]], seeds: int
) -> list[tuple[str, float]]:
    """(verdict, difference in the metric's unit) of each comparison of 2 × seeds trials."""
    found = []
    for first in range(0, len(given), 2 * seeds):
        both = given[first : first + 2 * seeds]
        values = [metric.values(labels, one) for one in both]
        tested = [(labels, one, p.argmax(1) == labels) for one, p in zip(values, both, strict=True)]
        rows = {"a": dict(enumerate(values[:seeds])), "b": dict(enumerate(values[seeds:]))}
        (pair,) = compare_pairs(rows, "b", metric.unit, agreement=added_images(metric, labels, tested))
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
        rows: list[dict[str, object]] = []
        everything: dict[str, list[tuple[str, float]]] = {}
        for head in heads:
            for budget in budgets:
                began = time.process_time()
                trials = [trial for trial in plan.trials if trial.head == head]
                given = [probabilities(trial, cache, labels, budget) for trial in trials]
                tested = labels[trials[0].test]
                found = {
                    name: verdicts(find_metric(name), tested, given, arguments.seeds)
                    for name in metric_names(given[0].shape[1])
                }
                for name, of_metric in found.items():
                    everything.setdefault(name, []).extend(of_metric)
                accuracies = np.array([(p.argmax(1) == tested).mean() for p in given])
                row = {
                    "head": head,
                    "labelled images of each class": budget or "all",
                    "accuracy": float(accuracies.mean()),
                    "SD over seeds, points": float(100 * accuracies.std(ddof=1)),
                    "verdicts": {name: dict(Counter(word for word, _ in one)) for name, one in found.items()},
                    "CPU s per trial": (time.process_time() - began) / count,
                }
                rows.append(row)
                print(row, flush=True)
    for name, of_metric in everything.items():
        apart = [round(size, 3) for word, size in of_metric if word in ("better", "worse")]
        false, count = len(apart), len(of_metric)
        low, high = binomtest(false, count).proportion_ci(method="wilson")
        print(f"{name}: {false} of {count} false: {false / count:.1%} (95 % CI {low:.1%} to {high:.1%}); by {apart}")
    if arguments.json:
        found_rows = {"data": arguments.data, "seeds": arguments.seeds, "rows": rows, "verdicts": everything}
        arguments.json.write_text(json.dumps(found_rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()
