"""Milliseconds per image of the whole network with each head, measured while no trial is running.

All heads take turns in each round; the result is the median and the quartiles of the rounds. Heads are compared by the
ratio of their times within a round: another program that slows a round slows all heads alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gapstone.comparing.plan import ComparisonPlan
from gapstone.comparing.speed_differences import busy_sign
from gapstone.comparing.trials import Trial
from gapstone.models.classifier import Classifier
from gapstone.runtime.environment import cores
from gapstone.runtime.timing import ratio, spread, take_turns
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed, write_sealed
from gapstone.training.loop import Precision, logits
from gapstone.workers.job_processes import run_one

BATCH = 16
LONGEST = 6.0
"""Seconds after which no round begins."""
VERSION = 2  # raised when the measurement or the format of speed.json changes


def measure_head_speeds(
    plan: ComparisonPlan, heads: Sequence[str], out: Path, log: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure ms per image for each head, in batches of 16 on all threads: {median, low, high (quartiles), ratio, …}.

    `ratio` has the same statistics of the head's time over the baseline's, round by round. The result is stored in
    speed.json. It is measured again only if something it depends on has changed, if the machine was busy, or if the
    file is damaged, which is logged. Raises JobError if the measurement fails.
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
        earlier = read_sealed(path, "speed")
        if earlier["for"] == key and not busy_sign(earlier["heads"].values()):
            return dict(earlier["heads"])
    except FileNotFoundError:
        pass
    except DamagedError as error:
        log(damage_note([error]))
    first = {trial.head: trial for trial in reversed(plan.trials) if trial.head in heads}
    # in a process of its own, without memory or threads that trials have left behind
    trials = [replace(first[head], pretrained=False, start=None) for head in heads]
    measured = dict(run_one(partial(_rounds, plan.baseline), trials))
    write_sealed(path, {"for": key, "heads": measured}, "speed")
    return measured


@torch.inference_mode()
def _rounds(baseline: str, trials: list[Trial], send: Callable[[object], None]) -> None:
    """The job that measures; sends the summary."""
    torch.set_num_threads(cores())
    device, precision = torch.device(trials[0].device), trials[0].settings.precision
    preprocessing = trials[0].preprocessing
    images = torch.rand(BATCH, preprocessing.channels, *preprocessing.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    models = {trial.head: trial.build().eval().to(memory_format=torch.channels_last) for trial in trials}
    timed = take_turns({head: _call(model, images, precision) for head, model in models.items()}, longest=LONGEST)
    about = {
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "others": None if timed.others is None else round(timed.others, 2),
    }
    send({head: statistics | about for head, statistics in summary(timed.seconds, baseline).items()})


def _call(model: Classifier, images: Tensor, precision: Precision) -> Callable[[], object]:
    def call() -> None:
        logits(model, images, precision)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return call


def summary(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """Statistics by head of the seconds per batch in each round."""
    statistics = {}
    for head, times in seconds.items():
        baseline_times = seconds.get(baseline) if head != baseline else None  # also None if all its trials failed
        statistics[head] = {
            **spread([1000 * time / BATCH for time in times]),
            "rounds": len(times),
            "ratio": None if baseline_times is None else ratio(times, baseline_times),
        }
    return statistics
