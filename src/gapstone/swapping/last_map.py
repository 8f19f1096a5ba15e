"""Where the last map of a network is: from a forward pass, from the module the user names, or from a gapstone head."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from gapstone.eval_mode import quiet
from gapstone.heads import Head
from gapstone.swapping.adapters import ChannelsFirst, Grid
from gapstone.tracing.locate_head import named
from gapstone.tracing.position_axes import PREFIX, Layout
from gapstone.tracing.provenance import IMAGES, Made, Trail
from gapstone.tracing.tape import SplitError, Tape


@dataclass(frozen=True)
class Found:
    trail: Trail
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
def find(model: nn.Module, images: Tensor, at: str | None) -> Found:
    """Run the model once or twice, in eval mode; nothing of it changes.

    Raises: SplitError (a ValueError) where there is no last map, or none that could be told, with the candidates.
    """
    with quiet(model):
        if at is not None:
            return _checked(model, images, *_followed(model, images, out_of=named(model, at)), f"at={at!r}")
        heads = [module for module in model.modules() if isinstance(module, Head)]
        for head in heads:
            trail, logits = _followed(model, images, into=head)
            if _answers(trail, logits, head, len(heads) == 1):  # it says itself where the map is
                return _checked(model, images, trail, logits, "its head")
        trail, logits = _followed(model, images)
        tape = trail.watch.tape
        if logits is None:
            raise SplitError(
                f"{type(model).__name__} gave {trail.gave} for {len(images)} images, and logits (N, classes) are "
                f"needed: wrap it in a module that returns them, or give at= and num_classes. {choose(model, trail)}"
            )
        if tape is None or tape.slot(logits) is None:
            return _of_tokens(model, images, trail)
        if tape.foreign:
            raise SplitError(
                f"the logits of {type(model).__name__} come from the map of shape {tuple(tape.map.shape)} and from "
                f"something else of the image, which meet in {tape.foreign}: a head on this map alone is another "
                f"network. {choose(model, trail)}"
            )
        trail.map = tape.map
        found = _checked(model, images, trail, logits, "its last map", tape)
        if (layer := _class_maps(model, found)) is not None:
            return _checked(model, images, *_followed(model, images, into=layer), "its maps before those of classes")
        return found


def _followed(
    model: nn.Module, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None
) -> tuple[Trail, Tensor | None]:
    trail = Trail(model, images, into, out_of)
    try:
        with trail.followed():
            out = model(images)
    except Exception as error:
        error.add_note(_called(model, images))
        raise
    logits = getattr(out, "logits", out)
    trail.gives = None if logits is out else type(out)
    trail.gave = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    right = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
    return trail, logits if right else None


def _called(model: nn.Module, images: Tensor) -> str:
    """What the model was given, for one that refused it."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    other = weight is not None and (weight.dtype, weight.device) != (images.dtype, images.device)
    return (
        f"swap_head called {type(model).__name__}(images) with nothing else, images {tuple(images.shape)}, a batch "
        f"(N, C, H, W), of {images.dtype} on {images.device}"
        + (f"; its weights are of {weight.dtype} on {weight.device}" if weight is not None and other else "")
    )


def _answers(trail: Trail, logits: Tensor | None, head: Head, alone: bool) -> bool:
    """Whether a head is the network's: nothing beyond it makes the logits. Another one squeezes, and excites."""
    if trail.map is None or logits is None:
        return alone and trail.map is not None
    head_and_map = trail.making(trail.map).of | trail.bits_of(list(head.parameters()))
    return not trail.making(logits).of & ~head_and_map


