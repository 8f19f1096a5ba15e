"""`--weights FILE`: trained weights for a backbone, from a model of gapstone's or a safetensors state_dict."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gapstone import nets
from gapstone.console.formatting import display
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import load
from gapstone.models.model_file import KEY
from gapstone.nets.checkpoints import FORMATS, read_checkpoint
from gapstone.nets.on_meta import on_meta
from gapstone.nets.state_dicts import check_size, check_sound, read_state
from gapstone.nets.zoo import with_head
from gapstone.storage.paths import check_input


@dataclass(frozen=True)
class BackboneWeights:
    """A trained backbone, and what it expects of images.

    >>> weights = read_weights(Path("photos.safetensors"))
    >>> weights.backbone, weights.channels
    ('resnet18', 3)
    >>> nets.build(weights.backbone, weights.channels).load_state_dict(weights.state)
    """

    backbone: str
    channels: int
    """Of the images it was trained on."""
    state: dict[str, Tensor]
    preprocessing: Preprocessing | None = None
    """Of a model of gapstone's; a state_dict has none."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """(mean, std) per channel on the scale 0…1 that the weights expect, where that is known."""


def read_weights(path: Path, backbone: str | None = None, channels: int = 3) -> BackboneWeights:
    """The weights in `path`, checked against the network they are for.

    backbone: its name, for a state_dict; a model of gapstone's names its own. channels: of the images at hand; a
    state_dict of gapstone's own networks may be for as many, or for 3 or 1.

    Raises: ValueError for a file that does not hold these weights, with what to do.
    """
    check_input(f"--weights {display(path)}", path)
    check_size(path)
    try:
        with safe_open(path, "pt") as file:
            ours = KEY in (file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"--weights {path}: not a safetensors file ({error}); write one with "
            f"safetensors.torch.save_file(model.state_dict(), …): pickled checkpoints can run code and are not opened."
        ) from error
    if ours:
        model = load(path)
        if backbone not in (None, model.backbone):
            raise ValueError(f"--weights {path} is a {model.backbone}, not a {backbone}: leave --backbone out.")
        seen = model.preprocessing
        state = model.features.state_dict()
        return BackboneWeights(model.backbone, seen.channels, state, seen, (seen.mean, seen.std))
    if backbone is None:
        raise ValueError(
            f"--weights {path} does not say which network it is for (it is no model of gapstone's): name it, such as "
            f"--backbone resnet18 or --backbone timm:resnet18."
        )
    if backbone.startswith("timm:"):
        zoo = with_head(backbone.removeprefix("timm:"), path)
        given = {f"net.{key}": tensor for key, tensor in zoo.model.state_dict().items()}
        channels = len(zoo.mean)
        return BackboneWeights(backbone, *_fitting(path, backbone, (channels,), given), moments=(zoo.mean, zoo.std))
    given = read_state(path)
    if {key.partition(".")[0] for key in given} == {"features", "head"}:  # a Classifier's state_dict
        trunk = {key.removeprefix("features."): tensor for key, tensor in given.items() if key.startswith("features.")}
        return BackboneWeights(backbone, *_fitting(path, backbone, (channels, 3, 1), trunk))
    if backbone in FORMATS:
        found = read_checkpoint(backbone, path)
        # with its head it is what was published, and expects what that expects; a trunk alone is anyone's
        published = found.head_state is not None and found.in_channels == len(found.mean)
        moments = (found.mean, found.std) if published else None
        return BackboneWeights(backbone, found.in_channels, found.features, moments=moments)
    return BackboneWeights(backbone, *_fitting(path, backbone, (channels, 3, 1), given))


def digest(features: nn.Module) -> str:
    """Sixteen hex digits: equal weights, equal digest, whatever file they came from."""
    found = hashlib.sha256()
    for name, tensor in sorted(features.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _fitting(
    path: Path, backbone: str, channels: tuple[int, ...], given: dict[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """For how many channels the weights are, and those of the trunk alone."""
    wrong: list[str] = []
    for count in dict.fromkeys(channels):
        with on_meta():
            expected = nets.build(backbone, count).state_dict()
        differs = [key for key, own in expected.items() if key not in given or given[key].shape != own.shape]
        if not differs:
            check_sound(f"--weights {path}: not the weights of {backbone}", expected, given)
            return count, {key: given[key] for key in expected}
        wrong = wrong or differs
    raise ValueError(
        f"--weights {path}: not the weights of {backbone}: {len(wrong)} of its {len(expected)} tensors are missing or "
        f"of another shape ({', '.join(wrong[:3])}, …)."
    )
