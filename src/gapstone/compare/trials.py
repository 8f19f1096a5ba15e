"""One trial: one head, one seed. Trained, measured, and written to a folder named by the hash of all it depends on."""

import hashlib
import importlib.metadata
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.compare import trial_measures
from gapstone.compare.boxed_images import BoxedImages
from gapstone.compare.calibration import calibration
from gapstone.compare.feature_cache import CachedPredictor, FeatureCache, train_on
from gapstone.compare.map_localisation import localisation
from gapstone.compare.predictor import ModelPredictor, Predictor
from gapstone.data.decoded_store import Store
from gapstone.heads import Head, parse
from gapstone.images.load import VERSION as LOADER
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.backbone_weights import digest, read_weights
from gapstone.models.classifier import Classifier
from gapstone.storage.atomic import remove, sync_folder, write_atomic
from gapstone.storage.sealed_json import DamagedError, digests, read_sealed, read_vouched, write_sealed
from gapstone.training.loop import History, Rows, TrainSettings, make_repeatable, seeded, train

VERSION = 4  # raised when the same configuration would give other numbers


@dataclass(frozen=True)
class Start:
    """What the backbone starts from, where its weights are known before the trial."""

    digest: str
    path: Path | None = None
    """--weights; None: timm's own."""
    kept: Literal["float16", "float32"] | None = None
    """The backbone is frozen, and its maps are kept in so many bits; None: it is trained with the head."""


Report = Callable[[int, int, float | None], None]
"""(epoch, epochs, validation accuracy)"""


@dataclass(frozen=True)
class Trial:
    """All that a trial's numbers depend on."""

    backbone: str
    pretrained: bool
    head: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    settings: TrainSettings
    seed: int
    fold: int | None
    threads: int
    device: str
    data: str
    """Hash of the images and labels."""
    train: Rows
    validation: Rows
    test: Rows
    shown: Rows
    """Test images whose maps are kept for the report."""
    objects: tuple[BoxedImages, ...] | None = None
    """Test and validation images with boxes; None where none were given."""
    start: Start | None = None
    """None: random weights, or timm's."""

    @property
    def id(self) -> str:
        """Sixteen hex digits: equal configuration and data, equal name."""
        left = {"train", "validation", "test", "shown"}
        if self.objects is None:
            left.add("objects")  # trials from before there were boxes keep their names
        facts = {key: value for key, value in vars(self).items() if key not in {*left, "start"}} | {
            "version": VERSION,
            "made by": self._made_by(),
            "preprocessing": self.preprocessing.to_json(),
            "settings": asdict(self.settings),
            "rows": [digest_of(rows) for rows in self.rows],
        }
        if self.start is not None:  # and those from before there were weights
            facts["start"] = [self.start.digest, self.start.kept]
        if own := parse(self.head).own_pools:
            facts["own pools"] = own
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def _made_by(self) -> dict[str, Any]:
        """Software and hardware that other numbers could come from."""
        return {
            "torch": torch.__version__.partition("+")[0],
            "loader": LOADER,
            "timm": importlib.metadata.version("timm") if self.backbone.startswith("timm:") else None,
            "gpu": torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else None,
        }

    def backbone_facts(self) -> dict[str, Any]:
        """All that the maps of a frozen backbone depend on, as JSON."""
        assert self.start is not None
        return {
            "backbone": self.backbone,
            "weights": self.start.digest,
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.settings.precision,
            "kept": self.start.kept,
            "data": self.data,
            "device": torch.device(self.device).type,
            "made by": self._made_by(),
        }

    @property
    def rows(self) -> tuple[Rows, ...]:
        return self.train, self.validation, self.test, self.shown

    def build(self) -> Classifier:
        """The model before training. Raises ValueError where the file of weights is no longer what it was."""
        about = self.backbone, self.head, self.labels, self.preprocessing, self.pretrained
        model = seeded(self.seed, self.device, *about)
        if self.start is not None and self.start.path is not None:
            weights = read_weights(self.start.path, self.backbone, self.preprocessing.channels)
            model.features.load_state_dict(weights.state)
            if digest(model.features) != self.start.digest:
                raise ValueError(f"--weights {self.start.path} has changed since the comparison began: start it again.")
        return model


