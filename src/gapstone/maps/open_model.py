"""Open a model by its name: a file, `timm:NAME`, or a network and its weights. Then ask it about pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapstone.console.formatting import display
from gapstone.drawing.evidence import Evidence
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain
from gapstone.maps.explanation import Explanation
from gapstone.models.class_probabilities import probabilities
from gapstone.models.classifier import Classifier, load, trial_image
from gapstone.models.model_file import NotFiniteError, check_dry_run, check_finite, finite_logits
from gapstone.nets import NAMES, NETS
from gapstone.nets.checkpoints import FORMATS, read_checkpoint
from gapstone.nets.hf_folder import PREFIX, config_text, folder_of, read_config, short_name
from gapstone.nets.hf_model import LogitsOf, create_hf_classifier
from gapstone.nets.hf_preprocessing import hf_input
from gapstone.nets.hf_survey import survey_hf
from gapstone.nets.timm_survey import survey
from gapstone.nets.zoo import class_names, with_head


@dataclass(frozen=True)
class ImageModel:
    """A network that can be asked about pictures.

    Examples:
        >>> opened = gs.open_model("photos.safetensors")
        >>> pixels = np.zeros((48, 64, 3), np.uint8)
        >>> [evidence.map.shape for evidence in opened.look([pixels], top_k=2)[0]]
        [(1, 1), (1, 1)]
    """

    name: str
    """As given."""
    model: nn.Module
    """In eval mode."""
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    multi_label: bool = False
    """It answers any number of classes: each has a probability of its own, and is answered from 0.5 on."""

    def look(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        classes: Sequence[int] | None = None,
        top_k: int | None = None,
        native: bool = False,
    ) -> list[list[Evidence]]:
        """Per picture what speaks for and against each class asked for (all of them by default), most probable first
        unless `classes` says an order; each map placed in the picture as it was given.

        pictures: (H, W, C) uint8, upright (`gapstone.images.load`), of any sizes. All go through the network in one
        batch: give as many as fit into memory. native: as they are, neither cut nor resized; those of one size
        together.

        Raises: ValueError for `native` where the network takes one size only; ImageError for a picture too small or
            too large for it.
        """
        if native:
            smallest = self.check_native()
            pictures = [self.preprocessing.native(pixels, smallest) for pixels in pictures]
        together: dict[tuple[int, ...], list[int]] = {}
        for number, pixels in enumerate(pictures):
            together.setdefault(pixels.shape[:2] if native else (), []).append(number)
        evidences: dict[int, list[Evidence]] = {}
        for numbers in together.values():
            explained = self.explain([pictures[number] for number in numbers], classes, top_k, native)
            for place, number in enumerate(numbers):
                evidences[number] = self.evidence(explained, place, pictures[number].shape[:2], native)
        if classes is None:
            for evidence in evidences.values():
                evidence.sort(key=lambda e: (-e.logit, e.index))
        return [evidences[number] for number in range(len(pictures))]

    def explain(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        classes: Sequence[int] | None = None,
        top_k: int | None = None,
        native: bool = False,
    ) -> Explanation:
        """The maps as the network saw the pictures; `native` ones, of one size, as they are."""
        images = self._images(pictures, native)
        return explain(self.model, images, classes, top_k=top_k, labels=self.labels, multi_label=self.multi_label)

    @torch.inference_mode()
    def probabilities(self, picture: NDArray[np.uint8], native: bool = False) -> Tensor:
        """Of each label, (K,) on the CPU; `native`: of the picture as it is. Raises NotFiniteError (a ValueError)."""
        logits: Tensor = self.model(self._images([picture], native))
        return probabilities(finite_logits(logits.float())[0], self.multi_label).cpu()

    def _images(self, pictures: Sequence[NDArray[np.uint8]], native: bool) -> Tensor:
        preprocessing = self.preprocessing
        resize = preprocessing.native if native else preprocessing.fit
        pixels = torch.from_numpy(np.stack([resize(picture) for picture in pictures]))
        return preprocessing.normalise((pixels if native else preprocessing.centre(pixels)).to(self.device))

    def evidence(
        self, explained: Explanation, number: int, size: Sequence[int], native: bool = False
    ) -> list[Evidence]:
        """The classes explained of one image, placed in the picture of `size` (H, W) that it was made of."""
        if native:
            return explained.evidence(number, size)
        scale, origin = self.preprocessing.seen(size[0], size[1])
        return explained.evidence(number, size, explained.placement.within(origin, scale))

    def check_native(self) -> int:
        """The shortest side in pixels that the network takes. Raises ValueError where it takes one size only."""
        if isinstance(self.model, Classifier):
            self.model.check_native()
        smallest, only_size = self.input_sizes
        if only_size is not None:
            raise ValueError(
                f"{self.name} takes only {only_size[0]}×{only_size[1]} px: pictures cannot be seen as they are. "
                f"Let them be resized (--resize, native=False), or take a convolutional network."
            )
        return smallest

    @property
    def input_sizes(self) -> tuple[int, tuple[int, int] | None]:
        """The shortest side in pixels that the network takes, and (H, W) if it takes one size only."""
        if isinstance(self.model, Classifier):
            fixed = self.model.features.fixed is not None or self.model.head.size is not None
            return self.model.features.smallest, self.preprocessing.size if fixed else None
        if isinstance(self.model, LogitsOf):
            folder = survey_hf(config_text(self.name), short_name(self.name))
            return folder.smallest, folder.fixed
        facts = survey(self.name.removeprefix("timm:"), self.preprocessing.channels)
        return facts.smallest, facts.fixed

    @property
    def takes_any_size(self) -> bool:
        """Can pictures be seen as they are?"""
        try:
            self.check_native()
        except ValueError:
            return False
        return True

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def open_model(name: str, weights: Path | None = None, device: str = "cpu") -> ImageModel:
    """Open a network that can be asked about pictures.

    Examples:
        >>> gs.open_model("photos.safetensors").labels
        ('cat', 'dog')

    Args:
        name: a file that `gapstone train` wrote; `timm:NAME`, with weights from timm's hub (downloaded once) or from
            `weights`; `hf:FOLDER`, a classifier of Hugging Face's transformers as it is; a network of
            gapstone's own (`vgg16`, `googlenet`, …), with `weights` that others published.
        weights: a safetensors file: timm's or torchvision's state_dict.
        device: where the model runs.

    Returns:
        The model with its labels and preprocessing.

    Raises:
        ModelFileError: a file that is no model; a ValueError.
        FileNotFoundError: no such file.
        ImportError: timm or transformers is not installed.
        OSError: the weights cannot be had.
    """
    if takes_weights(name):
        of_hf = name.startswith(PREFIX)
        open_it = _of_folder if of_hf else _of_timm if name.startswith("timm:") else _published
        opened = open_it(name, weights, device)
        try:
            check_dry_run(opened.model, _trial_image(opened))
        except NotFiniteError as error:
            raise NotFiniteError(f"{display(weights or name)}: {error}") from error
        return opened
    if weights is not None:
        raise ValueError(f"--weights goes with timm:NAME or a network's name; {display(name)} brings its own")
    return as_image_model(load(name).to(device), name)


def as_image_model(classifier: Classifier, name: str) -> ImageModel:
    """A classifier as what can be asked about pictures."""
    return ImageModel(name, classifier, classifier.labels, classifier.preprocessing, classifier.multi_label)


def _trial_image(opened: ImageModel) -> Tensor:
    if isinstance(opened.model, Classifier):
        return opened.model.trial_image()
    return trial_image(opened.preprocessing, opened.preprocessing.size).to(opened.device)


def takes_weights(name: str) -> bool:
    """Whether `name` is a network, whose weights are another file, rather than a model's file."""
    return name.startswith(("timm:", PREFIX)) or (name in NAMES and not Path(name).is_file())


