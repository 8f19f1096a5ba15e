"""From DATA to training data: checks, splits and decodes the images; chooses network, image size and settings."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone import nets
from gapstone.console.formatting import count_noun, display, format_size
from gapstone.console.options import at_least as at_least
from gapstone.data.choose_size import choose_size
from gapstone.data.decoded_store import Store, build, moments
from gapstone.data.open_source import open_source
from gapstone.data.sample_weights import describe_weights
from gapstone.data.scan import Scan, content_digest, scan
from gapstone.data.seen_images import seen_images, without_seen
from gapstone.data.sources import Source
from gapstone.data.split import DataSplit, folds, split, together
from gapstone.data.split_shares import shares_for
from gapstone.heads import Reads, parse
from gapstone.images.as_picture import same_channels, seen_as
from gapstone.images.augment import Augment, suit
from gapstone.images.cropping import cropping_note
from gapstone.images.intensity_range import UNDECIDED
from gapstone.images.preprocessing import Preprocessing, parse_size
from gapstone.images.resizing import EXACT, Resizing
from gapstone.models.backbone_weights import BackboneWeights, digest, read_weights
from gapstone.models.class_probabilities import check_multi_label
from gapstone.models.trained_on import NOTHING, UNKNOWN, TrainedOn
from gapstone.nets.hf_folder import PREFIX
from gapstone.nets.on_meta import on_meta
from gapstone.nets.own_features import OwnFacts, own_facts
from gapstone.storage.paths import check_input, format_bytes
from gapstone.training.balance import check_balance
from gapstone.training.choose_backbone import DEFAULT, SMALL, BackboneChoice, BackboneMode, check_start, choose_backbone
from gapstone.training.drawn_rows import DrawnRows
from gapstone.training.loop import Rows, TrainSettings
from gapstone.training.network_checks import check_drawn, check_finite
from gapstone.training.rates_and_epochs import epochs_for, learning_rate_for
from gapstone.training.train_options import TrainOptions as TrainOptions

WORTH_SAYING = 1e9
"""Bytes on disk."""
_COLOURS = {1: "gray", 3: "colour"}

Log = Callable[[str], None]
StartProgress = Callable[[str], Callable[[int, int], None]]
"""Called with a description of a task; returns a function to call with (done, total)."""


@dataclass(frozen=True)
class TrainingPlan:
    """All decisions about the training, made and checked before anything is written."""

    source: Source
    scan: Scan
    splits: tuple[DataSplit, ...]
    """One per seed or fold, in rows of the store."""
    used: Rows
    """Indices into source.items, by row of the store."""
    groups: Rows
    """A number for each row of the store, shared by images that are not independent: of one group, or copies."""
    preprocessing: Preprocessing
    """With placeholder moments: the real ones are measured on the decoded images."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None
    """(mean, std) that the trained weights expect; None if unknown."""
    backbone: str
    settings: TrainSettings
    device: str
    folds: bool
    pretrained: bool
    """The backbone starts from the weights that timm publishes, or of the folder that `hf:` names."""
    frozen: bool
    """The backbone is not trained."""
    weights_digest: str | None
    """Digest of the weights that the backbone starts from; known for --weights and a frozen backbone only."""
    pooler_digest: str | None
    """The same of the weights of its own pooler, where a head reads it."""
    from_model_file: bool
    """The weights come from a model of gapstone's, which was probably trained on this DATA."""
    trained_before: TrainedOn
    """The images that the weights were trained on; none of them is tested."""

    @property
    def drawn(self) -> DrawnRows | None:
        """Draws the training images by random transforms of the user's own."""
        return None if self.source.drawn is None else DrawnRows(self.source.drawn, self.used)

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """How much each row of the store counts in training; None: all the same."""
        return None if self.source.weights is None else self.source.weights[self.used]

    def trained_on(self, *rows: Rows) -> TrainedOn:
        """The images that a model has been trained on once it was trained on these rows of the store."""
        return self.trained_before.union(self.scan.content_hashes()[self.used[np.concatenate(rows)]])

    def decode(self, folder: Path, log: Log, start_progress: StartProgress) -> "TrainingData":
        """Decode the images into `folder`. Raises StoreError (a ValueError)."""
        size = len(self.used) * self.preprocessing.channels * math.prod(self.preprocessing.stored)
        if size > WORTH_SAYING:
            log(f"Decoded images take {format_bytes(size)} on disk, in {display(folder)}.")
        progress = start_progress("Decoding images")
        store = build(self.source, self.used, self.preprocessing, folder, scan=self.scan, progress=progress, log=log)
        # moments of the images that are never tested; with folds of all, as one mean and std leak no label
        first = self.splits[0]
        rows = np.arange(len(self.used)) if self.folds else np.union1d(first.train, first.validation)
        mean, std = self.moments or moments(store, rows)
        decisions = vars(self) | {"preprocessing": replace(self.preprocessing, mean=mean, std=std)}
        return TrainingData(**decisions, store=store, hash=content_digest(self.source, self.scan, self.used))


