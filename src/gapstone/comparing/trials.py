"""One trial: one head trained with one seed, measured, and written to a folder named by the hash of its inputs."""

import errno
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gapstone.comparing import trial_measures
from gapstone.comparing.boxed_images import BoxedImages
from gapstone.comparing.feature_cache import CachedPredictor, FeatureCache
from gapstone.comparing.map_localisation import localisation
from gapstone.comparing.own_head_copies import OWN_HEAD_VERSION
from gapstone.comparing.predictor import ModelPredictor, Predictor
from gapstone.comparing.trial_files import HEAD, WEIGHTS, write_trial
from gapstone.comparing.tune_head import tune_head
from gapstone.comparing.tune_network import tune_network
from gapstone.comparing.tuning import TuningChoice, TuningGrid
from gapstone.comparing.user_code import UserCode
from gapstone.console.formatting import display
from gapstone.data.decoded_store import Store
from gapstone.heads import Head, parse
from gapstone.images.load import VERSION as LOADER
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.backbone_weights import digest, read_weights
from gapstone.models.classifier import Classifier
from gapstone.nets.hf_folder import PREFIX
from gapstone.nets.hf_model import transformers_version
from gapstone.nets.own_features import OWN_NETWORK
from gapstone.statistics.calibration import calibration
from gapstone.statistics.labels import all_right
from gapstone.storage.paths import sentence
from gapstone.training.drawn_rows import DrawnRows
from gapstone.training.loop import History, Rows, TrainSettings, make_repeatable, seeded, train

VERSION = 5  # raised when the same configuration would give other numbers, or more of them
TUNING_VERSION = 3  # the same, for heads on a frozen backbone alone


@dataclass(frozen=True)
class Start:
    """The weights that the backbone starts from, if they are known before the trial."""

    digest: str
    path: Path | None = None
    """--weights; None: the weights are timm's."""
    map_dtype: Literal["float16", "float32"] | None = None
    """The precision in which a frozen backbone's maps are stored; None: the backbone is trained."""
    pooler: str | None = None
    """The digest of the weights of the backbone's own pooler, where a head reads it."""


class EpochNumbers(NamedTuple):
    """What an epoch ended with; of a head on a frozen backbone, that of the candidate that is best so far."""

    train_loss: float
    validation_loss: float | None
    """None without validation images."""
    validation_accuracy: float | None

    @classmethod
    def last(cls, history: History) -> "EpochNumbers":
        if not history.validation_loss:
            return cls(history.train_loss[-1], None, None)
        return cls(history.train_loss[-1], history.validation_loss[-1], history.validation_accuracy[-1])


Report = Callable[[int, int, EpochNumbers], None]
"""(epoch, epochs, numbers)"""


