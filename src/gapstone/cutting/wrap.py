"""Puts the head beside the network: a trunk runs the network up to the map, wherever it is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.cutting.exchange import Surgery, training_provenance
from gapstone.cutting.last_map import LocatedMap, candidates_hint
from gapstone.cutting.probe import approximately_equal, training
from gapstone.cutting.trunk import Replay, Tap, Trunk, TrunkAndHead
from gapstone.runtime.eval_mode import eval_mode
from gapstone.tracing.tape import SplitError


def swap_beside(
    surgery: Surgery, located: LocatedMap, removed: Sequence[nn.Module], head: nn.Module, images: Tensor
) -> TrunkAndHead:
    """Remove modules, and return the network up to its map with the new head.

    Raises:
        SplitError: If no module returns or takes the map, or the rest of the network does not run.
    """
    model, tap = surgery.model, Tap()
    hook_point = find_hook_point(surgery, located, removed, images)
    surgery.remove(removed)
    hook = hook_point.add_hook(surgery, tap)
    remove_own_parameters(surgery, located)
    wrapped = TrunkAndHead(Trunk(model, tap, nn.Sequential(*hook_point.calls, *located.arrange)), head)
    for module in (wrapped, wrapped.features, *wrapped.features.then.modules()):
        module.training = model.training
    try:
        check_runs(wrapped.features, images, located)
    except BaseException:
        hook.remove()
        raise
    return wrapped


@dataclass(frozen=True)
class HookPoint:
    """The module on which a hook gets the map, or the tensor that the map is computed from."""

    module: nn.Module
    before: bool
    """Whether the hook runs before the module: it takes the map and is replaced; else it returns the tensor."""
    calls: tuple[nn.Module, ...]
    """The calls that compute the map from the output of the module."""

    def add_hook(self, surgery: Surgery, tap: Callable[..., None]) -> Any:
        """Register the hook after modules were replaced, and return its handle."""
        if self.before:
            return surgery.current(self.module).register_forward_pre_hook(tap)
        return self.module.register_forward_hook(tap)


def find_hook_point(surgery: Surgery, located: LocatedMap, removed: Sequence[nn.Module], images: Tensor) -> HookPoint:
    """Return where a hook gets the map.

    Raises:
        SplitError: If no module returns or takes the map.
    """
    model = surgery.model
    producer, calls = _find_producer(located, removed)
    consuming = located.consumers_among(removed)
    if consuming and producer is not None:
        between = training_provenance(model, images, consuming[0], None) & ~training_provenance(
            model, images, None, producer
        )
        producer = None if between else producer  # layers between them run in training only
    if producer is None and not consuming:
        raise SplitError(
            f"the last map of {type(model).__name__}, {tuple(located.map.shape)}, is made outside of all its modules, "
            f"by calls that join several tensors. {candidates_hint(model, located.tracer)}"
        )
    if consuming and (producer is None or calls):
        return HookPoint(consuming[0], True, ())
    assert producer is not None
    return HookPoint(producer, False, tuple(calls))


def _find_producer(located: LocatedMap, removed: Sequence[nn.Module]) -> tuple[nn.Module | None, list[nn.Module]]:
    """Return the outermost module that the map is computed from, and the calls between them, dropout included."""
    tracer = located.tracer
    calls: list[nn.Module] = []
    cut = [
        span
        for module in removed
        for span in zip(tracer.begun.get(module, ()), tracer.ended.get(module, ()), strict=False)
    ]
    for x, made, until in located.origins():
        visits = [v for v in tracer.givers.get(x, ()) if made.count <= v.count <= until]
        visits = [v for v in visits if tracer.once(v.module) and v.module not in removed]
        since = visits[-1].count if visits else made.count
        dropouts = [d for d in tracer.dropouts.get(x, ()) if since < d.count <= until]
        # without the dropout of removed layers
        calls[:0] = [d.layer() for d in dropouts if not any(start < d.count <= end for start, end in cut)]
        if visits:
            return visits[-1].module, calls
        replay = made.call and Replay.of(made.call)
        if not replay:
            break
        calls.insert(0, replay)
    return None, []


def remove_own_parameters(surgery: Surgery, located: LocatedMap) -> None:
    """Remove parameters of a head that a module computes itself: it begins before the map and ends after it."""
    tracer = located.tracer
    for module in surgery.model.modules():
        starts, ends = tracer.begun.get(module, [located.until]), tracer.ended.get(module, [located.until + 1])
        if starts[0] < located.made.count and ends[-1] > located.until:
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not tracer.bits_of([parameter]) & located.made.of:
                    surgery.remove_parameter(module, name)


def check_runs(features: Trunk, images: Tensor, located: LocatedMap) -> None:
    """Raise SplitError if a network without its head does not run, or makes other maps."""
    expected = located.features
    more = torch.cat([images, images[:1]])
    name = type(features.net).__name__
    try:
        with torch.no_grad(), eval_mode(features):
            maps = [features(images), features(more)[: len(images)]]
        with torch.no_grad(), training(features) as state:
            shape = torch.func.functional_call(features, state, (more,)).shape
    except Exception as error:
        raise SplitError(
            f"{name} without its head does not run ({type(error).__name__}: {error}). "
            f"{candidates_hint(features.net, located.tracer)}"
        ) from error
    if not all(approximately_equal(map, expected) for map in maps) or shape[1:] != expected.shape[1:]:
        raise SplitError(
            f"{name} makes other maps without its head, or for another number of images. "
            f"{candidates_hint(features.net, located.tracer)}"
        )
