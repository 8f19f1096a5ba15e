"""Classifier = features + head + labels + preprocessing; one safe file holds all four."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone import __version__
from gapstone.console.formatting import display
from gapstone.heads import Head
from gapstone.images.batches import AT_ONCE, batches
from gapstone.images.load import ImageError
from gapstone.images.load import load as load_image
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.model_file import (
    ModelFileError,
    Shapes,
    dry_run_is_finite,
    finite,
    finite_logits,
    kind,
    read,
    same,
    shapes,
    write,
)
from gapstone.nets import TooManyParametersError, at_most, build, dry_run
from gapstone.nets.on_meta import on_meta
from gapstone.nets.zoo import create_timm
from gapstone.ragged import mixed_sizes
from gapstone.runtime.environment import memory
from gapstone.runtime.eval_mode import eval_mode

__all__ = ["Classifier", "ModelFileError", "load"]

SCHEMA = 1
"""Raised when a field of the file changes its meaning; files of another schema are refused."""

LONGEST_SPEC = 200  # characters of a backbone or head

LARGEST_TRIAL = 64
"""px a side of the image that a model is tried on when it is loaded, unless it takes one size only: at 224, a VGG-16
would take longer than its file."""

LARGEST_IMAGE = 1 << 30
"""Bytes that one image may need in a step of the network: $GAPSTONE_IMAGE_MEMORY says another number of GB. Never more
than half of what the machine has."""

SLACK = 20_000_000  # parameters that a backbone may have beyond what a file holds: those of its own head, for one

Picture = str | os.PathLike[str] | NDArray[np.uint8]


class Classifier(nn.Module):
    """A classifier of images: a backbone, a head, the names of the classes, and how pictures are prepared.

    Examples:
        >>> model = gs.Classifier("nin", "gap", ("cat", "dog"), preprocessing)
        >>> model(torch.rand(8, 3, 32, 32)).shape  # normalised as preprocessing says
        torch.Size([8, 2])
        >>> model.head(model.features(torch.rand(8, 3, 32, 32))).shape  # the same, in two steps
        torch.Size([8, 2])
        >>> model.predict(["a.jpg", "b.png"]).shape  # probabilities, from files
        torch.Size([2, 2])
        >>> gs.load(model.save("pets.safetensors")).labels
        ('cat', 'dog')

    Args:
        backbone: a name of `gapstone.nets`: `nin`, `resnet18`, `timm:NAME`, …
        head: a spec of `gapstone.heads`: `gap`, `fc:512:dropout=0.5`, …
        labels: what each logit stands for; at least two, all different.
        preprocessing: from pixels to the tensor the features take; its `size` fixes the size of a flattening head.
        pretrained: the features' weights from ImageNet, for `timm:` backbones.

    Raises:
        ValueError: an argument that cannot be, among them an image size the backbone or head does not take.
        ImportError: as `gapstone.nets.build`.
        OSError: as `gapstone.nets.build`.
    """

    def __init__(
        self,
        backbone: str,
        head: str,
        labels: Sequence[str],
        preprocessing: Preprocessing,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.preprocessing = backbone, preprocessing
        self.labels = _checked_labels(labels)
        self.features = build(backbone, preprocessing.channels, pretrained)
        dry = dry_run(self.features, preprocessing.channels, preprocessing.size)
        _check_memory(backbone, preprocessing.size, dry.bytes)
        self.head = Head(head, self.features.channels, len(self.labels), dry.size)

    def forward(self, x: Tensor) -> Tensor:
        """The logits (N, K) of images (N, C, H, W), normalised as `preprocessing` says."""
        logits: Tensor = self.head(self.features(x))
        return logits

    @torch.inference_mode()
    def predict(self, images: Picture | Iterable[Picture], batch_size: int = 64, native: bool = False) -> Tensor:
        """The probability of each label, on the CPU: (N, K) float32, in the order given.

        Examples:
            >>> model.predict("cat.jpg").shape
            torch.Size([1, 2])
            >>> model.predict(np.zeros((10, 28, 28, 3), np.uint8)).shape
            torch.Size([10, 2])
            >>> model.predict(["wide.jpg", "high.jpg"], native=True).shape  # as they are, each in its own size
            torch.Size([2, 2])

        Runs in eval mode whatever mode the model is in.

        Args:
            images: a file, or a uint8 array (H, W) or (H, W, C) of 1 or 3 channels; several of these, of any sizes; an
                array (N, H, W, C).
            batch_size: images in one forward pass.
            native: nothing is cut off or resized; the answer for each picture is that of the picture alone, whatever
                the others' sizes (`gapstone.mixed_sizes`). How well a network answers at a size it was not trained for
                is another question.

        Returns:
            One row per image, one column per label.

        Raises:
            ImageError: a picture that cannot be read, with the file and the reason; a ValueError.
            TypeError: an array that is no image.
            ValueError: `native` where backbone or head take one size only; logits that are not finite.
        """
        if native:
            self.check_native()
        device = next(self.parameters()).device
        answers = [torch.empty(0, len(self.labels))]
        with eval_mode(self):
            if native:
                for few in batches((self._fit(one, native) for one in _pictures(images)), batch_size, AT_ONCE):
                    shown = [self.preprocessing.normalise(torch.from_numpy(one[None]).to(device))[0] for one in few]
                    answers.append(finite_logits(mixed_sizes(self, shown).float()).softmax(1).cpu())
                return torch.cat(answers)
            for batch in batches(map(self._fit, _pictures(images)), batch_size):
                seen = self.preprocessing.centre(torch.from_numpy(np.stack(batch)))
                logits = self(self.preprocessing.normalise(seen.to(device)))
                answers.append(finite_logits(logits.float()).softmax(1).cpu())
            return torch.cat(answers)

    def tensor(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Pictures as the network takes them, (N, C, H, W), on its device; arguments and errors as `predict`."""
        seen = np.stack([self._fit(picture) for picture in _pictures(images)])
        centre = self.preprocessing.centre(torch.from_numpy(seen))
        return self.preprocessing.normalise(centre.to(next(self.parameters()).device))

    def check_native(self, head: Head | None = None) -> None:
        """Check that pictures can be seen as they are, at any size.

        Args:
            head: another head on these features; None: the model's own.

        Raises:
            ValueError: the head takes one size only; says which, and the ways out.
        """
        head = head or self.head
        height, width = self.preprocessing.size
        if self.features.fixed is not None:
            who = f"backbone {self.backbone!r} takes only {self.features.fixed[0]}×{self.features.fixed[1]} px"
        elif head.size is not None:
            who = f"head {head.spec!r} was trained on images of {height}×{width} px and takes no others"
        else:
            return
        raise ValueError(
            f"{who}: pictures cannot be seen as they are. Let them be resized (--resize, native=False), or train with "
            f"gap or fc:grid=7 on a convolutional network, which take any size."
        )

    def _fit(self, picture: Picture, native: bool = False) -> NDArray[np.uint8]:
        if isinstance(picture, np.ndarray):
            pixels = picture[:, :, None] if picture.ndim == 2 else picture
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
                raise TypeError(
                    f"predict takes images as uint8 arrays (H, W), (H, W, 1) or (H, W, 3) and got {picture.dtype} "
                    f"{picture.shape}; what is normalised already goes to model(x)"
                )
            return self._seen(pixels, native)
        try:
            return self._seen(load_image(picture, ranges=self.preprocessing.ranges).pixels, native)
        except ImageError as error:
            raise ImageError(f"{os.fspath(picture)}: {error}") from error

    def _seen(self, pixels: NDArray[np.uint8], native: bool) -> NDArray[np.uint8]:
        if native:
            return np.require(self.preprocessing.native(pixels, self.features.smallest), requirements=["C", "W"])
        return self.preprocessing.fit(pixels)

    def trial_image(self) -> Tensor:
        """(1, C, H, W) noise as the network takes it, small where it takes any size."""
        height, width = self.preprocessing.size
        if self.features.fixed is None and self.head.size is None:
            height, width = (max(self.features.smallest, min(side, LARGEST_TRIAL)) for side in (height, width))
        return trial_image(self.preprocessing, (height, width)).to(next(self.parameters()).device)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one safetensors file: weights, and what they mean as JSON in its metadata.

        Examples:
            >>> model.save("pets.safetensors")
            PosixPath('pets.safetensors')

        The file appears whole or not at all, and the same model gives the same bytes. Nothing in it can run code.

        Args:
            path: of the file.

        Returns:
            The path.

        Raises:
            FileNotFoundError: a folder that does not exist.
            IsADirectoryError: the path is a folder.
            ValueError: what `load` would refuse: weights that are not finite or not float32, modules exchanged by hand.
        """
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"{display(path)} is a folder; add a file name, such as model.safetensors")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{display(path)}: there is no folder {display(path.parent)}; create it first")
        about = {
            "schema": SCHEMA,
            "gapstone": __version__,
            "backbone": self.backbone,
            "head": self.head.spec,
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_json(),
        }
        # Clones: safetensors refuses tensors that share memory.
        weights = {name: t.detach().cpu().contiguous().clone() for name, t in self.state_dict().items()}
        # What load would refuse is refused here, while the model is still in memory.
        try:
            same(shapes(_Description(about).on_meta()), shapes(self))
            finite(weights)
        except ModelFileError as error:
            raise ValueError(f"{display(path)}: {error}") from error
        write(path, weights, about)
        return path


def trial_image(preprocessing: Preprocessing, size: tuple[int, int]) -> Tensor:
    """(1, C, H, W) noise from black to white, normalised; the same at each call, whatever torch's generator is at."""
    noise = torch.randint(0, 256, (1, *size, preprocessing.channels), generator=torch.Generator().manual_seed(0))
    return preprocessing.normalise(noise.to(torch.uint8))


