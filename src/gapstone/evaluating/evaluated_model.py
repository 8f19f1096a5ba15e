"""Measurements of one model, as it is, on the images of a store: answers in one pass, moves, sizes, maps, speed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.comparing import trial_measures
from gapstone.comparing.predictor import STILL, Change
from gapstone.comparing.report.report_pictures import overlay, placed
from gapstone.data.decoded_store import Store
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain
from gapstone.maps.open_model import ImageModel
from gapstone.models.backbone_weights import digest
from gapstone.models.classifier import Classifier
from gapstone.models.model_file import finite_logits
from gapstone.models.trained_on import UNKNOWN, TrainedOn
from gapstone.nets.hf_model import LogitsOf
from gapstone.pooling import pools_in
from gapstone.pools.digest import own_pools
from gapstone.runtime.eval_mode import eval_mode
from gapstone.statistics.labels import Labels, is_multi_label
from gapstone.storage.resumable_rows import compute_rows
from gapstone.storage.sealed_json import DamagedError, damage_note, read_sealed, write_sealed
from gapstone.tracing.arithmetic import macs
from gapstone.tracing.tape import SplitError
from gapstone.training.loop import Precision, Rows, logits

VERSION = 1  # raised when the same model and images would give other numbers

Progress = Callable[[int, int], None]
Robustness = tuple[dict[str, Any], NDArray[np.float32], Rows]
"""What `trial_measures.robustness` says of some images, how right each was when moved, and which they are."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that answers images by their rows in the store: what `trial_measures` asks."""

    opened: ImageModel
    store: Store
    rows: Rows
    """Those of the store that are tested: image i of these is what is asked about by i."""
    labels: Labels
    """Of the tested images, as the model numbers its classes; with several labels (n, K) bool, in DATA's order."""
    preprocessing: Preprocessing
    """The model's, with the intensity ranges of the store."""
    precision: Precision = "float32"
    batch_size: int = 64
    progress: Progress = lambda done, total: None
    """Called with the images answered so far and their number, in each pass."""
    columns: NDArray[np.int64] | None = None
    """With several labels, the model's number of each class of DATA: logits are of these alone, as each class is
    answered by itself, and of others it is not known which images have them."""

    @property
    def model(self) -> nn.Module:
        return self.opened.model

    @property
    def only_size(self) -> tuple[int, int] | None:
        return self.opened.input_sizes[1]

    def accepts(self, size: tuple[int, int]) -> bool:
        """Whether it answers images of that size: it is tried on one."""
        try:
            with eval_mode(self.model), torch.inference_mode():
                self._ask(torch.zeros(1, self.preprocessing.channels, *size, device=self.opened.device))
        except Exception:  # networks raise errors of many types
            return False
        return True

    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        """Logits (len(rows), K), on the CPU. Raises NotFiniteError."""
        step = change.batch_size(self.batch_size, self.preprocessing.size)
        return torch.cat([self._answer(rows[first : first + step], change) for first in range(0, len(rows), step)])

    @torch.inference_mode()
    def _answer(self, rows: Rows, change: Change = STILL) -> Tensor:
        with eval_mode(self.model):
            images = self.images(rows)
            found = self._ask(images if change == STILL else change(images)).float().cpu()
        found = finite_logits(found, self.opened.name)
        return found if self.columns is None else found[:, self.columns]

    def _ask(self, images: Tensor) -> Tensor:
        if isinstance(self.model, Classifier):
            return logits(self.model, images, self.precision)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            found: Tensor = self.model(images)
        return found

    def images(self, rows: Rows) -> Tensor:
        """As the network takes them."""
        return self.preprocessing.normalise(torch.from_numpy(self.pixels(rows)).to(self.opened.device))

    def pixels(self, rows: Rows) -> NDArray[np.uint8]:
        """The part of the images that the network sees, before they are normalised: (len(rows), H, W, C)."""
        return np.ascontiguousarray(self.preprocessing.centre(np.asarray(self.store.images[self.rows[rows]])))

    @property
    def names(self) -> list[str]:
        """Of the tested images."""
        return [self.store.names[row] for row in self.rows.tolist()]

    @cached_property
    def identity(self) -> list[Any]:
        """Everything its answers depend on, as JSON: the file may change under the same name."""
        facts = [VERSION, torch.__version__.partition("+")[0], digest(self.model)]
        facts += [repr(self.model), list(self.opened.labels), self.preprocessing.to_json(), self.precision]
        facts += [self.batch_size, self.opened.device.type, self.store.key, self.rows.tolist()]
        facts += [] if self.columns is None else [self.columns.tolist()]
        pools = own_pools(pools_in(self.model))
        return [*facts, pools] if pools else facts

    def answers(self, folder: Path, log: Callable[[str], None]) -> NDArray[np.float32]:
        """The logits of all images (N, K), in one pass that can be resumed; read from disk if they are there."""

        def make(first: int, last: int) -> Tensor:
            return self._answer(np.arange(first, last))

        count = len(self.rows)
        rows = compute_rows(
            folder, "logits", self.identity, count, make, self.batch_size, torch.float32, self.progress, log
        )
        return np.asarray(rows)

    def robustness(self, folder: Path, log: Callable[[str], None]) -> Robustness:
        """On moved and resized images; read from `folder` if it is there."""
        every = np.arange(len(self.rows))
        rows = trial_measures.robust(every, trial_measures.most_for_robustness(self.preprocessing.size))
        name = f"moved-{_short(self.identity)}"
        path = folder / f"{name}.json"
        folder.mkdir(exist_ok=True)
        try:
            kept = read_sealed(path, name)
        except (FileNotFoundError, DamagedError) as error:
            if isinstance(error, DamagedError):
                log(damage_note([error]))
            facts, arrays = trial_measures.robustness(_Counting(self, rows), rows)
            kept = {"facts": facts, "shifted": arrays["shifted"].tolist()}
            write_sealed(path, kept, name)
        return kept["facts"], np.asarray(kept["shifted"], np.float32), rows

    def maps(self, row: int, classes: list[int]) -> list[dict[str, Any]] | None:
        """Where it looked in one image for these classes: {map (h, w), placement}; None where that cannot be told.

        Minus the mean of all classes' maps; with several labels, by which `classes` are then numbered, as they are.
        """
        multi_label = self.columns is not None
        numbers = classes if self.columns is None else self.columns[classes].tolist()
        try:
            with eval_mode(self.model):
                explained = explain(self.model, self.images(np.array([row])), numbers).shown(plain=multi_label)
        except (SplitError, RuntimeError):  # no last map, or calls that cannot be watched
            return None
        maps = explained.maps[0].float().cpu().numpy()
        if maps.ndim != 3 or not np.isfinite(maps).all():
            return None
        placement = np.array([explained.placement.stride, explained.placement.start], np.float64)
        return [{"map": one, "placement": placement} for one in maps]

    def facts(self) -> dict[str, Any]:
        """What it is and what it costs."""
        opened, seen = self.opened, trained_on(self.opened)
        image = torch.zeros(1, self.preprocessing.channels, *self.preprocessing.size, device=opened.device)
        classifier = opened.model if isinstance(opened.model, Classifier) else None
        own = "the folder's own" if isinstance(opened.model, LogitsOf) else "timm's own"
        return {
            "backbone": classifier.backbone if classifier is not None else opened.name,
            "head": classifier.head.spec if classifier is not None else own,
            "classes": len(opened.labels),
            "input": list(self.preprocessing.size),
            "only_input": None if self.only_size is None else list(self.only_size),
            "parameters": sum(p.numel() for p in opened.model.parameters()),
            "macs": macs(opened.model, image),
            "trained_on": {"known": len(seen.hashes), "complete": seen.complete},
        }


