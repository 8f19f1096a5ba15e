"""One pass of a frozen backbone over all images; it stores the features that heads and measurements read.

The moved and resized test images of the measurements are the same for every head and seed, so the pass includes them.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gapstone.comparing import trial_measures
from gapstone.comparing.equal_heads import reads_of
from gapstone.comparing.feature_cache import (
    CLASS_TOKEN,
    OWN,
    FeatureCache,
    OwnPooler,
    RowCache,
    StoredParts,
    StoredVector,
    layer_of,
    stored_vectors,
    taken_apart,
    vectors_of,
    without_channels,
)
from gapstone.comparing.frozen_backbone import PROBED, backbone, fold, how_many_at_once, normalised, read_in_pieces
from gapstone.comparing.parts_pass import store_parts
from gapstone.comparing.predictor import STILL, Change, ModelPredictor
from gapstone.comparing.trials import Trial, digest_of
from gapstone.data.decoded_store import Store
from gapstone.heads import BackboneOutput, Reads, parse
from gapstone.heads.reads import MAPS
from gapstone.models.classifier import Classifier
from gapstone.nets import Features, map_size
from gapstone.pooling import pools_in
from gapstone.pools.digest import own_pools
from gapstone.storage.resumable_rows import RowsError, compute_rows
from gapstone.tracing.arithmetic import ArithmeticCounter, macs
from gapstone.tracing.locate_head import locate_features
from gapstone.tracing.placement import Placement
from gapstone.training.loop import Precision, PrecisionChoice, Rows, make_repeatable
from gapstone.training.pace import Pace, time_precisions
from gapstone.workers.job_processes import JobError, run_jobs

NAME = "Frozen backbone, one pass"
TIMED = 20
"""Images whose pass is timed before it starts."""


@dataclass(frozen=True)
class FeaturePass:
    """The images that the backbone runs on: the same for all trials of a comparison, whichever of them are finished."""

    trial: Trial
    """Any trial, for the backbone."""
    heads: tuple[str, ...]
    all: Rows
    robust: Rows
    """Test images that are also moved and resized."""
    shown: Rows
    """Images whose maps are needed for all heads: those of the report, and those with boxes."""
    explains: bool = True
    """Take apart what heads answer from besides maps, for the shown images."""

    @property
    def needs_maps(self) -> bool:
        """Whether a head needs the maps of all images."""
        return self.map_layers > 0

    @property
    def map_layers(self) -> int:
        """Of how many layers heads need the maps of all images."""
        own = any(parse(head).own_head is not None for head in self.heads)
        needing = [head.reads.layers for head in without_channels(self.heads) if vectors_of(head) is None]
        return max([int(own), *needing])

    @property
    def shown_layers(self) -> int:
        """Of how many layers the maps of the shown images are needed."""
        reads = [parse(head).reads for head in self.heads]
        return max([1, *(read.layers for read in reads if read.maps)])

    @property
    def shown_apart(self) -> bool:
        """Whether the maps of the shown images are stored by themselves."""
        return self.shown_layers > self.map_layers

    @property
    def reads(self) -> Reads:
        return reads_of(self.heads)

    @property
    def changes(self) -> list[Change]:
        if not len(self.robust):
            return []
        size = self.trial.preprocessing.size
        moved = [move for distance in trial_measures.shift_pixels(size) for move in trial_measures.moves(distance)]
        return moved + [change for _, change in trial_measures.resized(size) if change != STILL]

    @property
    def images(self) -> int:
        """The number of images that the backbone runs on; every change of an image counts."""
        passes_over_shown = self.shown_apart + len(self.taken_apart)
        return len(self.all) + len(self.changes) * len(self.robust) + passes_over_shown * len(self.shown)

    @property
    def taken_apart(self) -> list[StoredVector]:
        """The vectors of which it is stored what each position adds to them."""
        return taken_apart(self.heads) if self.explains else []


def plan_feature_pass(trials: tuple[Trial, ...]) -> FeaturePass:
    """The pass for all trials of a plan, also finished ones: it must not depend on where an earlier run stopped."""
    parts = [rows for trial in trials for rows in (trial.train, trial.validation, trial.test)]
    boxes = [np.array([image.row for image in trial.objects or ()], np.intp) for trial in trials]
    return FeaturePass(
        trial=trials[0],
        heads=tuple(dict.fromkeys(trial.head for trial in trials)),
        all=reduce(np.union1d, parts),
        robust=reduce(np.union1d, [trial.robust for trial in trials]),
        shown=reduce(np.union1d, [*(trial.shown for trial in trials), *boxes]).astype(np.intp),
    )


def run_feature_pass(
    plan: FeaturePass,
    store: Path,
    folder: Path,
    progress: Callable[[int, int], None],
    log: Callable[[str], None] = lambda _: None,
) -> FeatureCache:
    """Run the pass in a process of its own; rows that `folder` already holds are not computed again.

    `store` is the folder of the decoded images. Raises JobError if the pass fails.
    """
    cache: FeatureCache | None = None
    for news in run_jobs(partial(compute_features, store, folder), [plan], 1):
        if news.kind == "failed":
            raise JobError(f"the frozen backbone's pass over the images failed: {news.what}")
        if news.kind == "news" and isinstance(news.what, FeatureCache):
            cache = news.what
        elif news.kind == "news" and isinstance(news.what, str):  # a damaged file in `folder`
            log(news.what)
        elif news.kind == "news":
            progress(*news.what)
    assert cache is not None
    return cache


def compute_features(image_folder: Path, folder: Path, plan: FeaturePass, send: Callable[[object], None]) -> None:
    """The job of the pass: sends messages and (done, total) while it runs, and the `FeatureCache` at the end."""
    make_repeatable()  # with torch's own number of threads: all cores, or OMP_NUM_THREADS
    send(features_of(backbone(plan.trial, plan.reads), Store.open(image_folder), folder, plan, send))


def features_of(
    model: Classifier, store: Store, folder: Path, plan: FeaturePass, send: Callable[[object], None]
) -> FeatureCache:
    """The pass of a model's backbone, which has what the heads of `plan` read; it sends its progress."""
    predictor = ModelPredictor(model, store)
    size = plan.trial.preprocessing.size
    sizes = [other for other, _ in trial_measures.resized(size)]
    accepted = frozenset(s for s in sizes if s == size or (model.features.fixed is None and predictor.accepts(s)))
    writer = _FeatureWriter(plan, store, folder, model, send)
    maps: dict[Change, RowCache] = {}
    pooled: dict[Change, RowCache] = {}
    for change in (STILL, *(c for c in plan.changes if c.size is None or c.size in accepted)):
        rows = plan.all if change == STILL else plan.robust
        if plan.needs_maps:
            maps[change] = writer.maps(rows, change, plan.map_layers)
        if writer.vectors:
            pooled[change] = writer.pooled(rows, change, maps.get(change))
    shown = writer.maps(plan.shown, STILL, plan.shown_layers, alone=True) if plan.shown_apart else maps[STILL]
    parts = {vector: found for vector in plan.taken_apart if (found := writer.parts(vector)) is not None}
    _, location = locate_features(model.features, _image(plan.trial))
    return FeatureCache(
        maps=maps,
        shown=shown,
        pooled=pooled,
        parts=parts,
        vectors=writer.vectors,
        channels=model.features.channels,
        own=_own_pooler(model.features, _image(plan.trial)),
        cells=map_size(model.features, plan.trial.preprocessing.channels, size),
        fixed=model.features.fixed is not None,
        placement=Placement.of(location),
        sizes=accepted,
        parameters=_count(model.features, pooler=False),
        macs=macs(model.features, _image(plan.trial)),
    )


