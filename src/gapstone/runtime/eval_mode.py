"""Eval mode for a while. Each module gets its own mode back: users freeze parts of a model by their modes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; each module's own mode after."""
    modes = [(module, module.training) for module in _all_modules(model)]
    if not any(training for _, training in modes):
        yield
        return
    try:
        with suppress(NotImplementedError):  # an exported program has no modes
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _all_modules(model: nn.Module) -> list[nn.Module]:
    """As `model.modules()`, whose generators within generators take twice the time: 1 % of a small network's pass."""
    found, ahead = {model}, [model]
    while ahead:
        for module in ahead.pop().children():
            if module not in found:
                found.add(module)
                ahead.append(module)
    return list(found)
