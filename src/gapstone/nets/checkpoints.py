"""Weights that people have for the papers' networks: files of torchvision's, timm's, facenet's state_dicts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gapstone.images.preprocessing import Preprocessing
from gapstone.images.resizing import EXACT, TIMM, TORCHVISION, Resizing
from gapstone.nets.features import Features
from gapstone.nets.on_meta import on_meta
from gapstone.nets.registry import build
from gapstone.nets.state_dicts import FLOATS, State, check_same, check_sound, read_state
from gapstone.nets.zoo import stored_size

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
FACES = (0.5, 0.5, 0.5), (128 / 255, 128 / 255, 128 / 255)  # facenet: (pixel - 127.5) / 128


@dataclass(frozen=True)
class Checkpoint:
    """Weights for a network of gapstone's and for its head, and what they expect of a picture.

    >>> found = read_checkpoint("vgg16", Path("vgg16.safetensors"))
    >>> found.head, found.classes
    ('fc:4096,4096:dropout=0.5', 1000)
    """

    features: State
    """For `load_state_dict` of `build(name, found.in_channels)`."""
    in_channels: int
    """Channels of the images, as the first convolution has them."""
    head: str
    """The spec of the head that these weights were trained with, for `gapstone.heads.Head`."""
    head_state: State | None
    """For `Head.load_state_dict`; None where the file has the network alone."""
    classes: int | None
    """Logits of the head; None without one."""
    preprocessing: Preprocessing | None
    """How images are prepared for the published weights (a flattening head takes no other size); None where they are
    neither of three channels nor of one."""


@dataclass(frozen=True)
class Format:
    """How the published weights of a network are named, beside the names they share with ours."""

    head: str
    linear: dict[str, str]
    """Their linear layers → those of `Head`, first to last."""
    beside: tuple[str, ...] = ()
    """Beginnings of names that belong to neither the network nor its head: they are left out."""
    size: int = 224
    crop: float = 0.875
    moments: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    resizing: Resizing = TORCHVISION

    def preprocessing(self, channels: int) -> Preprocessing | None:
        """As `Checkpoint.preprocessing`."""
        if channels not in (1, 3):
            return None
        mean, std = self.moments
        if channels == 1:  # of a grey picture
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        size = self.size, self.size
        return Preprocessing(channels, size, stored_size(size, self.crop), mean, std, resizing=self.resizing)


VGG = Format(
    "fc:{},{}:dropout=0.5",
    {"classifier.0": "classifier.0", "classifier.3": "classifier.3", "classifier.6": "classifier.6"},
)
RESNET = Format("gap", {"fc": "classifier.0"})
FORMATS = {
    **{f"vgg{depth}{norm}": VGG for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    **{f"resnet{depth}": RESNET for depth in (18, 34, 50, 101)},
    # torchvision's pretrained weights came from Caffe: its model turns ImageNet's moments into these by itself.
    "googlenet": Format("gap:dropout=0.2", {"fc": "classifier.1"}, ("aux1.", "aux2."), moments=INCEPTION),
    "inception_v4": Format("gap", {"last_linear": "classifier.0"}, size=299, moments=INCEPTION, resizing=TIMM),
    "inception_resnet_v1": Format(
        "gap:dropout=0.6",
        {"logits": "classifier.1"},
        ("last_linear.", "last_bn."),  # part of `logits` by then: `_one_layer`
        size=160,
        crop=1.0,
        moments=FACES,
        resizing=EXACT,
    ),
}


def published_head(name: str) -> str:
    """The head that a network of gapstone's was published with.

    >>> published_head("vgg16"), published_head("nin:paper"), published_head("resnet50:small")
    ('fc:4096,4096:dropout=0.5', 'nin', 'gap')
    """
    if name.startswith("nin"):
        return "nin"
    return FORMATS[name].head.format(4096, 4096) if name in FORMATS else "gap"


def read_checkpoint(name: str, path: Path, given: State | None = None) -> Checkpoint:
    """A file of a state_dict of torchvision, timm or facenet-pytorch, for the network `name`.

        >>> found = read_checkpoint("resnet50", Path("resnet50.safetensors"))
        >>> features = build("resnet50", found.in_channels)
        >>> features.load_state_dict(found.features)
        >>> head = Head(found.head, features.channels, found.classes)
        >>> head.load_state_dict(found.head_state)

    Half precision becomes float32. facenet's two linear layers with a batch norm between them become the one they are
    equal to. VGG's head takes 7×7 maps; with `:grid=7` in its spec it takes the same tensors and, as torchvision's, any
    size. GoogLeNet's auxiliary heads are left out.

    `given`: what was read of the file.

    Raises: ValueError for a file that is not the weights of this network, and for a network nobody has
        published PyTorch weights of; FileNotFoundError.
    """
    if name not in FORMATS:
        raise ValueError(f"{name}: no published weights of it are known; there are readers for {', '.join(FORMATS)}")
    form = FORMATS[name]
    given = read_state(path) if given is None else given
    state = {key: tensor.float() if tensor.dtype in FLOATS else tensor for key, tensor in given.items()}
    state = _vgg_of_timm(state)
    if name == "inception_resnet_v1":
        state = _one_layer(state, path)
    features, body = _body(name, state)
    try:
        check_same(f"{path}: not the weights of {name}", features.state_dict(), body)
    except ValueError as error:
        fits = [other for other in FORMATS if other != name and _fits(other, state)]
        raise ValueError(f"{error}; it holds {' or '.join(fits)}" if fits else str(error)) from None
    head, classes = _head(form, state, features.channels, f"{path}: not the weights of {name}'s head")
    widths = [len(state[f"{layer}.weight"]) for layer in form.linear][:-1] if head else [4096, 4096]
    spec, preprocessing = form.head.format(*widths), form.preprocessing(features.in_channels)
    return Checkpoint(body, features.in_channels, spec, head, classes, preprocessing)


def heads_of(name: str) -> set[str]:
    """Names of the head's tensors, and of what belongs to neither, in files of the network `name`.

    >>> heads_of("resnet18")
    {'fc.weight'}
    """
    if name not in FORMATS:
        return set()
    form = FORMATS[name]
    timms = {"pre_logits.fc1.weight", "head.fc.weight"} if form is VGG else set()
    return {f"{layer}.weight" for layer in form.linear} | {f"{key}.weight" for key in map(_module, form.beside)} | timms


def _module(name: str) -> str:
    return name.partition(".")[0]


def _body(name: str, state: State) -> tuple[Features, State]:
    """The network, on the meta device, and what the file has for it: all that is not its head's."""
    with on_meta():
        features = build(name)
        first = next(key for key in features.state_dict() if key.endswith("weight"))
        weight = state.get(first)
        if weight is not None and weight.ndim == 4 and 1 <= weight.shape[1] != features.in_channels:
            features = build(name, weight.shape[1])
    form = FORMATS[name]
    head = [f"{layer}.{kind}" for layer in form.linear for kind in ("weight", "bias")]
    body = {k: tensor for k, tensor in state.items() if k not in head and not any(map(k.startswith, form.beside))}
    for key, tensor in features.state_dict().items():
        if key.endswith("num_batches_tracked"):  # files older than torch 0.4.1 lack it, torchvision's first among them
            body.setdefault(key, torch.zeros_like(tensor, device="cpu"))
    return features, body


