"""Eval mode for a while. Each module gets its own mode back: users freeze parts of a model by their modes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; each module's own mode after."""
    modes = [(module, module.training) for module in model.modules()]
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