def evaluated_model(
    opened: ImageModel,
    store: Store,
    rows: Rows,
    classes: NDArray[np.int64],
    preprocessing: Preprocessing,
    precision: Precision,
    batch_size: int,
    progress: Progress,
) -> EvaluatedModel:
    """A model beside the labels of the store; `classes`: its number of each class of DATA."""
    labels, columns = store.labels[rows], classes
    if is_multi_label(labels):
        return EvaluatedModel(opened, store, rows, labels, preprocessing, precision, batch_size, progress, columns)
    return EvaluatedModel(opened, store, rows, classes[labels], preprocessing, precision, batch_size, progress)


class _Counting:
    """A model that tells how many moved and resized images it has answered."""

    def __init__(self, model: EvaluatedModel, rows: Rows) -> None:
        self.model, self.done = model, 0
        size = model.preprocessing.size
        passes = 1 + 4 * len(trial_measures.shift_pixels(size)) + len(trial_measures.resized(size))
        self.total = passes * len(rows)
        self.preprocessing, self.labels, self.only_size = model.preprocessing, model.labels, model.only_size
        self.accepts = model.accepts

    def logits(self, rows: Rows, change: Change = STILL) -> Tensor:
        found = self.model.logits(rows, change)
        self.done += len(rows)
        self.model.progress(self.done, self.total)
        return found


def trained_on(opened: ImageModel) -> TrainedOn:
    """The images that a model is known to have been trained on."""
    if not isinstance(opened.model, Classifier):
        return UNKNOWN
    return opened.model.trained_on or UNKNOWN


def map_picture(found: dict[str, Any], largest: float, size: tuple[int, int]) -> tuple[str, str]:
    """A map as an image (a data URI), and the place over the picture of `size` that it covers, as CSS."""
    wider, area = placed(found["map"], found["placement"], size)
    return overlay(wider, largest), area.style


def _short(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