def _checked(
    model: nn.Module, images: Tensor, trail: Trail, logits: Tensor | None, what: str, tape: Tape | None = None
) -> Found:
    x = trail.map
    if x is None:
        raise SplitError(
            f"{what}: this module of {type(model).__name__} was not called with, or gave no single tensor, in the "
            f"forward pass. {choose(model, trail)}"
        )
    tape = tape or trail.watch.tape
    assert tape is not None
    if x.dim() < 3 or len(x) != len(images):
        raise SplitError(
            f"{what} in {type(model).__name__} is {tuple(x.shape)} for {len(images)} images, which is no feature map "
            f"(N, C, h, w). {choose(model, trail)}"
        )
    until = tape.begin - 1
    made = trail.making(x, until)
    if not made.of & IMAGES:
        raise SplitError(f"{what} in {type(model).__name__} does not depend on the images. {choose(model, trail)}")
    arrange = _arranged(model, x, tape, images, trail)
    return Found(trail, x, tape.map, made, until, arrange, logits, tuple(images.shape[2:]), trail.gives)


def _arranged(model: nn.Module, x: Tensor, tape: Tape, images: Tensor, trail: Trail) -> tuple[nn.Module, ...]:
    found = trail.watch.layout(x)
    if x.dim() == images.dim() and not trail.watch.named:
        found = Layout(tape.axes)  # the pool says it
    if found is not None and found.grid is not None:
        return (Grid(found.grid, found.prefix, found.axes == (1,), tuple(images.shape[2:])),)
    if found is not None and found.axes == tuple(range(2, x.dim())):
        return ()
    if found is not None and found.axes == tuple(range(1, x.dim() - 1)):
        return (ChannelsFirst(),)
    raise SplitError(
        f"the last map of {type(model).__name__}, {tuple(x.shape)}, has positions that were not seen as a grid over "
        f"the images. {choose(model, trail)}"
    )


def _of_tokens(model: nn.Module, images: Tensor, trail: Trail) -> Found:
    """Of a network that answers from a class token: the tokens that it stands with, last of all."""
    tokens = [
        module
        for module, shape in trail.given
        if len(shape) == 3 and any(0 < shape[1] - cells <= PREFIX for cells in trail.watch.grids)
    ]
    if tokens:
        again, logits = _followed(model, images, out_of=tokens[-1])
        tape = again.watch.tape
        alone = tape is not None and logits is not None and tape.slot(logits) is not None and not tape.foreign
        # what still has positions after them is no head, but the rest of the network (CoaT)
        if tape is not None and alone and not any(len(s) > 2 and prod(s[1:-1]) > PREFIX for s in tape.shapes[1:]):
            return _checked(model, images, again, logits, "its last tokens")
    seen = "; ".join(trail.watch.seen[-3:]) or "none"
    raise SplitError(
        f"no last feature map was found in {type(model).__name__}: its logits do not come from one pooled or flattened "
        f"map alone. Seen: {seen}. {choose(model, trail)}"
    )


def _class_maps(model: nn.Module, found: Found) -> nn.Module | None:
    """The layer that makes one map per class, where the logits are those maps pooled (SqueezeNet, NIN)."""
    if found.logits is None or found.trail.making(found.logits).of != found.made.of:
        return None  # parameters after the map
    if found.features.shape[1] != found.logits.shape[1]:
        return None
    x, made = found.map, found.made
    while made.call is not None:
        x, made = made.call.taken, made.call.was
    givers = [v.module for v in found.trail.givers.get(x, ()) if v.count >= made.count]
    convolutions = [m for m in givers if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
    return convolutions[0] if convolutions and found.trail.once(convolutions[0]) else None


def choose(model: nn.Module, trail: Trail) -> str:
    """The modules that give maps, the last ones last, and how to name one."""
    names = {module: name for name, module in model.named_modules()}
    rows: list[tuple[str, tuple[int, ...]]] = []
    for module, shape in trail.given:
        name = names.get(module, "")
        map = len(shape) == trail.dims and prod(shape[2:]) > 1
        tokens = len(shape) == 3 < trail.dims and any(0 <= shape[1] - n <= PREFIX for n in trail.watch.grids)
        if name and name.count(".") < 2 and (map or tokens) and trail.once(module):
            rows.append((name, shape))
    if not rows:
        return "None of its modules gives a feature map (N, C, h, w) for these images"
    table = "\n".join(f"  {name}  {shape}" for name, shape in rows[-12:])
    return f'Name the module whose output the head shall take, such as at="{rows[-1][0]}". Maps were given by:\n{table}'
