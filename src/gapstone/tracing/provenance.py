"""The provenance of every tensor of a forward pass: which modules took and gave it, which calls made it, of what."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.runtime.torch_internals import changed, snapshot
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, HeadTracer, Keywords

DROPOUTS = {
    "dropout": nn.Dropout,
    "dropout1d": nn.Dropout1d,
    "dropout2d": nn.Dropout2d,
    "dropout3d": nn.Dropout3d,
    "feature_dropout": nn.Dropout2d,
    "alpha_dropout": nn.AlphaDropout,
    "feature_alpha_dropout": nn.FeatureAlphaDropout,
}
"""By the function's name."""
IMAGES = 1
"""The bit of what depends on the images; each parameter has one of its own."""


@dataclass(frozen=True)
class UnaryCall:
    """A call without parameters that takes a single tensor, so that it can be repeated."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    taken: Tensor
    was: "Made"
    """How the tensor it takes was made (its own, where the call works in place)."""


@dataclass(frozen=True)
class Made:
    """The making of a tensor, or its last change in place."""

    count: int
    """The number of that call."""
    of: int
    """Bits of the parameters, and the images, that it depends on."""
    call: UnaryCall | None = None
    before: "Made | None" = None
    """Of a change in place: how the tensor was made before."""


@dataclass(frozen=True)
class Visit:
    module: nn.Module
    count: int
    """Calls that had been made when it began, or ended."""


@dataclass(frozen=True)
class PassedDropout:
    """A dropout that a forward pass in eval mode went through as a function: it changed nothing, but is there."""

    count: int
    name: str
    p: float

    def layer(self) -> nn.Module:
        return DROPOUTS[self.name](self.p)


class ProvenanceTracer(HeadTracer):
    """Traces a pass of `images`; a named map is kept as `map`."""

    def __init__(
        self, model: nn.Module, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None
    ) -> None:
        super().__init__(images, into, out_of)
        self.map: Tensor | None = None
        self.bits = {id(p): 2 << i for i, p in enumerate(model.parameters())}
        self.made: Any = WeakTensorKeyDictionary()
        self.made[images] = Made(0, IMAGES)
        self.takers: Any = WeakTensorKeyDictionary()
        """Visits by the tensor that they begin with."""
        self.givers: Any = WeakTensorKeyDictionary()
        """Visits by the tensor that they end with."""
        self.dropouts: Any = WeakTensorKeyDictionary()
        """Dropouts by the tensor that they took, and gave back."""
        self.begun: dict[nn.Module, list[int]] = {}
        """By module, the count at the beginning of each visit."""
        self.ended: dict[nn.Module, list[int]] = {}
        """And at the end."""
        self.outputs: list[tuple[nn.Module, tuple[int, ...]]] = []
        """What modules gave: shapes, in the order of time."""
        self.output_text = ""
        """The model's output, in words."""
        self.output_class: type | None = None
        """The class of an output that holds logits."""

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        inputs = tensors((args, kwargs))
        before = [snapshot(x) for x in inputs]
        makings = [self.making(x) for x in inputs]
        out = super().call(func, args, kwargs)
        of = 0
        for making in makings:
            of |= making.of
        unary = len(inputs) == 1 and of & IMAGES
        made = Made(self.count, of, UnaryCall(func, args, kwargs, inputs[0], makings[0]) if unary else None)
        if inputs and out is inputs[0]:
            op = read_call(name_of(func), args, kwargs)
            if isinstance(op, ops.Dropout):
                self.dropouts.setdefault(out, []).append(PassedDropout(self.count, op.function, op.p))
        changes = [changed(x, was) for x, was in zip(inputs, before, strict=True)]
        for y in tensors(out):
            # dropout in eval mode gives back what it took: the same tensor, unchanged, is not made anew
            if not any(y is x and not anew for x, anew in zip(inputs, changes, strict=True)):
                self.made[y] = made
        for x, anew, was in zip(inputs, changes, makings, strict=True):
            if anew:
                self.made[x] = replace(made, before=was)
        return out

    def making(self, x: Tensor, until: int | None = None) -> Made:
        """Of a tensor as it is now, or as it was after so many calls."""
        making: Made = self.made.get(x) or Made(0, self.bits.get(id(x), 0))
        while until is not None and making.count > until and making.before is not None:
            making = making.before
        return making

    def module_begins(self, module: nn.Module, args: object) -> None:
        count = self.count
        self.begun.setdefault(module, []).append(count)
        if isinstance(args, tuple) and args and isinstance(args[0], Tensor):
            self.takers.setdefault(args[0], []).append(Visit(module, count))
        super().module_begins(module, args)

    def module_ends(self, module: nn.Module, args: object, out: object) -> None:
        self.ended.setdefault(module, []).append(self.count)
        if isinstance(out, Tensor):
            self.givers.setdefault(out, []).append(Visit(module, self.count))
            self.outputs.append((module, tuple(out.shape)))
        super().module_ends(module, args, out)

    def starts(self, x: Tensor) -> None:
        self.map = x
        super().starts(x)

    def once(self, module: nn.Module) -> bool:
        return len(self.begun.get(module, ())) == 1

    def bits_of(self, parameters: Sequence[nn.Parameter]) -> int:
        of = 0
        for parameter in parameters:
            of |= self.bits.get(id(parameter), 0)
        return of
