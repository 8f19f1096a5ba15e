"""From what the user asked to the list of trials. Nothing is trained here but a few steps, to time them."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.compare.measures import MOST_FOR_ROBUSTNESS, shift_pixels
from gapstone.compare.trials import Trial
from gapstone.heads import parse
from gapstone.prepare import Choices, Prepared, Progress, Say, at_least, prepare
from gapstone.training import Precision, Rows, faster_precision

HEADS = ("gap", "gmp", "nin", "fc", "fc:grid=4")
MOST_SHOWN = 8


@dataclass(frozen=True)
class Request:
    """What the user asked to compare."""

    choices: Choices
    heads: tuple[str, ...] = HEADS
    seeds: int = 5
    folds: int | None = None
    baseline: str | None = None
    workers: int | None = None

    def checked(self) -> "Request":
        """The same with heads and baseline in their usual spelling. Raises ValueError for what can never work."""
        heads = tuple(str(parse(head)) for head in self.heads)
        if not heads:
            raise ValueError("--heads is empty: name at least one, such as gap.")
        if twice := [head for head in heads if heads.count(head) > 1]:
            raise ValueError(f"--heads names {twice[0]!r} twice.")
        baseline = str(parse(self.baseline)) if self.baseline else heads[0]
        if baseline not in heads:
            raise ValueError(f"--baseline {baseline!r} is not among --heads {','.join(heads)}.")
        at_least(1, seeds=self.seeds, workers=self.workers)
        at_least(2, folds=self.folds)
        return replace(self, heads=heads, baseline=baseline)


@dataclass(frozen=True)
class Plan:
    request: Request
    prepared: Prepared
    trials: tuple[Trial, ...]
    workers: int
    threads: int
    trial_seconds: float
    """About how long one trial takes."""

    @property
    def baseline(self) -> str:
        assert self.request.baseline
        return self.request.baseline

    def to_json(self) -> dict[str, Any]:
        prepared = self.prepared
        return {
            "request": asdict(self.request),
            "data_path": _where(self.request.choices.data),
            "data": prepared.hash,
            "backbone": prepared.backbone,
            "preprocessing": prepared.preprocessing.to_json(),
            "settings": asdict(prepared.settings),
            "split": prepared.splits[0].described,
            "measured": {
                "for": _measured_for(self.request, prepared),
                "precision": prepared.settings.precision,
                "threads": self.threads,
                "trial_seconds": self.trial_seconds,
            },
            "trials": {trial.id: {"head": trial.head, "seed": trial.seed, "fold": trial.fold} for trial in self.trials},
        }


def plan(request: Request, out: Path, say: Say, progress: Progress) -> Plan:
    """Everything up to the first training step.

    What an earlier, interrupted run in `out` measured (precision, threads) is kept: the numbers depend on it.
    """
    request = request.checked()
    earlier = read_earlier(out, request)
    prepared = prepare(request.choices, range(request.seeds), request.folds, out / "store", say, progress)
    shown = _shown(prepared)
    make = partial(
        Trial,
        backbone=prepared.backbone,
        pretrained=request.choices.pretrained,
        labels=prepared.labels,
        preprocessing=prepared.preprocessing,
        device=prepared.device,
        data=prepared.hash,
        shown=shown,
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    how_many = len(request.heads) * len(prepared.splits)
    # many small trials go fastest with a process per core and a thread each; a GPU is shared only if asked
    workers = min(request.workers or (1 if prepared.device.startswith("cuda") else cores), how_many)
    measured = earlier.get("measured", {})
    if measured.get("for") == _measured_for(request, prepared):
        threads, precision, seconds = (measured[key] for key in ("threads", "precision", "trial_seconds"))
    else:
        threads = max(1, cores // workers)
        precision, seconds = _measure(request, prepared, partial(make, threads=threads))
    prepared = replace(prepared, settings=replace(prepared.settings, precision=precision))
    trials = tuple(
        make(
            head=head,
            settings=prepared.settings,
            seed=number,
            fold=number if request.folds else None,
            threads=threads,
            train=parts.train,
            validation=parts.validation,
            test=parts.test,
        )
        # seeds outside, heads inside: an interrupted run has seen all heads on some seeds
        for number, parts in enumerate(prepared.splits)
        for head in request.heads
    )
    return Plan(request, prepared, trials, workers, threads, seconds)


def read_earlier(out: Path, request: Request) -> dict[str, Any]:
    """The plan of an earlier run in the same folder. Raises ValueError where that was of other data."""
    try:
        earlier = json.loads((out / "plan.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    if earlier["data_path"] != _where(request.choices.data):
        raise ValueError(
            f"{out} holds a comparison on {earlier['data_path']}: choose another --out for {request.choices.data}."
        )
    return dict(earlier)


def _measure(request: Request, prepared: Prepared, make: Callable[..., Trial]) -> tuple[Precision, float]:
    """The precision to train in, and about how long a trial will take."""
    parts, settings = prepared.splits[0], prepared.settings
    trial = make(
        head=request.baseline,
        settings=settings,
        seed=0,
        fold=None,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(trial.threads)
    try:
        seconds = faster_precision(trial.build, prepared.store, parts.train, settings)
    finally:
        torch.set_num_threads(before)
    asked = request.choices.precision
    precision = seconds.faster if asked == "auto" else asked
    looks = 4 * len(shift_pixels(prepared.preprocessing.size)) + 5  # passes over the test images for shifts and sizes
    trained = settings.epochs * len(parts.train)
    answered = settings.epochs * len(parts.validation) + len(parts.train) + len(parts.test)
    answered += looks * min(len(parts.test), MOST_FOR_ROBUSTNESS)
    # without a gradient an image costs about a third of a training step
    return precision, seconds.step(precision) * (trained + answered / 3) / settings.batch_size


def _measured_for(request: Request, prepared: Prepared) -> Any:
    """What precision and threads were measured for: they hold while none of this changes."""
    facts = {
        "backbone": prepared.backbone,
        "size": prepared.preprocessing.size,
        "device": prepared.device,
        "batch_size": prepared.settings.batch_size,
        "asked": request.choices.precision,
    }
    return json.loads(json.dumps(facts))  # as it reads back from plan.json


def _where(data: str) -> str:
    if data == "digits":
        return data
    return os.fsencode(Path(data).expanduser().resolve()).decode("utf-8", "backslashreplace")


def _shown(prepared: Prepared) -> Rows:
    """The test images of the report: of as many classes as possible, drawn once, whatever the results."""
    test = np.random.default_rng(0).permutation(prepared.splits[0].test)[:500]
    labels = prepared.store.labels[test]
    turn = [int((labels[:i] == label).sum()) for i, label in enumerate(labels)]  # 0 for the first of its class
    chosen: Rows = test[np.argsort(turn, kind="stable")[:MOST_SHOWN]]
    return chosen[np.argsort(prepared.store.labels[chosen], kind="stable")]
