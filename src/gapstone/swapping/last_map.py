"""Where the last map of a network is: from a forward pass, from the module the user names, or from a gapstone head."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.runtime.eval_mode import eval_mode
from gapstone.swapping.adapters import ChannelsFirst, TokenGrid
from gapstone.tracing.locate_head import named
from gapstone.tracing.position_axes import PREFIX, PositionAxes
from gapstone.tracing.provenance import IMAGES, Made, ProvenanceTracer
from gapstone.tracing.tape import SplitError, Tape


@dataclass(frozen=True)
class LocatedMap:
    tracer: ProvenanceTracer
    map: Tensor
    """As the network has it: known by identity."""
    values: Tensor
    """The same, and its numbers also where they were changed in place later."""
    made: Made
    until: int
    """Calls that had been made when the map went into the head."""
    arrange: tuple[nn.Module, ...]
    """What makes (N, C, *cells) of it."""
    logits: Tensor | None
    """None where the network gives something else."""
    size: tuple[int, ...]
    """Of the images."""
    gives: type | None = None
    """The class of the network's answer, where that holds the logits and more; None: it is the logits."""

    @property
    def features(self) -> Tensor:
        """(N, C, *cells)"""
        x = self.values
        for layer in self.arrange:
            x = layer(x)
        return x


@torch.no_grad()
def find_last_map(model: nn.Module, images: Tensor, at: str | None) -> LocatedMap:
    """Run the model once or twice, in eval mode; nothing of it changes.

    Raises: SplitError (a ValueError) where there is no last map, or none that could be told, with the candidates.
    """
    with eval_mode(model):
        if at is not None:
            return _checked(model, images, *_followed(model, images, out_of=named(model, at)), f"at={at!r}")
        heads = [module for module in model.modules() if isinstance(module, Head)]
        for head in heads:
            tracer, logits = _followed(model, images, into=head)
            if _answers(tracer, logits, head, len(heads) == 1):  # it says itself where the map is
                return _checked(model, images, tracer, logits, "its head")
        tracer, logits = _followed(model, images)
        tape = tracer.tape
        if logits is None:
            raise SplitError(
                f"{type(model).__name__} gave {tracer.gave} for {len(images)} images, and logits (N, classes) are "
                f"needed: wrap it in a module that returns them, or give at= and num_classes. {choose(model, tracer)}"
            )
        if tape is None or tape.slot(logits) is None:
            return _of_tokens(model, images, tracer)
        if tape.foreign:
            raise SplitError(
                f"the logits of {type(model).__name__} come from the map of shape {tuple(tape.map.shape)} and from "
                f"something else of the image, which meet in {tape.foreign}: a head on this map alone is another "
                f"network. {choose(model, tracer)}"
            )
        tracer.map = tape.map
        located = _checked(model, images, tracer, logits, "its last map", tape)
        if (layer := _class_maps(model, located)) is not None:
            return _checked(model, images, *_followed(model, images, into=layer), "its maps before those of classes")
        return located


def _followed(
    model: nn.Module, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None
) -> tuple[ProvenanceTracer, Tensor | None]:
    tracer = ProvenanceTracer(model, images, into, out_of)
    try:
        with tracer.followed():
            out = model(images)
    except Exception as error:
        error.add_note(_called(model, images))
        raise
    logits = getattr(out, "logits", out)
    tracer.gives = None if logits is out else type(out)
    tracer.gave = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    right = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
    return tracer, logits if right else None


def _called(model: nn.Module, images: Tensor) -> str:
    """What the model was given, for one that refused it."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    other = weight is not None and (weight.dtype, weight.device) != (images.dtype, images.device)
    return (
        f"swap_head called {type(model).__name__}(images) with nothing else, images {tuple(images.shape)}, a batch "
        f"(N, C, H, W), of {images.dtype} on {images.device}"
        + (f"; its weights are of {weight.dtype} on {weight.device}" if weight is not None and other else "")
    )


def _answers(tracer: ProvenanceTracer, logits: Tensor | None, head: Head, alone: bool) -> bool:
    """Whether a head is the network's: nothing beyond it makes the logits. Another one squeezes, and excites."""
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
            f"forward pass. {choose(model, tracer)}"
        )
    tape = tape or tracer.tape
    assert tape is not None
    if x.dim() < 3 or len(x) != len(images):
        raise SplitError(
            f"{what} in {type(model).__name__} is {tuple(x.shape)} for {len(images)} images, which is no feature map "
            f"(N, C, h, w). {choose(model, tracer)}"
        )
    until = tape.begin - 1
    made = tracer.making(x, until)
    if not made.of & IMAGES:
        raise SplitError(f"{what} in {type(model).__name__} does not depend on the images. {choose(model, tracer)}")
    arrange = _arranged(model, x, tape, images, tracer)
    return LocatedMap(tracer, x, tape.map, made, until, arrange, logits, tuple(images.shape[2:]), tracer.gives)


