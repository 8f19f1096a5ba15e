"""A model's tail for a batch of images: found by watching one forward pass, remembered for the next."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from gapstone.maps.placement import Placement
from gapstone.maps.tail import Tail
from gapstone.maps.watch import SplitError, Tape, Watch

REMEMBERED = 64
"""Image sizes per model."""


@dataclass(frozen=True)
class Found:
    """What the first pass at an image size tells the next ones."""

    begin: int
    first: str
    placement: Placement


_found: WeakKeyDictionary[nn.Module, dict[Any, Found]] = WeakKeyDictionary()


@torch.no_grad()
def split(model: nn.Module, images: Tensor, at: str | None = None) -> tuple[Tail, Placement]:
    """Run the model once, in eval mode, and give what comes after its last map.

    Nothing of the model changes. The first pass at an image size watches every call (a few µs each); later ones let all
    through that comes before the map. Raises: SplitError (a ValueError).
    """
    module = _named(model, at)
    known = _found.setdefault(model, {})
    key = tuple(images.shape[1:])
    with quiet(model):
        if at is None and key in known:
            watch, logits = _run(model, images, known[key], None)
            if watch.tape is not None and id(logits) in watch.tape.slots:
                return Tail(watch.tape, logits), known[key].placement
            del known[key]  # the model went another way this time: look again
        watch, logits = _run(model, images, None, module)
    tape = _checked(watch, logits, model, at)
    tail = Tail(tape, logits)
    placement = _placed(watch, tape.map, tuple(tail.map.shape[2:]), images)
    if at is None:
        _remember(known, key, Found(tape.begin, tape.calls[0].name, placement))
    return tail, placement


@torch.no_grad()
def located(features: nn.Module, images: Tensor) -> tuple[Tensor, Placement]:
    """The maps that `features` makes of images, and where their cells lie."""
    known = _found.setdefault(features, {})
    key = tuple(images.shape[1:])
    if key in known:
        return features(images), known[key].placement
    watch = Watch(images)
    with watch:
        maps: Tensor = features(images)
    placement = _placed(watch, maps, tuple(maps.shape[2:]), images)
    _remember(known, key, Found(0, "", placement))
    return maps, placement


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; each module's own mode after."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _run(model: nn.Module, images: Tensor, known: Found | None, at: nn.Module | None) -> tuple[Watch, Tensor]:
    watch = Watch(images, known.begin, None, known.first) if known else Watch(images, at=at)

    def named(module: nn.Module, _: Any, out: Any) -> Any:
        return watch.starts(out) if module is at and watch.tape is None and isinstance(out, Tensor) else None

    # torch's own list of hooks for all modules, for the time of this pass: the model's stay as they are
    hook = register_module_forward_hook(named) if at is not None else None
    try:
        with watch:
            out = model(images)
    finally:
        if hook is not None:
            hook.remove()
    return watch, _logits(out, model)


def _logits(out: Any, model: nn.Module) -> Tensor:
    out = getattr(out, "logits", out)
    if isinstance(out, Tensor) and out.dim() == 2:
        return out
    what = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    raise SplitError(
        f"{type(model).__name__} gave {what}, and logits (N, classes) are needed: wrap it in a module that returns them"
    )


def _named(model: nn.Module, at: str | None) -> nn.Module | None:
    if at is None:
        return None
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if at in modules and at:
        return modules[at]
    tops = [name for name in modules if name and name.count(".") < 2][-12:]
    raise ValueError(f"at={at!r}: {type(model).__name__} has no such module; its last ones are {', '.join(tops)}")


def _checked(watch: Watch, logits: Tensor, model: nn.Module, at: str | None) -> Tape:
    tape, who = watch.tape, type(model).__name__
    way = 'name the module whose output is the last feature map: explain(model, images, at="layer4")'
    if tape is None and at is not None:
        raise SplitError(
            f"at={at!r}: this module of {who} was not called, or gave no single tensor, in the forward pass"
        )
    if tape is None or id(logits) not in tape.slots:
        seen = "; ".join(watch.seen[-3:]) or "none"
        raise SplitError(
            f"no last feature map was found in {who}: its logits do not come from a pooled or flattened map alone "
            f"(a class token, or attention over positions?). Seen: {seen}. If it has one, {way}"
        )
    if tape.foreign:
        raise SplitError(
            f"the logits of {who} come from the map of shape {tuple(tape.map.shape)} and from something else of the "
            f"image, which meet in {tape.foreign}: one map cannot explain them. If a later map holds all, {way}"
        )
    return tape


def _placed(watch: Watch, x: Tensor, cells: tuple[int, ...], images: Tensor) -> Placement:
    size = tuple(images.shape[2:])
    place = watch.places.get(x)
    if len(cells) != len(size):  # tokens: their grid is told later
        return Placement.even(cells, cells)
    if place is None:
        return Placement.even(cells, size)
    return Placement(place.stride, place.start, tuple((0, n) for n in size), exact=True)


def _remember(known: dict[Any, Found], key: Any, found: Found) -> None:
    while len(known) >= REMEMBERED:
        del known[next(iter(known))]
    known[key] = found


def tokens(cells: int, size: Sequence[int]) -> tuple[int, int] | None:
    """The grid (h, w) that `cells` tokens of an image (H, W) stand for, if there is one."""
    h = round((cells * size[0] / size[1]) ** 0.5)
    return (h, cells // h) if h > 0 and cells % h == 0 else None
