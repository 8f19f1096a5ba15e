"""Milliseconds per image of each head's whole network, measured side by side when no trial is running."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.compare.executors import one
from gapstone.compare.plan import Plan, cores
from gapstone.compare.trials import Trial
from gapstone.storage.sealed import DamagedError, named, read_sealed, write_sealed
from gapstone.training import logits

BATCH = 16
ROUNDS, LEAST = 41, 5
LONGEST = 15.0  # seconds in all: then the round is the last, if LEAST are done


def measure(plan: Plan, heads: Sequence[str], out: Path, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """By head: {median, low, high} ms per image over rounds that take turns, batches of 16, all threads.

    Kept in speed.json: measured again only when something it depends on changes, or when it is damaged, which `say` is
    told. Raises JobError where it failed.
    """
    prepared = plan.prepared
    key = {
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
        if known["for"] == key:
            return dict(known["heads"])
    except FileNotFoundError:
        pass
    except DamagedError as error:
        if say is not None:
            say(named([error]))
    first = {trial.head: trial for trial in reversed(plan.trials) if trial.head in heads}
    # in a process of its own: no trial has left memory or threads behind there
    measured = dict(one(_rounds, [replace(first[head], pretrained=False, start=None) for head in heads]))
    write_sealed(path, {"for": key, "heads": measured}, "speed")
    return measured


@torch.inference_mode()
def _rounds(trials: list[Trial], send: Callable[[Any], None]) -> None:
    torch.set_num_threads(cores())
    device, precision = torch.device(trials[0].device), trials[0].settings.precision
    preprocessing = trials[0].preprocessing
    images = torch.rand(BATCH, preprocessing.channels, *preprocessing.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    models = {trial.head: trial.build().eval().to(memory_format=torch.channels_last) for trial in trials}
    seconds: dict[str, list[float]] = {head: [] for head in models}
    began = time.perf_counter()
    for turn in range(ROUNDS + 1):
        for head, model in models.items():
            start = time.perf_counter()
            logits(model, images, precision)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first round warms up
                seconds[head].append(time.perf_counter() - start)
        if turn >= LEAST and time.perf_counter() - began > LONGEST:
            break
    per_image = {head: 1000 * np.array(taken) / BATCH for head, taken in seconds.items()}
    send(
        {
            head: {
                "median": float(np.median(taken)),
                "low": float(taken.min()),
                "high": float(taken.max()),
                "batch": BATCH,
                "threads": torch.get_num_threads(),
                "device": str(device),
            }
            for head, taken in per_image.items()
        }
    )
