"""A case's arrays, and who works on them: the contenders. All read the same map."""

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
"""One call; it gives the answer, or the gradients."""
Contender = Callable[["CaseArrays"], Run]
"""Makes ready all that is not measured. Raises NotImplementedError where it has no such pool."""


@dataclass(frozen=True)
class CaseArrays:
    case: Case
    threads: int

    @cached_property
    def x(self) -> Tensor:
        """Positive, as maps after a ReLU are, but without ties: of equals, they differ in which gets the gradient."""
        random = torch.Generator().manual_seed(0)
        if self.case.dtype == "uint8":
            return self.case.laid(torch.randint(0, 256, self.case.shape, generator=random, dtype=torch.uint8))
        x = torch.randn(self.case.shape, generator=random).abs_().add_(0.05)
        return self.case.laid(x.to(getattr(torch, self.case.dtype)))

    @cached_property
    def mask(self) -> Tensor | None:
        """Images of several widths, padded into one batch: each is between half and all of the map."""
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
        """Torch's formula in float64."""
        wide = torch.tensor([self.case.parameter or 0.0], dtype=torch.float64, requires_grad=True)
        x = self.x.detach().double().requires_grad_(self.case.direction == "backward")
        made = eager_pools.formula(self.case, self.mask)
        if self.case.direction == "forward":
            with torch.inference_mode():
                return (made(x),)
        answer = made(x, wide) if self.case.learned else made(x)
        return torch.autograd.grad(answer, [x, *([wide] if self.case.learned else [])], self.grad.double())

    @cached_property
    def grad(self) -> Tensor:
        """The gradient that comes from above, in the layout of the answers. Positive: a parameter's gradient is a sum
        over all of them, and one that cancels says nothing of rounding.
        """
        with torch.no_grad():
            answer = eager_pools.formula(self.case, self.mask)(self.x)
        return torch.empty_like(answer).normal_(generator=torch.Generator().manual_seed(1)).abs_()

    @property
    def answers(self) -> int:
        return self.truth[0].numel() if self.case.direction == "forward" else self.grad.numel()

    def answer(self, x: Tensor) -> Tensor:
        """Ours, with its backward."""
        return differentiable(self.case.pool, x, self.place, self.parameters)

    def torch_answer(self, x: Tensor) -> Tensor:
        made = eager_pools.formula(self.case, self.mask)
        return made(x) if self.learned is None else made(x, self.learned)

    def gradients(self, answer: Callable[[Tensor], Tensor]) -> Run:
        """The backward alone: the forward is run once, here."""
        x = self.x.detach().requires_grad_()
        y = answer(x)
        into = [x, *([self.learned] if self.learned is not None else [])]
        grad = self.grad
        return lambda: torch.autograd.grad(y, into, grad, retain_graph=True)


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
