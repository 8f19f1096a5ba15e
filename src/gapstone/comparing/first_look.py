"""Before the first trial: which heads are the same function, and how long a step takes; in one process of its own.

A network too large for this machine must not end the comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gapstone.comparing.equal_heads import find_equal_heads, reads_of, without_equals
from gapstone.comparing.frozen_backbone import backbone
from gapstone.comparing.frozen_pace import time_frozen
from gapstone.comparing.trial_measures import PeakMemory
from gapstone.comparing.trials import Trial
from gapstone.data.decoded_store import Store
from gapstone.training.loop import PrecisionChoice
from gapstone.training.pace import measure_pace
from gapstone.workers.job_processes import run_jobs


@dataclass(frozen=True)
class FirstLook:
    groups: list[tuple[str, ...]] = field(default_factory=list)
    """Of heads that are the same function."""
    cells: tuple[int, int] = (0, 0)
    """Of the backbone's maps."""
    measured: dict[str, Any] | None = None
    """Of what plan.json holds, what a trial was timed for; None if it was not asked for, or failed."""
    failed: str | None = None
    """Why it was not measured."""


def look_first(
    heads: tuple[str, ...], store: Path, trial: Trial, precision: PrecisionChoice, frozen: bool, timed: bool
) -> FirstLook:
    """`trial` is one of the baseline's; `timed`: also measure how long a step takes."""
    found: dict[str, Any] = {}
    for news in run_jobs(partial(_look, heads, store, precision, frozen, timed), [trial], 1):
        if news.kind == "news":
            found |= news.what
        elif news.kind == "failed":
            found["failed"] = str(news.what)
    return FirstLook(**found)


def _look(
    heads: tuple[str, ...],
    store: Path,
    precision: PrecisionChoice,
    frozen: bool,
    timed: bool,
    trial: Trial,
    send: Callable[[object], None],
) -> None:
    model = backbone(trial, reads_of(heads))
    groups, cells = find_equal_heads(heads, model)
    send({"groups": groups, "cells": cells})
    if timed and frozen:
        compared = without_equals(heads, groups, trial.head)
        send({"measured": time_frozen(model, compared, Store.open(store), precision, trial)})
    elif timed:
        del model  # it is no part of a trial's memory
        send({"measured": _time_steps(store, precision, trial)})


def _time_steps(store: Path, precision: PrecisionChoice, trial: Trial) -> dict[str, Any]:
    """The pace and the memory of training."""
    torch.set_num_threads(trial.threads)
    with PeakMemory("cpu") as peak:
        pace = measure_pace(trial.build, Store.open(store), trial.train, trial.settings, precision, trial.drawn)
    return {"precision": pace.precision, "step_seconds": pace.step, "memory_mb": peak.mb}
