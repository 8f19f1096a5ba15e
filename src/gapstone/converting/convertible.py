"""The model to convert: as it is, and its features under a head of gapstone's, which can be exchanged."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.models.classifier import Classifier
from gapstone.nets.hf_model import LogitsOf


@dataclass(frozen=True)
class ConvertibleModel:
    """A model before its head is exchanged."""

    name: str
    whole: nn.Module
    """The model as it is."""
    trunk: Classifier
    """A Classifier with the same features. For a file of gapstone's it is `whole` itself; for a timm model it has the
    model's weights and an untrained head."""
    labels: tuple[str, ...]
    smallest: int
    """Smallest side of an image that it takes, in pixels."""
    only_size: tuple[int, int] | None
    """(H, W), if it takes one size only."""
    multi_label: bool = False

    @property
    def preprocessing(self) -> Preprocessing:
        return self.trunk.preprocessing

    @property
    def head(self) -> str:
        whose = "the folder's own" if isinstance(self.whole, LogitsOf) else "timm's own"
        return self.trunk.head.spec if self.whole is self.trunk else whose


def open_convertible(name: str, weights: Path | None, device: str) -> ConvertibleModel:
    """Open a model by its name or file. Raises as `open_model`."""
    opened = open_model(name, weights, device)
    model = opened.model
    if isinstance(model, LogitsOf):
        trunk = _classifier_of_folder(opened).to(device).eval()
    else:
        trunk = model if isinstance(model, Classifier) else _classifier_of_timm(opened).to(device).eval()
    return ConvertibleModel(name, model, trunk, opened.labels, *opened.input_sizes, opened.multi_label)


def _classifier_of_folder(opened: ImageModel) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        return Classifier(opened.name, "gap", opened.labels, opened.preprocessing, pretrained=True)


def _classifier_of_timm(opened: ImageModel) -> Classifier:
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced, so they must not use up random numbers
        trunk = Classifier(opened.name, "gap", opened.labels, opened.preprocessing)
    state = {f"net.{key}": tensor for key, tensor in opened.model.state_dict().items()}
    expected = trunk.features.state_dict()
    if missing := [key for key in expected if key not in state]:
        raise ValueError(f"{opened.name}: its weights hold no {missing[0].removeprefix('net.')}, which its maps need.")
    trunk.features.load_state_dict({key: state[key] for key in expected})
    return trunk
