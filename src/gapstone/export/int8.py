"""The same ONNX file with its trunk in 8-bit whole numbers, and what that costs on the user's own images."""

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

CALIBRATED = 128
"""Images that say how large activations become; at least one of each class."""

BATCH = 16
SECONDS = 3.0  # of timing both files side by side, after five rounds
"""Of interleaved timing."""


@dataclass(frozen=True)
class QuantisationCost:
    """What quantisation changes, on `images` that were not calibrated on."""

    images: int
    calibrated: int
    right_before: int
    right_after: int
    lost: int
    """Images that were answered right before, and wrong after."""
    won: int
    same: int
    """Images with the same answer, right or wrong."""
    maps: float | None
    """Mean over images of the largest difference, as a share of the image's largest contribution."""
    bytes_before: int
    bytes_after: int
    paces: str
    """Milliseconds of one image at the usual size, of both, in words."""

    @property
    def verdict(self) -> str:
        """One sentence that hides nothing."""
        before, after = (100 * right / self.images for right in (self.right_before, self.right_after))
        change = self.right_after - self.right_before
        numbers = (
            f"accuracy {before:.1f} % before, {after:.1f} % after, on {self.images:,} images ({self.lost:,} lost, "
            f"{self.won:,} won); {100 * self.same / self.images:.1f} % of the predictions are the same"
        )
        if change < 0:
            return f"int8 is LESS ACCURATE here: {numbers}."
        return f"int8 is as accurate here: {numbers}." if change == 0 else f"int8 does no harm here: {numbers}."


@dataclass(frozen=True)
class Images:
    """The user's images, chosen: rows of the source to calibrate with, and others to measure on."""

    source: Source
    calibration: NDArray[np.int64]
    held_out: NDArray[np.int64]
    labels: NDArray[np.int64]
    """Of every row of the source, as the model numbers them."""
    described: str


def choose(
    opened: ImageModel,
    data: str,
    progress: Any = None,
    duplicates: Duplicates = "group",
    threshold: float | None = None,
) -> Images:
    """Split DATA as `gapstone train` does: of the same DATA, what is measured on was never trained on.

    Raises: DataError, SplitError; ValueError for a class the model does not know.
    """
    if not isinstance(opened.model, Classifier):
        raise ValueError(
            f"--int8: of {opened.name} it is not known which layers are the head, which stays in float; leave it out"
        )
    source = open_source(data)
    unknown = [name for name in source.classes if name not in opened.labels]
    if unknown:
        raise ValueError(
            f"--data {data}: the model has no label {unknown[0]!r}"
            + (f" (nor {len(unknown) - 1} more of its classes)" if len(unknown) > 1 else "")
            + f"; its labels are {', '.join(opened.labels[:8])}{', …' if len(opened.labels) > 8 else ''}."
        )
    parts = split(source, scan(source, progress=progress, threshold=threshold), duplicates=duplicates)
    labels = np.array([opened.labels.index(name) for name in source.classes])[source.labels]
    return Images(source, _some(parts.train, labels), parts.test, labels, parts.described)


def _some(rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """CALIBRATED of them, class after class in turn."""
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(rows)
    turn = np.zeros(len(shuffled), np.int64)
    for label in np.unique(labels[shuffled]):
        own = labels[shuffled] == label
        turn[own] = np.arange(own.sum())
    return np.sort(shuffled[np.argsort(turn, kind="stable")][: max(CALIBRATED, len(np.unique(labels[rows])))])


def quantise(float_file: Path, opened: ImageModel, images: Images, out: Path) -> None:
    """Write `out` from `float_file`: weights per output channel, activations by what the calibration images give.

    The head stays in float: it is a thousandth of the work, and the maps are made there.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    batches = ({"images": batch} for batch, _ in _seen(opened, images, images.calibration))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(batches, None)

    model = onnx.load(float_file)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    outside = [node.name for node in model.graph.node if not node.name.startswith(TRUNK)]
    if len(outside) == len(model.graph.node):
        raise ValueError(f"--int8: {opened.name} has no part that is known to be its trunk; export it in float.")
    with _quiet():
        quantize_static(
            model,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # 7 bits of weight: without VNNI, x86 adds pairs of products in 16 bits, and 8 bits would saturate there
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=outside,
            calibrate_method=CalibrationMethod.MinMax,
        )
    model = onnx.load(out)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**facts, "int8": f"trunk, calibrated on {len(images.calibration)} images"})
    onnx.checker.check_model(model, full_check=True)
    out.write_bytes(model.SerializeToString())


def cost(before: Path, after: Path, opened: ImageModel, images: Images, progress: Any = None) -> QuantisationCost:
    """Both files on the held-out images."""
    files = [read_onnx(path) for path in (before, after)]
    counts = dict.fromkeys(("before", "after", "lost", "won", "same"), 0)
    apart: list[float] = []
    done = 0
    for batch, labels in _seen(opened, images, images.held_out):
        (was_logits, *old_maps), (now_logits, *new_maps) = (run(batch) for run in files)
        was, now = was_logits.argmax(1) == labels, now_logits.argmax(1) == labels
        for name, what in (("before", was), ("after", now), ("lost", was & ~now), ("won", now & ~was)):
            counts[name] += int(what.sum())
        counts["same"] += int((was_logits.argmax(1) == now_logits.argmax(1)).sum())
        for a, b in zip(*(maps[0] if maps else () for maps in (old_maps, new_maps)), strict=True):
            apart.append(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)))
        done += len(labels)
        if progress is not None:
            progress(done, len(images.held_out))
    image = pictures(opened, (1, opened.preprocessing.channels, *opened.preprocessing.size), 0).numpy()
    old, new = files
    timed = take_turns({"int8": lambda: new(image), "float": lambda: old(image)}, longest=SECONDS)
    return QuantisationCost(
        images=len(images.held_out),
        calibrated=len(images.calibration),
        right_before=counts["before"],
        right_after=counts["after"],
        lost=counts["lost"],
        won=counts["won"],
        same=counts["same"],
        maps=float(np.mean(apart)) if apart else None,
        bytes_before=before.stat().st_size,
        bytes_after=after.stat().st_size,
        paces=side_by_side(timed),
    )


def _seen(
    opened: ImageModel, images: Images, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Batches as the network sees them, with their labels; a few in memory at a time."""
    p = opened.preprocessing
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        fitted = np.stack([p.fit(images.source.pixels(int(row), ranges=p.ranges)) for row in some])
        yield p.normalise(p.centre(torch.from_numpy(fitted))).contiguous().numpy(), images.labels[some]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime.quantization logs advice to the root logger; errors still come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
