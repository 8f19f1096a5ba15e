"""Quantises the trunk of an ONNX file to 8-bit integers, and measures the loss on the user's own images."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.sources import Source
from gapstone.data.split import Duplicates, split
from gapstone.export.to_onnx import TRUNK, read_onnx
from gapstone.export.verify import pictures
from gapstone.maps.open_model import ImageModel
from gapstone.models.classifier import Classifier
from gapstone.runtime.timing import side_by_side, take_turns
from gapstone.statistics.labels import all_right, answers_of_logits, is_multi_label

CALIBRATED = 128
"""Number of images for the ranges of activations; at least one per class."""

BATCH = 16
SECONDS = 3.0  # of timing both files in turns, after five rounds


@dataclass(frozen=True)
class QuantisationCost:
    """What quantisation changes on `images` that were not used for calibration."""

    images: int
    calibrated: int
    right_before: int
    right_after: int
    lost: int
    """Images with a right prediction before and a wrong one after; with several labels, right in all of them."""
    won: int
    same: int
    """Images with the same prediction, right or wrong."""
    maps: float | None
    """Mean over images of the largest difference of the maps, as a share of the largest contribution."""
    bytes_before: int
    bytes_after: int
    paces: str
    """Milliseconds per image at the usual size, of both files, as text."""
    multi_label: bool = False
    """With several labels per image."""

    @property
    def verdict(self) -> str:
        """A sentence with all numbers on accuracy."""
        before, after = (100 * right / self.images for right in (self.right_before, self.right_after))
        change = self.right_after - self.right_before
        what = "right in all labels" if self.multi_label else "accuracy"
        numbers = (
            f"{what} {before:.1f} % before, {after:.1f} % after, on {self.images:,} images ({self.lost:,} lost, "
            f"{self.won:,} won); {100 * self.same / self.images:.1f} % of the predictions are the same"
        )
        if change < 0:
            return f"int8 is LESS ACCURATE here: {numbers}."
        return f"int8 is as accurate here: {numbers}." if change == 0 else f"int8 does no harm here: {numbers}."


@dataclass(frozen=True)
class Images:
    """The user's images: rows of the source for calibration, and others for measuring."""

    source: Source
    calibration: NDArray[np.int64]
    held_out: NDArray[np.int64]
    labels: NDArray[Any]
    """The class of every row of the source, as an index of the model's labels; or (n, K) bool of several labels."""
    described: str
    """How DATA was split."""


def choose_images(
    image_model: ImageModel,
    data: str,
    progress: Any = None,
    duplicates: Duplicates = "group",
    threshold: float | None = None,
) -> Images:
    """Split DATA as `gapstone train` does: with the training data, images to measure on were not trained on.

    Raises:
        DataError: If DATA cannot be read.
        SplitError: If it cannot be split.
        ValueError: If a class is unknown to the model, or the head of the model is unknown.
    """
    if not isinstance(image_model.model, Classifier):
        raise ValueError(
            f"--int8: of {image_model.name} it is not known which layers are the head, which stays in float; "
            f"leave it out"
        )
    source = open_source(data, multi_label=image_model.multi_label)
    if source.multi_label != image_model.multi_label:
        kinds = ["one class for each image", "any number of classes"]
        raise ValueError(
            f"--data {data} has {kinds[source.multi_label]}, and the model predicts {kinds[image_model.multi_label]}: "
            f"give images labelled as those it was trained on."
        )
    unknown = [name for name in source.classes if name not in image_model.labels]
    if unknown:
        raise ValueError(
            f"--data {data}: the model has no label {unknown[0]!r}"
            + (f" (nor {len(unknown) - 1} more of its classes)" if len(unknown) > 1 else "")
            + f"; its labels are {', '.join(image_model.labels[:8])}{', …' if len(image_model.labels) > 8 else ''}."
        )
    found = scan(source, progress=progress, threshold=threshold)
    found.check_channels(image_model.preprocessing.channels)
    parts = split(source, found, duplicates=duplicates)
    numbers = np.array([image_model.labels.index(name) for name in source.classes])
    labels = (
        numbers[source.labels] if not source.multi_label else np.zeros((len(source), len(image_model.labels)), bool)
    )
    if source.multi_label:
        labels[:, numbers] = source.labels
    return Images(source, _calibration_rows(parts.train, labels), parts.test, labels, parts.described)


