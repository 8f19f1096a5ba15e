"""`--weights FILE`: trained weights of a backbone, from a model of gapstone's or a state_dict."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gapstone import nets
from gapstone.console.formatting import count_noun, display
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import load
from gapstone.models.model_file import KEY
from gapstone.models.trained_on import UNKNOWN, TrainedOn
from gapstone.nets import Features
from gapstone.nets.checkpoints import FORMATS, heads_of, read_checkpoint
from gapstone.nets.hf_features import HfFeatures
from gapstone.nets.hf_folder import PREFIX, config_text
from gapstone.nets.on_meta import on_meta
from gapstone.nets.state_dicts import check_size, check_sound, read_placed_state
from gapstone.nets.wrapped_weights import network_part, without_head
from gapstone.nets.zoo import classifier_of, tensors_of, with_head
from gapstone.storage.paths import check_input


@dataclass(frozen=True)
class BackboneWeights:
    """The weights of a trained backbone, and the images that it expects.

    >>> weights = read_weights(Path("photos.safetensors"))
    >>> weights.backbone, weights.channels
    ('resnet18', 3)
    >>> nets.build(weights.backbone, weights.channels).load_state_dict(weights.state)
    """

    backbone: str
    channels: int
    """Channels of the images it was trained on."""
    state: dict[str, Tensor]
    preprocessing: Preprocessing | None = None
    """The preprocessing of a model of gapstone's; None for a state_dict."""
    published: Preprocessing | None = None
    """That of published weights; None for others."""
    trained_on: TrainedOn = UNKNOWN
    """The images that a model of gapstone's was trained on."""
    said: tuple[str, ...] = ()
    """What of the file was taken and what was left out, where that is not all of it."""

    @property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std) per channel that the weights expect, on the scale 0…1; None if unknown."""
        expected = self.preprocessing or self.published
        return (expected.mean, expected.std) if expected else None


def read_weights(path: Path, backbone: str | None = None, channels: int = 3, pooler: bool = False) -> BackboneWeights:
    """Read the weights in a model of gapstone's or a state_dict (safetensors, or torch.save's); check them.

    `backbone` names the network of a state_dict, which is for as many `channels` as the user's images, or for 3 or 1.
    `pooler`: also those of the network's own pooler.
    Raises ValueError if the file does not hold these weights.
    """
    check_input(f"--weights {display(path)}", path)
    check_size(path)
    if _is_model_file(path):
        model = load(path)
        if model.config is not None:
            _check_config(path, backbone, model.config)
        elif backbone not in (None, model.backbone):
            raise ValueError(f"--weights {path} is a {model.backbone}, not a {backbone}: leave --backbone out.")
        preprocessing = model.preprocessing
        if pooler and model.features.own_width is None:
            raise ValueError(
                f"--weights {path} is a model without its backbone's own pooler, which the head own needs: give the "
                f"weights of the whole network, or leave own out."
            )
        state = model.features.state_dict()
        state = state if pooler else {key: x for key, x in state.items() if key not in model.features.pooler}
        trained_on = model.trained_on or UNKNOWN
        return BackboneWeights(
            backbone or model.backbone, preprocessing.channels, state, preprocessing, trained_on=trained_on
        )
    if backbone is None:
        raise ValueError(
            f"--weights {path} does not say which network it is for (it is no model of gapstone's): name it, such as "
            f"--backbone resnet18 or --backbone timm:resnet18."
        )
    return _of_state_dict(path, backbone, channels, pooler)


def _is_model_file(path: Path) -> bool:
    """Whether gapstone wrote it; False for a state_dict, and for what `read_state` refuses."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def _of_state_dict(path: Path, backbone: str, channels: int, pooler: bool) -> BackboneWeights:
    """The network's tensors in a file, whatever they were saved with."""
    zoo = backbone.removeprefix("timm:") if backbone.startswith("timm:") else None
    with on_meta():
        names = nets.build(backbone, channels, pooler=pooler).state_dict()
    own = {name.removeprefix("net.") for name in names} if zoo else set(names)
    given, where = read_placed_state(path)
    part = network_part(given, own)
    heads = {f"{classifier_of(zoo)}.weight"} if zoo else heads_of(backbone)
    # without its own classifier, what stands in the classifier's place is a projection, or what another task needed
    has_head = not heads.isdisjoint(part.state)
    # a classifier of timm's has a pooler or neck, too, which its maps alone lack
    kept = own if not has_head else own | heads if zoo is None else tensors_of(zoo)
    state, beside = without_head(part.state, kept)
    left_out = f"left out: {', '.join(map(display, beside))}" if beside else None
    said = [f"{where} is taken" if where else None, part.said(), left_out]
    published, classes, among = None, None, (channels, 3, 1)
    if zoo and has_head:
        model = with_head(zoo, path, state)
        published, classes, state = model.preprocessing, len(model.labels), model.model.state_dict()
        among = (published.channels,) * 3
    elif backbone in FORMATS:
        checkpoint = read_checkpoint(backbone, path, state)
        # with a head it is the published checkpoint, which expects the published images; without one, nobody knows
        published, classes = checkpoint.preprocessing if has_head else None, checkpoint.classes
        found = checkpoint.in_channels, checkpoint.features
    else:
        _check_no_more(path, backbone, own, state)
    if backbone not in FORMATS:
        state = {f"net.{name}": tensor for name, tensor in state.items()} if zoo else state
        found = _matching(path, backbone, among, state, pooler)
    said.append(None if classes is None else f"its head of {count_noun(classes, 'class', 'classes')} is left out")
    return BackboneWeights(backbone, *found, published=published, said=tuple(filter(None, said)))


