"""A file from which a streamed run goes on after it was stopped, to the same numbers."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gapstone.any_size.given_image import FileImage, GivenImage
from gapstone.any_size.kept_maps import KeptMap, MapsAsked, ProjectedMap
from gapstone.any_size.thumbnail import Thumbnail
from gapstone.console.formatting import display
from gapstone.huge_images.huge_image import Damage
from gapstone.models.backbone_weights import add_tensor, digest
from gapstone.storage.atomic import atomic_file
from gapstone.storage.paths import check_input
from gapstone.streaming.row_buffer import State
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_pass import RowPass, RowStream
from gapstone.streaming.row_recorder import RowRecording
from gapstone.tracing.tape import leaves
from gapstone.tracing.torch_calls import name_of

EVERY = 10.0
"""Seconds between two writes, at least."""
SHARE = 0.02
"""Of the time, what writing takes at most."""


class StreamCheckpoint:
    """How far a run is, in a file that is written anew every few seconds, whole or not at all.

    ```python
    checkpoint = StreamCheckpoint(Path("slide.checkpoint"), identity, image, stream, kept)
    number, begun = checkpoint.begun()     # (0, None): from the beginning
    ```

    The file belongs to one run: the same network, image and options. It is deleted when the run has ended.
    """

    def __init__(
        self, path: Path, identity: str, image: FileImage, stream: RowStream, kept: KeptMap | ProjectedMap | None
    ) -> None:
        self.path, self.identity, self.image, self.stream, self.kept = path, identity, image, stream, kept
        self.next = time.perf_counter() + EVERY

    def begun(self, anew: bool = False) -> tuple[int, tuple[int, State] | None]:
        """(the number of the pass to be played, what it goes on from: its rows so far and its state).

        `anew`: where the file is damaged or of another run, from the beginning. Otherwise raises StreamError.
        """
        if not os.path.lexists(self.path):
            return 0, None
        try:
            saved = self._read()
        except StreamError:
            if anew:
                return 0, None
            raise
        self.stream.restore(saved["stream"])
        if self.kept is not None:
            self.kept.restore(saved["kept"])
        if saved["thumbnail"] is not None:
            self.image.making = Thumbnail(self.image.size, self.image.channels)
            self.image.making.restore(saved["thumbnail"])
        self.image.image.damaged_before(Damage(*one) for one in saved["damage"])
        return saved["pass"], (saved["rows"], saved["state"])

    def _read(self) -> Mapping[str, Any]:
        check_input(display(self.path), self.path)
        try:
            saved: Mapping[str, Any] = torch.load(self.path, map_location=self.stream.device, weights_only=True)
            identity = saved["identity"]
        except Exception as error:  # torch raises many kinds for damaged files
            raise StreamError(
                f"checkpoint: {display(self.path)} cannot be read ({type(error).__name__}). Delete it to begin anew"
            ) from error
        if identity != self.identity:
            raise StreamError(
                f"checkpoint: {display(self.path)} is of another run: of another network, image, budget or choice of "
                f"maps. Name another file, or delete it to begin anew"
            )
        return saved

    def after_band(self, number: int) -> Callable[[int, RowPass], None]:
        """To be told of the bands of a pass."""

        def told(rows: int, played: RowPass) -> None:
            if (began := time.perf_counter()) >= self.next:
                self.write(number, rows, played)
                took = time.perf_counter() - began
                self.next = began + took + max(EVERY, took / SHARE)

        return told

    def write(self, number: int, rows: int, played: RowPass) -> None:
        """Raises OSError: the disk is full, or the folder cannot be written to."""
        thumbnail = self.image.making
        content: Mapping[str, Any] = {
            "identity": self.identity,
            "pass": number,
            "rows": rows,
            "state": played.saved(),
            "stream": self.stream.saved(),
            "kept": None if self.kept is None else self.kept.saved(),
            "thumbnail": None if thumbnail is None else thumbnail.saved(),
            "damage": [list(one) for one in self.image.image.damage],
        }
        with atomic_file(self.path) as unfinished:
            torch.save(content, unfinished)

    def end(self) -> None:
        """The run has ended."""
        self.path.unlink(missing_ok=True)


def file_image(image: GivenImage) -> FileImage:
    """Raises ValueError where it is no file: nobody knows whether an array is the same the next time."""
    if not isinstance(image, FileImage):
        raise ValueError(
            "checkpoint goes with a file as image: whether an array is the same the next time is not known"
        )
    return image


def identity_of(
    network: nn.Module, recording: RowRecording, image: FileImage, asked: MapsAsked, maps: bool, rows: int
) -> str:
    """A digest of all that the numbers of a run depend on: calls, what they are given, the head, the image, choices."""
    calls = [
        [name_of(call.function), *map(str, leaves((call.args, call.kwargs))), call.slots] for call in recording.calls
    ]
    status = os.stat(image.image.path)
    file = str(Path(image.image.path).resolve()), status.st_size, status.st_mtime_ns, image.level
    chosen = [str(asked.classes), asked.top_k, maps, rows]
    facts = [digest(network), calls, file, image.preprocessing.to_json(), chosen, torch.__version__]
    sha256 = hashlib.sha256(json.dumps(facts).encode())
    for slot, value in recording.constants.items():
        add_tensor(sha256, slot, value)
    return sha256.hexdigest()
