"""From what the user asked to the list of trials. Nothing is trained here but a few steps, to time them."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gapstone.compare.boxed_images import BoxedImages, among, boxed_images
from gapstone.compare.feature_pass import FeaturePass, feature_pass, time_frozen
from gapstone.compare.map_localisation import SECONDS_PER_PIXEL
from gapstone.compare.trial_measures import MOST_FOR_ROBUSTNESS, PeakMemory, shift_pixels
from gapstone.compare.trials import Start, Trial, measured_before
from gapstone.console.formatting import display
from gapstone.data.decoded_store import Store
from gapstone.heads import parse
from gapstone.storage.paths import check_input
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed
from gapstone.training.loop import Pace, Rows, measure_pace
from gapstone.training.training_data import Log, StartProgress, TrainingData, TrainOptions, at_least, plan_training
from gapstone.workers.job_processes import JobError, run_one

HEADS = ("gap", "gmp", "nin", "fc", "fc:grid=4")
MOST_SHOWN = 8
PROCESS_MB = 300  # Python and torch themselves


@dataclass(frozen=True)
class CompareRequest:
    """What the user asked to compare."""

    choices: TrainOptions
    heads: tuple[str, ...] = HEADS
    seeds: int = 5
    folds: int | None = None
    baseline: str | None = None
    workers: int | None = None
    boxes: Path | None = None
    """A table of where the objects are (gapstone.data.object_boxes)."""
    weights: Path | None = None
    """What the backbone starts from (gapstone.models.backbone_weights)."""
    freeze: bool = False
    """The backbone is not trained: it passes once over the images, and only heads are trained."""

    def checked(self) -> "CompareRequest":
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
        for option, path in (("--boxes", self.boxes), ("--weights", self.weights)):
            if path is not None:
                check_input(f"{option} {display(path)}", path)
        if self.weights is not None and self.choices.pretrained:
            raise ValueError(f"--weights {self.weights} and --pretrained: the backbone can start from one only.")
        if self.freeze and self.weights is None and not self.choices.pretrained:
            raise ValueError(
                "--freeze without trained weights: heads on a random backbone compare nothing. Give --weights FILE (a "
                "model that `gapstone train` wrote, or a state_dict), or --backbone timm:resnet18 --pretrained."
            )
        return replace(self, heads=heads, baseline=baseline)


@dataclass(frozen=True)
class ComparisonPlan:
    request: CompareRequest
    prepared: TrainingData
    trials: tuple[Trial, ...]
    workers: int
    measured: dict[str, Any]
    """`precision`, `threads`, `step_seconds`, `memory_mb`: kept from the first run on, for the numbers depend on it."""
    objects: tuple[BoxedImages, ...] | None = None
    """All images with boxes; None where none were asked for."""
    caution: str | None = None
    """What whoever reads the accuracies must know first."""

    @property
    def once(self) -> FeaturePass | None:
        """What a frozen backbone looks at; None where it is trained."""
        return feature_pass(self.trials) if self.request.freeze else None

    @property
    def pass_seconds(self) -> float | None:
        """About how long the frozen backbone takes for that."""
        if (once := self.once) is None or (image := self.measured.get("image_seconds")) is None:
            return None
        return float(image * once.images)

    @property
    def trial_seconds(self) -> float | None:
        """About how long one trial takes; None where a step could not be timed, or only heads are trained."""
        if self.measured["step_seconds"] is None:
            return None
        settings, parts = self.prepared.settings, self.prepared.splits[0]
        # passes over the test images for shifts and sizes
        looks = 4 * len(shift_pixels(self.prepared.preprocessing.size)) + 5
        looked_at = settings.epochs * len(parts.validation) + len(parts.train) + len(parts.test)
        looked_at += looks * min(len(parts.test), MOST_FOR_ROBUSTNESS)
        pace = Pace(settings.precision, self.measured["step_seconds"])
        placed = [one.scaled()[1] for one in among(self.objects or (), np.union1d(parts.test, parts.validation))]
        looked_at += len(placed)
        swept = SECONDS_PER_PIXEL * sum(height * width for height, width in placed)
        # and a process to start
        return 1.5 + swept + pace.seconds(settings, settings.epochs * len(parts.train), looked_at)

    @property
    def baseline(self) -> str:
        assert self.request.baseline
        return self.request.baseline

    def to_json(self) -> dict[str, Any]:
        prepared = self.prepared
        return {
            "request": asdict(self.request)
            | {key: (path := getattr(self.request, key)) and _where(str(path)) for key in ("boxes", "weights")},
            "data_path": _where(self.request.choices.data),
            "data": prepared.hash,
            "backbone": prepared.backbone,
            "preprocessing": prepared.preprocessing.to_json(),
            "settings": asdict(prepared.settings),
            "split": prepared.splits[0].described,
            "measured": self.measured,
            "trials": {trial.id: {"head": trial.head, "seed": trial.seed, "fold": trial.fold} for trial in self.trials},
        }


def plan(
    request: CompareRequest,
    out: Path,
    log: Log,
    start_progress: StartProgress,
    begin: Callable[[], object] = lambda: None,
) -> ComparisonPlan:
    """Everything up to the first training step, for a request that was `checked`.

    begin: called when all is known to be right, before the first file is written. What an earlier, interrupted run in
    `out` measured (precision, threads) is kept: the numbers depend on it.
    """
    read_earlier(out, request)  # of other data? then before the images are looked at
    decided = plan_training(
        request.choices, range(request.seeds), request.folds, log, start_progress, request.weights, request.freeze
    )
    objects = boxed_images(request.boxes, decided, log) if request.boxes is not None else None
    begin()
    earlier = read_earlier(out, request, log)
    prepared = decided.decode(out / "store", log, start_progress)
    if caution := _caution(request, prepared):
        log(caution)
    make = partial(
        Trial,
        backbone=prepared.backbone,
        pretrained=request.choices.pretrained,
        labels=prepared.labels,
        preprocessing=prepared.preprocessing,
        device=prepared.device,
        data=prepared.hash,
        shown=_shown(prepared),
        start=_start(request, prepared),
    )
    wanted = _measured_for(request, prepared)
    known = chain([earlier.get("measured", {})], measured_before(out / "trials"))
    measured = next((one for one in known if one.get("for") == wanted), None)
    if measured is None:
        # a network too large for the machine, and a slow one, take their time here
        progress = start_progress("Measuring how long a step takes")
        measured = _measure(request, prepared, make, log)
        progress(1, 1)
    threads, workers = measured["threads"], _workers(request, prepared, measured)
    precision = measured["precision"]
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
            objects=None if objects is None else among(objects, np.union1d(parts.validation, parts.test)),
        )
        # seeds outside, heads inside: an interrupted run has seen all heads on some seeds
        for number, parts in enumerate(prepared.splits)
        for head in request.heads
    )
    return ComparisonPlan(request, prepared, trials, workers, measured, objects, caution)


def _caution(request: CompareRequest, prepared: TrainingData) -> str | None:
    if not prepared.from_model_file or not request.folds:
        return None
    return (
        f"With --folds every image is tested, and images that {display(request.weights or '')} was trained on count as "
        f"unseen: the accuracies are too high then. For a model that was trained on this DATA use --seeds, which "
        f"tests only images that its training kept apart."
    )


def read_earlier(out: Path, request: CompareRequest, log: Log = lambda _: None) -> dict[str, Any]:
    """The plan of an earlier run in the same folder; a damaged one is said, and none.

    Raises: ValueError where that was of other data.
    """
    try:
        earlier = read_sealed(out / "plan.json", "plan")
    except FileNotFoundError:
        return {}
    except DamagedError as error:
        log(damage_note([error]))
        return {}
    if earlier["data_path"] != _where(request.choices.data):
        raise ValueError(
            f"{display(out)} holds a comparison on {display(earlier['data_path'])}: choose another --out for "
            f"{display(request.choices.data)}."
        )
    return earlier


def _measure(request: CompareRequest, prepared: TrainingData, make: Callable[..., Trial], log: Log) -> dict[str, Any]:
    """Threads, precision, seconds per step and memory of one trial, as plan.json keeps them."""
    parts, settings = prepared.splits[0], prepared.settings
    how_many = len(request.heads) * len(prepared.splits)
    # many small trials go fastest with a process per core and a thread each
    threads = max(1, cores() // min(request.workers or cores(), how_many))
    rows = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    trial = make(head=request.baseline, settings=settings, seed=0, fold=None, threads=threads, **rows)
    measured = {
        "for": _measured_for(request, prepared),
        "threads": threads,
        "precision": settings.precision,
        "step_seconds": None,
        "memory_mb": None,
    }
    try:
        # in a process of its own: a network too large for this machine must not end the comparison
        timed = time_frozen if request.freeze else _time_steps
        found = run_one(partial(timed, prepared.store.folder, request.choices.precision), trial)
    except JobError as error:
        why = display(str(error))
        log(f"No estimate of the time, and {settings.precision}: a few steps of {request.baseline} failed ({why}).")
        return measured
    return {**measured, **found}


def _time_steps(store: Path, asked: Any, trial: Trial, send: Callable[[Any], None]) -> None:
    torch.set_num_threads(trial.threads)
    with PeakMemory("cpu") as peak:
        pace = measure_pace(trial.build, Store.open(store), trial.train, trial.settings, asked)
    send({"precision": pace.precision, "step_seconds": pace.step, "memory_mb": peak.mb})


def _workers(request: CompareRequest, prepared: TrainingData, measured: dict[str, Any]) -> int:
    """How many trials at a time fill the machine and fit into its memory; on a GPU one, unless asked."""
    if request.workers:
        return request.workers
    if prepared.device.startswith("cuda"):
        return 1
    workers = max(1, cores() // int(measured["threads"]))
    if (free := free_mb()) and measured["memory_mb"]:
        fit = int(0.8 * free / (float(measured["memory_mb"]) + PROCESS_MB))
        workers = max(1, min(workers, fit))
    return min(workers, len(request.heads) * len(prepared.splits))


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_mb() -> float | None:
    """Memory that can be had without swapping, where the system tells."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    return next(
        int(line.split()[1]) / 2**10 for line in info.read_text().splitlines() if line.startswith("MemAvailable")
    )