@dataclass(frozen=True)
class TrainingData(TrainingPlan):
    """A plan and its decoded images, whose moments `preprocessing` has."""

    store: Store
    hash: str
    """Hash of the content and label of every image used."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.classes


def plan_training(
    options: TrainOptions,
    seeds: Sequence[int],
    k: int | None,
    log: Log,
    start_progress: StartProgress,
    weights: Path | None = None,
    mode: BackboneMode = "auto",
    heads: Sequence[str] = (),
    replaceable: bool = False,
) -> TrainingPlan:
    """Check the images, split them and choose network and settings; writes nothing.

    There is a split for each seed, all with the same test images, or k folds. `weights` is a file that the backbone
    starts from (`gapstone.models.backbone_weights`); a model of gapstone's names its backbone and preprocessing. If the
    backbone is frozen, which `mode` decides, images are not augmented. The backbone has to have what the `heads` read.
    `replaceable`: the caller leaves out heads that cannot answer several labels, which are refused otherwise.

    Raises:
        ValueError: data, sizes or networks that do not fit together; each says what to do.
    """
    reads = [parse(head).reads for head in heads]
    _check_names(options, weights, mode, reads)
    device = pick_device(options.device)
    source = _open(options, start_progress)
    if source.multi_label:
        check_balance(options.balance)
        for head in () if replaceable else heads:
            check_multi_label(head)
    scanned = scan(source, progress=start_progress("Checking images"), threshold=options.duplicate_threshold)
    for hint in (*source.hints, *scanned.hints):
        log(hint)
    duplicates, splits = options.duplicates, _splits(options, source, scanned, seeds, k)
    net = _choose_network(options, source, scanned, weights, mode, reads)
    if source.drawn is not None:
        check_drawn(source.drawn, net.choice, log)
    seen = seen_images(source, scanned, net.trained_before.contains(scanned.content_hashes()), duplicates)
    splits = without_seen(source, splits, seen, f"--weights {display(weights or '')}")
    for said in (f"Backbone: {net.choice.described}", *net.said(weights), *net.of_channels()):
        log(f"{said}.")
    size, channels = net.size, net.channels
    used = np.unique(np.concatenate([rows for parts in splits for rows in (parts.train, parts.validation, parts.test)]))
    splits = [_in_store_rows(parts, used) for parts in splits]
    colours = f"{format_size(size)} px, {_COLOURS.get(channels, f'{channels} channels')}"
    of = f"{count_noun(len(used), 'image')} of {count_noun(len(source.classes), 'class', 'classes')}"
    log(f"{of}; the network sees {colours}.")
    moments = (0.5,) * channels, (0.25,) * channels
    preprocessing = Preprocessing(channels, size, net.stored, *moments, resizing=net.resizing)
    if note := cropping_note(preprocessing, scanned.size_counts()):
        log(note)
    log(splits[0].described)
    if source.weights is not None:
        log(describe_weights(source, [used[parts.train] for parts in splits], options.sample_weight or ""))
    if source.grouping is not None:
        log(f"{source.grouping.described}; each is on one side of the split.")
    # a model whose weights are used keeps the intensity ranges that it was trained with
    trained_with = net.start.preprocessing if net.start else None
    ranges = trained_with.ranges.or_else(scanned.ranges) if trained_with is not None else scanned.ranges
    if ranges != UNDECIDED:
        log(f"Pixels of more than 8 bits: {ranges} become 0…255, in all images alike; the model keeps that.")
    given = net.own is not None and net.own.fixed_weights
    known = net.start is not None or net.choice.freeze or net.choice.backbone.startswith(PREFIX) or given
    return TrainingPlan(
        source=source,
        scan=scanned,
        splits=tuple(splits),
        used=used,
        groups=together(source, scanned, duplicates)[used],
        preprocessing=replace(preprocessing, ranges=ranges),
        moments=net.moments,
        backbone=net.choice.backbone,
        settings=_settings(options, net, len(splits[0].train), source.drawn is not None),
        device=device,
        folds=bool(k),
        pretrained=net.choice.pretrained,
        frozen=net.choice.freeze,
        weights_digest=digest(net.features) if known else None,
        pooler_digest=digest(net.features, pooler=True) if known and net.features.own_width else None,
        from_model_file=trained_with is not None,
        trained_before=net.trained_before,
    )


def _open(options: TrainOptions, start_progress: StartProgress) -> Source:
    named = options.group, options.group_pattern, options.multi_label
    return open_source(options.data, *named, start_progress, options.augmented, options.sample_weight)


def _splits(
    options: TrainOptions, source: Source, scanned: Scan, seeds: Sequence[int], k: int | None
) -> list[DataSplit]:
    """One for each seed, or k folds."""
    limit, duplicates, shares = options.limit, options.duplicates, shares_for(options.split, source, k)
    if k:
        return folds(source, scanned, k, limit=limit, duplicates=duplicates)
    return [split(source, scanned, seed=seed, limit=limit, duplicates=duplicates, **shares) for seed in seeds]


@dataclass(frozen=True)
class _Network:
    """The backbone, and the size and channels of its images."""

    choice: BackboneChoice
    features: nets.Features
    channels: int
    size: tuple[int, int]
    stored: tuple[int, int]
    resizing: Resizing
    start: BackboneWeights | None
    """The weights of --weights."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None
    """(mean, std) that the weights expect of images."""
    own: OwnFacts | None
    """Of a network of the user's own."""

    def said(self, weights: Path | None) -> list[str]:
        """What of the file of weights was taken, in words."""
        return [f"--weights {display(weights or '')}: {said}" for said in (self.start.said if self.start else ())]

    def of_channels(self) -> list[str]:
        """Of channels that are not gray or RGB: how they are shown, and what became of weights for RGB, in words."""
        shown = seen_as(self.channels)
        if shown is None or not self.choice.pretrained:
            return [] if shown is None else [shown]
        return [
            shown,
            f"Its first convolution was trained on RGB: timm repeats it for {self.channels} channels, scaled by "
            f"3/{self.channels}",
        ]

    @property
    def trained_before(self) -> TrainedOn:
        """What a folder of transformers was trained on is not known; nor what weights of other programs were."""
        if self.start is not None:
            return self.start.trained_on
        given = self.own is not None and self.own.fixed_weights
        return UNKNOWN if given or self.choice.backbone.startswith(PREFIX) else NOTHING


