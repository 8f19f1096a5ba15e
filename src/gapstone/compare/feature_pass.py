"""One pass of a frozen backbone over all images: what any head or measure needs of it is kept on disk, then read.

The test images, moved and resized as the measures ask for, are the same for every head and seed: they pass once too.
"""

import time
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
from gapstone.nets import map_size
from gapstone.pooling import Pool
from gapstone.pools import POOLS
from gapstone.pools.digest import digest
from gapstone.pools.registration import is_own
from gapstone.storage.resumable_rows import RowsError, compute_rows
from gapstone.tracing.arithmetic import macs
from gapstone.training.loop import WORTH_BFLOAT16, Precision, Rows, faster, feature_maps, make_repeatable
from gapstone.workers.job_processes import JobError, run_jobs

NAME = "Frozen backbone, one pass"


@dataclass(frozen=True)
class FeaturePass:
    """What is to be looked at: the same for all trials of a comparison, whichever of them are done."""

    trial: Trial
    """Any of them: for the backbone."""
    heads: tuple[str, ...]
    all: Rows
    robust: Rows
    """Test images that are also moved and resized."""
    shown: Rows
    """Images whose maps are needed whatever the heads: of the report, and with boxes."""

    @property
    def whole(self) -> bool:
        """Does any head need maps?"""
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
        """How many go through the backbone, each change of one counted."""
        looks = len(self.all) + len(self.changes) * len(self.robust)
        return looks if self.whole else looks + len(self.shown)


def feature_pass(trials: tuple[Trial, ...]) -> FeaturePass:
    """Of the whole plan, done or missing: what is kept must not depend on where an earlier run stopped."""
    some = [rows for trial in trials for rows in (trial.train, trial.validation, trial.test)]
    boxes = [np.array([one.row for one in trial.objects or ()], np.intp) for trial in trials]
    return FeaturePass(
        trial=trials[0],
        heads=tuple(dict.fromkeys(trial.head for trial in trials)),
        all=reduce(np.union1d, some),
        robust=reduce(np.union1d, [trial_measures.robust(trial.test) for trial in trials]),
        shown=reduce(np.union1d, [*(trial.shown for trial in trials), *boxes]).astype(np.intp),
    )


def run_feature_pass(
    what: FeaturePass,
    store: Path,
    folder: Path,
    tell: Callable[[int, int], None],
    say: Callable[[str], None] | None = None,
) -> FeatureCache:
    """Run the pass in a process of its own, as far as `folder` does not hold it. say: is told of what was damaged.

    Raises JobError with the reason.
    """
    seen: FeatureCache | None = None
    for news in run_jobs(partial(look, store, folder), [what], 1):
        if news.kind == "failed":
            raise JobError(f"the frozen backbone's pass over the images failed: {news.what}")
        if news.kind == "news" and isinstance(news.what, FeatureCache):
            seen = news.what
        elif news.kind == "news" and isinstance(news.what, str):
            if say is not None:
                say(news.what)
        elif news.kind == "news":
            tell(*news.what)
    assert seen is not None
    return seen


def look(folder_of_images: Path, folder: Path, what: FeaturePass, send: Callable[[Any], None]) -> None:
    """The pass itself; sends how far it is, and at last what was `Seen`."""
    make_repeatable()  # with torch's own number of threads: all cores, or OMP_NUM_THREADS
    store = Store.open(folder_of_images)
    model = backbone(what.trial)
    live = ModelPredictor(model, store)
    size = what.trial.preprocessing.size
    tried = [at for at, _ in trial_measures.resized(size)]
    taken = frozenset(at for at in tried if at == size or (model.features.fixed is None and live.takes(at)))
    keeper = _Keeper(what, store, folder, model, send)
    maps: dict[Change, RowCache] = {}
    pooled: dict[Change, RowCache] = {}
    for change in (STILL, *(c for c in what.changes if c.size is None or c.size in taken)):
        rows = what.all if change == STILL else what.robust
        if what.whole:
            maps[change] = keeper.maps(rows, change)
        if keeper.pools:
            pooled[change] = keeper.pooled(rows, change, maps.get(change))
    if not what.whole:
        maps[STILL] = keeper.maps(what.shown, STILL)
    _, placement = live.maps(what.shown[:1])
    send(
        FeatureCache(
            maps=maps,
            pooled=pooled,
            pools=tuple(keeper.pools),
            channels=model.features.channels,
            cells=map_size(model.features, what.trial.preprocessing.channels, size),
            fixed=model.features.fixed is not None,
            placement=placement,
            sizes=taken,
            parameters=sum(p.numel() for p in model.features.parameters()),
            macs=macs(model.features, _image(what.trial)),
        )
    )


