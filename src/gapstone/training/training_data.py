"""From DATA to what training needs: images checked, split, decoded; network, size and settings decided."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from gapstone import nets
from gapstone.console.formatting import count_noun, display, format_size
from gapstone.console.options import at_least as at_least
from gapstone.data.choose_size import choose_size
from gapstone.data.decoded_store import Store, build, moments
from gapstone.data.near_duplicates import check_threshold
from gapstone.data.open_source import open_source
from gapstone.data.scan import Scan, scan
from gapstone.data.sources import Source
from gapstone.data.split import DataSplit, Duplicates, folds, split
from gapstone.images.augment import Augment, suit
from gapstone.images.cropping import cropping_note
from gapstone.images.intensity_range import UNDECIDED
from gapstone.images.preprocessing import Preprocessing, parse_size
from gapstone.models.backbone_weights import BackboneWeights, digest, read_weights
from gapstone.nets.on_meta import on_meta
from gapstone.storage.paths import check_input
from gapstone.training.loop import Rows, TrainSettings

SMALL = 64  # px: up to here images are small, and the small NIN trains in minutes

Say = Callable[[str], None]
Progress = Callable[[str], Callable[[int, int], None]]
"""Names a piece of work; gives a function that is told (done, of how many)."""


@dataclass(frozen=True)
class TrainOptions:
    """What the user chose for the training; None means: decide."""

    data: str
    backbone: str | None = None
    pretrained: bool = False
    size: str | None = None
    limit: int | None = None
    epochs: int | None = None
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    weight_decay: float = 5e-4
    augment: Literal["auto", "none"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    duplicates: Duplicates = "group"
    duplicate_threshold: float | None = None

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs)
        at_least(2, limit=self.limit, batch_size=self.batch_size)
        if self.learning_rate is not None and not 0 < self.learning_rate < 100:
            raise ValueError(f"--learning-rate {self.learning_rate}: must be more than 0 and less than 100.")
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"--weight-decay {self.weight_decay}: must be at least 0 and less than 1.")
        for name, words in (
            ("optimizer", ("sgd", "adamw")),
            ("augment", ("auto", "none")),
            ("precision", ("auto", "float32", "bfloat16")),
            ("duplicates", ("group", "drop", "keep")),
        ):
            if getattr(self, name) not in words:
                raise ValueError(f"--{name} {getattr(self, name)}: must be {' or '.join(words)}.")
        check_threshold(self.duplicate_threshold)


@dataclass(frozen=True)
class TrainingData:
    source: Source
    scan: Scan
    splits: tuple[DataSplit, ...]
    """One per seed or fold; rows of the store."""
    store: Store
    preprocessing: Preprocessing
    backbone: str
    settings: TrainSettings
    device: str
    hash: str
    """Of the content and label of every image used."""
    weights: str | None = None
    """Digest of the weights the backbone starts from, where they are known here: --weights or --freeze."""
    trained: bool = False
    """The weights are a gapstone model's, which was most likely trained on this DATA; of others nobody knows."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.classes


