"""The head beside the network: the trunk runs up to the map, wherever it is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.runtime.eval_mode import eval_mode
from gapstone.swapping.exchange import Surgery, of_in_training
from gapstone.swapping.in_place import consumers
from gapstone.swapping.last_map import LocatedMap, choose
from gapstone.swapping.probe import close, training
from gapstone.swapping.trunk import Replay, Tap, Trunk, TrunkAndHead
from gapstone.tracing.tape import SplitError


def wrapped(
    surgery: Surgery, found: LocatedMap, gone: Sequence[nn.Module], head: nn.Module, images: Tensor
) -> TrunkAndHead:
    """Raises SplitError where no module gives or takes the map, or what is left of the network does not run."""
    model, tap = surgery.model, Tap()
    where = stands(surgery, found, gone, images)
    surgery.without(gone)
    hook = where.attached(surgery, tap)
    _without_own_parameters(surgery, found)
    whole = TrunkAndHead(Trunk(model, tap, nn.Sequential(*where.calls, *found.arrange)), head)
    for module in (whole, whole.features, *whole.features.then.modules()):
        module.training = model.training
    try:
        _try(whole, images, found)
    except BaseException:
        hook.remove()
        raise
    return whole


@dataclass(frozen=True)
class Stands:
    """Where a hook sees the map, or what it is made of."""

    module: nn.Module
    takes: bool
    """It takes the map, and is among those that are exchanged; else it gives it."""
    calls: tuple[nn.Module, ...]
    """From what it gives to the map."""

    def attached(self, surgery: Surgery, tap: Callable[..., None]) -> Any:
        """The handle of the hook, where the modules have been exchanged."""
        if self.takes:
            return surgery.new(self.module).register_forward_pre_hook(tap)
        return self.module.register_forward_hook(tap)


def stands(surgery: Surgery, found: LocatedMap, gone: Sequence[nn.Module], images: Tensor) -> Stands:
    """Raises SplitError where no module gives or takes the map."""
    model = surgery.model
    giver, calls = _giver(found, gone)
    taking = consumers(found, gone)
    if taking and giver is not None:
        between = of_in_training(model, images, taking[0], None) & ~of_in_training(model, images, None, giver)
        giver = None if between else giver  # layers that run in training only
    if giver is None and not taking:
        raise SplitError(
            f"the last map of {type(model).__name__}, {tuple(found.map.shape)}, is made outside of all its modules, by "
            f"calls that join several tensors. {choose(model, found.tracer)}"
        )
    if taking and (giver is None or calls):
        return Stands(taking[0], True, ())
    assert giver is not None
    return Stands(giver, False, tuple(calls))


def _giver(found: LocatedMap, gone: Sequence[nn.Module]) -> tuple[nn.Module | None, list[nn.Module]]:
    """The outermost module of which the map comes, and the calls between the two, dropout among them."""
    tracer, x, made, until = found.tracer, found.map, found.made, found.until
    calls: list[nn.Module] = []
    cut = [
        span
        for module in gone
        for span in zip(tracer.begun.get(module, ()), tracer.ended.get(module, ()), strict=False)
    ]
    while True:
        visits = [v for v in tracer.givers.get(x, ()) if made.count <= v.count <= until and tracer.once(v.module)]
        visits = [v for v in visits if not any(v.module is one for one in gone)]
        since = visits[-1].count if visits else made.count
        drops = [one for one in tracer.dropouts.get(x, ()) if since < one.count <= until]
        # that of a layer which is cut goes with it
        calls[:0] = [d.layer() for d in drops if not any(start < d.count <= end for start, end in cut)]
        if visits:
            return visits[-1].module, calls
        call = made.call
        again = call and Replay.of(call.function, call.args, call.kwargs, call.taken)
        if not call or not again:
            return None, []
        calls.insert(0, again)
        until = made.count - 1
        x, made = call.taken, call.was


def _without_own_parameters(surgery: Surgery, found: LocatedMap) -> None:
    """Parameters that are no module's, of modules that begin before the map and end after it: a head written out."""
    tracer = found.tracer
    for module in surgery.model.modules():
        starts, ends = tracer.begun.get(module, [found.until]), tracer.ended.get(module, [found.until + 1])
        if starts[0] < found.made.count and ends[-1] > found.until:
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not tracer.bits_of([parameter]) & found.made.of:
                    surgery.lose(module, name)


def _try(whole: TrunkAndHead, images: Tensor, found: LocatedMap) -> None:
    features, expected = whole.features, found.features
    more = torch.cat([images, images[:1]])
    name = type(features.net).__name__
    try:
        with torch.no_grad(), eval_mode(whole):
            maps = [features(images), features(more)[: len(images)]]
        with torch.no_grad(), training(whole.features) as state:
            shape = torch.func.functional_call(features, state, (more,)).shape
    except Exception as error:
        raise SplitError(
            f"{name} without its head does not run ({type(error).__name__}: {error}). "
            f"{choose(features.net, found.tracer)}"
        ) from error
    if not all(close(one, expected) for one in maps) or shape[1:] != expected.shape[1:]:
        raise SplitError(
            f"{name} makes other maps without its head, or for another number of images. "
            f"{choose(features.net, found.tracer)}"
        )
