"""What a network costs: parameters, multiply-adds, other operations and memory, of one forward pass and by where."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from gapstone.loops.places import decode
from gapstone.models.classifier import Classifier
from gapstone.modes import quiet
from gapstone.regions.places import Boxes, Cells
from gapstone.runtime.torch_internals import TorchDispatchMode


def cost(model: Classifier) -> dict[str, int]:
    """`parameters` of the whole, `head_parameters`, and `macs`: multiply-adds of convolutions and matrix products.

    >>> cost(gs.Classifier("resnet18", "gap", labels, preprocessing))["macs"]
    1814073344

    Pools, norms and activations count as none, as everywhere in the literature. The modes of all modules stay.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, model.preprocessing.channels, *model.preprocessing.size, device=device)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "head_parameters": sum(p.numel() for p in model.head.parameters()),
        "macs": macs(model, image),
    }


def macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-adds of convolutions and matrix products, in eval mode."""
    with quiet(module), torch.no_grad(), Counting() as counting:
        module(example)
    total: int = counting.total.macs
    return total


@dataclass
class Tally:
    """Arithmetic of one forward pass."""

    macs: int = 0
    """Multiply-adds of convolutions and matrix products, attention's among them."""
    pooled: int = 0
    """Values that pools read, k·k for each answer of a k×k window: an addition or a comparison each."""
    single: int = 0
    """Values made by all else (norms, activations, sums of branches): each counts once, whatever it takes."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.macs + other.macs, self.pooled + other.pooled, self.single + other.single)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside it, also where no numbers are (the meta device).

    >>> with torch.no_grad(), Counting() as counting:
    ...     torchvision.models.resnet50().eval()(torch.zeros(1, 3, 224, 224))
    >>> counting.total.macs
    4089184256

    where: asked at each call which tally it belongs to. Convolutions and matrix products are counted by torch's own
    formulas (`torch.utils.flop_counter`), which count every pool as 0.
    """

    def __init__(self, where: Callable[[], str] = str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where = where
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self.live = self.peak = 0
        """Bytes of the tensors made inside that are in use: now, and at most."""
        self._storages: dict[int, int] = {}

    @property
    def total(self) -> Tally:
        return sum(self.tallies.values(), Tally())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:  # what torch makes of other calls is counted call by call
                made = func.decompose(*args, **kwargs)
                if made is not NotImplemented:
                    return made
        given = {id(x.untyped_storage()) for x in _tensors((args, kwargs))}
        out = func(*args, **kwargs)
        outs = list(_tensors(out))
        tally, name = self.tallies[self.where()], func.name().partition(".")[0]
        if packet in flop_registry:
            tally.macs += int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
        elif (read := _read(name, args, outs)) is not None:
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
REDUCTIONS = frozenset(f"aten::{name}" for name in ("mean", "sum", "amax", "amin", "max", "min", "logsumexp"))


def _read(name: str, args: Sequence[Any], outs: Sequence[Tensor]) -> int | None:
    """How many values a pool reads; None for what is none."""
    kind, _, call = name.partition("::")
    if kind == "gapstone" and call == "pool":
        place = decode(args[3], args[4])
        if isinstance(place, Boxes) and place.axes is not None:
            x, windows = args[0], [a for a in place.axes if not isinstance(a, Cells)]
            cells = prod(_bins(a.length, a.cells) for a in place.axes if isinstance(a, Cells))
            return int(x.shape[0] * x.shape[1] * cells * prod(a.cells * a.size for a in windows))
        return int(args[0].numel())
    if name in REDUCTIONS:
        return int(args[0].numel())
    if "adaptive_" in call and "_pool" in call:
        x, y = args[0], outs[0]
        n = int(call[call.index("_pool") + 5])
        ratio = prod(_bins(a, b) for a, b in zip(x.shape[-n:], y.shape[-n:], strict=True))
        return int(prod(y.shape[:-n]) * ratio)
    if call.startswith(("max_pool", "avg_pool")) and "backward" not in call:
        size, n = args[1], int(call[8])
        return int(outs[0].numel() * (prod(size) if len(size) > 1 else size[0] ** n))
    return None


def _bins(length: int, cells: int) -> int:
    """Positions in `cells` parts of an axis; where they don't divide it, neighbours share one."""
    starts, stops = Cells(cells, length).bounds(length)
    return sum(stops) - sum(starts)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for part in tree:
            yield from _tensors(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _tensors(part)
