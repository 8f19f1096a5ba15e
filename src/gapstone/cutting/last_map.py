"""Locates the last map of a network: by a forward pass, by a module that the user names, or by a gapstone head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapstone.cutting.adapters import ChannelsFirst, TokenGrid
from gapstone.heads import Head
from gapstone.runtime.eval_mode import eval_mode
from gapstone.tracing.locate_head import named
from gapstone.tracing.position_axes import PREFIX, PositionAxes
from gapstone.tracing.provenance import IMAGES, Made, ProvenanceTracer
from gapstone.tracing.tape import SplitError, Tape


@dataclass(frozen=True)
class LocatedMap:
    """The last map of a network, and the forward pass that located it."""

    tracer: ProvenanceTracer
    map: Tensor
    """The tensor of the forward pass, known by identity."""
    values: Tensor
    """Its values when it entered the head: a later call may change `map` in place."""
    made: Made
    until: int
    """Number of calls before the map entered the head."""
    arrange: tuple[nn.Module, ...]
    """Layers that rearrange the map to (N, C, *cells)."""
    logits: Tensor | None
    """(N, classes); None if the network returns something else."""
    size: tuple[int, ...]
    """Of the images, (H, W)."""
    output_class: type | None = None
    """The class of an output that holds the logits; None: the output is the logits."""

    @property
    def features(self) -> Tensor:
        """The map as (N, C, *cells)."""
        x = self.values
        for layer in self.arrange:
            x = layer(x)
        return x

    @property
    def consumers(self) -> list[nn.Module]:
        """The modules that took the map itself, the outermost first."""
        visits = self.tracer.takers.get(self.map, ())
        return [v.module for v in visits if self.made.count <= v.count <= self.until]

    def consumers_among(self, removed: Sequence[nn.Module]) -> list[nn.Module]:
        """The modules to remove that take the map itself and run once; the outermost first."""
        return [module for module in self.consumers if self.tracer.once(module) and module in removed]

    def origins(self) -> Iterator["Origin"]:
        """The map, then the tensor that it was made of by a call of this tensor alone, and so on."""
        origin = Origin(self.map, self.made, self.until)
        yield origin
        while (call := origin.made.call) is not None:
            origin = Origin(call.taken, call.was, origin.made.count - 1)
            yield origin


class Origin(NamedTuple):
    """A tensor that the map was made of."""

    tensor: Tensor
    made: Made
    until: int
    """Number of calls before it was changed, or used."""


@torch.no_grad()
def find_last_map(model: nn.Module, images: Tensor, at: str | None) -> LocatedMap:
    """Locate the last map with one or two forward passes in eval mode, which leave the model unchanged.

    `at`: the name of the module whose output is the map; None: it is located.

    Raises:
        SplitError: If no last map can be determined; the message lists the candidates.
    """
    with eval_mode(model):
        if at is not None:
            return _checked(model, images, *_trace(model, images, out_of=named(model, at)), f"at={at!r}")
        heads = [module for module in model.modules() if isinstance(module, Head)]
        for head in heads:
            tracer, logits = _trace(model, images, into=head)
            if _is_final_head(tracer, logits, head, len(heads) == 1):  # a gapstone head takes the map as its input
                return _checked(model, images, tracer, logits, "its head")
        tracer, logits = _trace(model, images)
        tape = tracer.tape
        if logits is None:
            raise SplitError(
                f"{type(model).__name__} gave {tracer.output_text} for {len(images)} images, and logits (N, classes) "
                f"are needed: wrap it in a module that returns them, or give at= and num_classes. "
                f"{candidates_hint(model, tracer)}"
            )
        if tape is None or tape.slot(logits) is None:
            return _find_tokens(model, images, tracer)
        if tape.foreign:
            raise SplitError(
                f"the logits of {type(model).__name__} come from the map of shape {tuple(tape.map.shape)} and from "
                f"something else of the image, which meet in {tape.foreign}: a head on this map alone is another "
                f"network. {candidates_hint(model, tracer)}"
            )
        tracer.map = tape.map
        located = _checked(model, images, tracer, logits, "its last map", tape)
        if (layer := _class_map_layer(model, located)) is not None:
            return _checked(model, images, *_trace(model, images, into=layer), "its maps before those of classes")
        return located


def _trace(
    model: nn.Module, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None
) -> tuple[ProvenanceTracer, Tensor | None]:
    tracer = ProvenanceTracer(model, images, into, out_of)
    try:
        with tracer.followed():
            out = model(images)
    except Exception as error:
        error.add_note(_call_note(model, images))
        raise
    logits = getattr(out, "logits", out)
    tracer.output_class = None if logits is out else type(out)
    tracer.output_text = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    valid = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
    return tracer, logits if valid else None


def _call_note(model: nn.Module, images: Tensor) -> str:
    """Return a note for the error of a model that refused the images."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    other = weight is not None and (weight.dtype, weight.device) != (images.dtype, images.device)
    return (
        f"swap_head called {type(model).__name__}(images) with nothing else, images {tuple(images.shape)}, a batch "
        f"(N, C, H, W), of {images.dtype} on {images.device}"
        + (f"; its weights are of {weight.dtype} on {weight.device}" if weight is not None and other else "")
    )


