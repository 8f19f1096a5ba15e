"""Networks as users write them: every way to call a pool."""

import functools
from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import max_pool2d as torch_pool
from torch.nn.functional import avg_pool2d, max_pool2d

SCALE = 1.0
halve = partial(F.max_pool2d, kernel_size=2)


class ByAlias(nn.Module):
    def forward(self, x):
        assert isinstance(x, torch.Tensor)
        return F.relu(F.max_pool2d(x, 2)) * SCALE


class ByNn(nn.Module):
    def forward(self, x):
        return nn.functional.avg_pool2d(x, 2)


class ByTorch(nn.Module):
    def forward(self, x):
        x = torch.nn.functional.max_pool2d(torch.relu(x), 3, 2, 1)
        assert isinstance(x, torch.Tensor)
        return torch.max_pool2d(x, 2) + torch.functional.einsum("nchw->nc", x)[..., None, None]


class ByName(nn.Module):
    def forward(self, x):
        return max_pool2d(x, 2) + avg_pool2d(x, 2) + torch_pool(x, 2)


class ByPartial(nn.Module):
    def forward(self, x):
        return halve(x)


def helper(x):
    return deeper(x) + 1


def deeper(x):
    return helper(x) if x is None else F.avg_pool2d(x, 2)


class ByHelper(nn.Module):
    def forward(self, x):
        return helper(x)


def doubled(function):
    @functools.wraps(function)
    def twice(*args, **kwargs):
        return 2 * function(*args, **kwargs)

    return twice


class Decorated(nn.Module):
    @doubled
    def forward(self, x):
        return F.max_pool2d(x, 2)


class Methods(nn.Module):
    @staticmethod
    def one(x):
        return F.max_pool2d(x, 2)

    @classmethod
    def two(cls, x):
        return F.avg_pool2d(x, 2)

    @property
    def three(self):
        return lambda x: F.max_pool2d(x, 3, 2, 1)

    def forward(self, x, scale=1.5, *, shift: float = 0.5) -> Any:
        return sum(F.max_pool2d(part, 2) for part in (x, x)) + self.one(x) + self.two(x) * scale + self.three(x) + shift


class Same(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Deeper(Same):
    def forward(self, x):
        return super().forward(x) + 1


def closed():
    import torch.nn.functional as inner

    class Closed(nn.Module):
        def forward(self, x):
            return inner.max_pool2d(x, 2)

    return Closed()


class ImportsInside(nn.Module):
    def forward(self, x):
        import torch.nn.functional as inside

        return inside.max_pool2d(x, 2)


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.pooling = F.avg_pool2d

    def forward(self, x):
        return self.pooling(x, 2)


class Attribute(nn.Module):
    shape = staticmethod(F.max_pool2d)
    mean = F.avg_pool2d

    def forward(self, x):
        return self.shape(x, 2) + self.mean(x, 2)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.max_pool2d = 3

    def forward(self, x):
        return max_pool2d(x, 2) * self.max_pool2d


class Slots(nn.Module):
    __slots__ = ("size",)

    def __init__(self):
        super().__init__()
        self.size = 2

    def forward(self, x):
        return F.max_pool2d(x, self.size)


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16, 1, 1))

    def forward(self, x):
        return F.max_pool2d(x * self.weight, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x)).relu())
        return self.last(F.avg_pool2d(x, 2).mean((2, 3)))
