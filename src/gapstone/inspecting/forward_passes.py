"""The forward passes of an inspection, and what each tells of every module."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.inspecting.meta_model import MetaModel
from gapstone.tracing.arithmetic import Arithmetic, ArithmeticCounter
from gapstone.tracing.locate_head import HeadLocation, locate_head
from gapstone.tracing.module_calls import following
from gapstone.tracing.receptive_field import ReceptiveField, ReceptiveFieldTracer
from gapstone.tracing.tape import SplitError, tensors


@dataclass
class Module:
    """What one module gave."""

    output: tuple[int, ...] | None
    field: ReceptiveField | None
    calls: int


@dataclass(frozen=True)
class Last:
    """Where in a forward pass the last map is made."""

    path: str
    """Of the module that gives it, called once; "" where it is a function's."""
    number: int
    """Of the call that made it."""
    name: str
    which: int
    """Of the tensors which that call gave."""
    axes: tuple[int, ...]


@dataclass
class HeadSplit:
    channels: int
    cells: tuple[int, ...]
    field: ReceptiveField | None
    trunk: frozenset[int]
    """Parameters, by identity, that the last map depends on."""
    head_macs: int
    last: Last


@dataclass
class PassFacts:
    """What one pass told of shapes and positions."""

    modules: dict[str, Module]
    output: tuple[int, ...] | None
    """Shape of the answer to one image, without the batch."""
    answers: frozenset[int]
    """Parameters, by identity, that the answer depends on."""
    split: HeadSplit | None
    no_map: str | None


def look(meta: MetaModel, images: Tensor) -> PassFacts:
    """Shapes, positions, the last map, and which parameters each depends on.

    Gapstone's own classifiers say themselves where their head begins: that of `nin` makes maps of its own.
    """
    ours = isinstance(getattr(meta.model, "head", None), Head) and "features" in dict(meta.model.named_children())
    at = "features" if ours else None
    location: HeadLocation | None = None
    no_map: str | None = None
    with meta.running():
        try:
            traced, location = locate_head(meta.model, images, at)
        except SplitError as error:
            no_map = str(error).partition(". If ")[0]  # what follows is advice to who calls `explain`
        else:
            with torch.no_grad(), ArithmeticCounter() as counter:
                traced.tape.replay(traced.tape.map)
    given: dict[str, tuple[int, Tensor | None]] = {}

    def done(path: str, out: Any) -> None:
        made = answer_of(out)
        given[path] = (given[path][0] + 1 if path in given else 1, made[0] if made else None)

    with meta.running(), torch.enable_grad(), following(meta.model, done), ReceptiveFieldTracer(images) as tracer:
        out = meta.model(images)
    modules = {
        path: Module(tuple(y.shape[1:]) if y is not None else None, tracer.of(y) if y is not None else None, calls)
        for path, (calls, y) in given.items()
    }
    output = tuple(made[0].shape[1:]) if (made := answer_of(out)) else None
    answers = _depends(answer_of(out))
    tape = tracer.tape
    last_map = given[at][1] if at else tape.map if tape else None
    if location is None or last_map is None:
        return PassFacts(modules, output, answers, None, no_map or "the model goes another way each time")
    rest = [n for axis, n in enumerate(last_map.shape) if axis and axis not in location.start.axes]
    path = next((path for path, (calls, y) in given.items() if path and calls == 1 and y is last_map), "")
    number, name, which = tracer.made[last_map]
    split_at = HeadSplit(
        torch.Size(rest).numel(),
        location.grid or location.cells,
        tracer.of(last_map),
        _depends([last_map]),
        counter.total.macs,
        Last(path, number, name, which, location.start.axes),
    )
    return PassFacts(modules, output, answers, split_at, None)


def count(meta: MetaModel, images: Tensor) -> tuple[dict[str, Arithmetic], int]:
    """By module (its own calls only), and the most bytes in use at once."""
    with meta.running(), torch.no_grad(), following(meta.model) as where, ArithmeticCounter(where) as counter:
        meta.model(images)
    return dict(counter.tallies), counter.peak


def saved_for_backward(meta: MetaModel, images: Tensor) -> dict[str, int]:
    """By module, the bytes that training keeps for the backward pass, of all images; raises where it cannot train."""
    by: defaultdict[str, int] = defaultdict(int)
    seen: dict[int, torch.UntypedStorage] = {}  # kept alive: they are known by their address
    theirs = {id(t.untyped_storage()) for t in (*meta.model.parameters(), *meta.model.buffers(), images)}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        key = id(storage)  # torch gives the same object as long as the memory lives
        if key not in seen and key not in theirs:
            seen[key] = storage
            by[where()] += storage.nbytes()
        return x

    keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    with meta.running(train=True), torch.enable_grad(), following(meta.model) as where, keeping:
        out = meta.model(images)
    del out
    return dict(by)


def answer_of(out: Any) -> list[Tensor]:
    """The tensors of an answer: itself, those in it, or the `logits` of what some libraries return."""
    return tensors(getattr(out, "logits", out))


def _depends(outs: list[Tensor]) -> frozenset[int]:
    """The leaves of the graph behind some tensors: parameters, by identity. Nothing is computed."""
    parameters: set[int] = set()
    seen: set[Any] = set()
    left = [y.grad_fn for y in outs if y.grad_fn is not None]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), nn.Parameter):
            parameters.add(id(leaf))
        left += [following_node for following_node, _ in node.next_functions if following_node is not None]
    return frozenset(parameters)
