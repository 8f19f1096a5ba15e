"""DATA as the models before and after see it: split, numbered, and decoded now or later."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapstone.console.formatting import count_noun, display
from gapstone.console.progress import Bars
from gapstone.converting.convert_request import ConvertRequest
from gapstone.converting.convertible import ConvertibleModel
from gapstone.data.decoded_store import StoreError, build
from gapstone.data.scan import Scan, scan
from gapstone.data.sources import Source
from gapstone.data.split import DataSplit, split
from gapstone.fitting.image_batches import View, native_view, resized_view, stored_view
from gapstone.images.cropping import cropping_note
from gapstone.images.intensity_range import UNDECIDED
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import not_native
from gapstone.training.training_data import content_digest


@dataclass(frozen=True, eq=False)
class ModelViews:
    """DATA, split and numbered as the new model numbers its classes."""

    view: View
    """As it is fitted to, and as the new model sees it."""
    before: View
    """As the model before sees it: the same, if its head takes any size."""
    labels: NDArray[np.int64]
    parts: DataSplit
    """In rows of these."""
    key: object
    """Of what is shown, and how."""


def model_views(
    source: Source,
    labels: tuple[str, ...],
    model: ConvertibleModel,
    folder: Path,
    request: ConvertRequest,
    bars: Bars,
) -> ModelViews:
    """Checked, split, and either decoded into a store in `folder` or, as they are, decoded when they are looked at.

    Raises: as `split` and `build`; the views StoreError, for a file that can no longer be read.
    """
    found = scan(source, progress=bars("Checking images"), threshold=request.duplicate_threshold)
    if request.native:
        found = _without(found, model.smallest, bars)
    chosen = split(source, found, seed=request.seed, limit=request.limit, duplicates=request.duplicates)
    bars.say(
        f"{count_noun(len(chosen.train), 'image')} to fit to, {len(chosen.validation):,} to choose by, "
        f"{len(chosen.test):,} "
        f"to test on: {chosen.described}."
    )
    if not request.native and (cut := cropping_note(model.preprocessing, found.size_counts())):
        bars.say(cut)
    used = np.unique(np.concatenate([chosen.train, chosen.validation, chosen.test]))
    numbers = np.array([labels.index(name) for name in source.classes])
    if (ranges := model.preprocessing.ranges.or_else(found.ranges)) != UNDECIDED:
        # a network that was trained on 8 bits says nothing of more: the new model keeps what these images are shown by
        model.trunk.preprocessing = replace(model.preprocessing, ranges=ranges)
        bars.say(f"Pixels of more than 8 bits: {ranges} become 0…255, in all images alike; the model keeps that.")
    device, preprocessing = next(model.trunk.parameters()).device, model.preprocessing
    if request.native:

        def decode(row: int) -> NDArray[np.uint8]:
            try:
                return source.pixels(row, sha256=found.facts[row].sha256, ranges=preprocessing.ranges)
            except ImageError as error:  # it could be read when it was checked: no fault of DATA
                raise StoreError(
                    f"{display(found.names[row])}: {error}. Run the same command again: it looks at the images anew."
                ) from error

        view = native_view(decode, preprocessing, model.smallest, device)
        before = view if model.only is None else resized_view(decode, preprocessing, device)
        return ModelViews(view, before, numbers[source.labels], chosen, ["native", content_digest(source, found, used)])
    tell = bars("Decoding images")
    store = build(source, used, preprocessing, folder / "store", scan=found, progress=tell, say=bars.say)
    train, validation, test = (store.rows(part) for part in (chosen.train, chosen.validation, chosen.test))
    parts = replace(chosen, train=train, validation=validation, test=test)
    view = stored_view(store, preprocessing, device)
    return ModelViews(view, view, numbers[store.labels], parts, store.key)


def _without(found: Scan, smallest: int, bars: Bars) -> Scan:
    """Pictures that cannot be seen as they are count as unusable, and are said."""
    reasons = [None if f.reason else not_native(f.size[1], f.size[0], smallest) for f in found.facts]
    out = [f"{display(name)}: {reason}" for name, reason in zip(found.names, reasons, strict=True) if reason]
    if not out:
        return found
    more = f" (and {len(out) - 1:,} more)" if len(out) > 1 else ""
    bars.say(f"Left out, as they cannot be seen as they are: {out[0]}{more}.")
    pairs = zip(found.facts, reasons, strict=True)
    return replace(found, facts=tuple(replace(f, reason=reason) if reason else f for f, reason in pairs))
