"""Which module is running: its path, while the hooks of this file are there; and what each gave."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


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
