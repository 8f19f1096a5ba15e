"""Classifier = features + head + labels + preprocessing; one safe file holds all four."""

import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.console.formatting import display
from gapstone.cutting.own_network import Builds, own_network
from gapstone.heads import RECIPES, Head, parse
from gapstone.heads.own_heads import OwnHeadLike, find_own_head, own_head, register_head
from gapstone.heads.reads import MAPS, read_backbone
from gapstone.images.batches import AT_ONCE, batches
from gapstone.images.load import ImageError
from gapstone.images.load import load as load_image
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.class_probabilities import check_multi_label, probabilities
from gapstone.models.image_memory import check_memory
from gapstone.models.model_description import ModelDescription, checked_labels
from gapstone.models.model_file import (
    ModelFileError,
    Shapes,
    check_dry_run,
    check_finite,
    check_shapes,
    finite_logits,
    read,
    shapes,
    write,
)
from gapstone.models.of_comparison import model_of
from gapstone.models.trained_on import TrainedOn, from_file, to_file, without
from gapstone.nets import build, dry_run
from gapstone.nets.hf_features import HfFeatures
from gapstone.nets.on_meta import on_meta
from gapstone.nets.own_features import is_registered
from gapstone.ragged import mixed_sizes
from gapstone.runtime.eval_mode import eval_mode

__all__ = ["Classifier", "ModelFileError", "load"]

LARGEST_TRIAL = 64
"""Side, in px, of the image that a model is tried on when it is loaded, unless it takes one size only. At 224 px,
trying a VGG-16 would take longer than reading its file."""

Picture = str | os.PathLike[str] | NDArray[Any]


