"""Which tokens of a sequence come from a patch of the image, and which do not: seen in one forward pass, on shapes.

A class token, registers and a distillation token are parameters that are put beside the patches. From there on each
position is followed through the calls: layers act on each position by itself, attention is added to what stands there.
Nothing asks for a model's name, and nothing has to stand first.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer

Token = str | None
"""Of a position: the parameter that it began as, or None for a patch."""
Tokens = tuple[Token, ...]

Place = tuple[int, Tokens]
"""The dimension of a tensor's positions, and what each is."""
PATCHES: Place = (0, ())
"""Of what was made of patches alone, whichever dimension they stand in."""

KEEPS = (
    ops.LayerNorm, ops.LinearLayer, ops.Elementwise, ops.PerPosition, ops.Dropout, ops.Copy, ops.Cast, ops.Normalize,
    ops.BatchNorm, ops.Reshape, ops.Expand,
)  # fmt: skip
"""Calls that leave a position where it is, as long as the sizes up to its dimension stay."""
MIXES = (ops.MatrixProduct, ops.Softmax, ops.Reduce, ops.AdaptivePool)
"""Calls whose answer belongs to no single position."""


def prefix_tokens(net: nn.Module, run: Callable[[Tensor], object], images: Tensor) -> Tokens:
    """The tokens of the sequence (N, T, C) that `run(images)` gives, of at least two images.

    >>> prefix_tokens(vit, vit.forward_features, images)[:3]
    ('cls_token', None, None)

    () where it gives no sequence, or one that no parameter was put beside.
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    with torch.inference_mode(False), torch.enable_grad(), _Follow(images, names) as follow:  # views know their base
        y = run(images)
    place = follow.places.get(y) if isinstance(y, Tensor) and y.dim() == 3 else None
    return place[1] if place and place[0] == 1 else ()


class _Follow(Tracer):
    """`places`: what stands where. What depends on the image in another way is in `mixed`; all else is constant."""

    def __init__(self, images: Tensor, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.places: Any = WeakTensorKeyDictionary()
        self.mixed: Any = WeakTensorKeyDictionary()
        self.places[images] = PATCHES

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        given = tensors((args, kwargs))
        placed = [(x, self.places[x]) for x in given if x in self.places]
        mixes = any(x in self.mixed for x in given)
        if not placed and not mixes:
            return func(*args, **kwargs)
        op = read_call(name_of(func), args, kwargs)
        shapes = [tuple(x.shape) for x, _ in placed]  # before a call in place changes them
        out = func(*args, **kwargs)
        first = 0
        for y in tensors(out):
            place = self._place(op, given, placed, shapes, mixes, y)
            if isinstance(op, ops.Chunk) and place and place[0] == op.dim % y.dim() and place is not PATCHES:
                last = first + y.shape[place[0]]
                place, first = _of(place[0], place[1][first:last]), last
            if place is None:
                self.mixed[y] = True
            else:
                self.places[y] = place
        return out

    def _place(
        self,
        op: ops.Operation,
        given: list[Tensor],
        placed: list[tuple[Tensor, Place]],
        shapes: list[tuple[int, ...]],
        mixes: bool,
        y: Tensor,
    ) -> Place | None:
        if isinstance(op, ops.Concat):
            return self._joined(op, given, y)
        if not placed:
            return self._answered(op, given, y)
        marked = [(x, place, shape) for (x, place), shape in zip(placed, shapes, strict=True) if place is not PATCHES]
        if not marked:
            several = len(placed) + mixes > 1  # attention; the product of patches and a weight is a layer
            return None if isinstance(op, ops.Reduce) or (isinstance(op, MIXES) and several) else PATCHES
        _, (axis, tokens), shape = marked[0]
        if isinstance(op, ops.Slice):
            return _sliced(op, axis, tokens, len(shape))
        if isinstance(op, ops.Permute):
            return op.order.index(axis), tokens
        if isinstance(op, ops.Chunk):
            return axis, tokens
        if isinstance(op, KEEPS) and tuple(y.shape[1 : axis + 1]) == shape[1 : axis + 1]:
            return axis, tokens
        return None

    def _joined(self, op: ops.Concat, given: list[Tensor], y: Tensor) -> Place | None:
        axis = op.dim % y.dim()
        if op.function != "cat" or axis == 0:
            return None
        marked: list[Place] = [self.places[x] for x in given if x in self.places and self.places[x] is not PATCHES]
        if any(place[0] != axis for place in marked):  # side by side in another dimension: positions stay
            return marked[0]
        if not any(x in self.places for x in given):
            return None
        if all(self.places.get(x) is PATCHES for x in given):
            return PATCHES
        tokens: Tokens = ()
        for x in given:
            place = self.places.get(x)
            own = (
                (None,) * x.shape[axis] if place is PATCHES else place[1] if place else (self._name(x),) * x.shape[axis]
            )
            tokens += own
        return axis, tokens

    def _answered(self, op: ops.Operation, given: list[Tensor], y: Tensor) -> Place | None:
        """What attention said is added to a token that was a parameter until then (CaiT's class token)."""
        constant = next((x for x in given if x not in self.mixed), None)
        adds = isinstance(op, ops.Elementwise) and op.function == "add" and constant is not None
        if (
            adds
            and y.dim() == 3
            and constant is not None
            and constant.shape == y.shape
            and id(_base(constant)) in self.names
        ):
            return 1, (self._name(constant),) * y.shape[1]
        return None

    def _name(self, x: Tensor) -> str:
        return self.names.get(id(_base(x)), "a token")


def _base(x: Tensor) -> Tensor:
    """The parameter that x is a view of, or x."""
    return x if x._base is None else x._base  # noqa: SLF001 (torch documents it; there is no other way to ask)


def _sliced(op: ops.Slice, axis: int, tokens: Tokens, dims: int) -> Place | None:
    """Of an index: the tokens that are left, or whether the one that is left is a patch."""
    if op.function == "select":
        dim, index = op.index
        index = (slice(None),) * (int(dim) % dims) + (index,)  # type: ignore[call-overload]
    else:
        index = op.index
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (dims - len(index) + 1), *index[at + 1 :])
    if any(part is None or isinstance(part, Tensor) for part in index):
        return None
    own = index[axis] if axis < len(index) else slice(None)
    axis -= sum(isinstance(part, int) for part in index[:axis])
    if isinstance(own, slice):
        return _of(axis, tokens[own])
    return None


def _of(axis: int, tokens: Tokens) -> Place:
    return (axis, tokens) if any(tokens) else PATCHES