def _published(name: str, weights: Path | None, device: str) -> ImageModel:
    if weights is None:
        way = "--weights FILE, a safetensors file of a published state_dict; " if name in FORMATS else ""
        raise ValueError(
            f"{name} is a network without weights: {way}a file that `gapstone train` wrote; or {NETS[name].pretrained}"
        )
    checkpoint = read_checkpoint(name, weights)
    if checkpoint.head_state is None or checkpoint.classes is None:
        raise ValueError(f"{weights}: the weights of {name} without its head: it answers nothing; `compare` takes them")
    if checkpoint.preprocessing is None:
        channels = checkpoint.in_channels
        raise ValueError(f"{weights}: the weights of {name} for {channels} channels; gapstone reads images of 3 or 1")
    labels = class_names(checkpoint.classes, "imagenet-1k" if checkpoint.classes == 1000 else None)
    with torch.random.fork_rng(devices=[]):  # first weights, overwritten at once
        classifier = Classifier(name, checkpoint.head, labels, checkpoint.preprocessing)
    check_finite(checkpoint.features | checkpoint.head_state)
    classifier.features.load_state_dict(checkpoint.features)
    classifier.head.load_state_dict(checkpoint.head_state)
    return ImageModel(name, classifier.eval().to(device), labels, checkpoint.preprocessing)


def _of_folder(name: str, weights: Path | None, device: str) -> ImageModel:
    if weights is not None:
        raise ValueError(f"--weights {display(weights)}: {display(name)} brings its own weights; leave it out")
    folder = folder_of(name)
    model, labels = create_hf_classifier(folder, short_name(name))
    multi_label = read_config(folder).get("problem_type") == "multi_label_classification"
    return ImageModel(name, model.to(device), labels, hf_input(folder), multi_label)


def _of_timm(name: str, weights: Path | None, device: str) -> ImageModel:
    zoo = with_head(name.removeprefix("timm:"), weights)
    return ImageModel(name, zoo.model.to(device), zoo.labels, zoo.preprocessing)