def _choose_network(
    options: TrainOptions,
    source: Source,
    scan: Scan,
    weights: Path | None,
    mode: BackboneMode,
    reads: Sequence[Reads],
) -> _Network:
    """Raises ValueError for a size that the network does not take, weights that do not fit it, and heads that read
    what it does not have.
    """
    size, stored = choose_size(source, scan, options.size)
    resizing, pooler = EXACT, any(read.own for read in reads)
    start = read_weights(weights, options.backbone, scan.channels, pooler) if weights is not None else None
    file = display(weights) if weights is not None else None
    name = start.backbone if start else options.backbone
    choice = choose_backbone(name, options.pretrained, file, mode, max(size))
    backbone = choice.backbone
    expected = start.preprocessing or start.published if start else None
    if choice.pretrained:
        expected = nets.pretrained_input(backbone)
    from_folder = backbone.startswith(PREFIX)
    channels = expected.channels if expected and from_folder else start.channels if start else scan.channels
    if (own := own_facts(backbone)) is not None:
        channels, expected = own.in_channels, own.expected
    if not same_channels(channels, scan.channels):
        raise ValueError(_other_channels(display(file or backbone), channels, scan.channels, own is not None))
    # download the weights here, once: otherwise a failed download is reported only after every trial has failed
    features = nets.build(backbone, in_channels=channels, pretrained=choice.pretrained, pooler=pooler)
    for read in reads:
        features.check_reads(read)
    if expected is not None and not options.size and (max(size) > SMALL or (start and start.preprocessing)):
        size, stored, resizing = expected.size, expected.stored, expected.resizing
    # a grey image is not the mean of three normalised colours
    moments = (expected.mean, expected.std) if expected and expected.channels == channels else None
    if start:
        features.load_state_dict(start.state)
        check_finite(features, channels, weights)
    if features.fixed and size != features.fixed:
        if options.size:
            raise ValueError(f"--size {options.size}: {backbone} takes only {format_size(features.fixed)} px.")
        size = stored = features.fixed
        resizing = EXACT
    if min(size) < features.smallest:
        raise ValueError(
            f"{backbone} needs images of at least {features.smallest} px a side, these are {format_size(size)}: "
            f"--size {features.smallest} enlarges them, --backbone nin takes them as they are."
        )
    return _Network(choice, features, channels, size, stored, resizing, start, moments, own)