def time_feature_pass(model: Classifier, pictures: Store, precision: PrecisionChoice, trial: Trial) -> Pace:
    """The seconds per image of the pass, as a step, and its fastest precision."""
    rows = trial.train[: min(TIMED, trial.settings.batch_size)]
    at_once = how_many_at_once(model, trial, trial.preprocessing.size)
    folded = fold(model, normalised(model, pictures, rows[:PROBED]), MAPS, "float32")

    @torch.inference_mode()
    def predict(precision: Precision, _: int) -> None:
        images = normalised(model, pictures, rows)
        with folded if folded and precision == "float32" else nullcontext():
            read_in_pieces(model, images, precision, at_once).maps.cpu()  # so that no work is pending on a GPU

    pace = time_precisions(precision, macs(model.features, _image(trial)), predict, 4)
    return replace(pace, step=pace.step / len(rows))


def _count(features: Features, pooler: bool) -> int:
    """The parameters of the backbone's own pooler, or all others."""
    return sum(p.numel() for name, p in features.named_parameters() if (name in features.pooler) == pooler)


def _own_pooler(features: Features, image: Tensor) -> OwnPooler | None:
    if features.own_width is None:
        return None
    with torch.no_grad(), ArithmeticCounter() as counter:
        features.read(image, Reads(own=True))
    return OwnPooler(features.own_width, _count(features, pooler=True), counter.total.macs - macs(features, image))


