"""Batch norms of a network that is not trained, computed by the convolutions before them.

    γ (W x + b − μ) / σ + β = (γ / σ · W) x + γ / σ · (b − μ) + β

They are found in what the network does, whatever it is made of, and nothing of it is changed: while it runs inside
`FoldedNorms`, its convolutions get other weights, and the calls of the norms give back what they are given.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.tracing import operations as ops
from gapstone.tracing.tape import tensors
from gapstone.tracing.torch_calls import name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer

CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
Run = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class _Fold:
    """A convolution with the norm that follows it."""

    own: Tensor
    """Its weight in the network."""
    weight: Tensor
    bias: Tensor
    mean: object
    """The norm's running mean, by which the norm is known."""


class FoldedNorms(Tracer):
    """Runs a network without its batch norms, inside `with`.

    >>> folded = fold_norms(lambda: [features(images)], lambda: [exact(images.double())])
    >>> with folded:
    ...     maps = features(other_images)
    """

    def __init__(self, folds: Sequence[_Fold]) -> None:
        super().__init__()
        self.folds = {id(fold.own): fold for fold in folds}
        self.waiting: dict[int, tuple[Tensor, _Fold]] = {}
        """Answers of convolutions whose norm has not been called yet."""

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        name = name_of(func)
        if name in CONVOLUTIONS and len(args) > 1 and (fold := self.folds.get(id(args[1]))):
            others = {key: value for key, value in kwargs.items() if key != "bias"}
            out = func(args[0], fold.weight, fold.bias, *args[3:], **others)
            self.waiting[id(out)] = out, fold
            return out
        if name == "batch_norm" and self.waiting:
            op = read_call(name, args, kwargs)
            assert isinstance(op, ops.BatchNorm)
            answer, fold = self.waiting.pop(id(op.input), (None, None))
            if fold is not None:
                assert op.running_mean is fold.mean, "another batch norm than where the network was watched"
                return answer
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        left, self.waiting = self.waiting, {}
        assert error[0] is not None or not left, "a convolution without the batch norm that it had when watched"


class _Watch(Tracer):
    """Which convolution's answer each batch norm is given, and whether anything else takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[Tensor, Arguments, Keywords]] = {}
        self.norms: list[ops.BatchNorm] = []
        self.taken, self.weights, self.means = Counter[int](), Counter[int](), Counter[int]()

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        name = name_of(func)
        op = read_call(name, args, kwargs)
        given = [id(x) for x in tensors((args, kwargs)) if id(x) in self.made]
        out = func(*args, **kwargs)
        if not isinstance(op, ops.Query) or isinstance(out, Tensor):
            self.taken.update(given)
        if name in CONVOLUTIONS and len(args) > 1 and isinstance(args[1], nn.Parameter):
            self.made[id(out)] = out, args, kwargs  # kept alive, so that no other tensor gets its id
            self.weights[id(args[1])] += 1
        if isinstance(op, ops.BatchNorm):
            self.norms.append(op)
            self.means[id(op.running_mean)] += 1
        return out

    def folds(self) -> list[_Fold]:
        found = []
        for norm in self.norms:
            _, args, kwargs = self.made.get(id(norm.input), (None, (), {}))
            if not args or norm.training or not isinstance(norm.running_mean, Tensor):
                continue
            if (self.taken[id(norm.input)], self.weights[id(args[1])], self.means[id(norm.running_mean)]) == (1, 1, 1):
                found.append(_folded(args[1], args[2] if len(args) > 2 else kwargs.get("bias"), norm))
        return found


@torch.no_grad()
def _folded(weight: Tensor, bias: Tensor | None, norm: ops.BatchNorm) -> _Fold:
    mean, variance, gamma, beta = (
        x.double() if isinstance(x, Tensor) else None
        for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    assert mean is not None
    assert variance is not None
    scale = (variance + norm.eps).rsqrt() * (1.0 if gamma is None else gamma)
    shift = scale * ((0.0 if bias is None else bias.double()) - mean) + (0.0 if beta is None else beta)
    scaled = torch.empty_like(weight).copy_(weight.double() * scale.view(-1, *[1] * (weight.dim() - 1)))
    return _Fold(weight, scaled, shift.to(weight.dtype), norm.running_mean)


@torch.no_grad()
def fold_norms(run: Run, exact: Run) -> FoldedNorms | None:
    """Watch a network run, and fold its batch norms; None if it has none to fold, or if that would be less exact.

    Args:
        run: runs it in eval mode, on a few images.
        exact: the same in float64, of a copy: no answer may be further from it than twice as far as the network's, or a
            unit in the last place of the largest.
    """
    with _Watch() as watch:
        plain = run()
    if not (folds := watch.folds()):
        return None
    folded = FoldedNorms(folds)
    with folded:
        found = run()
    for answer, mine, truth in zip(plain, found, exact(), strict=True):
        unit = torch.finfo(answer.dtype).eps * float(truth.abs().max())
        if not float((mine - truth).abs().max()) <= 2 * float((answer - truth).abs().max()) + unit:
            return None
    return folded
