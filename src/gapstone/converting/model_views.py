"""Views of DATA for the models before and after: images split, labelled, and decoded now or on demand."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars
from gapstone.converting.before_and_after import ImageGroups
from gapstone.converting.conversion import ConvertRequest
from gapstone.converting.convertible import ConvertibleModel
from gapstone.data.decoded_store import StoreError, build
from gapstone.data.scan import Scan, content_digest, scan
from gapstone.data.seen_images import seen_images, unknown_images, without_seen
from gapstone.data.sources import Source
from gapstone.data.split import DataSplit, split, together
from gapstone.fitting.image_batches import View, native_view, resized_view, stored_view
from gapstone.images.cropping import cropping_note
from gapstone.images.intensity_range import UNDECIDED
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import not_native
from gapstone.models.trained_on import UNKNOWN, TrainedOn
from gapstone.statistics.labels import is_multi_label


@dataclass(frozen=True, eq=False)
class ModelViews:
    """The images of DATA, split, with the class numbers of the new model."""

    view: View
    """For fitting and for the new model."""
    before: View
    """For the old model: the same as `view` if its head takes any size."""
    labels: NDArray[Any]
    """(n,), or (n, K) bool of several labels per image."""
    split: DataSplit
    """In rows of the views and labels."""
    key: object
    """JSON that identifies the images and their preparation."""
    trained_on: TrainedOn
    """The images that the new model has been trained on once it is fitted."""
    tested: ImageGroups | None
    """Of the test images; None where each is by itself."""


def model_views(
    source: Source,
    labels: tuple[str, ...],
    model: ConvertibleModel,
    folder: Path,
    request: ConvertRequest,
    bars: Bars,
) -> ModelViews:
    """Check and split the images; decode them into a store in `folder` or, with `native`, whenever they are needed.

    Raises as `split` and `build`; the native views raise StoreError for a file that can no longer be read.
    """
    scanned = scan(source, progress=bars("Checking images"), threshold=request.duplicate_threshold)
    scanned.check_channels(model.preprocessing.channels)
    if request.native:
        scanned = _without_small_images(scanned, model.smallest, bars)
    parts = split(source, scanned, seed=request.seed, limit=request.limit, duplicates=request.duplicates)
    before, hashes = model.trunk.trained_on or UNKNOWN, scanned.content_hashes()
    seen = seen_images(source, scanned, before.contains(hashes), request.duplicates)
    (parts,) = without_seen(source, [parts], seen, display(request.model))
    trained_on = before.union(hashes[np.concatenate([parts.train, parts.validation])])
    bars.log(
        f"{count_noun(len(parts.train), 'image')} to fit to, {len(parts.validation):,} to choose by, "
        f"{len(parts.test):,} to test on: {parts.described}."
    )
    if model.whole is model.trunk and not before.complete:
        bars.log(unknown_images(display(request.model)))
    if not request.native and (note := cropping_note(model.preprocessing, scanned.size_counts())):
        bars.log(note)
    if source.grouping is not None:
        bars.log(f"{source.grouping.described}; each is on one side of the split.")
    tested = _tested(source, together(source, scanned, request.duplicates)[parts.test])
    used = np.unique(np.concatenate([parts.train, parts.validation, parts.test]))
    class_numbers = np.array([labels.index(name) for name in source.classes])
    if (ranges := model.preprocessing.ranges.or_else(scanned.ranges)) != UNDECIDED:
        # a model trained on 8-bit images has no range for deeper pixels: the new model keeps that of these images
        model.trunk.preprocessing = replace(model.preprocessing, ranges=ranges)
        bars.log(f"Pixels of more than 8 bits: {ranges} become 0…255, in all images alike; the model keeps that.")
    device, preprocessing = next(model.trunk.parameters()).device, model.preprocessing
    if request.native:

        def decode(row: int) -> NDArray[np.uint8]:
            try:
                return source.pixels(row, sha256=scanned.facts[row].sha256, ranges=preprocessing.ranges)
            except ImageError as error:  # the file has changed since it was checked
                raise StoreError(
                    f"{display(scanned.names[row])}: {error}. Run the same command again: it looks at the images anew."
                ) from error

        view = native_view(decode, preprocessing, model.smallest, device)
        before_view = view if model.only_size is None else resized_view(decode, preprocessing, device)
        key = ["native", content_digest(source, scanned, used)]
        return ModelViews(view, before_view, _renumbered(source.labels, class_numbers), parts, key, trained_on, tested)
    progress = bars("Decoding images")
    store = build(source, used, preprocessing, folder / "store", scan=scanned, progress=progress, log=bars.log)
    train, validation, test = (store.rows(part) for part in (parts.train, parts.validation, parts.test))
    parts = replace(parts, train=train, validation=validation, test=test)
    view = stored_view(store, preprocessing, device)
    return ModelViews(view, view, _renumbered(store.labels, class_numbers), parts, store.key, trained_on, tested)


def _tested(source: Source, groups: NDArray[np.int64]) -> ImageGroups | None:
    """Which of the test images belong together, as numbered by `groups`."""
    if source.grouping is not None:
        return ImageGroups(groups, source.grouping.by)
    return None if len(np.unique(groups)) == len(groups) else ImageGroups(groups, None)


def _renumbered(labels: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
    """The labels with the number that each class has in the new model."""
    return labels[:, np.argsort(numbers)] if is_multi_label(labels) else numbers[labels]


def _without_small_images(scanned: Scan, smallest: int, bars: Bars) -> Scan:
    """Mark images that the network cannot take in their own size as unusable, with a message."""
    reasons = [None if f.reason else not_native(f.size[1], f.size[0], smallest) for f in scanned.facts]
    refused = [f"{display(name)}: {reason}" for name, reason in zip(scanned.names, reasons, strict=True) if reason]
    if not refused:
        return scanned
    more = f" (and {len(refused) - 1:,} more)" if len(refused) > 1 else ""
    bars.log(f"Left out, as they cannot be seen as they are: {refused[0]}{more}.")
    pairs = zip(scanned.facts, reasons, strict=True)
    return replace(scanned, facts=tuple(replace(f, reason=reason) if reason else f for f, reason in pairs))
