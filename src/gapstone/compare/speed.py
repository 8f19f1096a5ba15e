"""Milliseconds per image of each head's whole network, measured side by side when no trial is running."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.compare.plan import Plan
from gapstone.training import cast_to

BATCH = 16
ROUNDS, LEAST = 41, 5
LONGEST = 15.0  # seconds in all: then the round is the last, if LEAST are done


def measure(plan: Plan, out: Path) -> dict[str, Any]:
    """By head: {median, low, high} ms per image over rounds that take turns, batches of 16, all threads.

    Kept in speed.json: measured again only when backbone, size, device or heads change.
    """
    prepared = plan.prepared
    key = {
        "backbone": prepared.backbone,
        "size": list(prepared.preprocessing.size),
        "device": prepared.device,
        "precision": prepared.settings.precision,
        "heads": list(plan.request.heads),
        "classes": len(prepared.labels),
        "torch": torch.__version__,
    }
    path = out / "speed.json"
    if path.exists():
        known = json.loads(path.read_text("utf-8"))
        if known["for"] == key:
            return dict(known["heads"])
    seconds = _rounds(plan)
    measured = {
        head: {
            "median": 1000 * float(np.median(taken)) / BATCH,
            "low": 1000 * min(taken) / BATCH,
            "high": 1000 * max(taken) / BATCH,
            "batch": BATCH,
            "threads": torch.get_num_threads(),
            "device": prepared.device,
        }
        for head, taken in seconds.items()
        if taken
    }
    path.write_text(json.dumps({"for": key, "heads": measured}, indent=1), "utf-8")
    return measured


@torch.inference_mode()
def _rounds(plan: Plan) -> dict[str, list[float]]:
    prepared = plan.prepared
    device = torch.device(prepared.device)
    images = torch.rand(BATCH, prepared.preprocessing.channels, *prepared.preprocessing.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {head: [] for head in plan.request.heads}
    models = {}
    for trial in plan.trials:
        if trial.head not in models:
            untrained = replace(trial, pretrained=False).build()  # weights do not change the speed
            models[trial.head] = untrained.eval().to(memory_format=torch.channels_last)
    began = time.perf_counter()
    for turn in range(ROUNDS + 1):
        for head, model in models.items():
            start = time.perf_counter()
            with cast_to(prepared.settings.precision, device):
                maps = model.features(images)
            model.head(maps.float())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first round warms up
                seconds[head].append(time.perf_counter() - start)
        if turn >= LEAST and time.perf_counter() - began > LONGEST:
            break
    return seconds
