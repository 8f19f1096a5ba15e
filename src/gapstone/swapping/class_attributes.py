"""What a model says of its own classifier, after its head was swapped: num_classes, num_labels; timm's two methods."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.models.classifier import Classifier
from gapstone.swapping.exchange import names
from gapstone.swapping.swap_report import KEPT, Swapped, count

POOLS = {"avg": "gap", "fast": "gap", "fastavg": "gap", "max": "gmp", "avgmax": "avgmax", "catavgmax": "catavgmax"}
"""timm's names of pools → heads."""


def set_class_attributes(whole: nn.Module, net: nn.Module, classes: int, channels: int) -> None:
    """The numbers that others read: of the model, and of the network where it stands beside its head."""
    if isinstance(whole, Classifier):
        return  # its labels say it
    _tell(whole, "num_classes", classes)
    config = getattr(net, "config", None)
    for owner in (whole, net, config):
        if isinstance(getattr(owner, "num_labels", None), int) and owner.num_labels != classes:  # type: ignore[union-attr]
            _tell(owner, "num_labels", classes)
    if isinstance(getattr(net, "num_features", None), int):
        _tell(whole, "num_features", channels)
    if hasattr(type(net), "get_classifier"):
        whole.__dict__["get_classifier"] = GetClassifier(whole)
    if hasattr(type(net), "reset_classifier"):
        whole.__dict__["reset_classifier"] = ResetClassifier(whole, net)


def _tell(owner: Any, name: str, value: int) -> None:
    with suppress(AttributeError):  # a property that it works out for itself
        setattr(owner, name, value)


@final
class GetClassifier:
    """timm's `model.get_classifier()`: the layer that makes the logits."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self) -> nn.Module:
        head = _head(self.model)
        if not isinstance(head, Head):
            return nn.Identity() if isinstance(head, Vectors) else head
        layers = head.classifier if head.classifier is not None else head.maps
        assert layers is not None
        linear = [layer for layer in layers if any(True for _ in layer.parameters())]
        return linear[0] if len(linear) == 1 else layers


@final
class ResetClassifier:
    """timm's `model.reset_classifier(num_classes, global_pool=None)`: the same head for other classes, drawn anew.

    num_classes 0: the pooled vectors. global_pool: a pool of timm's ("avg", "max", "avgmax", "catavgmax").
    """

    def __init__(self, model: nn.Module, net: nn.Module) -> None:
        self.model, self.net = model, net

    def __call__(self, num_classes: int, global_pool: str | None = None) -> None:
        old, report = _head(self.model), _report(self.model)
        if not isinstance(old, Head | Vectors):
            raise ValueError(
                f"reset_classifier({num_classes}): the head is a {type(old).__name__} of your own, and how to make "
                f"another is not known; gs.swap_head(model, your_new_head) puts one there"
            )
        if global_pool is not None and global_pool not in POOLS:
            raise ValueError(
                f"reset_classifier({num_classes}, {global_pool!r}): this head pools the map; global_pool is one of "
                f"{', '.join(POOLS)}, or None for {old.spec!r} again"
            )
        spec = old.spec if global_pool is None else POOLS[global_pool]
        made = Head(spec, old.channels, max(1, num_classes), report.cells)
        new: nn.Module = made if num_classes else Vectors(made, report.cells)
        like = next(self.model.parameters())
        new = new.to(like.device, like.dtype).train(old.training)
        for name in names(self.model)[old]:
            parent, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent), last, new)
        after = count(self.model)
        self.model.__dict__[KEPT] = replace(report, head=spec, classes=num_classes, after=after)
        set_class_attributes(self.model, self.net, num_classes, old.channels)


@final
class Vectors(nn.Module):
    """(N, C, *cells) → (N, width): what a head's classifier would take."""

    def __init__(self, head: Head, size: tuple[int, ...]) -> None:
        super().__init__()
        self.spec, self.channels, self.size = head.spec, head.channels, size
        self.pools, self.join = head.pools, head.recipe.join

    def forward(self, x: Tensor) -> Tensor:
        vectors = [pool(x).flatten(1) for pool in self.pools] or [x.flatten(1)]
        return torch.cat(vectors, 1) if self.join == "cat" else torch.stack(vectors).mean(0)


def _report(model: nn.Module) -> Swapped:
    report: Swapped = model.__dict__[KEPT]
    return report


def _head(model: nn.Module) -> nn.Module:
    return model.get_submodule(_report(model).at)
