"""Networks as names and shapes alone: on torch's meta device, where nothing has a value.

Some of torch's operators are written in Python there, and the first call of one imports torch's compiler: 2 s of every
command that opens a model. Those that networks are built with, norms and dropout are answered here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWN = {
    Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_, Tensor.log_normal_,
    Tensor.cauchy_, Tensor.geometric_,
}  # fmt: skip
"""What fills a tensor with random numbers, and returns it."""
KEEPING_SHAPE = {
    F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d,
}  # fmt: skip
"""What gives another tensor of its input's shape."""


class _Answered(TorchFunctionMode):
    """Calls of these functions on shapes are answered by `answer` of their first argument."""

    def __init__(self, functions: set[Any], answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._functions, self._answer = functions, answer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._functions and args and args[0].is_meta:
            return self._answer(args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Networks that are made inside have shapes and no values: no memory, no arithmetic.

    >>> with on_meta():
    ...     features = nets.build("resnet50")
    """
    with torch.device("meta"), _Answered(DRAWN, lambda x: x):
        yield


def shapes_kept() -> TorchFunctionMode:
    """Inside, norms and dropout of shapes are shapes: for a forward pass whose gradient nobody asks for."""
    return _Answered(KEEPING_SHAPE, torch.empty_like)
