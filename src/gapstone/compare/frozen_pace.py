"""How long a comparison on a frozen backbone takes, and how much disk: measured on one batch before it starts."""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.compare.feature_cache import FeatureCache
from gapstone.compare.feature_pass import FeaturePass, compute_features, time_feature_pass
from gapstone.compare.trials import Trial, cached_predictor
from gapstone.compare.tune_head import tune_head
from gapstone.data.decoded_store import Store
from gapstone.training.loop import PrecisionChoice

EPOCHS = 3
"""Of one batch, of which the first warms up."""
START = 0.7
"""Seconds of a trial beside its training: its process, its measures, its files."""


def time_frozen(
    heads: tuple[str, ...],
    store: Path,
    precision: PrecisionChoice,
    trial: Trial,
    send: Callable[[object], None],
) -> None:
    """The job that measures a batch of the pass, then of each head's training on its features.

    Sends what plan.json holds: the precision, `image_seconds` of the pass, `batch_seconds` of each head with all
    candidates of its grid, and the bytes that are stored of an image.
    """
    news: list[Any] = []
    time_feature_pass(store, precision, trial, news.append)
    measured = news.pop()
    trial = replace(trial, settings=replace(trial.settings, precision=measured["precision"]))
    rows = np.sort(trial.train[: trial.settings.batch_size])
    labels = Store.open(store).labels
    with tempfile.TemporaryDirectory(prefix="gapstone-") as folder:
        batch = FeaturePass(trial, heads, rows, rows[:0], rows[:1], explains=False)
        compute_features(store, Path(folder), batch, news.append)
        cache = news[-1]
        torch.set_num_threads(trial.threads)
        seconds = {head: _batch_seconds(replace(trial, head=head), cache, rows, labels) for head in heads}
        files = [kept.path for kept in (*cache.maps.values(), *cache.pooled.values()) if len(kept.rows) == len(rows)]
        stored = sum(path.stat().st_size for path in files) / len(rows)
    send(measured | {"batch_seconds": seconds, "image_bytes": stored})


def _batch_seconds(trial: Trial, cache: FeatureCache, rows: Any, labels: Any) -> float:
    """The seconds that all candidates need for a batch; the reading of its features included."""
    predictor = cached_predictor(trial, cache, labels)
    ends: list[float] = []
    settings = replace(trial.settings, epochs=EPOCHS)
    assert trial.tuning is not None
    tune_head(predictor, rows, rows[:1], settings, trial.tuning, 0, lambda *_: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / (EPOCHS - 1)


def pass_seconds(measured: Mapping[str, Any], feature_pass: FeaturePass) -> float | None:
    """Of the whole pass; images of other sizes count by their pixels."""
    if (image := measured.get("image_seconds")) is None:
        return None
    height, width = feature_pass.trial.preprocessing.size
    scales = [math.prod(change.size) / (height * width) if change.size else 1.0 for change in feature_pass.changes]
    still = feature_pass.images - len(feature_pass.changes) * len(feature_pass.robust)
    return float(image) * (still + sum(scales) * len(feature_pass.robust))


def heads_seconds(measured: Mapping[str, Any], trials: Iterable[Trial], workers: int) -> float | None:
    """Of the training of heads, so many at a time; None where one was not measured, as `plan.json` is older."""
    batch, total = measured.get("batch_seconds") or {}, 0.0
    for trial in trials:
        if trial.head not in batch:
            return None
        # validation images are only looked at: a third of the cost
        images = len(trial.train) + len(trial.validation) / 3
        total += START + trial.settings.epochs * batch[trial.head] * images / trial.settings.batch_size
    return total / workers
