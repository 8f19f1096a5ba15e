"""Milliseconds per image of each head's whole network, measured side by side when no trial is running.

Medians of rounds in which all heads take turns, with the quartiles of the rounds. Heads are told apart by the ratio of
their times within a round: what slows a round, such as another program, slows all of them.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapstone.classifier import Classifier
from gapstone.compare.executors import one
from gapstone.compare.plan import Plan, cores
from gapstone.compare.timings import busy
from gapstone.compare.trials import Trial
from gapstone.machine import Others
from gapstone.storage.sealed import DamagedError, named, read_sealed, write_sealed
from gapstone.training import Precision, logits

BATCH = 16
VERSION = 2  # raised when what is measured, or kept of it, changes
ROUNDS, LEAST = 41, 5
LONGEST = 15.0  # seconds in all: then the round is the last, if LEAST are done


def measure(plan: Plan, heads: Sequence[str], out: Path, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """By head, ms per image over rounds that take turns, batches of 16, all threads: {median, low, high: quartiles};
    and `ratio`, the same of its time over the baseline's, round by round.

    Kept in speed.json: measured again only when something it depends on changes, when the machine was busy, or when it
    is damaged, which `say` is told. Raises JobError where it failed.
    """
    prepared = plan.prepared
    key = {
        "version": VERSION,
        "baseline": plan.baseline,
        "backbone": prepared.backbone,
        "size": list(prepared.preprocessing.size),
        "device": prepared.device,
        "precision": prepared.settings.precision,
        "heads": list(heads),
        "classes": len(prepared.labels),
        "torch": torch.__version__,
    }
    path = out / "speed.json"
    try:
        known = read_sealed(path, "speed")
        if known["for"] == key and not busy(known["heads"].values()):
            return dict(known["heads"])
    except FileNotFoundError:
        pass
    except DamagedError as error:
        if say is not None:
            say(named([error]))
    first = {trial.head: trial for trial in reversed(plan.trials) if trial.head in heads}
    # in a process of its own: no trial has left memory or threads behind there
    trials = [replace(first[head], pretrained=False, start=None) for head in heads]
    measured = dict(one(partial(_rounds, plan.baseline), trials))
    write_sealed(path, {"for": key, "heads": measured}, "speed")
    return measured


@torch.inference_mode()
def _rounds(baseline: str, trials: list[Trial], send: Callable[[Any], None]) -> None:
    torch.set_num_threads(cores())
    device, precision = torch.device(trials[0].device), trials[0].settings.precision
    preprocessing = trials[0].preprocessing
    images = torch.rand(BATCH, preprocessing.channels, *preprocessing.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    models = {trial.head: trial.build().eval().to(memory_format=torch.channels_last) for trial in trials}
    with Others() as others:
        seconds = _take_turns({head: _call(model, images, precision) for head, model in models.items()})
    about = {
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "others": None if others.cores is None else round(others.cores, 2),
    }
    send({head: found | about for head, found in summary(seconds, baseline).items()})


def _call(model: Classifier, images: Tensor, precision: Precision) -> Callable[[], object]:
    def call() -> None:
        logits(model, images, precision)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return call


def _take_turns(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each call, round by round, in an order of its own: who comes after a large head finds a cold cache."""
    seconds: dict[str, list[float]] = {head: [] for head in calls}
    order, began = random.Random(0), time.perf_counter()
    for turn in range(ROUNDS + 1):
        for head in order.sample(list(calls), len(calls)):
            start = time.perf_counter()
            calls[head]()
            if turn:  # the first round warms up
                seconds[head].append(time.perf_counter() - start)
        if turn >= LEAST and time.perf_counter() - began > LONGEST:
            break
    return seconds


def summary(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """What is kept of the rounds (seconds per batch, round by round), by head."""
    found = {}
    for head, taken in seconds.items():
        of_baseline = seconds.get(baseline) if head != baseline else None  # None too where all its trials failed
        found[head] = {
            **_spread(1000 * np.array(taken) / BATCH),
            "rounds": len(taken),
            "ratio": None if of_baseline is None else _spread(np.array(taken) / np.array(of_baseline)),
        }
    return found


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    low, median, high = (float(one) for one in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": median, "low": low, "high": high}
