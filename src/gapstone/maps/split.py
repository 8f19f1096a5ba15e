"""A model's tail for a batch of images: found by watching one forward pass, remembered for the next."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from gapstone.maps.tail import Tail
from gapstone.maps.tape import SplitError, Tape
from gapstone.maps.watch import Known, Watch
from gapstone.modes import quiet
from gapstone.tracing.placement import Placement

REMEMBERED = 64
"""Image sizes per model."""


@dataclass(frozen=True)
class Found:
    """What the first pass at an image size tells the next ones."""

    begin: int
    first: str
    which: int
    axes: tuple[int, ...]
    cells: tuple[int, ...]
    placement: Placement
    grid: tuple[int, ...] | None = None
    """Of tokens: the cells they were before they stood in a row."""
    prefix: int = 0
    """Tokens before those of the grid."""


_found: WeakKeyDictionary[nn.Module, dict[Any, Found]] = WeakKeyDictionary()


@torch.no_grad()
def split(model: nn.Module, images: Tensor, at: str | None = None) -> tuple[Tail, Found]:
    """Run the model once, in eval mode, and give what comes after its last map, and what is known of that map.

    Nothing of the model changes. The first pass at an image size watches every call (a few µs each); later ones let all
    through that comes before the map. Raises: SplitError (a ValueError).
    """
    module = None if at is None else named(model, at)
    known = _found.setdefault(model, {})
    key = tuple(images.shape[1:])
    with quiet(model):
        if at is None and key in known:
            tail = _again(model, images, known[key])
            if tail is not None:
                return tail, known[key]
            known.pop(key, None)  # the model went another way this time: look again
        watch, logits = _watched(model, images, module)
        tape = _checked(watch, logits, model, images, at)
        grid, prefix = _arranged(watch, tape, model, images, at)
        cells = tuple(tape.map.shape[axis] for axis in tape.axes)
        placement = (
            _placed(watch, tape.map, tape.axes, images) if grid is None else Placement.even(grid, images.shape[2:])
        )
        found = Found(tape.begin, tape.calls[0].name, tape.which, tape.axes, cells, placement, grid, prefix)
        tail = Tail(tape, logits) if not tape.changed else _again(model, images, found)
    if tail is None:
        raise SplitError(f"{type(model).__name__} goes another way each time, and changes its last map in place")
    if at is None:
        _remember(known, key, found)
    return tail, found


def _arranged(
    watch: Watch, tape: Tape, model: nn.Module, images: Tensor, at: str | None
) -> tuple[tuple[int, ...] | None, int]:
    """(the grid of tokens that stand in one row, how many stand before it); of a named map also the tape's axes."""
    x = tape.source
    found = watch.layout(x)
    if at is None and x.dim() == images.dim():
        return None, 0  # the pool said which axes it pools
    if found is None or (at is None and found.axes != tape.axes):
        if at is not None:
            raise SplitError(
                f"at={at!r}: this module of {type(model).__name__} gives {tuple(x.shape)}, and which of that are "
                f"positions of the images {tuple(images.shape)} is not known; name one that gives a map (N, C, h, w), "
                f"(N, h, w, C), or tokens (N, h·w, C)"
            )
        if images.dim() > 3 and len(tape.axes) == 1:
            raise SplitError(
                f"the last map of {type(model).__name__} has its {tape.map.shape[tape.axes[0]]} positions in one row, "
                f"which was never seen as a grid over the images"
            )
        return None, 0
    tape.axes = found.axes
    return found.grid, found.prefix


def _again(model: nn.Module, images: Tensor, found: Found) -> Tail | None:
    """By what an earlier pass found; None where the model does something else this time."""
    for copy in (False, True):
        watch = Known(found.begin, found.first, found.which, found.axes, copy)
        with watch:
            logits = _logits(model(images), model)
        tape = watch.tape
        if tape is None or tape.slot(logits) is None or not len(tape.map) == len(logits) == len(images):
            return None
        if tuple(tape.map.shape[axis] for axis in found.axes) != found.cells:
            return None
        if not tape.changed:
            return Tail(tape, logits)
    return None


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
    placement = _placed(watch, maps, tuple(range(2, maps.dim())), images)
    _remember(known, key, Found(0, "", 0, (), tuple(maps.shape[2:]), placement))
    return maps, placement


def _watched(model: nn.Module, images: Tensor, at: nn.Module | None) -> tuple[Watch, Tensor]:
    watch = Watch(images, named=at is not None)

    def starts(module: nn.Module, _: Any, out: Any) -> None:
        if module is at and isinstance(out, Tensor):  # of several calls, the last
            watch.starts(out)

    # torch's own list of hooks for all modules, for the time of this pass: the model's stay as they are
    hook = register_module_forward_hook(starts) if at is not None else None
    try:
        with watch:
            out = model(images)
    except Exception as error:
        error.add_note(
            f"explain gave {type(model).__name__} images of shape {tuple(images.shape)}, as it was given them"
        )
        raise
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


def named(model: nn.Module, at: str) -> nn.Module:
    """The module of that name, by any of its names; raises ValueError with the last ones there are."""
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if at in modules and at:
        return modules[at]
    last = ", ".join(_last_names(model))
    raise ValueError(f"at={at!r}: {type(model).__name__} has no such module; its last ones are {last}")


def _last_names(model: nn.Module) -> list[str]:
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    return [name for name in names if name and name.count(".") < 2][-12:]


def _checked(watch: Watch, logits: Tensor, model: nn.Module, images: Tensor, at: str | None) -> Tape:
    tape, who = watch.tape, type(model).__name__
    way = (
        'name the module whose output is the last feature map: explain(model, images, at="layer4"); where a class '
        f"token answers, the last block but one. The last modules are {', '.join(_last_names(model))}"
    )
    if tape is None and at is not None:
        raise SplitError(
            f"at={at!r}: this module of {who} was not called, or gave no single tensor, in the forward pass"
        )
    if tape is not None and at is not None and tape.map.dim() < 3:
        raise ValueError(
            f"at={at!r}: this module gives {tuple(tape.map.shape)}, which has no positions; name one that gives a map "
            f"(N, C, h, w)"
        )
    if tape is None or tape.slot(logits) is None:
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
    if not len(images) == len(tape.map) == len(logits):
        raise SplitError(
            f"{len(images)} images became {len(tape.map)} maps and {len(logits)} rows of logits in {who} (several "
            f"views of each image?): a map belongs to one image"
        )
    return tape


def _placed(watch: Watch, x: Tensor, axes: tuple[int, ...], images: Tensor) -> Placement:
    size, cells = tuple(images.shape[2:]), tuple(x.shape[axis] for axis in axes)
    place = watch.places.get(x)
    if len(cells) != len(size):  # tokens: their grid is told later
        return Placement.even(cells, cells)
    if place is None:
        return Placement.even(cells, size)
    return Placement(place.stride, place.start, tuple((0, n) for n in size), exact=True)


def _remember(known: dict[Any, Found], key: Any, found: Found) -> None:
    while len(known) >= REMEMBERED:
        known.pop(next(iter(known)), None)
    known[key] = found
