"""A model's modes, module by module: users freeze parts of a model by leaving them in eval mode."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
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