def _arranged(
    model: nn.Module, x: Tensor, tape: Tape, images: Tensor, tracer: ProvenanceTracer
) -> tuple[nn.Module, ...]:
    positions = tracer.position_axes(x)
    if x.dim() == images.dim() and not tracer.named:
        positions = PositionAxes(tape.axes)  # the pool says it
    if positions is not None and positions.grid is not None:
        return (TokenGrid(positions.grid, positions.prefix, positions.axes == (1,), tuple(images.shape[2:])),)
    if positions is not None and positions.axes == tuple(range(2, x.dim())):
        return ()
    if positions is not None and positions.axes == tuple(range(1, x.dim() - 1)):
        return (ChannelsFirst(),)
    raise SplitError(
        f"the last map of {type(model).__name__}, {tuple(x.shape)}, has positions that were not seen as a grid over "
        f"the images. {choose(model, tracer)}"
    )


def _of_tokens(model: nn.Module, images: Tensor, tracer: ProvenanceTracer) -> LocatedMap:
    """Of a network that answers from a class token: the tokens that it stands with, last of all."""
    tokens = [
        module
        for module, shape in tracer.given
        if len(shape) == 3 and any(0 < shape[1] - cells <= PREFIX for cells in tracer.grids)
    ]
    if tokens:
        again, logits = _followed(model, images, out_of=tokens[-1])
        tape = again.tape
        alone = tape is not None and logits is not None and tape.slot(logits) is not None and not tape.foreign
        # what still has positions after them is no head, but the rest of the network (CoaT)
        if tape is not None and alone and not any(len(s) > 2 and prod(s[1:-1]) > PREFIX for s in tape.shapes[1:]):
            return _checked(model, images, again, logits, "its last tokens")
    seen = "; ".join(tracer.reductions[-3:]) or "none"
    raise SplitError(
        f"no last feature map was found in {type(model).__name__}: its logits do not come from one pooled or flattened "
        f"map alone. Seen: {seen}. {choose(model, tracer)}"
    )


def _class_maps(model: nn.Module, located: LocatedMap) -> nn.Module | None:
    """The layer that makes one map per class, where the logits are those maps pooled (SqueezeNet, NIN)."""
    if located.logits is None or located.tracer.making(located.logits).of != located.made.of:
        return None  # parameters after the map
    if located.features.shape[1] != located.logits.shape[1]:
        return None
    x, made = located.map, located.made
    while made.call is not None:
        x, made = made.call.taken, made.call.was
    givers = [v.module for v in located.tracer.givers.get(x, ()) if v.count >= made.count]
    convolutions = [m for m in givers if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
    return convolutions[0] if convolutions and located.tracer.once(convolutions[0]) else None


def choose(model: nn.Module, tracer: ProvenanceTracer) -> str:
    """The modules that give maps, the last ones last, and how to name one."""
    names = {module: name for name, module in model.named_modules()}
    rows: list[tuple[str, tuple[int, ...]]] = []
    for module, shape in tracer.given:
        name = names.get(module, "")
        map = len(shape) == tracer.dims and prod(shape[2:]) > 1
        tokens = len(shape) == 3 < tracer.dims and any(0 <= shape[1] - n <= PREFIX for n in tracer.grids)
        if name and name.count(".") < 2 and (map or tokens) and tracer.once(module):
            rows.append((name, shape))
    if not rows:
        return "None of its modules gives a feature map (N, C, h, w) for these images"
    table = "\n".join(f"  {name}  {shape}" for name, shape in rows[-12:])
    return f'Name the module whose output the head shall take, such as at="{rows[-1][0]}". Maps were given by:\n{table}'