def _check_no_more(path: Path, backbone: str, own: set[str], state: dict[str, Tensor]) -> None:
    """Raises ValueError where the network's own modules hold tensors that it lacks: it is a larger one's file."""
    more = sorted(state.keys() - own)
    if more:
        raise ValueError(
            f"--weights {path}: not the weights of {backbone}: {count_noun(len(more), 'tensor')} of the file "
            f"{'belongs' if len(more) == 1 else 'belong'} to another network ({', '.join(map(display, more[:3]))}, …)."
        )


def digest(model: nn.Module, pooler: bool = False) -> str:
    """Sixteen hex digits of SHA-256: equal weights have an equal digest, whatever file they came from.

    `pooler`: of the weights of a backbone's own pooler alone, which do not count otherwise.
    """
    own = model.pooler if isinstance(model, Features) else ()
    sha256 = hashlib.sha256()
    if isinstance(model, HfFeatures):
        sha256.update(f"{model.identity}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if pooler != (name in own):
            continue
        add_tensor(sha256, name, tensor)
    return sha256.hexdigest()[:16]


def add_tensor(sha256: "hashlib._Hash", name: object, tensor: Tensor) -> None:
    """Let a digest depend on a tensor: its name, type, shape and values."""
    sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _check_config(path: Path, backbone: str | None, config: str) -> None:
    """Raises ValueError unless `backbone` is the folder of the network that a model file holds."""
    if backbone is None or not backbone.startswith(PREFIX):
        raise ValueError(f"--weights {path} is a network of transformers: name its folder, too, --backbone hf:FOLDER.")
    if config_text(backbone) != config:
        raise ValueError(f"--weights {path} is not the network of {display(backbone)}: their configurations differ.")


def _matching(
    path: Path, backbone: str, channels: tuple[int, ...], state: dict[str, Tensor], pooler: bool
) -> tuple[int, dict[str, Tensor]]:
    """The first number of channels whose network has these tensors, and the tensors of its features alone."""
    wrong: list[str] = []
    for count in dict.fromkeys(channels):
        with on_meta():
            expected = nets.build(backbone, count, pooler=pooler).state_dict()
        differs = [key for key, tensor in expected.items() if key not in state or state[key].shape != tensor.shape]
        if not differs:
            check_sound(f"--weights {path}: not the weights of {backbone}", expected, state)
            return count, {key: state[key] for key in expected}
        wrong = wrong or differs
    raise ValueError(
        f"--weights {path}: not the weights of {backbone}: {len(wrong)} of its {len(expected)} tensors are missing or "
        f"of another shape ({', '.join(wrong[:3])}, …)."
    )
