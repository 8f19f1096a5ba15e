"""The forward passes of an inspection: shapes, receptive fields, multiply-adds and memory of every module."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.inspecting.meta_model import MetaModel
from gapstone.tracing.arithmetic import Arithmetic, ArithmeticCounter
from gapstone.tracing.locate_head import HeadLocation, locate_head
from gapstone.tracing.receptive_field import ReceptiveField, ReceptiveFieldTracer
from gapstone.tracing.tape import SplitError, tensors


@dataclass
class ModuleFacts:
    """What a forward pass shows of one module."""

    output: tuple[int, ...] | None
    field: ReceptiveField | None
    calls: int


@dataclass(frozen=True)
class MapPosition:
    """Where in a forward pass the last map is made."""

    path: str
    """Path of the module that returns it, which is called once; "" if no module returns it."""
    call_number: int
    """Number of the call that made it."""
    name: str
    """Name of that call."""
    output_index: int
    """Index of the map in the tensors which that call returned."""
    axes: tuple[int, ...]


@dataclass
class HeadSplit:
    """The last map, and what belongs to the trunk before it and to the head after it."""

    channels: int
    cells: tuple[int, ...]
    field: ReceptiveField | None
    trunk: frozenset[int]
    """Parameters, by `id`, that the last map depends on."""
    head_macs: int
    position: MapPosition


@dataclass
class PassFacts:
    """What a forward pass shows of shapes and positions."""

    modules: dict[str, ModuleFacts]
    output: tuple[int, ...] | None
    """Shape of the output for one image, without the batch."""
    used: frozenset[int]
    """Parameters, by `id`, that the output depends on."""
    split: HeadSplit | None
    no_map: str | None


def trace_shapes(meta: MetaModel, images: Tensor) -> PassFacts:
    """Trace shapes, receptive fields and the last map, and which parameters the map and the output depend on.

    In gapstone's classifiers the map is the output of `features`: the head `nin` makes further maps.
    """
    head = getattr(meta.model, "head", None)
    is_classifier = isinstance(head, Head) and "features" in dict(meta.model.named_children())
    at = "features" if is_classifier else None
    location: HeadLocation | None = None
    no_map: str | None = None
    with meta.running():
        try:
            traced, location = locate_head(meta.model, images, at)
        except SplitError as error:
            no_map = str(error).partition(". If ")[0]  # the rest is advice for callers of `explain`
            if isinstance(head, Head) and not head.reads.maps_alone:
                no_map = f"the head {head.spec} reads {head.reads.what}, which is no position of a map"
        else:
            with torch.no_grad(), ArithmeticCounter() as counter:
                traced.tape.replay(traced.tape.map)
    outputs: dict[str, tuple[int, Tensor | None]] = {}

    def on_exit(path: str, out: Any) -> None:
        calls, _ = outputs.get(path, (0, None))
        outputs[path] = calls + 1, next(iter(output_tensors(out)), None)

    with meta.running(), torch.enable_grad(), following(meta.model, on_exit), ReceptiveFieldTracer(images) as tracer:
        results = output_tensors(meta.model(images))
    modules = {
        path: ModuleFacts(tuple(y.shape[1:]) if y is not None else None, tracer.of(y) if y is not None else None, calls)
        for path, (calls, y) in outputs.items()
    }
    output = tuple(results[0].shape[1:]) if results else None
    used = _parameters_behind(results)
    tape = tracer.tape
    last_map = outputs[at][1] if at else tape.map if tape else None
    if location is None or last_map is None:
        return PassFacts(modules, output, used, None, no_map or "the model goes another way each time")
    rest = [n for axis, n in enumerate(last_map.shape) if axis and axis not in location.start.axes]
    path = next((path for path, (calls, y) in outputs.items() if path and calls == 1 and y is last_map), "")
    call_number, name, output_index = tracer.made[last_map]
    split_at = HeadSplit(
        torch.Size(rest).numel(),
        location.grid or location.cells,
        tracer.of(last_map),
        _parameters_behind([last_map]),
        counter.total.macs,
        MapPosition(path, call_number, name, output_index, location.start.axes),
    )
    return PassFacts(modules, output, used, split_at, None)


def count_arithmetic(meta: MetaModel, images: Tensor) -> tuple[dict[str, Arithmetic], int]:
    """Return the arithmetic of each module's own calls, and the peak of bytes in use."""
    with meta.running(), torch.no_grad(), following(meta.model) as where, ArithmeticCounter(where) as counter:
        meta.model(images)
    return dict(counter.tallies), counter.peak


def saved_for_backward(meta: MetaModel, images: Tensor) -> dict[str, int]:
    """Return, by module, the bytes saved for the backward pass of all images. Raises what the model raises."""
    saved_bytes: defaultdict[str, int] = defaultdict(int)
    storages: dict[int, torch.UntypedStorage] = {}  # references: an address identifies a storage while it lives
    excluded = {id(t.untyped_storage()) for t in (*meta.model.parameters(), *meta.model.buffers(), images)}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        key = id(storage)  # torch returns the same object while the memory lives
        if key not in storages and key not in excluded:
            storages[key] = storage
            saved_bytes[where()] += storage.nbytes()
        return x

    saving_hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    with meta.running(train=True), torch.enable_grad(), following(meta.model) as where, saving_hooks:
        out = meta.model(images)
    del out
    return dict(saved_bytes)


@contextmanager
def following(model: nn.Module, done: Callable[[str, Any], None] | None = None) -> Iterator[Callable[[], str]]:
    """Yields a function that returns the path of the module that runs ("" is the model itself).

    done: called with each module's path and output when it has run. The hooks are removed afterwards.
    """
    stack = [""]
    handles = []

    def enter(path: str) -> Callable[..., None]:
        return lambda _module, _args: stack.append(path)

    def leave(path: str) -> Callable[..., None]:
        def left(_module: nn.Module, _args: Any, out: Any) -> None:
            stack.pop()
            if done is not None:
                done(path, out)

        return left

    for path, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave(path))]
    try:
        yield lambda: stack[-1]
    finally:
        for handle in handles:
            handle.remove()


def output_tensors(out: object) -> list[Tensor]:
    """Return the tensors of an output: itself, those in it, or its `logits` (Hugging Face)."""
    return tensors(getattr(out, "logits", out))


def _parameters_behind(outs: list[Tensor]) -> frozenset[int]:
    """Return the parameters, by `id`, in the autograd graph of some tensors."""
    parameters: set[int] = set()
    visited: set[Any] = set()
    nodes = [y.grad_fn for y in outs if y.grad_fn is not None]
    while nodes:
        node = nodes.pop()
        if node in visited:
            continue
        visited.add(node)
        if isinstance(leaf := getattr(node, "variable", None), nn.Parameter):
            parameters.add(id(leaf))
        nodes += [next_node for next_node, _ in node.next_functions if next_node is not None]
    return frozenset(parameters)