def load(path: str | os.PathLike[str]) -> Classifier:
    """The model that `Classifier.save` wrote, on the CPU in eval mode.

    Examples:
        >>> model = gs.load("pets.safetensors")
        >>> model.labels, model.backbone, model.head.spec
        (('cat', 'dog'), 'nin', 'gap')

    Nothing is unpickled, downloaded or drawn from torch's generator. All that the file says is checked against the
    weights it holds before memory is taken, so a file from anywhere is safe to try. One forward pass says whether its
    logits are finite.

    Args:
        path: of the file.

    Returns:
        The model.

    Raises:
        ModelFileError: a file that is not a whole model of gapstone's, or whose numbers overflow; a ValueError.
        ImportError: its backbone needs `gapstone[zoo]`.
    """
    try:
        file = read(Path(path))
        description = _Description(file.about)
        description.compare_timm(file.shapes)
        same(shapes(description.on_meta()), file.shapes)
        weights = file.weights()
        # A network draws its first weights: here not at the cost of the caller's generator.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = description.build()
        model.load_state_dict(weights, strict=True)
        dry_run_is_finite(model.eval(), model.trial_image())
    except ModelFileError as error:
        raise ModelFileError(f"{display(path)}: {error}") from error
    return model


class _Description:
    """What a file says of its model, each field checked for its type."""

    def __init__(self, about: dict[str, Any]) -> None:
        schema, version = about.get("schema"), about.get("gapstone")
        if type(schema) is not int or schema != SCHEMA:
            newer = type(schema) is int and schema > SCHEMA
            raise ModelFileError(
                f"its schema is {kind(schema)} (written by gapstone {str(version)[:20]}); gapstone {__version__} reads "
                f"schema {SCHEMA}: "
                + ("update it with pip install -U gapstone" if newer else "save the model again with this version")
            )
        self.backbone, self.head = (_name(about, field) for field in ("backbone", "head"))
        labels, preprocessing = about.get("labels"), about.get("preprocessing")
        if not isinstance(labels, list):
            raise ModelFileError(f"its labels are {kind(labels)}, not a list of names; save the model again")
        if not isinstance(preprocessing, dict):
            raise ModelFileError(f"its preprocessing is {kind(preprocessing)}, not an object; save the model again")
        try:
            self.labels = _checked_labels(labels)
            self.preprocessing = Preprocessing.from_json(preprocessing)
        except (ValueError, OverflowError) as error:
            raise ModelFileError(f"its description cannot be: {str(error)[:300]}; save the model again") from error

    def build(self) -> Classifier:
        return Classifier(self.backbone, self.head, self.labels, self.preprocessing)

    def on_meta(self) -> Classifier:
        """The model as names and shapes alone: no memory, however large the file claims it to be."""
        try:
            with on_meta():
                return self.build()
        except ImportError:
            raise
        except Exception as error:  # torch and timm have many ways to refuse what a foreign file asks for
            raise ModelFileError(
                f"its model cannot be built: {error} (backbone {self.backbone!r}, head {self.head!r})"
            ) from error

    def compare_timm(self, found: Shapes) -> None:
        """A network of timm's, by the names of its tensors, before all that it needs further: what it makes of several
        sizes takes seconds. Of one far larger than what the file holds not even the names.

        Raises: ModelFileError where `found` is not of that network.
        """
        if not self.backbone.startswith("timm:"):
            return
        held = sum(math.prod(shape) for _, shape in found.values())
        wrong = "its weights are not those of the model it describes"
        try:
            with on_meta(), at_most(4 * held + SLACK):
                net = create_timm(self.backbone.removeprefix("timm:"), self.preprocessing.channels, pretrained=False)
        except ImportError:
            raise
        except TooManyParametersError:
            raise ModelFileError(
                f"{wrong}: it holds {held:,} numbers, and {self.backbone} has many more; save it again"
            ) from None
        except Exception as error:
            raise ModelFileError(f"its model cannot be built: {error} (backbone {self.backbone!r})") from error
        own = {f"features.net.{name}": tuple(t.shape) for name, t in net.state_dict().items()}
        for name, (_, shape) in found.items():
            if name.startswith("features.") and own.get(name) != shape:
                raise ModelFileError(
                    f"{wrong}: {name[:100]} {list(shape)} does not belong to {self.backbone}; save it again"
                )