def _is_final_head(tracer: ProvenanceTracer, logits: Tensor | None, head: Head, alone: bool) -> bool:
    """Tell whether the logits depend on this head and its map only; a head inside the network (SE) is not final."""
    if tracer.map is None or logits is None:
        return alone and tracer.map is not None
    head_and_map = tracer.making(tracer.map).of | tracer.bits_of(list(head.parameters()))
    return not tracer.making(logits).of & ~head_and_map


def _checked(
    model: nn.Module,
    images: Tensor,
    tracer: ProvenanceTracer,
    logits: Tensor | None,
    what: str,
    tape: Tape | None = None,
) -> LocatedMap:
    x = tracer.map
    if x is None:
        raise SplitError(
            f"{what}: this module of {type(model).__name__} was not called with, or gave no single tensor, in the "
            f"forward pass. {candidates_hint(model, tracer)}"
        )
    tape = tape or tracer.tape
    assert tape is not None
    if x.dim() < 3 or len(x) != len(images):
        raise SplitError(
            f"{what} in {type(model).__name__} is {tuple(x.shape)} for {len(images)} images, which is no feature map "
            f"(N, C, h, w). {candidates_hint(model, tracer)}"
        )
    until = tape.begin - 1
    made = tracer.making(x, until)
    if not made.of & IMAGES:
        raise SplitError(
            f"{what} in {type(model).__name__} does not depend on the images. {candidates_hint(model, tracer)}"
        )
    arrange = _layout_layers(model, x, tape, images, tracer)
    return LocatedMap(tracer, x, tape.map, made, until, arrange, logits, tuple(images.shape[2:]), tracer.output_class)


def _layout_layers(
    model: nn.Module, x: Tensor, tape: Tape, images: Tensor, tracer: ProvenanceTracer
) -> tuple[nn.Module, ...]:
    positions = tracer.position_axes(x)
    if x.dim() == images.dim() and not tracer.named:
        positions = PositionAxes(tape.axes)  # the axes that were pooled
    if positions is not None and positions.grid is not None:
        return (TokenGrid(positions.grid, positions.prefix, positions.axes == (1,), tuple(images.shape[2:])),)
    if positions is not None and positions.axes == tuple(range(2, x.dim())):
        return ()
    if positions is not None and positions.axes == tuple(range(1, x.dim() - 1)):
        return (ChannelsFirst(),)
    raise SplitError(
        f"the last map of {type(model).__name__}, {tuple(x.shape)}, has positions that were not seen as a grid over "
        f"the images. {candidates_hint(model, tracer)}"
    )


def _find_tokens(model: nn.Module, images: Tensor, tracer: ProvenanceTracer) -> LocatedMap:
    """Return the last tokens of a network whose logits come from a class token."""
    tokens = [
        module
        for module, shape in tracer.outputs
        if len(shape) == 3 and any(0 < shape[1] - cells <= PREFIX for cells in tracer.grids)
    ]
    if tokens:
        again, logits = _trace(model, images, out_of=tokens[-1])
        tape = again.tape
        alone = tape is not None and logits is not None and tape.slot(logits) is not None and not tape.foreign
        # calls with positions after the tokens are not a head but part of the network (CoaT)
        if tape is not None and alone and not any(len(s) > 2 and prod(s[1:-1]) > PREFIX for s in tape.shapes[1:]):
            return _checked(model, images, again, logits, "its last tokens")
    seen = "; ".join(tracer.reductions[-3:]) or "none"
    raise SplitError(
        f"no last feature map was found in {type(model).__name__}: its logits do not come from one pooled or flattened "
        f"map alone. Seen: {seen}. {candidates_hint(model, tracer)}"
    )


def _class_map_layer(model: nn.Module, located: LocatedMap) -> nn.Module | None:
    """Return the layer that makes one map per class, if the logits are those maps pooled (SqueezeNet, NIN)."""
    if located.logits is None or located.tracer.making(located.logits).of != located.made.of:
        return None  # parameters after the map
    if located.features.shape[1] != located.logits.shape[1]:
        return None
    *_, first = located.origins()
    givers = [v.module for v in located.tracer.givers.get(first.tensor, ()) if v.count >= first.made.count]
    convolutions = [m for m in givers if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
    return convolutions[0] if convolutions and located.tracer.once(convolutions[0]) else None


def candidates_hint(model: nn.Module, tracer: ProvenanceTracer) -> str:
    """Return a hint that lists the last modules that return maps, and how to name one in `at=`."""
    names = {module: name for name, module in model.named_modules()}
    rows: list[tuple[str, tuple[int, ...]]] = []
    for module, shape in tracer.outputs:
        name = names.get(module, "")
        is_map = len(shape) == tracer.dims and prod(shape[2:]) > 1
        are_tokens = len(shape) == 3 < tracer.dims and any(0 <= shape[1] - n <= PREFIX for n in tracer.grids)
        if name and name.count(".") < 2 and (is_map or are_tokens) and tracer.once(module):
            rows.append((name, shape))
    if not rows:
        return "None of its modules gives a feature map (N, C, h, w) for these images"
    table = "\n".join(f"  {name}  {shape}" for name, shape in rows[-12:])
    return f'Name the module whose output the head shall take, such as at="{rows[-1][0]}". Maps were given by:\n{table}'
