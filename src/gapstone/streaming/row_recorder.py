"""Records a forward pass at the image's size on shapes alone: every call, how it is played, and what needs which."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.console.formatting import first_line
from gapstone.nets.on_meta import shapes_alone, state_shapes
from gapstone.runtime.eval_mode import eval_mode
from gapstone.streaming.row_layout import GivenCall, Played, RowCall, RowLayout, RowPlace, SlotFacts, StreamError
from gapstone.streaming.row_rules import place_of
from gapstone.tracing.tape import Slot, replaced, tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer


@dataclass(frozen=True)
class RowRecording:
    """The calls of a forward pass of one image (1, C, H, W), up to the logits."""

    calls: tuple[RowCall, ...]
    slots: tuple[SlotFacts, ...]
    """By number; the image is 0."""
    constants: dict[int, Tensor]
    """Parameters and buffers, by slot."""
    logits: int
    """The slot of the logits (1, K)."""

    def needed(self, slots: set[int], solved: set[int]) -> list[RowCall]:
        """The calls that these slots come from, in order; `solved` slots come from nothing."""
        wanted, found = set(slots) - solved, []
        for call in reversed(self.calls):
            if wanted & set(call.slots):
                found.append(call)
                wanted |= set(call.inputs) - solved
        return found[::-1]

    @property
    def totals(self) -> list[RowCall]:
        """Calls over all positions from which the logits come."""
        used = self.needed({self.logits}, set())
        return [call for call in used if call.played in (Played.POOL, Played.NORM)]

    @property
    def passes(self) -> int:
        """Passes over the image that the logits take."""
        return 1 + max((self.input_level(call) for call in self.totals), default=0)

    def input_level(self, call: RowCall) -> int:
        return max((self.slots[slot].level for slot in call.inputs), default=0)


class RowRecorder(Tracer):
    """Runs the calls of a forward pass of shapes, and writes them down by their rules."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.calls: list[RowCall] = []
        self.slots: list[SlotFacts] = []
        self.numbers: Any = WeakTensorKeyDictionary()
        self._kept: list[Tensor] = []
        """All tensors of the pass: one that is gone is no longer known by its number."""
        self.network = type(network).__name__
        self._paths = {module: path for path, module in network.named_modules()}
        self._inside = [self.network]
        """The layers that run now, as an error names them; the innermost last."""

    def add(self, x: Tensor, layout: RowLayout | None, level: int = 0) -> int:
        """A new slot for a tensor; one that a call changed in place becomes another."""
        self._kept.append(x)
        self.slots.append(SlotFacts(x.shape, x.dtype, layout, level))
        self.numbers[x] = len(self.slots) - 1
        return len(self.slots) - 1

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        given = tensors((args, kwargs))
        inputs = [x for x in given if x in self.numbers]
        name = name_of(func)

        def slotted(part: Any) -> Any:
            known = isinstance(part, Tensor) and part in self.numbers
            return Slot(self.numbers[part], part.shape) if known else part

        slots = replaced(args, slotted), replaced(kwargs, slotted)
        facts = [self.slots[self.numbers[x]] for x in inputs]
        maps = [(x, fact.layout) for x, fact in zip(inputs, facts, strict=True) if fact.layout is not None]
        # before a call in place changes its tensors
        operation = read_call(name, args, kwargs)
        numbers = tuple(dict.fromkeys(self.numbers[x] for x, _ in maps))
        out = func(*args, **kwargs)
        outs = tensors(out)
        if not outs or (not inputs and not any(x.is_meta for x in outs)):
            return out
        self._check(name, given, inputs)
        place = RowPlace(Played.ONCE, None)
        if maps:
            others = [x for x in given if not any(x is other for other, _ in maps)]
            place = self._placed(GivenCall(operation, args, kwargs, maps, others, outs))
        level = max((fact.level for fact in facts), default=0) + (place.played in (Played.POOL, Played.NORM))
        # of a maximum its value; its position is never known, and a call that needs it is refused
        known = outs[:1] if place.played is Played.POOL else outs
        made = tuple(self.add(x, place.layout, level) for x in known)
        self.calls.append(
            RowCall(
                len(self.calls), func, *slots, read_call(name, *slots), self._inside[-1], place.played, made, numbers
            )
        )
        return out

    def _placed(self, call: GivenCall) -> RowPlace:
        try:
            return place_of(call)
        except StreamError as error:
            raise StreamError(f"{self._inside[-1]} cannot be streamed: {error}") from None

    def _check(self, name: str, given: list[Tensor], inputs: list[Tensor]) -> None:
        if any(x.is_meta and not any(x is known for known in inputs) for x in given):
            raise StreamError(f"{self._inside[-1]} gives {name!r} a tensor that was never seen to be made")

    def module_begins(self, module: nn.Module, args: object) -> None:
        path = self._paths.get(module)
        self._inside.append(f"{path!r} ({type(module).__name__})" if path else self.network)

    def module_ends(self, module: nn.Module, args: object, out: object) -> None:
        self._inside.pop()


@torch.no_grad()
def record_rows(network: nn.Module, channels: int, size: tuple[int, int]) -> RowRecording:
    """Record the pass of one image of `size` (H, W), with nothing computed.

    Raises: StreamError where the network cannot be played row by row; names the layer.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = state_shapes(network)
    dtype = next((x.dtype for x in state.values() if x.is_floating_point()), torch.float32)
    image = torch.empty(1, channels, *size, device="meta", dtype=dtype)
    with eval_mode(network):
        recorder = RowRecorder(network)
        recorder.add(image, RowLayout(2, 3))
        constants = {recorder.add(shapes[name], None): x.detach() for name, x in state.items()}
        out = _run(network, shapes, image, recorder)
    logits = getattr(out, "logits", out)
    who = type(network).__name__
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits not in recorder.numbers:
        what = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise StreamError(f"{who} gives {what}, and logits (1, classes) are needed: wrap it in one that returns them")
    number = recorder.numbers[logits]
    if recorder.slots[number].layout is not None:
        raise StreamError(f"{who} gives an answer for each position, not one for the image")
    return RowRecording(tuple(recorder.calls), tuple(recorder.slots), constants, number)


def _run(network: nn.Module, shapes: dict[str, Tensor], image: Tensor, recorder: RowRecorder) -> Any:
    run: Callable[..., Any] = torch.func.functional_call
    try:
        with shapes_alone(), recorder.followed():
            return run(network, shapes, (image,))
    except StreamError:
        raise
    except Exception as error:  # networks need values, or refuse sizes, with different errors
        raise StreamError(
            f"{type(network).__name__} cannot be recorded on shapes alone for an image of "
            f"{image.shape[2]}×{image.shape[3]} px ({type(error).__name__}: {first_line(error)})"
        ) from error
