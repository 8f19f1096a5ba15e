"""One trial: one head, one seed. Trained, measured, and written to a folder named by the hash of all it depends on."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapstone.classifier import Classifier
from gapstone.compare import measures
from gapstone.compare.calibration import calibration
from gapstone.compare.localisation import localisation
from gapstone.compare.marked import Marked
from gapstone.cost import cost
from gapstone.images.load import VERSION as LOADER
from gapstone.images.preprocessing import Preprocessing
from gapstone.images.store import Store
from gapstone.training import History, Rows, Settings, predict, repeatable, seeded, train

VERSION = 4  # raised when the same configuration would give other numbers

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
    settings: Settings
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
    objects: tuple[Marked, ...] | None = None
    """Test and validation images with boxes; None where none were given."""

    @property
    def id(self) -> str:
        """Sixteen hex digits: equal configuration and data, equal name."""
        left = {"train", "validation", "test", "shown"}
        if self.objects is None:
            left.add("objects")  # trials from before there were boxes keep their names
        facts = {key: value for key, value in vars(self).items() if key not in left} | {
            "version": VERSION,
            "made by": self._made_by(),
            "preprocessing": self.preprocessing.to_json(),
            "settings": asdict(self.settings),
            "rows": [hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest() for rows in self.rows],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def _made_by(self) -> dict[str, Any]:
        """Software and hardware that other numbers could come from."""
        return {
            "torch": torch.__version__.partition("+")[0],
            "loader": LOADER,
            "timm": importlib.metadata.version("timm") if self.backbone.startswith("timm:") else None,
            "gpu": torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else None,
        }

    @property
    def rows(self) -> tuple[Rows, ...]:
        return self.train, self.validation, self.test, self.shown

    def build(self) -> Classifier:
        """The model before training."""
        return seeded(
            self.seed, self.device, self.backbone, self.head, self.labels, self.preprocessing, self.pretrained
        )


def run(trial: Trial, store: Store, trials: Path, report: Report | None = None) -> Path:
    """Train and measure; the folder `trials/<id>` appears whole or not at all."""
    torch.set_num_threads(trial.threads)
    repeatable()

    def after_epoch(epoch: int, history: History) -> None:
        if report:
            report(
                epoch, trial.settings.epochs, history.validation_accuracy[-1] if history.validation_accuracy else None
            )

    with measures.PeakMemory(trial.device) as peak:
        model = trial.build()
        history = train(model, store, trial.train, trial.validation, trial.settings, trial.seed, after_epoch)
    facts, arrays = measure(model, store, trial)
    facts["peak_memory_mb"] = round(peak.mb, 1)
    facts["history"] = asdict(history)
    return _write(trial, facts, arrays, trials)


def measure(model: Classifier, store: Store, trial: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
    precision, batch = trial.settings.precision, trial.settings.batch_size
    test = predict(model, store, trial.test, precision, batch)
    labels = store.labels[trial.test]
    answers = measures.Answers.of(test)
    learned = predict(model, store, trial.train, precision, batch).argmax(1).numpy()
    classes = len(trial.labels)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, answers.answer), 1)
    some = trial.test
    if len(some) > measures.MOST_FOR_ROBUSTNESS:
        some = np.sort(np.random.default_rng(0).permutation(some)[: measures.MOST_FOR_ROBUSTNESS])
    pixels = measures.shift_pixels(trial.preprocessing.size)
    shift, shifted = measures.shifts(model, store, some, pixels, precision, batch)
    shown = measures.show(model, store, trial.shown, precision)
    test_accuracy, train_accuracy = (
        float((a == y).mean()) for a, y in ((answers.answer, labels), (learned, store.labels[trial.train]))
    )
    looked, found = None, {}  # type: dict[str, Any] | None, dict[str, Any]
    if trial.objects is not None:
        looked, found = localisation(model, store, trial.objects, trial.test, trial.validation, precision, batch)
    facts = {
        "head": trial.head,
        "seed": trial.seed,
        "fold": trial.fold,
        "test_accuracy": test_accuracy,
        "train_accuracy": train_accuracy,
        "generalisation_gap": train_accuracy - test_accuracy,
        **{key: _plain(value) for key, value in calibration(answers.logits, labels).items()},
        "shift": {"pixels": [0, *pixels], **shift},
        "sizes": measures.sizes(model, store, some, precision, batch),
        "robustness_images": len(some),
        "confusion": confusion.tolist(),
        "takes_only": measures.takes_only(model),
        **cost(model),
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
    """What `run` wrote."""
    with np.load(folder / "arrays.npz") as arrays:
        return json.loads((folder / "trial.json").read_text("utf-8")), dict(arrays)


def _write(trial: Trial, facts: dict[str, Any], arrays: dict[str, Any], trials: Path) -> Path:
    trials.mkdir(parents=True, exist_ok=True)
    unfinished, done = trials / f".{trial.id}.{os.getpid()}.unfinished", trials / trial.id
    unfinished.mkdir()
    with (unfinished / "arrays.npz").open("wb") as file:
        np.savez_compressed(file, **arrays)
    (unfinished / "trial.json").write_text(json.dumps(facts, indent=1), "utf-8")
    for path in unfinished.iterdir():  # on disk before the name says so, or a power cut leaves an empty "done" trial
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if done.exists():
        shutil.rmtree(done)
    unfinished.rename(done)
    return done


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