@dataclass(frozen=True)
class TrainingPlan:
    """All that is decided before anything is written: whatever cannot be has been refused by now."""

    choices: TrainOptions
    source: Source
    scan: Scan
    splits: tuple[DataSplit, ...]
    """One per seed or fold; positions in `used`, which become rows of the store."""
    used: Rows
    """Indices into source.items."""
    plain: Preprocessing
    """Without the moments, which are measured on the decoded images."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None
    """(mean, std) that the trained weights expect, where they are known."""
    backbone: str
    settings: TrainSettings
    device: str
    folds: bool
    weights: str | None
    trained: bool

    def decode(self, folder: Path, say: Say, progress: Progress) -> TrainingData:
        """Decode the images into `folder`. Raises StoreError (a ValueError)."""
        tell = progress("Decoding images")
        store = build(self.source, self.used, self.plain, folder, scan=self.scan, progress=tell, log=say)
        # of everything that is never tested; with folds every image is tested once, and one mean for all leaks no label
        first = self.splits[0]
        seen = np.arange(len(self.used)) if self.folds else np.union1d(first.train, first.validation)
        mean, std = self.moments or moments(store, seen)
        return TrainingData(
            source=self.source,
            scan=self.scan,
            splits=self.splits,
            store=store,
            preprocessing=replace(self.plain, mean=mean, std=std),
            backbone=self.backbone,
            settings=self.settings,
            device=self.device,
            hash=content(self.source, self.scan, self.used),
            weights=self.weights,
            trained=self.trained,
        )


def prepare_training_data(
    choices: TrainOptions, seeds: Sequence[int], k: int | None, folder: Path, say: Say, progress: Progress
) -> TrainingData:
    """`decide`, then decode the images into `folder`."""
    return plan_training(choices, seeds, k, say, progress).decode(folder, say, progress)


def plan_training(
    choices: TrainOptions,
    seeds: Sequence[int],
    k: int | None,
    say: Say,
    progress: Progress,
    weights: Path | None = None,
    freeze: bool = False,
) -> TrainingPlan:
    """Look at the images and decide; nothing is written. One split per seed, all with the same test images; with `k`, k
    folds instead.

    weights: a file the backbone starts from (`gapstone.models.backbone_weights`); a model of gapstone's says which
    backbone it is, and what it expects of images. freeze: the backbone is not trained, and nothing is augmented.

    Raises: ValueError for data, sizes or networks that do not fit together, each with what to do.
    """
    _check_names(choices, weights)
    device = pick_device(choices.device)
    source = open_source(choices.data)
    found = scan(source, progress=progress("Checking images"), threshold=choices.duplicate_threshold)
    if k:
        splits = list(folds(source, found, k, seed=0, limit=choices.limit, duplicates=choices.duplicates))
    else:
        splits = [split(source, found, seed=seed, limit=choices.limit, duplicates=choices.duplicates) for seed in seeds]
    net = _choose_network(choices, source, found, weights)
    size, channels = net.size, net.channels
    used = np.unique(np.concatenate([np.concatenate([s.train, s.validation, s.test]) for s in splits]))
    splits = [_rows(parts, used) for parts in splits]
    colours = "gray" if channels == 1 else "colour"
    classes = count_noun(len(source.classes), "class", "classes")
    say(f"{count_noun(len(used), 'image')} of {classes}; the network sees {format_size(size)} px, {colours}.")
    plain = Preprocessing(channels, size, net.stored, (0.5,) * channels, (0.25,) * channels)
    if cut := cropping_note(plain, found.size_counts()):
        say(cut)
    say(splits[0].described)
    # of a model whose weights are used, what it was trained with
    known = net.start.preprocessing if net.start else None
    ranges = known.ranges.or_else(found.ranges) if known is not None else found.ranges
    if ranges != UNDECIDED:
        say(f"Pixels of more than 8 bits: {ranges} become 0…255, in all images alike; the model keeps that.")
    return TrainingPlan(
        choices=choices,
        source=source,
        scan=found,
        splits=tuple(splits),
        used=used,
        plain=replace(plain, ranges=ranges),
        moments=net.moments,
        backbone=net.backbone,
        settings=_settings(choices, net, len(splits[0].train), freeze),
        device=device,
        folds=bool(k),
        weights=digest(net.features) if net.start or freeze else None,
        trained=known is not None,
    )


@dataclass(frozen=True)
class _Network:
    """The backbone, and the images it will see."""

    backbone: str
    features: nets.Features
    channels: int
    size: tuple[int, int]
    stored: tuple[int, int]
    start: BackboneWeights | None
    """The weights that the user named."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None
    """(mean, std) that the weights expect of images."""


def _choose_network(choices: TrainOptions, source: Source, found: Scan, weights: Path | None) -> _Network:
    """Raises ValueError for a size that the network does not take, and for weights that do not fit it."""
    size, stored = choose_size(source, found, choices.size)
    start = read_weights(weights, choices.backbone, found.channels) if weights is not None else None
    if start and start.preprocessing is not None and not choices.size:
        size, stored = start.preprocessing.size, start.preprocessing.stored
    backbone = start.backbone if start else choices.backbone or ("nin" if max(size) <= SMALL else "resnet18")
    channels = start.channels if start else found.channels
    # fetched here once: a trial that cannot have them would say so only when all others have failed too
    features = nets.build(backbone, in_channels=channels, pretrained=choices.pretrained)
    moments = None
    if choices.pretrained and channels == 3:
        moments = nets.pretrained_moments(backbone.removeprefix("timm:"))
    if start:
        features.load_state_dict(start.state)
        _check_finite(features, channels, weights)
        moments = start.moments or moments
    if features.fixed and size != features.fixed:
        if choices.size:
            raise ValueError(f"--size {choices.size}: {backbone} takes only {format_size(features.fixed)} px.")
        size = stored = features.fixed
    if min(size) < features.smallest:
        raise ValueError(
            f"{backbone} needs images of at least {features.smallest} px a side, these are {format_size(size)}: "
            f"--size {features.smallest} enlarges them, --backbone nin takes them as they are."
        )
    return _Network(backbone, features, channels, size, stored, start, moments)


