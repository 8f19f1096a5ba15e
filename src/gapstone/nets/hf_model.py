"""Networks of transformers, made of a configuration, their weights from a folder alone (`pip install gapstone[hf]`)."""

import importlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.console.formatting import display, first_line
from gapstone.nets.hf_folder import Config, check_weights, kept, read_config
from gapstone.nets.state_dicts import not_sound

TIMM_INSIDE = ("timm_wrapper",)


def transformers_version() -> str:
    """Raises ImportError without transformers."""
    return str(transformers_for("hf:").__version__)


def create_hf(text: str, who: str, folder: Path | None = None) -> nn.Module:
    """The network that a configuration (`hf_folder.kept`) describes, without its classifier.

    Args:
        text: the configuration as JSON.
        who: the network, in messages.
        folder: where its weights lie; None: random ones.

    Raises:
        ImportError: transformers is not installed.
        ValueError: a network that transformers does not know or make, or that is not one of images.
    """
    transformers = transformers_for(who)
    kind, given = _vision_part(transformers, json.loads(text), who)
    config = _config(transformers, kind, given, who)
    network = _entry(transformers.MODEL_MAPPING, config)
    if network is None or getattr(network, "main_input_name", None) != "pixel_values":
        raise ValueError(f"{who} is a {display(kind)}, which is no network of images alone; {_KNOWN}")
    return _make(network, config, who, folder)


def create_hf_classifier(folder: Path, who: str, weights: bool = True) -> tuple["LogitsOf", tuple[str, ...]]:
    """The classifier of a folder as it is, and its labels. Raises as `create_hf`; ValueError where there is none."""
    whole = read_config(folder)
    transformers = transformers_for(who)
    kind = str(whole["model_type"])
    if not _is_classifier(whole):
        raise ValueError(
            f"{who} is no classifier of images ({display(str(whole.get('architectures')))[:80]}): it has no logits. "
            f"`compare` and `train` put heads on it"
        )
    labels = _labels(whole.get("id2label"), who)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: k for k, name in enumerate(labels)}}
    config = _config(transformers, kind, json.loads(kept(whole)) | names, who)
    network = _entry(transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, config)
    if network is None:
        raise ValueError(f"{who} is a {display(kind)}, of which transformers has no classifier of images; {_KNOWN}")
    net = _make(network, config, who, folder if weights else None)
    if missing := getattr(net, "missing", ()):
        raise ValueError(f"{who}: {len(missing)} of its weights are missing ({', '.join(missing[:3])}, …)")
    return LogitsOf(net).eval(), labels


def classifier_or_network(folder: Path, who: str) -> nn.Module:
    """The network of a folder with random weights: its classifier, or where it holds none the network alone."""
    config = read_config(folder)
    made = _is_classifier(config)
    model = create_hf_classifier(folder, who, weights=False)[0] if made else create_hf(kept(config), who)
    height, width = own_size(model.net if isinstance(model, LogitsOf) else model)
    model.default_cfg = {"input_size": (3, height, width)}  # type: ignore[assignment]  # where timm's networks say it
    return model


def _is_classifier(config: Config) -> bool:
    made = config.get("architectures")
    return isinstance(made, list) and any("ForImageClassification" in str(name) for name in made)


@final
class LogitsOf(nn.Module):
    """A classifier of transformers: images to logits, at any size that it resamples its position embeddings for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.own_size = own_size(net)
        self.resamples = resamples(net)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = run_at_any_size(self.net, x, self.own_size, self.resamples).logits
        return logits


def run_at_any_size(net: nn.Module, x: Tensor, own: tuple[int, int], resampled: bool) -> Any:
    """The network's output; `own`, `resampled`: its `own_size`, and whether it `resamples`."""
    more = {"interpolate_pos_encoding": True} if resampled and tuple(x.shape[2:]) != own else {}
    return net(pixel_values=x, return_dict=True, **more)


def own_size(net: Any) -> tuple[int, int]:
    """(H, W) of the images that the network was made for; 224 px where it does not say."""
    size = getattr(net.config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def resamples(net: nn.Module) -> bool:
    """Whether position embeddings are resampled for other sizes only when they are asked to be."""
    return "interpolate_pos_encoding" in inspect.signature(net.forward).parameters


_KNOWN = "ViT, DINOv2, SigLIP, CLIP, Swin, ConvNeXt, ResNet and others of transformers are"


def transformers_for(who: str) -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            f"{who} needs transformers: pip install 'gapstone[hf]' (here: {error}); timm's and gapstone's own networks "
            f"need no more"
        ) from error


def _vision_part(transformers: Any, config: Config, who: str) -> tuple[str, Config]:
    """(model_type, configuration) of the network of images: the whole, or the half of CLIP and SigLIP that sees."""
    kind, part = str(config.get("model_type")), config.get("vision_config")
    if kind in TIMM_INSIDE:
        raise ValueError(
            f"{who} holds a network of timm: name it, --backbone timm:NAME --weights FOLDER/model.safetensors"
        )
    if isinstance(part, dict):
        for name in (str(part.get("model_type")), f"{kind}_vision_model"):
            if name in transformers.CONFIG_MAPPING:
                return name, part
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"{who} is a {display(kind)[:60]}, which transformers {transformers.__version__} does not know. Code that "
            f"comes with a folder is never run; take a model that is part of transformers, or a newer version of it"
        )
    return kind, config


def _config(transformers: Any, kind: str, given: Config, who: str) -> Any:
    given = {key: value for key, value in given.items() if key != "model_type"}
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(given)
    except Exception as error:  # each configuration checks itself in its own way
        raise ValueError(f"{who}: its config.json makes no {kind}: {first_line(error)}") from error
    return config


def _entry(mapping: Any, config: Any) -> Any:
    """The class for a configuration; the first where transformers has several."""
    try:
        found = mapping[type(config)]
    except KeyError:
        return None
    return found[0] if isinstance(found, tuple) else found


def _make(network: Any, config: Any, who: str, folder: Path | None) -> nn.Module:
    try:
        if folder is None:
            net: nn.Module = network(config)
            return net
        check_weights(folder)
        with _quiet(), torch.device("cpu"):
            net, report = network.from_pretrained(
                str(folder), config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except ImportError as error:
        raise ImportError(f"{who}: {first_line(error)}") from error
    except Exception as error:  # as above, and damaged files
        if str(error).startswith(who):
            raise
        what = "its weights cannot be read" if folder else "transformers cannot make it"
        raise ValueError(f"{who}: {what} ({type(error).__name__}: {first_line(error)})") from error
    missing = sorted(report["missing_keys"])
    net.missing = tuple(missing)  # type: ignore[assignment]
    if wrong := not_sound({key: x for key, x in net.state_dict().items() if key not in missing}):
        raise ValueError(f"{who}: {wrong}; the file is damaged, or the training diverged: take another")
    return net


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports what it does not find, and draws bars; what matters is said by `_make`."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _labels(names: object, who: str) -> tuple[str, ...]:
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(map(str, range(len(names)))) or len(names) < 2:
        raise ValueError(f"{who}: its config.json has no names of its classes (id2label from 0 on, at least two)")
    labels = [str(names[str(k)]) for k in range(len(names))]
    # "crane" is a bird and a machine: names that stand twice get their number
    return tuple(label if labels.count(label) == 1 else f"{label} ({k})" for k, label in enumerate(labels))
