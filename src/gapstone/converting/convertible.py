"""What is converted: the model as it is, and its trunk under a head that can be exchanged."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.models.classifier import Classifier
from gapstone.nets.zoo import survey


@dataclass(frozen=True)
class ConvertibleModel:
    """A model before its head is exchanged."""

    name: str
    whole: nn.Module
    """As it answers today."""
    trunk: Classifier
    """The same features as a Classifier: the very same object for a file of gapstone's; for timm's, the weights moved
    under a head that has learned nothing."""
    labels: tuple[str, ...]
    smallest: int
    """Pixels a side that it takes at least."""
    only: tuple[int, int] | None
    """(H, W), where it takes one size."""

    @property
    def preprocessing(self) -> Preprocessing:
        return self.trunk.preprocessing

    @property
    def head(self) -> str:
        return self.trunk.head.spec if self.whole is self.trunk else "timm's own"


def open_convertible(name: str, weights: Path | None, device: str) -> ConvertibleModel:
    """Open MODEL. Raises: as `open_model`."""
    opened = open_model(name, weights, device)
    model = opened.model
    if isinstance(model, Classifier):
        return ConvertibleModel(name, model, model, opened.labels, model.features.smallest, only(model))
    trunk = _of_timm(opened).to(device).eval()
    facts = survey(name.removeprefix("timm:"), opened.preprocessing.channels)
    return ConvertibleModel(name, model, trunk, opened.labels, facts.smallest, facts.fixed)


def only(model: Classifier) -> tuple[int, int] | None:
    """The one input size the model takes, or None."""
    fixed = model.features.fixed is not None or model.head.size is not None
    return model.preprocessing.size if fixed else None


def _of_timm(opened: ImageModel) -> Classifier:
    with torch.random.fork_rng(devices=[]):  # its first weights, overwritten at once
        trunk = Classifier(opened.name, "gap", opened.labels, opened.preprocessing)
    given = opened.model.state_dict()
    own = {f"net.{key}": tensor for key, tensor in given.items()}
    wanted = trunk.features.state_dict()
    if missing := [key for key in wanted if key not in own]:
        raise ValueError(f"{opened.name}: its weights hold no {missing[0].removeprefix('net.')}, which its maps need.")
    trunk.features.load_state_dict({key: own[key] for key in wanted})
    return trunk