def _settings(choices: TrainOptions, net: _Network, images: int, freeze: bool) -> TrainSettings:
    """How `images` training images are trained on; `freeze`: heads alone, on features that are there."""
    trained = choices.pretrained or net.start is not None
    return TrainSettings(
        epochs=choices.epochs or epochs_for(images),
        batch_size=choices.batch_size,
        optimizer=choices.optimizer,
        # heads alone start from nothing: at the careful rate, 40 epochs leave those with small inputs (gap) unfinished
        learning_rate=choices.learning_rate
        or learning_rate_for(net.features, choices.optimizer, trained and not freeze),
        weight_decay=choices.weight_decay,
        augment=suit(net.channels, net.size, net.stored) if choices.augment == "auto" and not freeze else Augment(),
        precision="float32" if choices.precision == "auto" else choices.precision,
    )


def _check_names(choices: TrainOptions, weights: Path | None) -> None:
    """What can be known to be wrong before the images are looked at, which may take minutes."""
    if choices.size is not None:
        parse_size(choices.size)
    if weights is not None:
        check_input(f"--weights {display(weights)}", weights)
    if choices.backbone is not None:
        with on_meta():  # shapes alone: no memory, no weights
            nets.build(choices.backbone)
    if choices.pretrained:
        backbone = choices.backbone or "the default backbone"
        if not backbone.startswith("timm:"):
            raise ValueError(
                f"--pretrained: {backbone} starts from random weights; --backbone timm:resnet18 has pretrained ones."
            )
        nets.check_pretrained(backbone.removeprefix("timm:"))


@torch.inference_mode()
def _check_finite(features: nets.Features, channels: int, weights: Path | None) -> None:
    """Weights may be finite and their maps not: every trial would end in its first epoch."""
    side = features.fixed or (max(features.smallest, SMALL),) * 2
    noise = torch.randn(1, channels, *side, generator=torch.Generator().manual_seed(0))
    features.eval()
    maps: torch.Tensor = features(noise)
    features.train()
    if not bool(torch.isfinite(maps).all()):
        raise ValueError(
            f"--weights {display(weights or '')}: its weights are finite, but the maps they make are NaN or infinite: "
            f"its numbers overflow. Take another file."
        )


def epochs_for(images: int) -> int:
    """About 75,000 images seen, in 10 to 40 epochs: a small NIN is then trained in seconds to minutes.

    >>> epochs_for(1300), epochs_for(5000), epochs_for(50000)
    (40, 15, 10)
    """
    return max(10, min(40, round(75_000 / max(images, 1))))


def learning_rate_for(features: nn.Module, optimizer: str, trained: bool) -> float:
    """SGD: 0.05, or 0.01 for trained weights and for networks without a norm, which diverge at 0.05."""
    norms = ("BatchNorm", "LayerNorm", "GroupNorm")
    plain = not any(norm in type(module).__name__ for module in features.modules() for norm in norms)
    careful = trained or plain
    if optimizer == "adamw":
        return 1e-4 if careful else 1e-3
    return 0.01 if careful else 0.05


def pick_device(asked: str) -> str:
    """The device of that name; `auto` is the GPU, where torch sees one.

    Raises:
        ValueError: a device that cannot be used here.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=asked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"--device {asked}: torch cannot use it here ({why}); take cpu, or auto.") from error
    return asked


def _rows(parts: DataSplit, used: Rows) -> DataSplit:
    """The same split, counted in rows of the store."""
    train, validation, test = (np.searchsorted(used, part) for part in (parts.train, parts.validation, parts.test))
    return replace(parts, train=train, validation=validation, test=test)


def content(source: Source, found: Scan, used: Rows) -> str:
    """A hash of the content and label of every image used."""
    digest = hashlib.sha256(json.dumps(source.classes).encode())
    for i in used:
        item = source.items[i]
        digest.update(json.dumps([item.name, item.label, found.facts[i].sha256]).encode())
    return digest.hexdigest()[:16]
