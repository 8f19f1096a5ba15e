"""A model's last map and head for a batch of images: located by tracing one forward pass, remembered for the next."""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gapstone.heads.reads import MAPS, BackboneOutput, Reads, read_backbone
from gapstone.runtime.eval_mode import eval_mode
from gapstone.tracing.geometry import Geometry
from gapstone.tracing.tape import SplitError, Tape, TapeStart
from gapstone.tracing.token_head import TokenHead
from gapstone.tracing.token_search import CutRecorder, GraphTracer, last_mixed
from gapstone.tracing.trace import HeadTracer, ModuleEntry
from gapstone.tracing.traced_head import TracedHead

REMEMBERED = 64
"""Image sizes per model."""


@dataclass(frozen=True)
class HeadLocation:
    """What the first pass at an image size tells the next ones: where the last map is, and where its cells lie."""

    start: TapeStart
    cells: tuple[int, ...]
    size: tuple[int, ...]
    """Of the images."""
    geometry: Geometry | None
    """Where the cells lie in the images; None: not known."""
    grid: tuple[int, ...] | None = None
    """Of tokens: the cells they were before they stood in a row."""
    prefix: int = 0
    """Tokens before those of the grid."""
    mixed: bool = False
    """The tokens hear each other before the logits are made: a class token answers, or attention pools."""
    also: tuple[int, int] | None = None
    """Where a pool hears of patches that stand later than the class token hears them: the call that made these, and
    which of its tensors they are."""
    entry: ModuleEntry | None = None
    """The module whose call comes last before the tape: later passes are traced from there."""


_locations: WeakKeyDictionary[nn.Module, dict[Any, HeadLocation]] = WeakKeyDictionary()


@torch.no_grad()
def locate_head(model: nn.Module, images: Tensor, at: str | None = None) -> tuple[TracedHead, HeadLocation]:
    """Runs the model once, in eval mode; returns what comes after its last map, and what is known of that map.

    Nothing of the model changes. The first pass at an image size traces every call (a few µs each); later ones let all
    through that comes before the map. Raises: SplitError (a ValueError).
    """
    module = None if at is None else named(model, at)
    known = _locations.setdefault(model, {})
    key = tuple(images.shape[1:])
    with eval_mode(model):
        before = known.get(key) if at is None else None
        if before is not None:
            head, location = _again(model, images, before)
            if head is not None:
                known[key] = location
                return head, location
            known.pop(key, None)  # the model went another way this time: look again
        for _ in range(2):  # the first pass of some models makes tables that the later ones use
            tracer, logits = _traced(model, images, module)
            if at is not None or not _is_unseen(tracer, logits):
                break
            for location in _mixed(tracer, logits, model, images):
                head, location = _again(model, images, location)
                if head is not None and head.additive:
                    _remember(known, key, location)
                    return head, location
        tape = _checked(tracer, logits, model, images, at)
        grid, prefix = _arranged(tracer, tape, model, images, at)
        cells = tuple(tape.map.shape[axis] for axis in tape.axes)
        geometry = tracer.geometries.get(tape.map)
        entry = tracer.entry(tape.begin)
        location = HeadLocation(tape.start, cells, tuple(images.shape[2:]), geometry, grid, prefix, entry=entry)
        if tape.changed:
            head, location = _again(model, images, location)
        else:
            head = TracedHead(tape, logits)
        if head is not None and at is not None and grid is not None and (prefix or not head.additive):
            mixed = TokenHead(head.tape, logits, prefix)
            head, location = (mixed, replace(location, mixed=True)) if mixed.additive else (head, location)
    if head is None:
        raise SplitError(f"{type(model).__name__} goes another way each time, and changes its last map in place")
    if at is None:
        _remember(known, key, location)
    return head, location


def _is_unseen(tracer: HeadTracer, logits: Tensor) -> bool:
    """Whether the logits do not come from one pooled map alone."""
    return tracer.tape is None or tracer.tape.slot(logits) is None or tracer.tape.foreign is not None


def _mixed(tracer: GraphTracer, logits: Tensor, model: nn.Module, images: Tensor) -> list[HeadLocation]:
    """The tokens that enter the last block in which a class token, or an attention pool, hears of them."""
    cuts = [] if images.is_meta else tracer.cuts(logits)
    locations = []
    for cut, also in last_mixed(model, images[:1], cuts):
        at = cut.positions
        entry = tracer.entry(cut.start.number)
        location = HeadLocation(
            cut.start, cut.cells, tuple(images.shape[2:]), None, at.grid, at.prefix, mixed=True, entry=entry
        )
        locations.append(location if also is None else replace(location, also=also.made))
    return locations