def _image(trial: Trial) -> Tensor:
    return torch.zeros(1, trial.preprocessing.channels, *trial.preprocessing.size, device=trial.device)


class _FeatureWriter:
    """Computes maps and pooled vectors, stores them on disk, and sends its progress."""

    def __init__(
        self, plan: FeaturePass, store: Store, folder: Path, model: Classifier, send: Callable[[object], None]
    ) -> None:
        self.plan, self.store, self.folder, self.model, self.send = plan, store, folder, model, send
        self.vectors, self.pools = stored_vectors(plan.heads)
        self.later: dict[tuple[Change, int], Tensor] = {}
        """Vectors that came with maps, until they are stored."""
        assert plan.trial.start is not None
        assert plan.trial.start.map_dtype is not None
        self.dtype = getattr(torch, plan.trial.start.map_dtype)
        precision = plan.trial.settings.precision
        self.folded = fold(model, normalised(model, store, plan.all[:PROBED]), plan.reads, precision)
        self.images_done = 0
        self._counts: dict[tuple[int, int], int] = {}

    def at_once(self, change: Change) -> int:
        """How many images the backbone runs on at once."""
        size = change.size or self.plan.trial.preprocessing.size
        if size not in self._counts:
            self._counts[size] = how_many_at_once(self.model, self.plan.trial, size)
        return self._counts[size]

    def maps(self, rows: Rows, change: Change, layers: int, alone: bool = False) -> RowCache:
        """`alone`: their vectors are not wanted."""
        with_vectors = not alone and self._needs_more_than_maps

        def compute(first: int, last: int) -> Tensor:
            if not with_vectors:
                return self._output(rows, change, first, last, Reads(layers=layers)).maps
            output = self._output(rows, change, first, last, self.plan.reads)
            self.later[change, first] = self._vectors(output)
            return output.maps[:, -layers * self.model.features.channels :]

        return self._store("maps", rows, change, compute, self.dtype, facts={"layers": layers} if layers > 1 else {})

    def parts(self, vector: StoredVector) -> StoredParts | None:
        """What each position of the shown images adds to a vector; None, and a sentence, where that is not known."""
        rows = self.plan.shown
        facts = {"vector": str(vector), "pooler": self._pooler if vector.name == OWN else None}
        stored = store_parts(
            vector,
            self.model.features,
            lambda first, last: self._images(rows[first:last], STILL),
            self.at_once(STILL),
            lambda compute: self._store("parts", rows, STILL, compute, torch.float32, facts),
        )
        if isinstance(stored, str):
            self.send(stored)
            self.images_done += len(rows)
            return None
        return stored

    @property
    def _pooler(self) -> str | None:
        assert self.plan.trial.start is not None
        return self.plan.trial.start.pooler

    @property
    def _needs_more_than_maps(self) -> bool:
        """Whether a vector is stored that is not a pool of the last map."""
        return any(vector.back > 1 or vector.name in (CLASS_TOKEN, OWN) for vector in self.vectors)

    def pooled(self, rows: Rows, change: Change, maps: RowCache | None) -> RowCache:
        """Pool maps in their stored precision, even if they are not stored: other heads must not change the vectors."""

        def compute(first: int, last: int) -> Tensor:
            if (change, first) in self.later:
                return self.later.pop((change, first))
            if maps is None or self._needs_more_than_maps:
                return self._vectors(self._output(rows, change, first, last, self.plan.reads))
            return self._vectors(BackboneOutput(maps[rows[first:last]].to(self.model_device)))

        facts: dict[str, Any] = {"pools": tuple(map(str, self.vectors))}
        if StoredVector(OWN) in self.vectors:
            facts["pooler"] = self._pooler
        return self._store("pooled", rows, change, compute, torch.float32, counts=maps is None, facts=facts)

    def _vectors(self, output: BackboneOutput) -> Tensor:
        """(N, vectors, C), or with the own pooler's at the end (N, vectors · C + D)."""
        maps, token, own = (None if x is None else x.to(self.dtype).float() for x in output.values)
        assert maps is not None
        channels = self.model.features.channels

        def of(vector: StoredVector) -> Tensor:
            if vector.name == CLASS_TOKEN:
                assert token is not None
                return layer_of(token, vector.back, channels)
            pooled: Tensor = self.pools[vector.name](layer_of(maps, vector.back, channels).contiguous())
            return pooled

        vectors = [of(vector) for vector in self.vectors if vector.name != OWN]
        if StoredVector(OWN) not in self.vectors:
            return torch.stack(vectors, 1)
        assert own is not None
        return torch.cat([*vectors, own], 1)

    @property
    def model_device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _images(self, rows: Rows, change: Change) -> Tensor:
        images = normalised(self.model, self.store, rows)
        return images if change == STILL else change(images).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _output(self, rows: Rows, change: Change, first: int, last: int, reads: Reads) -> BackboneOutput:
        images = self._images(rows[first:last], change)
        precision = self.plan.trial.settings.precision
        with self.folded or nullcontext():
            output = read_in_pieces(self.model, images, precision, self.at_once(change), reads)
        largest = max(float(x.abs().max()) for x in output.values if x is not None)
        if not isfinite(largest):
            raise RowsError(self._not_finite())
        if largest > torch.finfo(self.dtype).max:
            raise RowsError(
                f"the maps hold values up to {largest:.3g}, more than half precision can (65,504): --precision float32 "
                f"keeps them whole"
            )
        return output

    def _not_finite(self) -> str:
        """The error message for maps that are not finite."""
        tensors = self.model.features.state_dict().items()
        wrong = [name for name, tensor in tensors if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
        if wrong:
            return f"the backbone's weights hold NaN or infinity ({', '.join(wrong[:3])}): take others"
        return (
            f"the backbone's maps hold NaN or infinity, though its weights do not: its values are too large for "
            f"{self.plan.trial.settings.precision}"
        )

    def _store(
        self,
        name: str,
        rows: Rows,
        change: Change,
        compute: Callable[[int, int], Tensor],
        dtype: torch.dtype,
        facts: dict[str, Any],
        counts: bool = True,
    ) -> RowCache:
        """Compute the rows that are not on disk yet; `counts`: the backbone runs, so the images count as progress."""
        trial, done_before, total = self.plan.trial, self.images_done, self.plan.images
        about = {**trial.backbone_facts(), "rows": digest_of(rows), "change": str(change), "pools": (), **facts}
        about["at once"] = self.at_once(change)  # the last bits of a convolution may depend on it
        if self.folded:  # other last bits, too
            about["norms folded"] = len(self.folded.folds)
        if users_pools := own_pools(name for layer in self.pools.values() for name in pools_in(layer)):
            about["own pools"] = users_pools
        step = change.batch_size(trial.settings.batch_size, trial.preprocessing.size)
        progress = (lambda done, _: self.send((done_before + done, total))) if counts else None
        array = compute_rows(self.folder, name, about, len(rows), compute, step, dtype, progress, self.send)
        self.images_done += len(rows) if counts else 0
        return RowCache(Path(cast(np.memmap[Any, Any], array).filename or ""), rows)