def _check_memory(backbone: str, size: tuple[int, int], needed: int) -> None:
    """Raises ValueError for images of which a single one would need too much."""
    given = os.environ.get("GAPSTONE_IMAGE_MEMORY", "")
    try:
        stated = int(float(given) * (1 << 30)) if given else LARGEST_IMAGE
    except (ValueError, OverflowError):
        raise ValueError(f"GAPSTONE_IMAGE_MEMORY={given!r}: expected a number of GB, such as 8") from None
    most = min(stated, memory() // 2)
    if needed > most:
        raise ValueError(
            f"an image of {size[0]}×{size[1]} px needs at least {needed / (1 << 30):.1f} GB in {backbone}, and "
            f"{most / (1 << 30):.1f} GB are allowed: take smaller images, or set GAPSTONE_IMAGE_MEMORY to more GB (at "
            f"most half of this machine's {memory() / (1 << 30):.0f} GB)"
        )


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be names, such as ('cat', 'dog'), not {str(labels)[:60]}")
    if len(labels) < 2:
        raise ValueError(f"a classifier needs at least two labels and got {len(labels)}")
    if len(set(labels)) < len(labels):
        seen: set[str] = set()
        twice = next(label for label in labels if label in seen or seen.add(label))  # type: ignore[func-returns-value]
        raise ValueError(f"label {twice!r} is given twice; each logit needs a name of its own")
    return tuple(labels)


def _name(about: dict[str, Any], field: str) -> str:
    value = about.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_SPEC:
        raise ModelFileError(f"its {field} is {kind(value)}, not a name; save the model again")
    return value


def _pictures(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    if isinstance(images, str | os.PathLike):
        return [cast(Picture, images)]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    return images