def _other_channels(who: str, takes: int, have: int, own: bool) -> str:
    """What is wrong with images of other channels than the network takes."""
    way = f"give one whose first layer takes {have}, or" if own else "take"
    return (
        f"{who} takes images of {count_noun(takes, 'channel')}, and these have {have}: {way} a network by its name: "
        f"--backbone nin and the others are made for {have}, and timm:NAME has its first convolution adapted."
    )


def _settings(options: TrainOptions, net: _Network, images: int, own_transforms: bool) -> TrainSettings:
    """Choose the settings for `images` training images, which `own_transforms` augment."""
    own_trained = net.own is not None and net.own.trained is True
    if options.patience is not None and net.choice.freeze:
        raise ValueError(
            f"--patience {options.patience} ends the training of a whole network early, and this backbone is frozen: "
            f"its heads are trained for all epochs, and the best one is taken. Leave it out, or take --finetune."
        )
    augmented = options.augment == "auto" and not (net.choice.freeze or own_transforms)
    trained = net.choice.pretrained or net.start is not None or own_trained
    return TrainSettings(
        epochs=options.epochs or epochs_for(images),
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate or learning_rate_for(net.features, options.optimizer, trained),
        weight_decay=TrainSettings.weight_decay if options.weight_decay is None else options.weight_decay,
        augment=suit(net.channels, net.size, net.stored) if augmented else Augment(),
        precision="float32" if options.precision == "auto" else options.precision,
        balance=options.balance,
        patience=TrainSettings.patience if options.patience is None else options.patience,
    )


def _check_names(options: TrainOptions, weights: Path | None, mode: BackboneMode, reads: Sequence[Reads]) -> None:
    """Raises ValueError for options that are wrong whatever the images are: checking those may take minutes."""
    named = display(weights) if weights is not None else None
    check_start(options.pretrained, named, mode)  # a network takes seconds to look at
    if options.size is not None:
        parse_size(options.size)
    if weights is not None:
        check_input(f"--weights {named}", weights)
    if options.backbone is not None:
        own = own_facts(options.backbone)
        with on_meta() if own is None else nullcontext():  # shapes alone: no memory, no weights
            channels = 3 if own is None else own.in_channels
            features = nets.build(options.backbone, channels, pooler=any(read.own for read in reads))
        for read in reads:
            features.check_reads(read)
    name = options.backbone if weights is None else options.backbone or "of --weights"
    choose_backbone(name, options.pretrained, named, mode, side=0)
    backbone = options.backbone or DEFAULT
    if options.pretrained and not backbone.startswith("timm:"):
        raise ValueError(f"--pretrained: {backbone} starts from random weights; timm:resnet18 has pretrained ones.")
    if options.pretrained:
        nets.check_pretrained(backbone.removeprefix("timm:"))


def pick_device(name: str) -> str:
    """The device of that name; `auto` is the GPU if torch sees one, else the CPU.

    Raises:
        ValueError: torch cannot use the device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: torch cannot use it here ({why}); take cpu, or auto.") from error
    return name


def _in_store_rows(parts: DataSplit, used: Rows) -> DataSplit:
    train, validation, test = (np.searchsorted(used, part) for part in (parts.train, parts.validation, parts.test))
    return replace(parts, train=train, validation=validation, test=test)
