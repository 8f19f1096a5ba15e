"""The arithmetic of a forward pass: multiply-adds, other operations and memory, in all and by where."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from gapstone.regions.places import Cells, Intervals
from gapstone.runtime.eval_mode import eval_mode
from gapstone.runtime.torch_internals import TorchDispatchMode
from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import read_call


def macs(module: nn.Module, example: Any) -> int:
    """Multiply-adds of convolutions and matrix products, in eval mode."""
    with eval_mode(module), torch.no_grad(), ArithmeticCounter() as counter:
        module(example)
    total: int = counter.total.macs
    return total


@dataclass
class Arithmetic:
    """Arithmetic of one forward pass."""

    macs: int = 0
    """Multiply-adds of convolutions and matrix products, attention's among them."""
    pooled: int = 0
    """Values that pools read, k·k for each answer of a k×k window: an addition or a comparison each."""
    single: int = 0
    """Values made by all else (norms, activations, sums of branches): each counts once, whatever it takes."""

    def __add__(self, other: "Arithmetic") -> "Arithmetic":
        return Arithmetic(self.macs + other.macs, self.pooled + other.pooled, self.single + other.single)


class ArithmeticCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside it, also where no numbers are (the meta device).

    >>> model = torchvision.models.resnet50().eval()
    >>> with torch.no_grad(), ArithmeticCounter() as counter:
    ...     logits = model(torch.zeros(1, 3, 224, 224))
    >>> counter.total.macs
    4089184256

    where: called for each operation; names the tally it belongs to. torch's own formulas (`torch.utils.flop_counter`)
    count convolutions and matrix products, and every pool as 0.
    """

    def __init__(self, where: Callable[[], str] = str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where = where
        self.tallies: defaultdict[str, Arithmetic] = defaultdict(Arithmetic)
        self.live = self.peak = 0
        """Bytes of the tensors made inside that are in use: now, and at most."""
        self._storages: dict[int, int] = {}

    @property
    def total(self) -> Arithmetic:
        return sum(self.tallies.values(), Arithmetic())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:  # what torch makes of other calls is counted call by call
                made = func.decompose(*args, **kwargs)
                if made is not NotImplemented:
                    return made
        given = {id(x.untyped_storage()) for x in tensors((args, kwargs))}
        out = func(*args, **kwargs)
        outs = tensors(out)
        tally, name = self.tallies[self.where()], func.name().partition(".")[0]
        if packet in flop_registry:
            tally.macs += int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
        elif (read := _read(read_call(name.partition("::")[2].lstrip("_"), args, kwargs), args, outs)) is not None:
            tally.pooled += read
        elif name not in MOVES and outs and outs[0].is_floating_point() and not func.is_view:
            tally.single += outs[0].numel()
        for y in outs:
            self._made(y, given)
        return out

    def _made(self, y: Tensor, given: set[int]) -> None:
        storage = y.untyped_storage()
        key = id(storage)  # torch gives the same object as long as the memory lives
        if key in given or key in self._storages:
            return  # a view, or changed in place
        self._storages[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self._storages.pop(key, 0)


MOVES = frozenset(
    f"aten::{name}"
    for name in (
        *("clone", "copy_", "_to_copy", "cat", "stack", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"),
        *("index", "index_select", "gather", "roll", "flip", "empty", "empty_like", "zeros", "zeros_like", "ones"),
        *("fill_", "zero_", "arange", "linspace", "bernoulli_", "repeat", "channel_shuffle", "pixel_unshuffle"),
        *("new_empty", "new_zeros", "new_ones", "full", "scalar_tensor", "_unsafe_view", "_reshape_copy", "lift_fresh"),
    )
)
"""Calls that move or make numbers, and compute none."""


def _read(op: ops.Operation, args: Sequence[Any], outs: Sequence[Tensor]) -> int | None:
    """How many values a pool reads; None for what is none."""
    if isinstance(op, ops.RegionPool) and isinstance(op.place, Intervals) and op.place.axes is not None:
        x, windows = args[0], [a for a in op.place.axes if not isinstance(a, Cells)]
        cells = prod(_bins(a.length, a.cells) for a in op.place.axes if isinstance(a, Cells))
        return int(x.shape[0] * x.shape[1] * cells * prod(a.cells * a.size for a in windows))
    if isinstance(op, ops.RegionPool | ops.Reduce):
        return int(args[0].numel())
    if isinstance(op, ops.AdaptivePool):
        x, y, n = args[0], outs[0], len(op.output_size)
        ratio = prod(_bins(a, b) for a, b in zip(x.shape[-n:], y.shape[-n:], strict=True))
        return int(prod(y.shape[:-n]) * ratio)
    return int(outs[0].numel() * prod(op.kernel_size)) if isinstance(op, ops.WindowPool) else None


def _bins(length: int, cells: int) -> int:
    """Positions in `cells` parts of an axis; where they don't divide it, neighbours share one."""
    starts, stops = Cells(cells, length).bounds(length)
    return sum(stops) - sum(starts)
