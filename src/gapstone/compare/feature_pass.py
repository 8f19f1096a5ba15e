"""One pass of a frozen backbone over all images; it stores the features that heads and measurements read.

The moved and resized test images of the measurements are the same for every head and seed, so the pass includes them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gapstone.compare import trial_measures
from gapstone.compare.feature_cache import FeatureCache, RowCache, fixed_pools, pools_of
from gapstone.compare.predictor import STILL, Change, ModelPredictor
from gapstone.compare.trials import Trial, digest_of
from gapstone.data.decoded_store import Store
from gapstone.heads import Head
from gapstone.models.classifier import Classifier
from gapstone.nets import images_at_once, map_size
from gapstone.pooling import Pool, pools_in
from gapstone.pools.digest import own_pools
from gapstone.storage.resumable_rows import RowsError, compute_rows
from gapstone.tracing.arithmetic import macs
from gapstone.training.loop import Precision, PrecisionChoice, Rows, feature_maps, make_repeatable, time_precisions
from gapstone.workers.job_processes import JobError, run_jobs

NAME = "Frozen backbone, one pass"


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

    @property
    def needs_maps(self) -> bool:
        """Whether a head needs the maps of all images."""
        return any(pools_of(Head(head, 1, 2, (1, 1))) is None for head in self.heads)

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
        count = len(self.all) + len(self.changes) * len(self.robust)
        return count if self.needs_maps else count + len(self.shown)


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
    store = Store.open(image_folder)
    model = backbone(plan.trial)
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
            maps[change] = writer.maps(rows, change)
        if writer.pools:
            pooled[change] = writer.pooled(rows, change, maps.get(change))
    if not plan.needs_maps:
        maps[STILL] = writer.maps(plan.shown, STILL)
    _, placement = predictor.maps(plan.shown[:1])
    send(
        FeatureCache(
            maps=maps,
            pooled=pooled,
            pools=tuple(writer.pools),
            channels=model.features.channels,
            cells=map_size(model.features, plan.trial.preprocessing.channels, size),
            fixed=model.features.fixed is not None,
            placement=placement,
            sizes=accepted,
            parameters=sum(p.numel() for p in model.features.parameters()),
            macs=macs(model.features, _image(plan.trial)),
        )
    )


def time_feature_pass(store: Path, precision: PrecisionChoice, trial: Trial, send: Callable[[object], None]) -> None:
    """The job that measures the seconds per image of the pass, and its fastest precision; as plan.json has them."""
    pictures, model = Store.open(store), backbone(trial)
    rows = trial.train[: trial.settings.batch_size]
    at_once = _at_once(model, trial, trial.preprocessing.size)

    @torch.inference_mode()
    def predict(precision: Precision, _: int) -> None:
        pixels = torch.from_numpy(pictures.images[rows])
        images = model.preprocessing.normalise(model.preprocessing.centre(pixels).to(trial.device))
        maps_in_pieces(model, images, precision, at_once).cpu()  # so that no work is pending on a GPU

    pace = time_precisions(precision, macs(model.features, _image(trial)), predict, 4)
    send({"precision": pace.precision, "image_seconds": pace.step / len(rows)})


def backbone(trial: Trial) -> Classifier:
    """The trial's frozen backbone, in eval mode, under a head that is not used."""
    model = replace(trial, head="gap").build().eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


def maps_in_pieces(model: Classifier, images: Tensor, precision: Precision, at_once: int) -> Tensor:
    """The feature maps of a batch, of `at_once` images at a time."""
    return torch.cat([feature_maps(model, piece, precision) for piece in torch.split(images, at_once)])


def _at_once(model: Classifier, trial: Trial, size: tuple[int, int]) -> int:
    batch_size = trial.settings.batch_size
    if not trial.device.startswith("cpu"):
        return batch_size
    return images_at_once(model.features, trial.preprocessing.channels, size, batch_size)


def _image(trial: Trial) -> Tensor:
    return torch.zeros(1, trial.preprocessing.channels, *trial.preprocessing.size, device=trial.device)


class _FeatureWriter:
    """Computes maps and pooled vectors, stores them on disk, and sends its progress."""

    def __init__(
        self, plan: FeaturePass, store: Store, folder: Path, model: Classifier, send: Callable[[object], None]
    ) -> None:
        self.plan, self.store, self.folder, self.model, self.send = plan, store, folder, model, send
        self.pools: dict[str, Pool] = fixed_pools(list(plan.heads))
        assert plan.trial.start is not None
        assert plan.trial.start.map_dtype is not None
        self.dtype = getattr(torch, plan.trial.start.map_dtype)
        self.images_done = 0
        self._counts: dict[tuple[int, int], int] = {}

    def maps(self, rows: Rows, change: Change) -> RowCache:
        return self._store("maps", rows, change, partial(self._maps, rows, change, self.at_once(change)), self.dtype)

    def at_once(self, change: Change) -> int:
        """How many images the backbone runs on at once."""
        size = change.size or self.plan.trial.preprocessing.size
        if size not in self._counts:
            self._counts[size] = _at_once(self.model, self.plan.trial, size)
        return self._counts[size]

    def pooled(self, rows: Rows, change: Change, maps: RowCache | None) -> RowCache:
        """Pool maps in their stored precision, even if they are not stored: other heads must not change the vectors."""
        make = partial(self._maps, rows, change, self.at_once(change))

        def compute(first: int, last: int) -> Tensor:
            part = make(first, last).to(self.dtype) if maps is None else maps[rows[first:last]]
            part = part.to(self.model_device).float().contiguous()
            return torch.stack([pool(part) for pool in self.pools.values()], 1)

        return self._store("pooled", rows, change, compute, torch.float32, tuple(self.pools), counts=maps is None)

    @property
    def model_device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def _maps(self, rows: Rows, change: Change, at_once: int, first: int, last: int) -> Tensor:
        pixels = torch.from_numpy(self.store.images[rows[first:last]])
        preprocessing = self.model.preprocessing
        images = preprocessing.normalise(preprocessing.centre(pixels).to(self.model_device))
        if change != STILL:
            images = change(images).contiguous(memory_format=torch.channels_last)
        maps = maps_in_pieces(self.model, images, self.plan.trial.settings.precision, at_once)
        largest = float(maps.abs().max())
        if not isfinite(largest):
            raise RowsError(self._not_finite())
        if largest > torch.finfo(self.dtype).max:
            raise RowsError(
                f"the maps hold values up to {largest:.3g}, more than half precision can (65,504): --precision float32 "
                f"keeps them whole"
            )
        return maps

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
        pools: tuple[str, ...] = (),
        counts: bool = True,
    ) -> RowCache:
        """Compute the rows that are not on disk yet; `counts`: the backbone runs, so the images count as progress."""
        trial, done_before, total = self.plan.trial, self.images_done, self.plan.images
        about = {**trial.backbone_facts(), "rows": digest_of(rows), "change": str(change), "pools": pools}
        about["at once"] = self.at_once(change)  # the last bits of a convolution may depend on it
        if users_pools := own_pools(name for layer in self.pools.values() for name in pools_in(layer)):
            about["own pools"] = users_pools
        step = change.batch_size(trial.settings.batch_size, trial.preprocessing.size)
        progress = (lambda done, _: self.send((done_before + done, total))) if counts else None
        array = compute_rows(self.folder, name, about, len(rows), compute, step, dtype, progress, self.send)
        self.images_done += len(rows) if counts else 0
        return RowCache(Path(cast(np.memmap[Any, Any], array).filename or ""), rows)
