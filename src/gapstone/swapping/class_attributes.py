"""Updates what a model states about its classifier after a swap: num_classes, num_labels, timm's two methods."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from gapstone.cutting.exchange import module_names
from gapstone.heads import Head
from gapstone.models.classifier import Classifier
from gapstone.swapping.swap_report import REPORT_ATTRIBUTE, Swapped, count

POOLS = {"avg": "gap", "fast": "gap", "fastavg": "gap", "max": "gmp", "avgmax": "avgmax", "catavgmax": "catavgmax"}
"""timm's names of pools → specs of heads."""


def set_class_attributes(model: nn.Module, net: nn.Module, classes: int, channels: int) -> None:
    """Set the numbers that other code reads, on the model, and on the network if it stands beside its head."""
    if isinstance(model, Classifier):
        return  # its labels already determine the classes
    _set(model, "num_classes", classes)
    config = getattr(net, "config", None)
    for owner in (model, net, config):
        if isinstance(getattr(owner, "num_labels", None), int) and owner.num_labels != classes:  # type: ignore[union-attr]
            _set(owner, "num_labels", classes)
    if isinstance(getattr(net, "num_features", None), int):
        _set(model, "num_features", channels)
    if hasattr(type(net), "get_classifier"):
        model.__dict__["get_classifier"] = GetClassifier(model)
    if hasattr(type(net), "reset_classifier"):
        model.__dict__["reset_classifier"] = ResetClassifier(model, net)


def _set(owner: Any, name: str, value: int) -> None:
    with suppress(AttributeError):  # a property without a setter
        setattr(owner, name, value)


@final
class GetClassifier:
    """timm's `model.get_classifier()`: returns the layer that computes the logits."""

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
    """timm's `model.reset_classifier(num_classes, global_pool=None)`: a new head of the same spec with new weights.

    With `num_classes=0` the model returns the pooled vectors. `global_pool` is a key of `POOLS`.
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
        head = Head(spec, old.channels, max(1, num_classes), report.cells)
        new: nn.Module = head if num_classes else Vectors(head, report.cells)
        like = next(self.model.parameters())
        new = new.to(like.device, like.dtype).train(old.training)
        for name in module_names(self.model)[old]:
            self.model.set_submodule(name, new)
        after = count(self.model)
        self.model.__dict__[REPORT_ATTRIBUTE] = replace(report, head=spec, classes=num_classes, after=after)
        set_class_attributes(self.model, self.net, num_classes, old.channels)


@final
class Vectors(nn.Module):
    """(N, C, *cells) → (N, width): the pooled vectors, the input of a head's classifier."""

    def __init__(self, head: Head, size: tuple[int, ...]) -> None:
        super().__init__()
        self.spec, self.channels, self.size = head.spec, head.channels, size
        self.pools, self.join = head.pools, head.recipe.join

    def forward(self, x: Tensor) -> Tensor:
        vectors = [pool(x).flatten(1) for pool in self.pools] or [x.flatten(1)]
        return torch.cat(vectors, 1) if self.join == "cat" else torch.stack(vectors).mean(0)


def _report(model: nn.Module) -> Swapped:
    report: Swapped = model.__dict__[REPORT_ATTRIBUTE]
    return report


def _head(model: nn.Module) -> nn.Module:
    return model.get_submodule(_report(model).at)