def run(
    trial: Trial,
    store: Store,
    trials: Path,
    report: Report | None = None,
    seen: FeatureCache | None = None,
    measured: dict[str, Any] | None = None,
) -> Path:
    """Train and measure; the folder `trials/<id>` appears whole or not at all. seen: of a frozen backbone. measured: of
    the plan, kept with each trial, for a plan.json that is damaged.
    """
    torch.set_num_threads(trial.threads)
    make_repeatable()

    def after_epoch(epoch: int, history: History) -> None:
        if report:
            report(
                epoch, trial.settings.epochs, history.validation_accuracy[-1] if history.validation_accuracy else None
            )

    asked: Predictor
    with trial_measures.PeakMemory(trial.device) as peak:
        if seen is not None:
            asked = run_on_cached_rows(trial, seen, store.labels)
            history = train_on(asked, trial.train, trial.validation, trial.settings, trial.seed, after_epoch)
        else:
            model = trial.build()
            history = train(model, store, trial.train, trial.validation, trial.settings, trial.seed, after_epoch)
            asked = ModelPredictor(model, store, trial.settings.precision, trial.settings.batch_size)
    facts, arrays = measure(asked, trial)
    facts["peak_memory_mb"] = round(peak.mb, 1)
    facts["history"] = asdict(history)
    facts["measured"] = measured
    return _write(trial, facts, arrays, trials)


def run_on_cached_rows(trial: Trial, seen: FeatureCache, labels: NDArray[np.int64]) -> CachedPredictor:
    """The trial's head before training, on what a frozen backbone saw."""
    torch.manual_seed(trial.seed)
    head = Head(trial.head, seen.channels, len(trial.labels), seen.cells).to(trial.device)
    return CachedPredictor(head, seen, trial.preprocessing, labels, trial.device, trial.settings.batch_size)


def measure(asked: Predictor, trial: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
    test = asked.logits(trial.test)
    labels = asked.labels[trial.test]
    answers = trial_measures.Answers.of(test)
    learned = asked.logits(trial.train).argmax(1).numpy()
    classes = len(trial.labels)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, answers.answer), 1)
    some = trial_measures.robust(trial.test)
    pixels = trial_measures.shift_pixels(trial.preprocessing.size)
    shift, shifted = trial_measures.shifts(asked, some, pixels)
    shown = trial_measures.show(asked, trial.shown)
    test_accuracy, train_accuracy = (
        float((a == y).mean()) for a, y in ((answers.answer, labels), (learned, asked.labels[trial.train]))
    )
    looked, found = None, {}  # type: dict[str, Any] | None, dict[str, Any]
    if trial.objects is not None:
        looked, found = localisation(asked, trial.objects, trial.test, trial.validation)
    facts = {
        "head": trial.head,
        "seed": trial.seed,
        "fold": trial.fold,
        "test_accuracy": test_accuracy,
        "train_accuracy": train_accuracy,
        "generalisation_gap": train_accuracy - test_accuracy,
        **{key: _plain(value) for key, value in calibration(answers.logits, labels).items()},
        "shift": {"pixels": [0, *pixels], **shift},
        "sizes": trial_measures.sizes(asked, some),
        "robustness_images": len(some),
        "confusion": confusion.tolist(),
        "takes_only": trial_measures.takes_only(asked),
        **asked.cost(),
        "additive": shown.pop("additive"),
        "completeness_gap": shown.pop("gap"),
        "localisation": looked,
    }
    arrays = {
        "test": trial.test,
        "answer": answers.answer.astype(np.int32),
        "confidence": answers.confidence,
        "shifted": shifted,
        **shown,
        **found,
    }
    return facts, arrays


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `run` wrote to the folder, which is named by the trial's id.

    Raises: FileNotFoundError where there is no such trial; DamagedError where it is not what was written.
    """
    if not os.path.lexists(folder):
        raise FileNotFoundError(folder)
    try:
        facts = read_sealed(folder / "trial.json", folder.name)
    except FileNotFoundError:
        raise DamagedError(folder / "trial.json", "is missing") from None
    with np.load(io.BytesIO(read_vouched(folder, "arrays.npz", facts)), allow_pickle=False) as arrays:
        return facts, dict(arrays)


def measured_before(trials: Path) -> Iterator[dict[str, Any]]:
    """What was measured before the trials that lie there, as `run` was told."""
    for folder in sorted(trials.glob("[!.]*")):
        with suppress(OSError, DamagedError):
            if isinstance(measured := read_sealed(folder / "trial.json", folder.name).get("measured"), dict):
                yield measured


def _write(trial: Trial, facts: dict[str, Any], arrays: dict[str, Any], trials: Path) -> Path:
    trials.mkdir(parents=True, exist_ok=True)
    unfinished, done = trials / f".{trial.id}.{os.getpid()}.unfinished", trials / trial.id
    try:
        remove(unfinished)
        unfinished.mkdir()
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        write_atomic(unfinished / "arrays.npz", packed.getvalue())
        write_sealed(unfinished / "trial.json", facts | {"files": digests(unfinished, ["arrays.npz"])}, trial.id)
        remove(done)
        unfinished.rename(done)
        sync_folder(trials)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)  # on a full disk it would be in the way
        raise
    return done


def digest_of(rows: Rows) -> str:
    return hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
