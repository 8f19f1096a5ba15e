"""How long a comparison on a frozen backbone takes, and how much disk: measured on one batch before it starts."""

import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.feature_pass import FeaturePass, features_of, time_feature_pass
from gapstone.comparing.trials import Trial, cached_predictor
from gapstone.comparing.tune_head import candidates, side_by_side
from gapstone.data.decoded_store import Store
from gapstone.models.classifier import Classifier
from gapstone.training.loop import PrecisionChoice, Rows

EPOCHS = 3
"""Of one batch, of which the first warms up."""
START = 0.3
"""Seconds of a trial beside its training: its process, its measures, its files."""


def time_frozen(
    model: Classifier, heads: Sequence[str], store: Store, precision: PrecisionChoice, trial: Trial
) -> dict[str, Any]:
    """Time a batch of the pass, then of each head's training on its features; `model` has the frozen backbone.

    Returns what plan.json holds: the precision, `image_seconds` of the pass, the seconds of a batch for each head with
    all candidates of its grid (`batch_seconds` in each epoch, `setup_seconds` before the first), and the bytes that are
    stored of an image.
    """
    pace = time_feature_pass(model, store, precision, trial)
    trial = replace(trial, settings=replace(trial.settings, precision=pace.precision))
    rows = np.sort(trial.train[: trial.settings.batch_size])
    with tempfile.TemporaryDirectory(prefix="gapstone-") as folder:
        batch = FeaturePass(trial, tuple(heads), rows, rows[:0], rows[:1], explains=False)
        cache = features_of(model, store, Path(folder), batch, lambda _: None)
        torch.set_num_threads(trial.threads)
        seconds = {head: _batch_seconds(replace(trial, head=head), cache, rows, store.labels) for head in heads}
        files = [kept.path for kept in (*cache.maps.values(), *cache.pooled.values()) if len(kept.rows) == len(rows)]
        stored = sum(path.stat().st_size for path in files) / len(rows)
    return {
        "precision": pace.precision,
        "image_seconds": pace.step,
        "setup_seconds": {head: setup for head, (setup, _) in seconds.items()},
        "batch_seconds": {head: epoch for head, (_, epoch) in seconds.items()},
        "image_bytes": stored,
    }


def _batch_seconds(trial: Trial, cache: FeatureCache, rows: Rows, labels: NDArray[Any]) -> tuple[float, float]:
    """The seconds that all candidates need for a batch before the first epoch, and in each."""
    predictor = cached_predictor(trial, cache, labels)
    assert trial.tuning is not None
    points, count = candidates(predictor.head, trial.tuning), len(trial.train) + len(trial.validation)
    began = time.perf_counter()
    run, images = side_by_side(predictor, rows, rows[:0], points, trial.settings, count)
    ends = [time.perf_counter()]
    for _ in range(EPOCHS):
        run.train_epoch(images.batches([rows]))
        ends.append(time.perf_counter())
    return ends[0] - began, (ends[-1] - ends[1]) / (EPOCHS - 1)


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
    batch, setup = (measured.get(f"{part}_seconds") or {} for part in ("batch", "setup"))
    total = 0.0
    for trial in trials:
        if trial.head not in batch:
            return None
        # validation images are only looked at: a third of the cost
        images = len(trial.train) + len(trial.validation) / 3
        seconds = setup.get(trial.head, 0.0) + trial.settings.epochs * batch[trial.head]
        total += START + seconds * images / trial.settings.batch_size
    return total / workers