def _calibration_rows(rows: NDArray[np.int64], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return CALIBRATED of the rows, taken from the classes in turn; an image of several when it is the first one's."""
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(rows)
    of_class = labels[shuffled] if is_multi_label(labels) else labels[shuffled, None] == np.unique(labels[rows])
    of_class = np.column_stack([of_class, ~of_class.any(1)])  # and of those without any
    turns = np.where(of_class, of_class.cumsum(0), len(rows) + 1).min(1)
    return np.sort(shuffled[np.argsort(turns, kind="stable")][: max(CALIBRATED, int(of_class.any(0).sum()))])


def quantise(float_file: Path, image_model: ImageModel, images: Images, out: Path) -> None:
    """Write `out` from `float_file`: weights are scaled per output channel, activations by the calibration images.

    The head stays in float: it is a thousandth of the work, and computes the maps.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    batches = ({"images": batch} for batch in _batches(image_model, images, images.calibration))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(batches, None)

    model = onnx.load(float_file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    outside = [node.name for node in model.graph.node if not node.name.startswith(TRUNK)]
    if len(outside) == len(model.graph.node):
        raise ValueError(f"--int8: {image_model.name} has no part that is known to be its trunk; export it in float.")
    with _quiet():
        quantize_static(
            model,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # 7-bit weights: without VNNI, x86 adds pairs of products in 16 bits, which 8-bit weights would saturate
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=outside,
            calibrate_method=CalibrationMethod.MinMax,
        )
    model = onnx.load(out)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**metadata, "int8": f"trunk, calibrated on {len(images.calibration)} images"})
    onnx.checker.check_model(model, full_check=True)
    out.write_bytes(model.SerializeToString())


def cost(before: Path, after: Path, image_model: ImageModel, images: Images, progress: Any = None) -> QuantisationCost:
    """Compare both files on the held-out images."""
    files = [read_onnx(path) for path in (before, after)]
    predictions: list[NDArray[Any]] = []
    differences: list[float] = []
    multi_label, done = image_model.multi_label, 0
    for batch in _batches(image_model, images, images.held_out):
        (logits_before, *maps_before), (logits_after, *maps_after) = (run(batch) for run in files)
        both = [answers_of_logits(logits, multi_label) for logits in (logits_before, logits_after)]
        predictions.append(np.stack(both))
        for a, b in zip(*(maps[0] if maps else () for maps in (maps_before, maps_after)), strict=True):
            differences.append(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)))
        done += len(batch)
        if progress is not None:
            progress(done, len(images.held_out))
    predicted_before, predicted_after = np.concatenate(predictions, axis=1)
    truth = images.labels[images.held_out]
    right_before, right_after = (all_right(truth, p) for p in (predicted_before, predicted_after))
    image = pictures(image_model, (1, image_model.preprocessing.channels, *image_model.preprocessing.size), 0).numpy()
    old, new = files
    timed = take_turns({"int8": lambda: new(image), "float": lambda: old(image)}, longest=SECONDS)
    return QuantisationCost(
        images=len(images.held_out),
        calibrated=len(images.calibration),
        right_before=int(right_before.sum()),
        right_after=int(right_after.sum()),
        lost=int((right_before & ~right_after).sum()),
        won=int((right_after & ~right_before).sum()),
        same=int(all_right(predicted_before, predicted_after).sum()),
        maps=float(np.mean(differences)) if differences else None,
        bytes_before=before.stat().st_size,
        bytes_after=after.stat().st_size,
        paces=side_by_side(timed),
        multi_label=multi_label,
    )


def _batches(image_model: ImageModel, images: Images, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Yield batches as the network takes them; few are in memory at a time."""
    p = image_model.preprocessing
    for start in range(0, len(rows), BATCH):
        batch_rows = rows[start : start + BATCH]
        fitted = np.stack([p.fit(images.source.pixels(int(row), ranges=p.ranges)) for row in batch_rows])
        yield p.normalise(p.centre(torch.from_numpy(fitted))).contiguous().numpy()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice that onnxruntime.quantization logs to the root logger; errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
