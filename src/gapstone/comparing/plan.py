"""From the user's request to the list of trials. Only a few training steps run here, to time them."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gapstone.comparing.boxed_images import BoxedImages, among, boxed_images
from gapstone.comparing.chosen_metric import asked_metric, check_metric
from gapstone.comparing.compare_request import HEADS, CompareRequest, where
from gapstone.comparing.equal_heads import describe, without_equals
from gapstone.comparing.feature_pass import FeaturePass, plan_feature_pass
from gapstone.comparing.first_look import look_first
from gapstone.comparing.frozen_pace import heads_seconds, pass_seconds
from gapstone.comparing.learning_curve import check_frozen, curve_trials
from gapstone.comparing.map_localisation import SECONDS_PER_PIXEL
from gapstone.comparing.shown_images import shown_images
from gapstone.comparing.trial_measures import shift_pixels
from gapstone.comparing.trials import Start, Trial
from gapstone.comparing.tuning import TuningGrid, tuned, tuned_network
from gapstone.console.formatting import display
from gapstone.data.python_objects import described
from gapstone.models.class_probabilities import check_multi_label, takes_several
from gapstone.runtime.environment import cores, free_mb
from gapstone.statistics.labels import is_multi_label
from gapstone.statistics.metrics import Metric, choose_for
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed
from gapstone.training.pace import Pace
from gapstone.training.training_data import Log, StartProgress, TrainingData, plan_training

PROCESS_MB = 300  # memory of a process with Python and torch alone


@dataclass(frozen=True)
class ComparisonPlan:
    """The trials of a comparison, and all that was decided and measured before they start."""

    request: CompareRequest
    prepared: TrainingData
    trials: tuple[Trial, ...]
    workers: int
    measured: dict[str, Any]
    """`precision`, `threads`, `step_seconds`, `memory_mb`: measured by the first run, as results depend on them."""
    objects: tuple[BoxedImages, ...] | None = None
    """All images with boxes; None without --boxes."""
    caution: str | None = None
    """A warning about the accuracies, for their readers."""
    curve: dict[int, tuple[Trial, ...]] = field(default_factory=dict)
    """Trials with part of the labelled images, by how many (gapstone.comparing.learning_curve)."""
    left_out: tuple[str, ...] = ()
    """Sentences about heads that are the same function as another."""

    @property
    def all_trials(self) -> tuple[Trial, ...]:
        """Those of the comparison, then those of its curve."""
        return (*self.trials, *chain.from_iterable(self.curve.values()))

    @property
    def feature_pass(self) -> FeaturePass | None:
        """The pass of a frozen backbone; None if the backbone is trained."""
        return plan_feature_pass(self.trials) if self.prepared.frozen else None

    @property
    def pass_seconds(self) -> float | None:
        """Estimated seconds of the feature pass."""
        return pass_seconds(self.measured, self.feature_pass) if self.feature_pass else None

    def heads_seconds(self, missing: Sequence[Trial]) -> float | None:
        """Estimated seconds of these trials on a frozen backbone, after its pass."""
        return heads_seconds(self.measured, missing, self.workers)

    @property
    def trial_seconds(self) -> float | None:
        """Estimated seconds of one trial; None if no step could be timed, or if only heads are trained."""
        if self.measured["step_seconds"] is None:
            return None
        settings, parts = self.prepared.settings, self.prepared.splits[0]
        # passes over the test images for shifts and sizes
        passes = 4 * len(shift_pixels(self.prepared.preprocessing.size)) + 5
        trainings = self.trials[0].trainings
        predicted = trainings * settings.epochs * len(parts.validation) + len(parts.train) + len(parts.test)
        predicted += passes * len(self.trials[0].robust)
        pace = Pace(settings.precision, self.measured["step_seconds"])
        boxed = among(self.objects or (), np.union1d(parts.test, parts.validation))
        predicted += len(boxed)
        grids = [image.scaled()[1] for image in boxed]
        scoring = SECONDS_PER_PIXEL * sum(height * width for height, width in grids)
        start = 1.5  # seconds to start a process
        return start + scoring + pace.seconds(settings, trainings * settings.epochs * len(parts.train), predicted)

    @property
    def baseline(self) -> str:
        assert self.request.baseline
        return self.request.baseline

    @property
    def metric(self) -> tuple[Metric, str | None]:
        """What decides the verdicts, and a sentence where nobody asked for it."""
        labels = self.prepared.store.labels
        metric, chosen = choose_for(asked_metric(self.request.metric), labels, len(self.prepared.labels))
        if chosen and not self.multi_label and self.request.choices.balance == "none":
            chosen += " --balance loss also trains for it."
        return metric.with_margin(self.request.margin), chosen

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return is_multi_label(self.prepared.store.labels)

    def to_json(self) -> dict[str, Any]:
        prepared = self.prepared
        return {
            "request": self.request.to_json(),
            "data_path": where(self.request.choices.data),
            "data": prepared.hash,
            "backbone": prepared.backbone,
            "preprocessing": prepared.preprocessing.to_json(),
            "settings": asdict(prepared.settings),
            "tuning": None if (grid := self.trials[0].tuning) is None else asdict(grid),
            "split": prepared.splits[0].described,
            "measured": self.measured,
            "trials": {
                trial.id: {"head": trial.head, "seed": trial.seed, "fold": trial.fold} for trial in self.all_trials
            },
        }


def plan_comparison(
    request: CompareRequest,
    out: Path,
    log: Log,
    start_progress: StartProgress,
    begin: Callable[[], object] = lambda: None,
) -> ComparisonPlan:
    """Prepare everything up to the first training step.

    The precision and number of threads that an earlier, interrupted run in `out` measured are used again, as results
    depend on them. `request` is `checked`; `begin` is called when all arguments are known to be valid, before the
    first file is written.

    Raises:
        ValueError: as `plan_training`; `out` holds a comparison of other data; no test image has boxes.
    """
    read_earlier(out, request)  # fail for another DATA before the images are checked
    choices, seeds, heads = request.choices, range(request.seeds), request.heads
    defaults, weights = heads == HEADS, request.weights
    training = plan_training(
        choices, seeds, request.folds, log, start_progress, weights, request.mode, heads, replaceable=defaults
    )
    if training.source.multi_label and defaults:
        request = _for_multi_label(request, log)
    check_frozen(request.curve, training)
    objects = boxed_images(request.boxes, training, log) if request.boxes is not None else None
    begin()
    earlier = read_earlier(out, request, log)
    prepared, grid = training.decode(out / "store", log, start_progress), None
    if prepared.frozen:
        settings, grid = tuned(request.choices, prepared.settings, len(prepared.splits[0].train))
        prepared = replace(prepared, settings=settings)
    elif request.tune:
        grid = tuned_network(request.choices, prepared.settings)
        if not all(len(parts.validation) for parts in prepared.splits):
            raise ValueError("--tune chooses on validation images, and DATA leaves none: add images, or leave it out.")
    if caution := _caution(request, prepared):
        log(caution)
    make_trial = trial_maker(request, prepared, grid)
    measured, request, left_out = _look(request, prepared, make_trial, out, earlier, log, start_progress)
    threads, workers = measured["threads"], _workers(request, prepared, measured)
    precision = measured["precision"]
    prepared = replace(prepared, settings=replace(prepared.settings, precision=precision))
    trials = tuple(
        make_trial(
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
        # seeds outside, heads inside: an interrupted run has finished all heads for some seeds
        for number, parts in enumerate(prepared.splits)
        for head in request.heads
    )
    groups = prepared.groups if prepared.source.grouping is not None else None
    curve = curve_trials(request.curve, trials, prepared.store.labels, request.choices, groups)
    plan = ComparisonPlan(request, prepared, trials, workers, measured, objects, caution, curve, left_out)
    parts = [split.test for split in (prepared.splits if request.folds else prepared.splits[:1])]
    check_metric(plan.metric[0], prepared.store.labels, parts, len(prepared.labels), max(1, len(plan.all_trials)), log)
    return plan


def _for_multi_label(request: CompareRequest, log: Log) -> CompareRequest:
    """The default heads without those that cannot answer several labels."""
    check_multi_label(request.baseline or request.heads[0])
    heads = tuple(head for head in request.heads if takes_several(head))
    left_out = ", ".join(head for head in request.heads if head not in heads)
    log(f"Left out of the default heads: {left_out}, whose logits are never below 0; each class would be answered.")
    return replace(request, heads=heads)


def _look(
    request: CompareRequest,
    prepared: TrainingData,
    make_trial: Callable[..., Trial],
    out: Path,
    earlier: dict[str, Any],
    log: Log,
    start_progress: StartProgress,
) -> tuple[dict[str, Any], CompareRequest, tuple[str, ...]]:
    """What plan.json holds as `measured`; the request with one head of each group of equals; sentences about others."""
    assert request.baseline is not None
    parts, settings = prepared.splits[0], prepared.settings
    # many small trials run fastest with one process per core, of one thread each
    trials = len(request.heads) * len(prepared.splits)
    threads = max(1, cores() // min(request.workers or cores(), trials))
    rows = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    trial = make_trial(head=request.baseline, settings=settings, seed=0, fold=None, threads=threads, **rows)
    key = _measured_for(request, prepared)
    earlier_measurements = chain([earlier.get("measured", {})], _measured_before(out / "trials"))
    measured = next((values for values in earlier_measurements if values.get("for") == key), None)
    progress = start_progress("Measuring how long a step takes")  # long for large networks
    precision, frozen = request.choices.precision, prepared.frozen
    look = look_first(request.heads, prepared.store.folder, trial, precision, frozen, timed=measured is None)
    progress(1, 1)
    left_out = tuple(describe(look.groups, request.baseline, look.cells))
    for sentence in left_out:
        log(sentence)
    if look.failed is not None and measured is None:
        why = display(look.failed)
        log(f"No estimate of the time, and {settings.precision}: a few steps of {request.baseline} failed ({why}).")
    if measured is None:
        unknown = {"precision": settings.precision, "step_seconds": None, "memory_mb": None}
        measured = {"for": key, "threads": threads, **unknown, **(look.measured or {})}
    return measured, replace(request, heads=without_equals(request.heads, look.groups, request.baseline)), left_out


def _caution(request: CompareRequest, prepared: TrainingData) -> str | None:
    if not prepared.from_model_file or not request.folds or prepared.trained_before.complete:
        return None
    return (
        f"With --folds every image is tested, and {display(request.weights or '')} does not say which images it was "
        f"trained on: those of them that are tested make the accuracies too high. For a model that was trained on this "
        f"DATA use --seeds, which tests only images that its training kept apart."
    )


def read_earlier(out: Path, request: CompareRequest, log: Log = lambda _: None) -> dict[str, Any]:
    """The plan.json of an earlier run in the folder; {} if there is none, or if it is damaged, which is logged.

    Raises ValueError if the earlier run was on other data.
    """
    try:
        earlier = read_sealed(out / "plan.json", "plan")
    except FileNotFoundError:
        return {}
    except DamagedError as error:
        log(damage_note([error]))
        return {}
    if earlier["data_path"] != where(request.choices.data):
        raise ValueError(
            f"{display(out)} holds a comparison on {display(earlier['data_path'])}: choose another --out for "
            f"{display(described(request.choices.data))}."
        )
    return earlier


def _workers(request: CompareRequest, prepared: TrainingData, measured: dict[str, Any]) -> int:
    """The number of trials that run at a time: --workers, or as many as cores and memory allow; one on a GPU."""
    if request.workers:
        return request.workers
    if prepared.device.startswith("cuda"):
        return 1
    workers = max(1, cores() // int(measured["threads"]))
    if (free := free_mb()) and measured["memory_mb"]:
        fit = int(0.8 * free / (float(measured["memory_mb"]) + PROCESS_MB))
        workers = max(1, min(workers, fit))
    return min(workers, len(request.heads) * len(prepared.splits))


def _measured_for(request: CompareRequest, prepared: TrainingData) -> object:
    """JSON of what the measured precision and threads depend on: they are used again while this stays the same."""
    facts = {
        "backbone": prepared.backbone,
        "size": prepared.preprocessing.size,
        "device": prepared.device,
        "batch_size": prepared.settings.batch_size,
        "asked": request.choices.precision,
    }
    if prepared.frozen:
        facts["frozen"] = prepared.weights_digest
    return json.loads(json.dumps(facts))  # in the form that plan.json reads back


def trial_maker(request: CompareRequest, prepared: TrainingData, grid: TuningGrid | None) -> Callable[..., Trial]:
    """A function that makes a trial from the fields in which trials of a comparison differ."""
    return partial(
        Trial,
        backbone=prepared.backbone,
        pretrained=prepared.pretrained,
        labels=prepared.labels,
        preprocessing=prepared.preprocessing,
        device=prepared.device,
        data=prepared.hash,
        shown=shown_images(prepared.splits[0].test, prepared.store.labels),
        start=_start(request, prepared),
        quick=request.quick,
        tuning=grid,
        multi_label=prepared.source.multi_label,
        user_code=request.user_code,
        drawn=prepared.drawn,
        image_weights=prepared.weights,
    )


def _start(request: CompareRequest, prepared: TrainingData) -> Start | None:
    if prepared.weights_digest is None:
        return None
    # --precision float32 also stores float32: the way out if maps overflow in half precision
    stored: Literal["float16", "float32"] = "float32" if request.choices.precision == "float32" else "float16"
    path = request.weights.expanduser().absolute() if request.weights is not None else None
    return Start(prepared.weights_digest, path, stored if prepared.frozen else None, prepared.pooler_digest)


def _measured_before(trials: Path) -> Iterator[dict[str, Any]]:
    """Yield the `measured` values stored with the trials in the folder."""
    for folder in sorted(trials.glob("[!.]*")):
        with suppress(OSError, DamagedError):
            if isinstance(measured := read_sealed(folder / "trial.json", folder.name).get("measured"), dict):
                yield measured