def time_frozen(store: Path, asked: Any, trial: Trial, send: Callable[[Any], None]) -> None:
    """Seconds per image of the pass, and the precision it goes fastest in; as plan.json has them.

    Under "auto" bfloat16 is taken where `training.measure_pace` would take it.
    """
    pictures, model = Store.open(store), backbone(trial)
    rows = trial.train[: trial.settings.batch_size]
    large = macs(model.features, _image(trial)) >= WORTH_BFLOAT16
    choices: tuple[Precision, ...] = ("float32", "bfloat16") if large else ("float32",)
    seconds: dict[Precision, list[float]] = {p: [] for p in (choices if asked == "auto" else (asked,))}
    for turn in range(4):  # the first warms up
        for precision, taken in seconds.items():
            began = time.perf_counter()
            ModelPredictor(model, pictures, precision, len(rows)).logits(
                rows
            )  # its answers come to the CPU: nothing is pending
            taken += [time.perf_counter() - began] * bool(turn)
    looked = {precision: float(np.median(taken)) for precision, taken in seconds.items()}
    chosen = faster(looked)
    send({"precision": chosen, "image_seconds": looked[chosen] / len(rows)})


def backbone(trial: Trial) -> Classifier:
    """The trial's frozen backbone, in eval mode, under a head that nobody asks."""
    model = replace(trial, head="gap").build().eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


def _image(trial: Trial) -> Tensor:
    return torch.zeros(1, trial.preprocessing.channels, *trial.preprocessing.size, device=trial.device)


class _Keeper:
    """Keeps rows of maps and of pooled vectors, and says how far it is."""

    def __init__(
        self, what: FeaturePass, store: Store, folder: Path, model: Classifier, send: Callable[[Any], None]
    ) -> None:
        self.what, self.store, self.folder, self.model, self.send = what, store, folder, model, send
        self.pools: dict[str, Pool] = fixed_pools(list(what.heads))
        assert what.trial.start is not None
        assert what.trial.start.kept is not None
        self.dtype = getattr(torch, what.trial.start.kept)
        self.before = 0

    def maps(self, rows: Rows, change: Change) -> RowCache:
        return self._keep("maps", rows, change, partial(self._maps, rows, change), self.dtype)

    def pooled(self, rows: Rows, change: Change, maps: RowCache | None) -> RowCache:
        """Of maps as they would be kept, whether they are or not: heads beside it must not change a head's numbers."""

        def make(first: int, last: int) -> Tensor:
            some = self._maps(rows, change, first, last).to(self.dtype) if maps is None else maps[rows[first:last]]
            some = some.to(self.model_device).float().contiguous()
            return torch.stack([pool(some) for pool in self.pools.values()], 1)

        return self._keep("pooled", rows, change, make, torch.float32, tuple(self.pools), counts=maps is None)

    @property
    def model_device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def _maps(self, rows: Rows, change: Change, first: int, last: int) -> Tensor:
        seen = torch.from_numpy(self.store.images[rows[first:last]])
        preprocessing = self.model.preprocessing
        images = preprocessing.normalise(preprocessing.centre(seen).to(self.model_device))
        if change != STILL:
            images = change(images).contiguous(memory_format=torch.channels_last)
        maps = feature_maps(self.model, images, self.what.trial.settings.precision)
        most = float(maps.abs().max())
        if not isfinite(most):
            raise RowsError(self._not_finite())
        if most > torch.finfo(self.dtype).max:
            raise RowsError(
                f"the maps hold values up to {most:.3g}, more than half precision can (65,504): --precision float32 "
                f"keeps them whole"
            )
        return maps

    def _not_finite(self) -> str:
        tensors = self.model.features.state_dict().items()
        wrong = [name for name, tensor in tensors if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
        if wrong:
            return f"the backbone's weights hold NaN or infinity ({', '.join(wrong[:3])}): take others"
        return (
            f"the backbone's maps hold NaN or infinity, though its weights do not: its values are too large for "
            f"{self.what.trial.settings.precision}"
        )

    def _keep(
        self,
        name: str,
        rows: Rows,
        change: Change,
        make: Callable[[int, int], Tensor],
        dtype: torch.dtype,
        pools: tuple[str, ...] = (),
        counts: bool = True,
    ) -> RowCache:
        about = {**self.what.trial.backbone_facts(), "rows": digest_of(rows), "change": str(change), "pools": pools}
        own = [digest(POOLS[layer.name]) for layer in self.pools.values() if is_own(layer.name)]
        about |= {"own pools": own} if own else {}
        before, total = self.before, self.what.images
        step = change.batch_size(self.what.trial.settings.batch_size, self.what.trial.preprocessing.size)
        told = (lambda done, _: self.send((before + done, total))) if counts else None
        kept = compute_rows(self.folder, name, about, len(rows), make, step, dtype, told, self.send)
        self.before += len(rows) if counts else 0
        return RowCache(Path(cast(np.memmap[Any, Any], kept).filename or ""), rows)
