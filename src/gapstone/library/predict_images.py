"""`gs.predict`: what a model answers for images."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapstone.any_size.plan_bands import MEMORY, parse_bytes
from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.data.dataset_items import item_pixels
from gapstone.data.input_files import InputFiles, input_files
from gapstone.explaining.predict_files import NO_FILE, Row, predict_rows
from gapstone.images.as_picture import GRAY_OR_RGB, same_channels
from gapstone.images.cropping import cropping_note
from gapstone.images.load import wrong_channels
from gapstone.images.preprocessing import Preprocessing
from gapstone.library.evaluate_models import GivenModel, open_given
from gapstone.library.given_arguments import given_path
from gapstone.library.python_words import console_of, errors_in_python
from gapstone.library.tables import Entries
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.runtime.eval_mode import eval_mode
from gapstone.training.training_data import pick_device

GivenImage = str | os.PathLike[str] | Image.Image | NDArray[Any]


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model answers for one image.

    Examples:
        >>> [one] = gs.predict("photos.safetensors", "cat.jpg")
        >>> one.label, one.probability
        ('…', 0.…)

    """

    name: str
    """Its path, or its number among the images that were given."""
    facts: Mapping[str, Any]
    """As `gapstone predict --json` has it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The class that is answered; of a model of several labels all of 0.5 or more."""
        if self.error is not None:
            return ()
        return tuple(self.facts["labels"]) if "labels" in self.facts else (str(self.facts["label"]),)

    @property
    def label(self) -> str | None:
        """The answer; of several labels written `cat|dog`, which may be empty; None: the image could not be read."""
        return None if self.error is not None else "|".join(self.labels)

    @property
    def probability(self) -> float | None:
        """Of the class that is answered; None: several labels, or the image could not be read."""
        found = self.facts.get("probability")
        return None if found is None else float(found)

    @property
    def probabilities(self) -> dict[str, float]:
        """Of every class, by its name; empty where the image could not be read."""
        return dict(self.facts.get("probabilities", {}))

    @property
    def error(self) -> str | None:
        """Why there is no answer; None: there is one."""
        return self.facts.get("error")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed when the image was read."""
        return tuple(self.facts.get("notes", ()))

    def row(self) -> dict[str, Any]:
        """Its cells in a table."""
        return {"image": self.name, "prediction": self.label, "probability": self.probability, "error": self.error}

    def __repr__(self) -> str:
        if self.error is not None:
            return f"{self.name}: no prediction: {self.error}"
        sure = "" if self.probability is None else f" {100 * self.probability:.1f} %"
        return f"{self.name}: {display(self.label or 'no class')}{sure}"


def predict(
    model: GivenModel,
    images: GivenImage | Iterable[GivenImage],
    *,
    native: bool = False,
    head: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    memory: int | str = MEMORY,
    progress: bool = True,
) -> Entries[Prediction]:
    """Say what a model answers for images: files, folders, patterns, arrays, pictures of Pillow's.

    Examples:
        >>> found = gs.predict("photos.safetensors", "new/")
        >>> found[0].label, found[0].probability
        ('…', 0.…)
        >>> found.frame()  # with pandas
        >>> gs.predict("pets.safetensors", ["a.jpg", np.zeros((48, 64, 3), np.uint8)])
        …

    Unlike `Classifier.predict`, it goes on where an image cannot be read, and says why.

    Args:
        model: a file that gapstone wrote, the folder of a comparison, `timm:NAME`, `hf:FOLDER`, a `gs.Classifier`, or
            what `gs.open_model` returns.
        images: one or several: a file, a folder, a pattern (`new/**/*.jpg`), a picture of Pillow's, an array (H, W),
            (H, W, 1) or (H, W, 3) or a tensor (1, H, W) or (3, H, W), of uint8 or of floats from 0 to 1; an array (N,
            H, W, C) or (N, H, W), or a tensor (N, C, H, W) of several. Of a model of other channels, or of more than 8
            bits, arrays (H, W, C) or tensors (C, H, W) of the values that it was trained on.
        native: images enter the network at their own size, neither cropped nor resized.
        head: of a comparison's folder, the head whose model is meant; None: the best.
        weights: a file of weights, where the model is a network's name.
        device: `auto`: a GPU if there is one.
        memory: that an image of more than 4096² px may take with `native`: it is streamed (`gs.stream`).
        progress: show a bar, and what was left out of folders.

    Returns:
        A `Prediction` for each image in the order in which they were given, by number or by name.

    Raises:
        ModelFileError: a file that is no model; a ValueError.
        ValueError: `native`, and the model takes one size only; an array that is no image.
        TypeError: `model` is no model.
    """
    console = console_of(progress, stderr=True)
    with errors_in_python(), Bars(console, idle="Predicting") as bars:
        given = open_given(model, head, device)
        if isinstance(given, str):
            with bars.during(f"Opening {given}"):
                given = open_model(given, given_path(weights), pick_device(device))
        elif weights is not None:
            raise ValueError(f"--weights {display(weights)} goes with a network's name; the model is open already.")
        found, notes = _found(images, given.preprocessing)
        for note in notes:
            bars.log(note)
        readable = [(name, image) for name, image in found if image is not None]
        rows = iter(_rows(given, readable, native, bars, parse_bytes(memory)))
        told = [{"name": name, "error": NO_FILE} if image is None else next(rows) for name, image in found]
    return Entries([(row["name"], Prediction(row["name"], row)) for row in told], "image")


def _rows(
    model: ImageModel, images: Sequence[tuple[str, Path | NDArray[np.uint8]]], native: bool, bars: Bars, memory: int
) -> list[Row]:
    sizes: Counter[tuple[int, int]] = Counter()
    with eval_mode(model.model):
        rows = predict_rows(model, images, model.check_native() if native else None, bars, sizes, memory)
    if not native and (note := cropping_note(model.preprocessing, sizes)):
        bars.log(note)
    return rows


def _found(
    images: Any, preprocessing: Preprocessing
) -> tuple[list[tuple[str, Path | NDArray[np.uint8] | None]], list[str]]:
    """Names and images in the order that they were given, None for a pattern without files; what was left out.

    Raises ValueError for an array that is no image, and where there is nothing.
    """
    found: list[tuple[str, Path | NDArray[np.uint8] | None]] = []
    left_out = InputFiles()
    for number, image in enumerate([images] if _is_one(images, preprocessing.channels) else images):
        if isinstance(image, str | os.PathLike):
            files = input_files([os.fspath(image)])
            found += [(display(os.fsdecode(path)), path) for path in files.paths]
            found += [(display(pattern), None) for pattern in files.missing]
            left_out.add(files)
        else:
            found.append((str(number), _pixels(f"image {number}", image, preprocessing)))
    if not found:
        raise ValueError(" ".join(["images: there is no image among them.", *left_out.notes()]))
    return found, left_out.notes()


def _pixels(name: str, image: Any, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(H, W, C), on the range of values that the model was trained on. Raises ValueError for what is no image."""
    shown = item_pixels("images", name, image, preprocessing.ranges, preprocessing.channels)
    if not same_channels(shown.shape[2], preprocessing.channels):
        raise ValueError(f"images: {name}: {wrong_channels(shown.shape[2], preprocessing.channels)}.")
    return shown


def _is_one(images: Any, of_model: int) -> bool:
    """Whether it is one image; an array (N, H, W) is several gray ones, as in DATA."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return True
    shape = tuple(getattr(images, "shape", (0, 0, 0, 0)))
    channels = shape[:1] if hasattr(images, "detach") else shape[-1:]
    return len(shape) < 3 or (len(shape) == 3 and channels[0] in (*GRAY_OR_RGB, of_model))
