"""Where a class token hears of the patches for the last time: the tokens that enter that block.

Some tensors of a forward pass are passed by all that comes from the images: the tokens between two blocks of a ViT,
where residuals have met, and none within a block. Of these cuts, the last whose patch tokens still change the logits is
what enters the last block that mixes patches into the class token: after it, the logits come from the first tokens
alone. So two questions to the pass find it, and no names: which tensors does every way pass, and on which of their
tokens do the logits depend (by a gradient that is exactly 0 elsewhere)?

Where the patches stand still while the class token hears them several times (the class attention of CaiT and XCiT, the
mean that CLIP's attention pool puts before the patches), the cut before the first of these is taken. Where a pool hears
the patches beside a class token that has heard them before (DINOv2's linear head), both cuts are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.tracing import operations as ops
from gapstone.tracing.position_axes import PositionAxes
from gapstone.tracing.tape import Tape, TapeStart, tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, HeadTracer, Keywords, TapeRecorder

WINDOWS = (8, 32, 10**6)
"""How many of the last cuts are looked at; more where these do not suffice. What follows them is kept in memory."""


@dataclass
class Node:
    """A tensor of the pass that depends on the images."""

    made: tuple[int, int]
    """The number of the call that made it, and which of its tensors it is."""
    parents: list[int]
    positions: PositionAxes | None = None
    cells: tuple[int, ...] = ()
    start: TapeStart | None = None
    """The first call that takes it."""


@dataclass(frozen=True)
class TokenCut:
    """A tensor that all ways from the images to the logits pass, and whose tokens are known."""

    made: tuple[int, int]
    start: TapeStart
    positions: PositionAxes
    cells: tuple[int, ...]
    """Its tokens, those of the prefix counted."""


class GraphTracer(HeadTracer):
    """A `HeadTracer` that remembers which tensor was made of which: numbers alone, the tensors go as they do."""

    def __init__(self, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None) -> None:
        super().__init__(images, into, out_of)
        self.nodes: list[Node] = [Node((0, 0), [])]
        self.numbers: Any = WeakTensorKeyDictionary()
        self.numbers[images] = 0
        self.behind: set[int] = set()
        """Numbers of tokens, of which some stand behind those of the positions: these are not known to be the last."""

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        given = tensors((args, kwargs))
        parents = [self.numbers[x] for x in given if x in self.numbers]
        for which, x in enumerate(given):
            if x in self.numbers and self.nodes[self.numbers[x]].start is None:
                self._first(self.nodes[self.numbers[x]], x, TapeStart(self.count + 1, name_of(func), which, ()))
        out = super().call(func, args, kwargs)
        if parents:
            self._joined(name_of(func), args, kwargs, out)
            for which, y in enumerate(tensors(out)):
                self.numbers[y] = len(self.nodes)
                self.nodes.append(Node((self.count, which), parents))
        return out

    def _joined(self, name: str, args: Arguments, kwargs: Keywords, out: Any) -> None:
        op = read_call(name, args, kwargs)
        if not isinstance(op, ops.Concat) or out.dim() != 3 or op.function == "stack":
            return
        for place, x in enumerate(op.tensors):
            known = self.position_axes(x) if isinstance(x, Tensor) and x in self.numbers else None
            if known is not None and known.axes == (op.dim % 3,) and place < len(op.tensors) - 1:
                self.behind.add(out.shape[op.dim])

    def _first(self, node: Node, x: Tensor, start: TapeStart) -> None:
        node.start = start
        positions = self.position_axes(x) if x.dim() == 3 else None
        if positions is None or positions.grid is None:
            return
        (axis,) = positions.axes
        may_be_channels = axis == 2 and self.channels.get(x) is None  # as many as there are tokens
        if x.shape[axis] not in self.behind and not may_be_channels:
            node.positions = positions
            node.start = replace(start, axes=positions.axes)
            node.cells = (x.shape[axis],)

    def cuts(self, logits: Tensor) -> list[TokenCut]:
        """In the order of the pass; none where the logits do not come from the images."""
        if logits not in self.numbers:
            return []
        end = self.numbers[logits]
        needed = _all_parents(end, self.nodes)
        far, found = 0, []  # the furthest that an earlier tensor reaches
        children: dict[int, int] = {}
        for number in needed:
            for parent in self.nodes[number].parents:
                children[parent] = max(children.get(parent, 0), number)
        for number in needed:
            node = self.nodes[number]
            if far <= number < end and number and node.positions is not None and node.start is not None:
                found.append(TokenCut(node.made, node.start, node.positions, node.cells))
            far = max(far, children.get(number, 0))
        return found


def _all_parents(end: int, nodes: Sequence[Node]) -> list[int]:
    needed, ahead = {end}, [end]
    while ahead:
        for parent in nodes[ahead.pop()].parents:
            if parent not in needed:
                needed.add(parent)
                ahead.append(parent)
    return sorted(needed)


class CutRecorder(TapeRecorder):
    """A `TapeRecorder` that also says which slot of its tape is the answer of which call."""

    def __init__(self, start: TapeStart, copy: bool = True) -> None:
        super().__init__(start, copy)
        self.slots: dict[tuple[int, int], int] = {}

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        before = 0 if self.tape is None else len(self.tape.calls)
        out = super().call(func, args, kwargs)
        if self.tape is not None and len(self.tape.calls) > before:
            for which, slot in enumerate(self.tape.calls[-1].slots):
                self.slots[self.count, which] = slot
        return out


def last_mixed(model: nn.Module, image: Tensor, cuts: Sequence[TokenCut]) -> list[tuple[TokenCut, TokenCut | None]]:
    """The tokens that enter the last block in which the logits hear of patches, the best choice first; [] if none do.

    With a later cut, whose patches a pool hears beside a class token, where there is one. image: one, (1, C, H, W); the
    model runs once more, or a few times where its blocks have many parts.
    """
    for window in WINDOWS:
        chosen = cuts[-window:]
        if not chosen:
            return []
        recorder = CutRecorder(chosen[0].start)
        with torch.no_grad(), recorder:
            out = model(image)
        logits = getattr(out, "logits", out)
        tape = recorder.tape
        if tape is None or tape.slot(logits) is None or not _same_pass(tape, recorder.slots, chosen):
            return []
        with torch.inference_mode(False), torch.enable_grad():
            found = _search(tape, tape.slot(logits), recorder.slots, chosen)
        if found or window >= len(cuts):
            return found
    return []


def _same_pass(tape: Tape, slots: dict[tuple[int, int], int], cuts: Sequence[TokenCut]) -> bool:
    """Whether the model made the same calls as before, as far as the cuts show."""
    found = [0, *(slots.get(cut.made, -1) for cut in cuts[1:])]
    shapes = [tape.shapes[slot] if slot >= 0 else torch.Size() for slot in found]
    return all(
        len(shape) > max(cut.positions.axes) and tuple(shape[axis] for axis in cut.positions.axes) == cut.cells
        for shape, cut in zip(shapes, cuts, strict=True)
    )


def _search(
    tape: Tape, out: int | None, slots: dict[tuple[int, int], int], cuts: Sequence[TokenCut]
) -> list[tuple[TokenCut, TokenCut | None]]:
    made = tape.replay(tape.map.detach().clone().requires_grad_() * 1)
    # the map itself was made before the tape began
    values = [made[slots.get(cut.made, 0)] for cut in cuts]
    assert out is not None
    gradients = _gradients(made[out], values)
    hears = [_patches_heard(g, cut) for g, cut in zip(gradients, cuts, strict=True)]
    if not any(hears):
        return []
    last = max(number for number, heard in enumerate(hears) if heard)
    first = _before_the_first(values, cuts, last)
    found: list[tuple[TokenCut, TokenCut | None]] = [(cuts[first], None)]
    if first == last and _first_tokens_matter(gradients[last], cuts[last]):
        later = [place for place in range(last + 1, len(cuts)) if _firsts_hear(values, cuts, place, last)]
        earlier = [place for place in range(last) if _firsts_hear(values, cuts, last, place)]
        if not later and earlier:
            found.insert(0, (cuts[earlier[-1]], cuts[last]))
    return found


def _firsts_hear(values: Sequence[Tensor], cuts: Sequence[TokenCut], now: int, before: int) -> bool:
    """Whether the first tokens of a cut hear of the patches of an earlier one."""
    prefix, axes = cuts[now].positions.prefix, cuts[now].positions.axes
    if not prefix or cuts[before].positions.prefix != prefix or cuts[before].positions.axes != axes:
        return False
    (gradient,) = _gradients(_rows(values[now], cuts[now].positions)[:, :prefix], [values[before]])
    return _patches_heard(gradient, cuts[before])


def _first_tokens_matter(gradient: Tensor | None, cut: TokenCut) -> bool:
    return gradient is not None and bool((_rows(gradient, cut.positions)[:, : cut.positions.prefix] != 0).any())


def _before_the_first(values: Sequence[Tensor], cuts: Sequence[TokenCut], last: int) -> int:
    """Back from `last` over blocks in which the first tokens hear of patches, and no patch hears of another."""
    place = last - 1
    while place >= 0 and cuts[last].positions.prefix:
        now, before = _rows(values[last], cuts[last].positions), values[place]
        prefix, middle = cuts[last].positions.prefix, (now.shape[1] + cuts[last].positions.prefix) // 2
        (of_patch,) = _gradients(now[:, middle], [before])
        touched = _touched(of_patch, cuts[place])
        if touched is None or touched - {middle - prefix}:
            break
        (of_first,) = _gradients(now[:, :prefix], [before])
        if _patches_heard(of_first, cuts[place]):
            last = place
        place -= 1
    return last


def _gradients(y: Tensor, of: Iterable[Tensor]) -> list[Tensor | None]:
    """Of a sum with weights that no symmetry takes away."""
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype, device=y.device).view(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), list(of), retain_graph=True, allow_unused=True))


def _rows(x: Tensor, positions: PositionAxes) -> Tensor:
    """(N, tokens, C): those of no position first."""
    return x.movedim(positions.axes[0], 1)


def _touched(gradient: Tensor | None, cut: TokenCut) -> set[int] | None:
    """The patches that something depends on; None where nothing is known."""
    if gradient is None:
        return None
    rows = _rows(gradient, cut.positions)[0, cut.positions.prefix :]
    return set((rows != 0).any(1).nonzero().flatten().tolist())


def _patches_heard(gradient: Tensor | None, cut: TokenCut) -> bool:
    return bool(_touched(gradient, cut))