@dataclass(frozen=True)
class Trial:
    """Everything that the results of a trial depend on. The names of the fields are part of its id."""

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
    """Test images whose maps are stored for the report."""
    objects: tuple[BoxedImages, ...] | None = None
    """Test and validation images with boxes; None without --boxes."""
    start: Start | None = None
    """None: random weights, or timm's."""
    tuning: TuningGrid | None = None
    """The candidates of learning rate and weight decay; None: it is trained with `settings` alone."""
    quick: bool = False
    """Do not measure robustness to shifts and sizes."""
    test_only: bool = False
    """Measure nothing but the answers to the test images: a point of a learning curve."""
    multi_label: bool = False
    """An image has any number of classes."""
    user_code: UserCode | None = None
    """What it needs of the user's own, in another process."""
    drawn: DrawnRows | None = None
    """Draws its training images by random transforms of the user's own."""
    image_weights: NDArray[np.float64] | None = None
    """By row of the store, how much it counts in training; None: all the same."""

    @property
    def robust(self) -> Rows:
        """Test images that are also moved and resized."""
        return trial_measures.robust(
            self.test, 0 if self.quick else trial_measures.most_for_robustness(self.preprocessing.size)
        )

    @property
    def frozen(self) -> bool:
        """Whether its backbone is not trained."""
        return self.start is not None and self.start.map_dtype is not None

    @property
    def trainings(self) -> int:
        """How many times its network is trained; once on a frozen backbone, whose candidates are trained together."""
        return len(self.tuning.points) if self.tuning is not None and not self.frozen and len(self.validation) else 1

    @cached_property  # it is asked for after every epoch
    def id(self) -> str:
        """Sixteen hex digits; equal for equal configuration and data."""
        hashed_apart = {"train", "validation", "test", "shown", "start", "quick", "tuning", "test_only"}
        hashed_apart |= {"user_code", "drawn", "image_weights"}
        if self.objects is None:
            hashed_apart.add("objects")  # trials from before there were boxes keep their ids
        if not self.multi_label:  # the same
            hashed_apart.add("multi_label")
        facts = {key: value for key, value in vars(self).items() if key not in hashed_apart} | {
            "version": VERSION,
            "made by": self._made_by(),
            "backbone": self._backbone,
            "preprocessing": self.preprocessing.to_json(),
            "settings": self._settings,
            "rows": [digest_of(rows) for rows in self.rows],
        }
        if min(self.preprocessing.size) > trial_measures.FINE:  # those of photos were moved by six distances before
            facts["shift"] = trial_measures.shift_pixels(self.preprocessing.size)
            if not self.quick and len(self.robust) < min(len(self.test), trial_measures.MOST_FOR_ROBUSTNESS):
                facts["robust"] = len(self.robust)  # there were up to 2,000 before
        reads = parse(self.head).reads
        if self.objects is not None:  # maps were scored as they are before, not minus the mean of all classes'
            facts["scored maps"] = "shown"
            if not self.multi_label:  # each box was of its image's class before
                facts["objects"] = [image[:3] for image in self.objects]
        if not reads.maps_alone:  # these had no maps before
            facts["maps"] = "of tokens"
        if self.quick:  # trials from before there was --quick keep their ids
            facts["quick"] = True
        if self.start is not None:  # trials from before there were weights keep their ids
            facts["start"] = [self.start.digest, self.start.map_dtype]
            if reads.own:
                facts["pooler"] = self.start.pooler
        if self.tuning is not None:
            facts["tuning"] = asdict(self.tuning) | {"version": TUNING_VERSION}
        if self.test_only:
            facts["test only"] = True
        if self.drawn is not None:
            facts["drawn by"] = self.drawn.digest
        if self.image_weights is not None:
            facts["image weights"] = hashlib.sha256(self.image_weights[self.train].tobytes()).hexdigest()
        if users_pools := parse(self.head).own_pools:
            facts["own pools"] = users_pools
        if own := parse(self.head).own_head:
            facts["own head"] = [own.digest, OWN_HEAD_VERSION]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _settings(self) -> dict[str, Any]:
        facts = asdict(self.settings)
        if self.settings.balance == "none":  # trials from before there was --balance keep their ids
            del facts["balance"]
        return facts

    def _made_by(self) -> dict[str, Any]:
        """The software and hardware that results depend on."""
        return {
            "torch": torch.__version__.partition("+")[0],
            "loader": LOADER,
            "timm": importlib.metadata.version("timm") if self.backbone.startswith("timm:") else None,
            **({"transformers": transformers_version()} if self.backbone.startswith(PREFIX) else {}),
            "gpu": torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else None,
        }

    @property
    def _backbone(self) -> str:
        # the digest of its weights stands for a folder of transformers, wherever it lies
        return PREFIX if self.backbone.startswith(PREFIX) else self.backbone

    def backbone_facts(self) -> dict[str, Any]:
        """Everything that the maps of a frozen backbone depend on, as JSON."""
        assert self.start is not None
        return {
            "backbone": self._backbone,
            "weights": self.start.digest,
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.settings.precision,
            "kept": self.start.map_dtype,
            "data": self.data,
            "device": torch.device(self.device).type,
            "made by": self._made_by(),
        }

    @property
    def rows(self) -> tuple[Rows, ...]:
        return self.train, self.validation, self.test, self.shown

    def build(self) -> Classifier:
        """Build the model before training. Raises ValueError if the file of weights has changed."""
        arguments = self.backbone, self.head, self.labels, self.preprocessing, self.pretrained, None, self.multi_label
        model = seeded(self.seed, self.device, *arguments)
        if self.start is not None and self.start.path is not None:
            own = model.head.reads.own
            weights = read_weights(self.start.path, self.backbone, self.preprocessing.channels, pooler=own)
            model.features.load_state_dict(weights.state)
        named = self.backbone.startswith((PREFIX, OWN_NETWORK))
        if self.start is not None and (self.start.path is not None or named):
            own = model.head.reads.own
            changed = own and digest(model.features, pooler=True) != self.start.pooler
            if changed or digest(model.features) != self.start.digest:
                given = f"--weights {self.start.path}" if self.start.path is not None else display(self.backbone)
                raise ValueError(f"{given} has changed since the comparison began: start it again.")
        return model