def _measured_for(request: CompareRequest, prepared: TrainingData) -> Any:
    """What precision and threads were measured for: they hold while none of this changes."""
    facts = {
        "backbone": prepared.backbone,
        "size": prepared.preprocessing.size,
        "device": prepared.device,
        "batch_size": prepared.settings.batch_size,
        "asked": request.choices.precision,
    }
    if request.freeze:
        facts["frozen"] = prepared.weights_digest
    return json.loads(json.dumps(facts))  # as it reads back from plan.json


def _start(request: CompareRequest, prepared: TrainingData) -> Start | None:
    if prepared.weights_digest is None:
        return None
    # who asks for float32 gets it on disk too: the way out where maps do not fit into half precision
    kept: Literal["float16", "float32"] = "float32" if request.choices.precision == "float32" else "float16"
    path = request.weights.expanduser().absolute() if request.weights is not None else None
    return Start(prepared.weights_digest, path, kept if request.freeze else None)


def _where(data: str) -> str:
    if data == "digits":
        return data
    return os.fsencode(Path(data).expanduser().resolve()).decode("utf-8", "backslashreplace")


def _shown(prepared: TrainingData) -> Rows:
    """The test images of the report: of as many classes as possible, drawn once, whatever the results."""
    test = np.random.default_rng(0).permutation(prepared.splits[0].test)[:500]
    labels = prepared.store.labels[test]
    turn = [int((labels[:i] == label).sum()) for i, label in enumerate(labels)]  # 0 for the first of its class
    chosen: Rows = test[np.argsort(turn, kind="stable")[:MOST_SHOWN]]
    return chosen[np.argsort(prepared.store.labels[chosen], kind="stable")]
