"""Milliseconds per image of each head's whole network, measured side by side when no trial is running.

Medians of rounds in which all heads take turns, with the quartiles of the rounds. Heads are told apart by the ratio of
their times within a round: what slows a round, such as another program, slows all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gapstone.compare.plan import ComparisonPlan, cores
from gapstone.compare.trials import Trial
from gapstone.models.classifier import Classifier
from gapstone.runtime.timing import busy, ratio, spread, take_turns
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed, write_sealed
from gapstone.training.loop import Precision, logits
from gapstone.workers.job_processes import run_one

BATCH = 16
VERSION = 2  # raised when what is measured, or kept of it, changes


def measure_head_speeds(
    plan: ComparisonPlan, heads: Sequence[str], out: Path, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
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
        if known["for"] == key and not _was_busy(known["heads"]):
            return dict(known["heads"])
    except FileNotFoundError:
        pass
    except DamagedError as error:
        if say is not None:
            say(damage_note([error]))
    first = {trial.head: trial for trial in reversed(plan.trials) if trial.head in heads}
    # in a process of its own: no trial has left memory or threads behind there
    trials = [replace(first[head], pretrained=False, start=None) for head in heads]
    measured = dict(run_one(partial(_rounds, plan.baseline), trials))
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
    timed = take_turns({head: _call(model, images, precision) for head, model in models.items()})
    about = {
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "others": None if timed.others is None else round(timed.others, 2),
    }
    send({head: found | about for head, found in summary(timed.seconds, baseline).items()})


def _call(model: Classifier, images: Tensor, precision: Precision) -> Callable[[], object]:
    def call() -> None:
        logits(model, images, precision)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return call


def summary(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """What is kept of the rounds (seconds per batch, round by round), by head."""
    found = {}
    for head, taken in seconds.items():
        of_baseline = seconds.get(baseline) if head != baseline else None  # None too where all its trials failed
        found[head] = {
            **spread([1000 * one / BATCH for one in taken]),
            "rounds": len(taken),
            "ratio": None if of_baseline is None else ratio(taken, of_baseline),
        }
    return found


def _was_busy(heads: Mapping[str, Any]) -> bool:
    return busy(max((one["others"] or 0 for one in heads.values()), default=0), heads.values()) is not None