def _fits(name: str, state: State) -> bool:
    features, body = _body(name, state)
    own = features.state_dict()
    return own.keys() == body.keys() and all(body[key].shape == tensor.shape for key, tensor in own.items())


def _head(form: Format, state: State, channels: int, what: str) -> tuple[State | None, int | None]:
    """The head's tensors under the names `Head` has for them, and how many classes there are."""
    layers = list(form.linear)
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    present = [name for name in names if name in state]
    if not present:
        return None, None
    if present != names:
        raise ValueError(f"{what}: there is {', '.join(present)}, but not {', '.join(set(names) - set(present))}")
    width = channels * (49 if form is VGG else 1)
    for layer in layers:
        weight, bias = state[f"{layer}.weight"], state[f"{layer}.bias"]
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise ValueError(
                f"{what}: {layer} has a weight of {tuple(weight.shape)} and a bias of {tuple(bias.shape)}, and should "
                f"take {width} numbers"
            )
        width = len(weight)
    floats = {name: torch.empty(0) for name in names}
    check_sound(what, floats, state)
    head = {f"{form.linear[layer]}.{kind}": state[f"{layer}.{kind}"] for layer in layers for kind in ("weight", "bias")}
    return head, width


def _vgg_of_timm(state: State) -> State:
    """timm writes the first two of VGG's linear layers as convolutions, 7×7 and 1×1: the same numbers in that order."""
    names = {"pre_logits.fc1.": "classifier.0.", "pre_logits.fc2.": "classifier.3.", "head.fc.": "classifier.6."}
    renamed: State = {}
    for key, tensor in state.items():
        prefix = next((name for name in names if key.startswith(name)), None)
        if prefix is not None:
            key, tensor = names[prefix] + key.removeprefix(prefix), tensor.flatten(1) if tensor.ndim > 1 else tensor
        renamed[key] = tensor
    return renamed


def _one_layer(state: State, path: Path) -> State:
    """facenet's logits(bn(last_linear(x))) as `logits`. Without it the file makes embeddings, and has no head."""
    names = [f"last_bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    names = ["last_linear.weight", *names, "logits.weight", "logits.bias"]
    inner = {name: state[name].double() for name in names if name in state}
    if "logits.weight" not in inner:
        return state
    if missing := set(names) - set(inner):
        raise ValueError(f"{path}: not the weights of inception_resnet_v1's head: {', '.join(sorted(missing))} missing")
    linear, weight, bias, mean, variance, outer, outer_bias = (inner[name] for name in names)
    if (
        not linear.ndim == outer.ndim == 2
        or len(linear) != outer.shape[1]
        or {len(linear)} != {len(weight), len(bias), len(mean), len(variance)}
    ):
        raise ValueError(f"{path}: not the weights of inception_resnet_v1's head: its layers do not fit each other")
    scale = weight / (variance + 1e-3).sqrt()
    return state | {
        "logits.weight": (outer @ (scale[:, None] * linear)).float(),
        "logits.bias": (outer_bias + outer @ (bias - scale * mean)).float(),
    }
