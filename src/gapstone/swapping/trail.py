"""One forward pass, followed: which modules took and gave each tensor, which calls made it, of which parameters.

Around `gapstone.maps.watch.Watch`, which finds the last map. Modules are seen through torch's hooks for all modules, so
nothing is registered on the model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gapstone.maps.tape import tensors
from gapstone.maps.watch import Watch
from gapstone.runtime.torch_internals import changed, snapshot

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
class Call:
    """A call without parameters that takes one tensor: it can be made again."""

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
    call: Call | None = None
    before: "Made | None" = None
    """Of a change in place: how the tensor was made before."""


@dataclass(frozen=True)
class Visit:
    module: nn.Module
    count: int
    """Calls that had been made when it began, or ended."""


@dataclass(frozen=True)
class Dropout:
    """A dropout that a forward pass in eval mode went through as a function: it changed nothing, but is there."""

    count: int
    name: str
    p: float

    def layer(self) -> nn.Module:
        return DROPOUTS[self.name](self.p)


class Trail(TorchFunctionMode):
    """Follows a pass of `images`; `into`, `out_of`: keeps that module's input, or output, as `map`."""

    def __init__(
        self, model: nn.Module, images: Tensor, into: nn.Module | None = None, out_of: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.watch = Watch(images, named=into is not None or out_of is not None)
        self.dims = images.dim()
        self.into, self.out_of = into, out_of
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
        self.given: list[tuple[nn.Module, tuple[int, ...]]] = []
        """What modules gave: shapes, in the order of time."""
        self.gave = ""
        """What the model answered, in words."""
        self.gives: type | None = None
        """The class of an answer that holds logits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = tensors((args, kwargs))
        before = [snapshot(x) for x in inputs]
        makings = [self.making(x) for x in inputs]
        out = self.watch.__torch_function__(func, types, args, kwargs)
        of = 0
        for one in makings:
            of |= one.of
        call = Call(func, args, kwargs, inputs[0], makings[0]) if len(inputs) == 1 and of & IMAGES else None
        made = Made(self.watch.count, of, call)
        name = getattr(func, "__name__", "")
        if name in DROPOUTS and out is inputs[0]:
            p = float(args[1] if len(args) > 1 else kwargs.get("p", 0.5))
            self.dropouts.setdefault(out, []).append(Dropout(self.watch.count, name, p))
        anew_made = [changed(x, was) for x, was in zip(inputs, before, strict=True)]
        for y in tensors(out):
            # dropout in eval mode gives back what it took: the same tensor, unchanged, is not made anew
            if not any(y is x and not anew for x, anew in zip(inputs, anew_made, strict=True)):
                self.made[y] = made
        for x, anew, was in zip(inputs, anew_made, makings, strict=True):
            if anew:
                self.made[x] = replace(made, before=was)
        return out

    def making(self, x: Tensor, until: int | None = None) -> Made:
        """Of a tensor as it is now, or as it was after so many calls."""
        found: Made = self.made.get(x) or Made(0, self.bits.get(id(x), 0))
        while until is not None and found.count > until and found.before is not None:
            found = found.before
        return found

    @contextmanager
    def followed(self) -> Iterator[None]:
        hooks = [register_module_forward_pre_hook(self._begins), register_module_forward_hook(self._ends)]
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begins(self, module: nn.Module, args: Any) -> None:
        count = self.watch.count
        self.begun.setdefault(module, []).append(count)
        if isinstance(args, tuple) and args and isinstance(args[0], Tensor):
            self.takers.setdefault(args[0], []).append(Visit(module, count))
            if module is self.into:
                self._starts(args[0])

    def _ends(self, module: nn.Module, _: Any, out: Any) -> None:
        self.ended.setdefault(module, []).append(self.watch.count)
        if isinstance(out, Tensor):
            self.givers.setdefault(out, []).append(Visit(module, self.watch.count))
            self.given.append((module, tuple(out.shape)))
            if module is self.out_of:
                self._starts(out)

    def _starts(self, x: Tensor) -> None:
        self.map = x
        self.watch.starts(x)

    def once(self, module: nn.Module) -> bool:
        return len(self.begun.get(module, ())) == 1

    def bits_of(self, parameters: Sequence[nn.Parameter]) -> int:
        of = 0
        for one in parameters:
            of |= self.bits.get(id(one), 0)
        return of