class Classifier(nn.Module):
    """A classifier of images: a backbone, a head, the names of the classes, and how images are prepared.

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
        >>> both = gs.Classifier("nin", "gap", ("cat", "dog"), preprocessing, multi_label=True)
        >>> both.predict("a.jpg") >= 0.5  # a cat, a dog, both or none
        >>> mine = gs.Classifier(MyNet(), "gap", ("cat", "dog"), preprocessing)  # its own head is cut off
        >>> gs.load(mine.save("mine.safetensors"), backbone=MyNet())

    Args:
        backbone: a name of `gapstone.nets`: `nin`, `resnet18`, `timm:NAME`, `hf:FOLDER`, …; or a network, of which a
            copy up to its last map is used, with its weights; or a function that builds one.
        head: a spec of `gapstone.heads`: `gap`, `fc:512:dropout=0.5`, …
        labels: the class names, one per logit; at least two, all different.
        preprocessing: turns pixels into the input of the features; its `size` fixes the size of a flattening head.
        pretrained: start the features from the weights that timm publishes, or of the folder of `hf:`.
        config: of a backbone `hf:` without its folder: `features.config` of a model that has it.
        multi_label: an image has any number of classes, none included: each class has a probability of its own, the
            sigmoid of its logit, and is answered from 0.5 on. Otherwise an image has one class, and they share a
            softmax.

    Raises:
        ValueError: an argument is not valid, such as an image size that the backbone or head does not take.
        TypeError: `backbone` is no network.
        ImportError: as `gapstone.nets.build`.
        OSError: as `gapstone.nets.build`.
    """

    def __init__(
        self,
        backbone: str | nn.Module | Builds,
        head: str,
        labels: Sequence[str],
        preprocessing: Preprocessing,
        pretrained: bool = False,
        config: str | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, str):
            backbone = own_network(backbone).name
        self.backbone, self.preprocessing, self.multi_label = backbone, preprocessing, multi_label
        self.labels = checked_labels(labels)
        if multi_label:
            check_multi_label(head)
        reads = parse(head).reads
        self.features = build(backbone, preprocessing.channels, pretrained, reads.own, config)
        self.features.check_reads(reads)
        dry = dry_run(self.features, preprocessing.channels, preprocessing.size)
        check_memory(backbone, preprocessing.size, dry.bytes)
        self.head = Head(head, self.features.width(reads), len(self.labels), dry.size)
        self.trained_on: TrainedOn | None = None
        """The images it was trained on, which no test should use; None: not known. Its file keeps them."""

    @property
    def config(self) -> str | None:
        """The configuration of a backbone `hf:`; None for others, whose name says all."""
        return self.features.config if isinstance(self.features, HfFeatures) else None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (N, K) of images (N, C, H, W) that `preprocessing` has normalised."""
        head: nn.Module = self.head  # another library's, or none, while a head is exchanged: it reads maps
        logits: Tensor = head(read_backbone(self.features, x, head.reads if isinstance(head, Head) else MAPS))
        return logits

    @torch.inference_mode()
    def predict(self, images: Picture | Iterable[Picture], batch_size: int = 64, native: bool = False) -> Tensor:
        """Compute the probability of each label for images from files or arrays.

        Examples:
            >>> model.predict("cat.jpg").shape
            torch.Size([1, 2])
            >>> model.predict(np.zeros((10, 28, 28, 3), np.uint8)).shape
            torch.Size([10, 2])
            >>> model.predict(["wide.jpg", "high.jpg"], native=True).shape  # as they are, each in its own size
            torch.Size([2, 2])

        The model runs in eval mode, whatever mode it is in.

        Args:
            images: a file, or an array (H, W) or (H, W, C); several of these, of any sizes; an array (N, H, W, C). Of
                uint8, or of the values that it was trained on (`preprocessing.ranges`).
            batch_size: images in one forward pass.
            native: do not crop or resize. Each image gives the same result as it would alone, whatever the sizes of the
                others (`gapstone.mixed_sizes`). Accuracy at sizes that the network was not trained for is not known.

        Returns:
            Probabilities (N, K), float32 on the CPU: one row per image, in order, and one column per label. Of a
            `multi_label` model each is by itself, and a class is answered from 0.5 on; otherwise a row's sum is 1.

        Raises:
            ImageError: an image cannot be read; names the file and the reason; a ValueError.
            TypeError: an array is not an image.
            ValueError: `native`, and the backbone or head takes one size only; logits that are not finite.
        """
        if native:
            self.check_native()
        device = next(self.parameters()).device
        found = [torch.empty(0, len(self.labels))]
        with eval_mode(self):
            if native:
                pixels = (self._fit(picture, native) for picture in _pictures(images))
                for batch in batches(pixels, batch_size, AT_ONCE):
                    inputs = [self.preprocessing.normalise(torch.from_numpy(x[None]).to(device))[0] for x in batch]
                    found.append(self.probabilities(mixed_sizes(self, inputs)).cpu())
            else:
                for batch in batches(map(self._fit, _pictures(images)), batch_size):
                    logits: Tensor = self(self._normalised(batch))
                    found.append(self.probabilities(logits).cpu())
        return torch.cat(found)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn this model's logits (N, K) into probabilities, float32: softmax, or sigmoid of a `multi_label` model.

        Examples:
            >>> model.probabilities(torch.zeros(1, 2))
            tensor([[0.5000, 0.5000]])

        Args:
            logits: as `forward` returns them.

        Returns:
            Probabilities (N, K).

        Raises:
            ValueError: logits that are not finite.
        """
        return probabilities(finite_logits(logits.float()), self.multi_label)

    def tensor(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Load images as the input of the network, (N, C, H, W), on its device; arguments and errors as `predict`."""
        return self._normalised([self._fit(picture) for picture in _pictures(images)])

    def _normalised(self, pixels: list[NDArray[np.uint8]]) -> Tensor:
        centre = self.preprocessing.centre(torch.from_numpy(np.stack(pixels)))
        return self.preprocessing.normalise(centre.to(next(self.parameters()).device))

    def check_native(self, head: Head | None = None) -> None:
        """Check that the model takes images of any size, without resizing.

        Args:
            head: another head on these features; None: the model's own.

        Raises:
            ValueError: the backbone or the head takes one size only; names it, and what to do instead.
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
        """Load one image, in the size that the network takes."""
        if isinstance(picture, np.ndarray):
            shown = self.preprocessing.on_range(picture[:, :, None] if picture.ndim == 2 else picture)
            if shown is None or shown.ndim != 3 or shown.size == 0:
                raise TypeError(
                    f"predict takes uint8 arrays (H, W) or (H, W, C), or values that it was trained on "
                    f"({self.preprocessing.ranges}), and got {picture.dtype} {picture.shape}; normalised: model(x)"
                )
            return self._resize(shown, native)
        try:
            return self._resize(load_image(picture, ranges=self.preprocessing.ranges).pixels, native)
        except ImageError as error:
            raise ImageError(f"{os.fspath(picture)}: {error}") from error

    def _resize(self, pixels: NDArray[np.uint8], native: bool) -> NDArray[np.uint8]:
        if native:
            return np.require(self.preprocessing.native(pixels, self.features.smallest), requirements=["C", "W"])
        return self.preprocessing.fit(pixels)

    def trial_image(self) -> Tensor:
        """Make an input of noise, (1, C, H, W), on the model's device; small if the model takes any size."""
        height, width = self.preprocessing.size
        if self.features.fixed is None and self.head.size is None:
            height, width = (max(self.features.smallest, min(side, LARGEST_TRIAL)) for side in (height, width))
        return trial_image(self.preprocessing, (height, width)).to(next(self.parameters()).device)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one safetensors file: weights, and what they mean as JSON in its metadata.

        Examples:
            >>> model.save("pets.safetensors")
            PosixPath('pets.safetensors')

        The file is written atomically, and the same model gives the same bytes. Nothing in it can run code.

        Args:
            path: of the file.

        Returns:
            The path.

        Raises:
            FileNotFoundError: the folder does not exist.
            IsADirectoryError: the path is a folder.
            ValueError: `load` would refuse the model: weights that are not finite or not float32, or replaced modules.
        """
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"{display(path)} is a folder; add a file name, such as model.safetensors")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{display(path)}: there is no folder {display(path.parent)}; create it first")
        about = ModelDescription.of(
            self.backbone, self.head.spec, self.labels, self.preprocessing, self.config, self.multi_label
        ).to_json()
        images, field = to_file(self.trained_on)
        # Clones: safetensors refuses tensors that share memory.
        weights = {name: t.detach().cpu().contiguous().clone() for name, t in self.state_dict().items()}
        # Apply the checks of load here, while the model is still in memory.
        try:
            check_shapes(_expected_shapes(ModelDescription.from_json(about)), shapes(weights))
            check_finite(weights)
        except ModelFileError as error:
            raise ValueError(f"{display(path)}: {error}") from error
        write(path, weights | images, about | field)
        return path


def trial_image(preprocessing: Preprocessing, size: tuple[int, int]) -> Tensor:
    """Make a normalised image (1, C, H, W) of noise from black to white; the same at each call, with its own seed."""
    noise = torch.randint(0, 256, (1, *size, preprocessing.channels), generator=torch.Generator().manual_seed(0))
    return preprocessing.normalise(noise.to(torch.uint8))


def load(
    path: str | os.PathLike[str],
    backbone: nn.Module | Builds | None = None,
    head: OwnHeadLike | None = None,
) -> Classifier:
    """Load a model that `Classifier.save` wrote.

    Examples:
        >>> model = gs.load("pets.safetensors")
        >>> model.labels, model.backbone, model.head.spec
        (('cat', 'dog'), 'nin', 'gap')
        >>> gs.load("mine.safetensors", backbone=MyNet())  # a model on a network of your own

    It unpickles nothing, downloads nothing and does not advance torch's random generator. The description in the file
    is checked against the file's weights before memory is allocated, so an untrusted file is safe to load. One forward
    pass checks that the logits are finite.

    Args:
        path: of the file; or of the folder of a comparison, whose best model is loaded.
        backbone: of a model on a network of your own: the network, or a function that builds it. The file names its
            class, and holds its weights; it never imports it.
        head: of a model with a head of your own: the head, or the function that builds it, as `gs.compare` takes it.

    Returns:
        The model, on the CPU in eval mode.

    Raises:
        ModelFileError: the file is not a complete model of gapstone's, or its numbers overflow; a ValueError.
        ImportError: its backbone needs `gapstone[zoo]` or `gapstone[hf]`.
    """
    path = model_of(os.fspath(path))
    try:
        file = read(Path(path))
        description = _with_own(ModelDescription.from_json(file.about), backbone, head)
        tensors = without(file.shapes)
        description.check_tensors(tensors)
        check_shapes(_expected_shapes(description), tensors)
        weights = file.weights()
        # Initialising the weights must not advance the caller's random generator.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = _build(description)
        model.trained_on = from_file(weights, file.about)
        model.load_state_dict({name: weights[name] for name in tensors}, strict=True)
        check_dry_run(model.eval(), model.trial_image())
    except ModelFileError as error:
        raise ModelFileError(f"{display(path)}: {error}") from error
    return model


def _with_own(
    description: ModelDescription, backbone: nn.Module | Builds | None, head: OwnHeadLike | None
) -> ModelDescription:
    """The description with the user's network in its place. Raises ModelFileError for another, or none."""
    needed = description.own_backbone
    if head is not None:
        register_head(description.head, own_head(description.head, head, RECIPES))
    if description.own_head is not None and find_own_head(description.head) is None:
        raise ModelFileError(
            f"its head {description.head!r} is one's own, {display(description.own_head)}, which no file can make: "
            f"give it in Python, gs.load(path, head=…)"
        )
    if needed is None:
        if backbone is not None:
            raise ModelFileError(f"its backbone is {display(description.backbone)}, which needs no network of yours")
        return description
    if backbone is None:
        if is_registered(description.backbone):
            return description
        raise ModelFileError(
            f"its backbone is a network of one's own, {display(needed)}, which no file can make: give it in Python, "
            f"gs.load(path, backbone={display(needed).rpartition('.')[2]}(…))"
        )
    own = own_network(backbone)
    if own.trunk.facts.source != needed:
        raise ModelFileError(f"its backbone is {display(needed)}, and {own.trunk.facts.source} was given")
    return replace(description, backbone=own.name)


def _build(description: ModelDescription) -> Classifier:
    arguments = description.backbone, description.head, description.labels, description.preprocessing
    return Classifier(*arguments, config=description.config, multi_label=description.multi_label)


def _expected_shapes(description: ModelDescription) -> Shapes:
    """The tensors of a model, from the meta device: without memory, whatever size the file claims."""
    try:
        own = description.own_backbone is not None or description.own_head is not None
        with nullcontext() if own else on_meta():  # the user's own is there, and no file has made it large
            return shapes(_build(description).state_dict())
    except ImportError:
        raise
    except Exception as error:  # torch and timm have many ways to refuse what a foreign file asks for
        raise ModelFileError(
            f"its model cannot be built: {error} (backbone {description.backbone!r}, head {description.head!r})"
        ) from error


def _pictures(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    if isinstance(images, str | os.PathLike):
        return [cast(Picture, images)]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    return images
