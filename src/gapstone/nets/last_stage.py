"""Where a network that is not ours can be cut before its last stage: found from one dry run, its calls in order."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class ModuleCall:
    path: str
    input: Tensor | None
    """The one tensor it was called with; None where there were more arguments."""
    output: object = None
    next_call: int = 0
    """How many calls had begun when it ended: the next one to begin has this number."""


def last_stage(net: nn.Module, run: Callable[[], Tensor], levels: list[str]) -> tuple[str, ...]:
    """Paths of the modules that, called one after another on a single tensor, end in what `run()` gives.

    >>> last_stage(resnet, lambda: resnet.forward_features(images), ["layer3", "layer4"])
    ('layer4',)

    levels: paths of the modules after which the network's levels of detail end, in order: the stage is what follows
    the last but one. Where that cannot be (it holds no weight, or more than its tensor is used afterwards) the one
    before is tried, and so on; then the shortest end of the network that holds a weight. () where there is no such end.
    """
    calls, final = _calls(net, run)
    by_path = {call.path: call for call in calls}
    cuts = [by_path[path] for path in levels[-2::-1] if path in by_path]
    for cut in [*cuts, *sorted(calls, key=lambda call: -call.next_call)]:
        chain = _chain(calls, cut, final)
        weights = [any(p.dim() > 1 for p in net.get_submodule(path).parameters()) for path in chain]
        if any(weights):
            return chain[weights.index(True) :]  # a pool in front would only make what is kept between larger
    return ()


def _chain(calls: list[ModuleCall], cut: ModuleCall, final: Tensor) -> tuple[str, ...]:
    """The calls from `cut` to the end, if each is given just what the one before it gave; else ()."""
    paths: list[str] = []
    found: tuple[str, ...] = ()
    tensor, place = cut.output, cut.next_call
    while place < len(calls):
        call = calls[place]  # calls are in the order they began, so this is the outermost that comes next
        if not isinstance(tensor, Tensor) or call.input is not tensor:
            break
        paths.append(call.path)
        tensor, place = call.output, call.next_call
        if tensor is final:  # what follows makes something else of it, as a network's own pooler does
            found = tuple(paths)
    return found


def _calls(net: nn.Module, run: Callable[[], Tensor]) -> tuple[list[ModuleCall], Tensor]:
    """Every call of a submodule, in the order they begin, and what `run()` gives."""
    calls: list[ModuleCall] = []
    open_calls: list[ModuleCall] = []
    paths = {module: path for path, module in net.named_modules() if path}

    def begin(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        # Arguments that are None are the defaults of a network's blocks (attention masks, positions).
        only = args[0] if args and all(value is None for value in (*args[1:], *kwargs.values())) else None
        calls.append(ModuleCall(paths[module], only if isinstance(only, Tensor) else None))
        open_calls.append(calls[-1])

    def end(_module: nn.Module, _args: tuple[object, ...], output: object) -> None:
        call = open_calls.pop()
        call.output, call.next_call = output, len(calls)

    before = [module.register_forward_pre_hook(begin, with_kwargs=True) for module in paths]
    after = [module.register_forward_hook(end) for module in paths]
    try:
        final = run()
    finally:
        for handle in (*before, *after):
            handle.remove()
    return calls, final
