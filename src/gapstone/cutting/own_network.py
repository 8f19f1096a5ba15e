"""A network of the user's own as a backbone: its head is removed, and what it is becomes known by a name."""

import copy
import inspect
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gapstone.console.formatting import display
from gapstone.cutting.cut import HeadCut, cut_head
from gapstone.images.preprocessing import Preprocessing
from gapstone.nets.own_features import OWN_NETWORK, OwnTrunk, find_facts, register_own
from gapstone.nets.zoo import preprocessing_of
from gapstone.runtime.code_digest import UnknownCodeError, code_digest

Builds = Callable[[], nn.Module]


@dataclass(frozen=True)
class OwnNetwork:
    """A network of the user's own, registered by its name in this process."""

    name: str
    """`module:`, its class, and a digest of what it does and, where they are given, of its weights."""
    trunk: OwnTrunk
    digest: str | None
    """None: its code cannot be told from that of an edited network."""
    unknown: str | None
    """The part of it that cannot be told, in words."""


@dataclass(frozen=True)
class CopyTrunk:
    """Makes copies of a network that was given, up to its map, with its weights."""

    trunk: nn.Module

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self.trunk)


@dataclass(frozen=True)
class BuildTrunk:
    """Builds networks, each with random weights of its own, and cuts them."""

    build: Builds
    cut: HeadCut | None

    def __call__(self) -> nn.Module:
        model = _built(self.build)
        return model if self.cut is None else self.cut.apply(model)


def own_network(backbone: nn.Module | Builds, at: str | None = None) -> OwnNetwork:
    """Make a network of the user's own known by a name, for `Classifier`, `nets.build` and trials.

    own_network(torchvision.models.resnet18()).name
    'module:ResNet-6f1d…'
    own_network(lambda: MyNet(width=64)).trunk.facts.channels
    256

    Args:
        backbone: a network, which is not changed; all that is made of it begins with its weights. Or a function (or
            class) that builds one at each call; random weights are drawn from torch's generator.
        at: the name of the module whose output is the map; None: it is located.

    Raises:
        SplitError: no map is found; the message lists the candidates. A ValueError.
        ValueError: the network takes no images that it is given.
        TypeError: it is neither, or cannot be copied.
    """
    given = isinstance(backbone, nn.Module)
    if not given and not callable(backbone):
        raise TypeError(
            f"backbone={display(repr(backbone)[:60])}: expected a name, an nn.Module, or a function that builds one"
        )
    model = _copied(backbone) if isinstance(backbone, nn.Module) else _built_with(backbone, 0)
    fixed = given or _same_weights(model, _built_with(backbone, 1))
    expected, kind, digest, unknown = _expected(model), type(model), None, None
    try:
        digest = _digest(backbone, model, fixed)
    except UnknownCodeError as error:
        unknown = str(error)
    trained = looks_trained(model) if fixed else False
    trunk, cut, images = cut_head(model, at, what="backbone")
    source = f"{kind.__module__}.{kind.__qualname__}"
    facts = find_facts(trunk, images, fixed, trained, source, expected if fixed and trained else None)
    make = CopyTrunk(trunk) if given else BuildTrunk(backbone, cut)
    known = digest or secrets.token_hex(8)  # never met again
    own = OwnNetwork(f"{OWN_NETWORK}{kind.__name__}-{known[:8]}", OwnTrunk(make, facts), digest, unknown)
    register_own(own.name, own.trunk)
    return own


def looks_trained(model: nn.Module) -> bool | None:
    """Whether the weights are trained: norms begin as the identity, and training moves them. None: it has no norms.

    looks_trained(torchvision.models.resnet18())
    False
    """
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    parameters = [dict(norm.named_parameters(recurse=False)) for norm in norms]
    weights = [found["weight"].detach() for found in parameters if "weight" in found]
    biases = [found["bias"].detach() for found in parameters if "bias" in found]
    if not weights:
        return None
    # a residual block's last norm may begin at 0 on purpose
    begun = all(bool(torch.isin(weight, torch.tensor([0.0, 1.0])).all()) for weight in weights)
    return not begun or any(bool(bias.any()) for bias in biases)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).cpu()
    except Exception as error:  # networks hold anything
        raise TypeError(
            f"backbone={type(model).__name__}: the network cannot be copied ({error}); give a function that builds it"
        ) from error


def _built(build: Builds) -> nn.Module:
    model = build()
    if not isinstance(model, nn.Module):
        raise TypeError(f"backbone: {_named(build)} returned {type(model).__name__}, not an nn.Module")
    return model.cpu()


def _built_with(build: Any, seed: int) -> nn.Module:
    """As it builds it with this seed; the generator is as before afterwards."""
    parameters = _required(build)
    if parameters:
        raise TypeError(
            f"backbone={_named(build)} needs {', '.join(parameters)}, and is called without arguments: give "
            f"lambda: {_named(build)}({', '.join(f'{name}=…' for name in parameters)})"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _built(build)


def _required(build: Any) -> list[str]:
    try:
        found = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # compiled
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in found if p.default is inspect.Parameter.empty and p.kind in plain]


def _named(build: object) -> str:
    return display(getattr(build, "__qualname__", type(build).__name__))


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights. Raises ValueError if they are two networks."""
    first, second = one.state_dict(), other.state_dict()
    if {key: x.shape for key, x in first.items()} != {key: x.shape for key, x in second.items()}:
        raise ValueError(
            f"backbone: two calls built two networks ({type(one).__name__} and {type(other).__name__}, of other "
            f"weights): a function that builds a network must build the same one at each call"
        )
    return all(torch.equal(first[key], second[key]) for key in first)


def _digest(backbone: object, model: nn.Module, fixed: bool) -> str:
    kinds = sorted({code_digest(type(module)) for module in model.modules()})
    weights = model if fixed else {key: (str(x.dtype), tuple(x.shape)) for key, x in model.state_dict().items()}
    code = None if isinstance(backbone, nn.Module) else backbone
    return code_digest((kinds, weights, code))


def _expected(model: nn.Module) -> Preprocessing | None:
    """What images the weights of a model of timm's expect."""
    described = getattr(model, "pretrained_cfg", None)
    try:
        return preprocessing_of(dict(described)) if described else None
    except (KeyError, TypeError, ValueError):  # another library's description
        return None
