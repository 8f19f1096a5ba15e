"""The arrays of a case, and the contenders that run on them; all read the same map."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gapstone.bench import eager_pools
from gapstone.bench.cases import Case
from gapstone.bench.our_call import differentiable, ours
from gapstone.pools import COMPOSITIONS
from gapstone.regions.places import Place

Run = Callable[[], Any]
"""One call; it returns the output or the gradients."""
Contender = Callable[["CaseArrays"], Run]
"""Prepares what is not measured, and returns the call. Raises NotImplementedError if it does not support the case."""


@dataclass(frozen=True)
class CaseArrays:
    """The arrays of a case."""

    case: Case
    threads: int

    @cached_property
    def x(self) -> Tensor:
        """The map: positive as after a ReLU, but without ties, whose gradient contenders assign differently."""
        random = torch.Generator().manual_seed(0)
        if self.case.dtype == "uint8":
            return self.case.laid(torch.randint(0, 256, self.case.shape, generator=random, dtype=torch.uint8))
        x = torch.randn(self.case.shape, generator=random).abs_().add_(0.05)
        return self.case.laid(x.to(getattr(torch, self.case.dtype)))

    @cached_property
    def mask(self) -> Tensor | None:
        """The mask of a padded batch of images whose widths are half to all of the map."""
        if not self.case.masked:
            return None
        images, _, *spatial = self.case.shape
        widths = torch.linspace(spatial[-1] / 2, spatial[-1], images).round()
        return (torch.arange(spatial[-1]) < widths[:, None])[:, None].expand(images, *spatial).contiguous()

    @cached_property
    def place(self) -> Place:
        place = self.case.region(self.mask).place(self.case.shape)
        assert not isinstance(place, tuple)
        return place

    @cached_property
    def learned(self) -> Tensor | None:
        if not self.case.learned or self.case.parameter is None:
            return None
        return torch.tensor([self.case.parameter], requires_grad=self.case.direction == "backward")

    @property
    def parameters(self) -> tuple[Tensor | float, ...]:
        value = self.case.parameter if self.learned is None else self.learned
        return () if value is None or self.case.pool in COMPOSITIONS else (value,)

    @cached_property
    def truth(self) -> tuple[Tensor, ...]:
        """The output of torch's formula in float64, or its gradients."""
        parameter = torch.tensor([self.case.parameter or 0.0], dtype=torch.float64, requires_grad=True)
        x = self.x.detach().double().requires_grad_(self.case.direction == "backward")
        formula = eager_pools.formula(self.case, self.mask)
        if self.case.direction == "forward":
            with torch.inference_mode():
                return (formula(x),)
        answer = formula(x, parameter) if self.case.learned else formula(x)
        return torch.autograd.grad(answer, [x, *([parameter] if self.case.learned else [])], self.grad.double())

    @cached_property
    def grad(self) -> Tensor:
        """The gradient of the output, in its layout.

        It is positive: the gradient of a parameter is a sum over it, whose rounding is not visible if it cancels.
        """
        with torch.no_grad():
            answer = eager_pools.formula(self.case, self.mask)(self.x)
        return torch.empty_like(answer).normal_(generator=torch.Generator().manual_seed(1)).abs_()

    @property
    def answers(self) -> int:
        return self.truth[0].numel() if self.case.direction == "forward" else self.grad.numel()

    def answer(self, x: Tensor) -> Tensor:
        """Return gapstone's output, which autograd can differentiate."""
        return differentiable(self.case.pool, x, self.place, self.parameters)

    def torch_answer(self, x: Tensor) -> Tensor:
        formula = eager_pools.formula(self.case, self.mask)
        return formula(x) if self.learned is None else formula(x, self.learned)

    def gradients(self, answer: Callable[[Tensor], Tensor]) -> Run:
        """Return a call of the backward pass only; the forward pass is run once, here."""
        x = self.x.detach().requires_grad_()
        y = answer(x)
        inputs = [x, *([self.learned] if self.learned is not None else [])]
        grad = self.grad
        return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)


def gapstone(job: CaseArrays) -> Run:
    case, x, place, parameters = job.case, job.x, job.place, job.parameters
    if case.direction == "backward":
        return job.gradients(job.answer)
    out = ours(case.pool, x, place, parameters)[0] if case.into else None
    return lambda: ours(case.pool, x, place, parameters, case.keep, out)[0]


def torch_eager(job: CaseArrays) -> Run:
    if job.case.direction == "backward":
        return job.gradients(job.torch_answer)
    return eager_pools.forward(job.case, job.x, job.mask, job.learned)