def run(
    trial: Trial,
    store: Store,
    trials: Path,
    report: Report | None = None,
    cache: FeatureCache | None = None,
    measured: dict[str, Any] | None = None,
    keep: bool = False,
) -> Path:
    """Train and measure, and write the folder `trials/<id>` atomically; return it.

    `report` is called after each epoch; `cache` holds the features of a frozen backbone; `measured`, of the plan, is
    stored with each trial in case plan.json gets damaged; `keep` the weights of a network that is trained whole.
    """
    torch.set_num_threads(trial.threads)
    make_repeatable()

    def after_epoch(epoch: int, history: History) -> None:
        if report:
            report(epoch, trial.settings.epochs * trial.trainings, EpochNumbers.last(history))

    predictor: Predictor
    choice: TuningChoice | None = None
    with trial_measures.PeakMemory(trial.device) as peak:
        if cache is not None:
            predictor, history, choice = train_on_cache(trial, cache, store.labels, after_epoch)
        elif trial.tuning is not None:
            parts, settings = (trial.train, trial.validation), trial.settings
            model, history, choice = tune_network(
                trial.build,
                store,
                *parts,
                settings,
                trial.tuning,
                trial.seed,
                after_epoch,
                trial.drawn,
                trial.image_weights,
            )
            predictor = ModelPredictor(model, store, settings.precision, settings.batch_size)
        else:
            model, parts = trial.build(), (trial.train, trial.validation)
            history = train(
                model, store, *parts, trial.settings, trial.seed, after_epoch, trial.drawn, trial.image_weights
            )
            predictor = ModelPredictor(model, store, trial.settings.precision, trial.settings.batch_size)
    facts, arrays = measure(predictor, trial)
    facts["peak_memory_mb"] = round(peak.mb, 1)
    facts["history"] = asdict(history)
    facts["tuning"] = None if choice is None else asdict(choice)
    facts["measured"] = measured
    kept: tuple[str, nn.Module] | None = None
    if trial.frozen and not trial.test_only:
        kept = HEAD, predictor.head
    elif isinstance(predictor, ModelPredictor) and keep:
        kept = WEIGHTS, predictor.model
    return write_trial(trial.id, facts, arrays, trials, kept)


@dataclass(frozen=True)
class DiskFullError:
    """What the job of a trial sends if the disk is full."""

    reason: str


def run_job(
    store: Path,
    folder: Path,
    cache: FeatureCache | None,
    measured: dict[str, Any],
    keep: bool,
    trial: Trial,
    send: Callable[[object], None],
) -> None:
    """The job of one trial, in a process of its own.

    It stands here and not beside its caller: each process would import the report, 0.3 s.
    """
    try:
        run(trial, Store.open(store), folder, lambda *report: send(report), cache, measured, keep)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no fault of the trial: the comparison stops
            send(DiskFullError(sentence(error)))
        raise


def cached_predictor(trial: Trial, cache: FeatureCache, labels: NDArray[Any]) -> CachedPredictor:
    """The trial's head before training, on the cached features of a frozen backbone."""
    torch.manual_seed(trial.seed)
    channels = cache.own.width if cache.own and parse(trial.head).reads.own else cache.channels
    head = Head(trial.head, channels, len(trial.labels), cache.cells).to(trial.device)
    return CachedPredictor(head, cache, trial.preprocessing, labels, trial.device, trial.settings.batch_size)


def train_on_cache(
    trial: Trial,
    cache: FeatureCache,
    labels: NDArray[Any],
    after_epoch: Callable[[int, History], None] | None = None,
) -> tuple[CachedPredictor, History, TuningChoice]:
    """Train the trial's head on cached features; the same trial gives the same weights to the last bit."""
    assert trial.tuning is not None
    predictor = cached_predictor(trial, cache, labels)
    parts = trial.train, trial.validation
    return predictor, *tune_head(
        predictor, *parts, trial.settings, trial.tuning, trial.seed, after_epoch, trial.image_weights
    )


def measure(predictor: Predictor, trial: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure a trained model: the JSON and the arrays of its trial."""
    labels, multi_label = predictor.labels[trial.test], trial.multi_label
    answers = trial_measures.Answers.of(predictor.logits(trial.test), multi_label)
    predictions = {"test": trial.test, **answers.stored(labels)}
    right = all_right(labels, answers.answer)
    about = {"head": trial.head, "seed": trial.seed, "fold": trial.fold, "test_accuracy": float(right.mean())}
    if trial.test_only:
        return about, predictions
    trained = trial_measures.Answers.of(predictor.logits(trial.train), multi_label)
    robustness, robustness_arrays = trial_measures.robustness(predictor, trial.robust)
    shown = trial_measures.show(predictor, trial.shown)
    scores: dict[str, Any] | None = None
    box_arrays: dict[str, Any] = {}
    if trial.objects is not None:
        scores, box_arrays = localisation(predictor, trial.objects, trial.test, trial.validation)
    facts = {
        **about,
        **trial_measures.beside_training(trained, predictor.labels[trial.train], answers, labels),
        **calibration(answers.logits, labels),
        **robustness,
        "takes_only": predictor.only_size,
        **predictor.cost(),
        "additive": shown.pop("additive"),
        "completeness_gap": shown.pop("gap"),
        "held": shown.pop("held"),
        "localisation": scores,
    }
    if not multi_label:
        confusion = np.zeros((len(trial.labels),) * 2, np.int64)
        np.add.at(confusion, (labels, answers.answer), 1)
        facts["confusion"] = confusion.tolist()
    return facts, {**predictions, **robustness_arrays, **shown, **box_arrays}


def digest_of(rows: Rows) -> str:
    return hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()