def _arranged(
    tracer: HeadTracer, tape: Tape, model: nn.Module, images: Tensor, at: str | None
) -> tuple[tuple[int, ...] | None, int]:
    """(the grid of tokens that stand in one row, how many stand before it); of a named map also the tape's axes."""
    x = tape.source
    positions = tracer.position_axes(x)
    if at is None and x.dim() == images.dim():
        return None, 0  # the pool said which axes it pools
    if positions is None or (at is None and positions.axes != tape.axes):
        if at is not None:
            raise SplitError(
                f"at={at!r}: this module of {type(model).__name__} gives {tuple(x.shape)}, and which of that are "
                f"positions of the images {tuple(images.shape)} is not known; name one that gives a map (N, C, h, w), "
                f"(N, h, w, C), or tokens (N, h·w, C)"
            )
        if images.dim() > 3 and len(tape.axes) == 1:
            raise SplitError(
                f"the last map of {type(model).__name__} has its {tape.map.shape[tape.axes[0]]} positions in one row, "
                f"which was never seen as a grid over the images (they may be in another order): to draw them where "
                f'they lie, name a module that gives a map (N, C, h, w): explain(model, images, at="layer4")'
            )
        return None, 0
    tape.axes = positions.axes
    return positions.grid, positions.prefix


def _again(model: nn.Module, images: Tensor, location: HeadLocation) -> tuple[TracedHead | None, HeadLocation]:
    """Runs the model by what an earlier pass told: (None, …) where the model does something else this time.

    The location has no entry any more where the module is not called as it was (a copy of it is, on another device).
    """
    head = _played(model, images, location)
    if head is None and location.entry is not None:
        location = replace(location, entry=None)
        head = _played(model, images, location)
    return head, location


def _played(model: nn.Module, images: Tensor, location: HeadLocation) -> TracedHead | None:
    for copy in (False, True):
        recorder = CutRecorder(location.start, copy)
        with recorder.begun_at(location.entry):
            logits = _logits(model(images), model)
        tape = recorder.tape
        if tape is None or tape.slot(logits) is None or not len(tape.map) == len(logits) == len(images):
            return None
        if tuple(tape.map.shape[axis] for axis in tape.axes) != location.cells:
            return None
        if tape.changed:
            continue
        if not location.mixed:
            return TracedHead(tape, logits)
        also = None if location.also is None else recorder.slots.get(location.also)
        return None if location.also and also is None else TokenHead(tape, logits, location.prefix, also)
    return None


@torch.no_grad()
def locate_features(
    features: nn.Module, images: Tensor, reads: Reads = MAPS
) -> tuple[Tensor | BackboneOutput, HeadLocation]:
    """What a head reads of a backbone, of images, and what is known of the cells of the maps in it."""
    known = _locations.setdefault(features, {})
    key = tuple(images.shape[1:])
    if key in known:
        return read_backbone(features, images, reads), known[key]
    with HeadTracer(images) as tracer:
        output = read_backbone(features, images, reads)
    maps = output.maps if isinstance(output, BackboneOutput) else output
    start = TapeStart(0, "", 0, ())
    location = HeadLocation(start, tuple(maps.shape[2:]), tuple(images.shape[2:]), tracer.geometries.get(maps))
    _remember(known, key, location)
    return output, location


def _traced(model: nn.Module, images: Tensor, at: nn.Module | None) -> tuple[GraphTracer, Tensor]:
    tracer = GraphTracer(images, out_of=at)
    try:
        with tracer.followed():
            out = model(images)
    except Exception as error:
        error.add_note(
            f"explain gave {type(model).__name__} images of shape {tuple(images.shape)}, as it was given them"
        )
        raise
    return tracer, _logits(out, model)


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


def _checked(tracer: HeadTracer, logits: Tensor, model: nn.Module, images: Tensor, at: str | None) -> Tape:
    tape, who = tracer.tape, type(model).__name__
    way = (
        'name the module whose output is the last feature map: explain(model, images, at="layer4"). The last modules '
        f"are {', '.join(_last_names(model))}"
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
        seen = "; ".join(tracer.reductions[-3:]) or "none"
        raise SplitError(
            f"no last feature map was found in {who}: its logits come from no one map that is pooled, flattened, or "
            f"heard by a class token (from several maps together?). Seen: {seen}. If it has one, {way}"
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


def _remember(known: dict[Any, HeadLocation], key: Any, location: HeadLocation) -> None:
    while len(known) >= REMEMBERED:
        known.pop(next(iter(known)), None)
    known[key] = location
