"""The calls `mixed_sizes` knows: for each entry one that answers as for the image alone, and one that is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

import gapstone as gs
from gapstone.ragged import masking
from gapstone.ragged.extents import PaddedMaps, Unsupported
from gapstone.ragged.masking import RULES, MapCall
from gapstone.ragged.padded_batch import padded, run
from gapstone.tracing import operations as ops
from gapstone.tracing.torch_calls import CALLS, REDUCTIONS, REVERSED, read_call
from tests.tracing.test_torch_calls import kind_of

Call = Callable[[Tensor], Any]

SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(5,), (5,), (9,)],
    2: [(5, 6), (5, 6), (7, 4)],
    3: [(4, 5, 3), (5, 3, 4)],
}


def images(axes: int, channels: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(axes)
    return [torch.rand(channels, *size, generator=generator, dtype=torch.float64) for size in SIZES[axes]]


class Asking(nn.Module):
    """With padding that is none: what a call reads there shows."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(x + 0.25)


class Named:
    """A call of that name, whatever it is: for entries that torch gives no two tensors."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x * 1


def named(name: str, *others: Call) -> Call:
    def call(x: Tensor) -> Tensor:
        given = (x, *(other(x) for other in others))
        watched = has_torch_function(given)
        return handle_torch_function(Named(name), given, *given) if watched else Named(name)(*given)

    return call


@dataclass
class Case:
    """axes: spatial ones of the images."""

    right: Sequence[Call]
    refused: Sequence[tuple[Call, str]]
    axes: int = 2


def own(*shape: int) -> Tensor:
    """A tensor of the model's, the same each time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 0.5


# ---- calls that look at one position

GIVEN: dict[str, tuple[Any, ...]] = {
    "threshold": (0.6, 3.0),
    "_threshold": (0.6, 3.0),
    "dropout": (0.5, False),
    "alpha_dropout": (0.5, False),
    "feature_alpha_dropout": (0.5, False),
    "dropout1d": (0.5, False),
    "dropout2d": (0.5, False),
    "dropout3d": (0.5, False),
    "feature_dropout": (0.5, False),
    "rrelu": (0.1, 0.3, False),
    "clamp": (0.5, 1.0),
    "clamp_min": (0.6,),
    "clamp_max": (0.6,),
    **dict.fromkeys(["add", "sub", "mul", "div", "pow", "float_power", "maximum", "minimum"], (own(4, 1, 1),)),
    "lerp": (own(4, 1, 1), 0.25),
    "addcmul": (own(4, 1, 1), own(1, 4, 1, 1)),
    "addcdiv": (own(4, 1, 1), own(1, 4, 1, 1)),
}  # fmt: skip
"""Arguments behind the map, by function."""


CALLED: dict[str, Callable[..., Any]] = {
    "log_sigmoid": F.logsigmoid,
    "_threshold": F.threshold,
    "threshold": torch.threshold,
}
"""What torch says another name of than its own."""


def function(name: str) -> Callable[..., Any]:
    homes = (F, Tensor, torch, torch._C._nn)
    return CALLED.get(name) or next((getattr(home, name) for home in homes if hasattr(home, name)), Named(name))


def pointwise(name: str) -> Case:
    said = read_call(name, (0, 0), {}).function
    given, axes = GIVEN.get(said, ()), {"dropout1d": 1, "dropout3d": 3}.get(name.rstrip("_"), 2)
    first = function(name)
    right: list[Call] = []
    if not name.startswith("__") and (first.__name__ == name or name in CALLED):  # else torch says another name of it
        right.append(lambda x: torch.where(own(4, 1, 1) > 1, x, -x) if name == "where" else first(x, *given))
    # beside what has no positions, or one for all; and beside another map of these images
    for other in (lambda _: own(1), lambda x: own(4, *(1,) * (x.dim() - 2)), lambda x: own(1, *(1,) * (x.dim() - 1))):
        right.append(named(name, other))
    right.append(named(name, lambda x: x))
    over: list[tuple[Call, str]] = [
        (lambda x: own(x.shape[-1]), "of a map .* and a tensor"),
        (lambda x: own(x.shape[2], *(1,) * (x.dim() - 3)), "of a map .* and a tensor"),
        (lambda x: own(*(1,) * (x.dim() + 1)), "of a map .* and a tensor"),
        (lambda x: x[:, :, :3], "of maps of shapes"),
    ]
    return Case(right, [(named(name, other), f"^{name} {words}") for other, words in over], axes)


def reversed_(name: str) -> Case:
    calls: dict[str, Call] = {"__rsub__": lambda x: 2 - x, "__rpow__": lambda x: 2**x, "__rdiv__": lambda x: 2 / x}
    right = calls.get(name, named(name, lambda x: own(4, 1, 1)))
    return Case([right], [(named(name, lambda x: own(x.shape[3])), "and a tensor")])


def copied(name: str) -> Case:
    calls: dict[str, Call] = {
        "alias": named("alias"),
        "prelu": lambda x: F.prelu(x - 1, own(4)),
        "local_response_norm": lambda x: F.local_response_norm(x, 3),
    }
    right = calls.get(name, lambda x: function(name)(x))
    # what was copied is the map still: the padding is kept out of what follows
    return Case(
        [right, lambda x: F.avg_pool2d(right(x), 3, 1, 1)], [(named(name, lambda x: x[:, :, :3]), "of maps of")]
    )


def cast(name: str) -> Case:
    def right(x: Tensor) -> Tensor:
        return x.type(torch.float32) if name == "type" else function(name)(x)

    return Case(
        [right, lambda x: F.avg_pool2d(right(x), 3, 1, 1)],
        [(lambda x: F.linear(right(x), own(3, x.shape[3]).to(right(x))), "over the positions")],  # it is the map still
    )


def converted(call: Callable[[Tensor, Tensor], Tensor]) -> Case:
    return Case(
        [lambda x: F.avg_pool2d(call(x, own(1).float()), 3, 1, 1), lambda x: x + call(own(4, 1, 1).float(), x)],
        [(lambda x: x + call(own(1, 4, *x.shape[2:]).float(), x), "add of a map .* and a tensor")],
    )


def joined(call: Callable[..., Tensor]) -> Case:
    return Case(
        [lambda x: call((x, x * 2), 1), lambda x: call([x, x], dim=-3), lambda x: call(tensors=(x, x), dim=1)],
        [
            (lambda x: call((x, x), 2), "along dimension 2"),
            (lambda x: call((x, x), -1), "along dimension -1"),
            (lambda x: call((x, x)), "along dimension 0"),
            (lambda x: call((x, own(*x.shape)), 1), "something that is none"),
            (lambda x: call((x, x[:, :, :3]), 1), "of maps of shapes"),
        ],
    )


def along(call: Callable[..., Any], *first: Any) -> Case:
    """chunk, split, softmax, …"""

    def one(out: Any) -> Tensor:
        return out if isinstance(out, Tensor) else torch.cat(out[::-1], 1)

    return Case(
        [lambda x: one(call(x, *first, 1)), lambda x: one(call(x, *first, dim=-3))],
        [(lambda x, dim=dim: call(x, *first, dim), f"along dimension {dim}") for dim in (2, -1, 0)],
    )


def swapped(call: Callable[..., Tensor], names: tuple[str, str]) -> Case:
    return Case(
        [
            lambda x: call(x, 1, 2),
            lambda x: call(call(x, 1, 2), **dict(zip(names, (-3, -2), strict=True))).mean((2, 3)),
            lambda x: call(x.flatten(2), 1, 2).mean(1),
            lambda x: F.avg_pool2d(call(call(x, 1, 2), 1, 2), 3, 1, 1),
        ],
        [(lambda x: call(x, 2, 3), "to the order"), (lambda x: call(x, 0, 1), "to the order")],
    )


FEATURES = "its positions become features"

BY_POSITION: dict[str, Case] = {
    **{name: pointwise(name) for name in CALLS if kind_of(name) in (ops.Elementwise, ops.Dropout)},
    **{name: reversed_(name) for name in REVERSED},
    **{name: copied(name) for name in CALLS if kind_of(name) in (ops.Copy, ops.PerPosition)},
    **{name: cast(name) for name in CALLS if kind_of(name) is ops.Cast},
    "to": converted(lambda x, y: x.to(y)),
    "type_as": converted(lambda x, y: x.type_as(y)),
    "batch_norm": Case(
        [lambda x: F.batch_norm(x, own(4), own(4)), lambda x: F.batch_norm(x, own(4), own(4), training=False)],
        [
            (lambda x: F.batch_norm(x, own(4), own(4), training=True), "the batch's own statistics"),
            (lambda x: F.batch_norm(x, None, None, None, None, True), "the batch's own statistics"),
        ],
    ),
    "layer_norm": Case(
        [
            lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)),
            lambda x: F.layer_norm(x.flatten(2).transpose(1, 2), normalized_shape=[4]),
        ],
        [
            (lambda x: F.layer_norm(x, x.shape[3:]), "over the positions"),
            (lambda x: F.layer_norm(x, x.shape[1:]), "over the positions"),
            (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[3], 4)), "over the positions"),
        ],
    ),
    "rms_norm": Case(
        [lambda x: F.rms_norm(x.permute(0, 2, 3, 1), (4,), own(4))],
        [(lambda x: F.rms_norm(x, x.shape[3:]), "over the positions")],
    ),
    "linear": Case(
        [lambda x: F.linear(x.permute(0, 2, 3, 1), own(3, 4), own(3))],
        [(lambda x: F.linear(x, own(3, x.shape[3])), "over the positions")],
    ),
    "cat": joined(torch.cat),
    "concat": joined(torch.concat),
    "concatenate": joined(torch.concatenate),
    "chunk": along(torch.chunk, 2),
    "split": along(Tensor.split, 2),
    "tensor_split": along(torch.tensor_split, 2),
    "softmax": along(Tensor.softmax),
    "log_softmax": along(Tensor.log_softmax),
    "glu": along(F.glu),
    "normalize": Case(
        [F.normalize, lambda x: F.normalize(x, 1.0, 1)],
        [(lambda x: F.normalize(x, dim=2), "along dimension 2"), (lambda x: F.normalize(x, 2.0, 0), "dimension 0")],
    ),
    "stack": Case(
        [
            lambda x: torch.stack((x, x * 2), 1),
            lambda x: torch.stack([x, x * 2], dim=2).sum((3, 4)),
            lambda x: torch.stack([x, x * 2], -1).mean((2, 3)),  # behind the positions
            lambda x: torch.stack([x, x * 2], 3).mean((2, 4)),  # between them
        ],
        [
            (lambda x: torch.stack((x, x)), "along dimension 0"),
            (lambda x: torch.stack((x, own(*x.shape)), 1), "with what is none"),
            (lambda x: torch.stack((x, x[:, :, :3]), 1), "of maps of shapes"),
        ],
    ),
    "expand_as": Case(
        [lambda x: F.avg_pool2d(x.mean((2, 3), keepdim=True).expand_as(x), 3, 1, 1)],
        [(lambda x: x.expand_as(own(*x.shape)), "expand_as of a map"), (lambda x: x.expand_as(x * 2), "expand_as")],
    ),
    "permute": Case(
        [
            lambda x: x.permute(0, 2, 3, 1),
            lambda x: torch.permute(x, (0, -2, 1, -1)).mean((1, 3)),
            lambda x: x.permute(dims=(0, 2, 1, 3)).amax((1, 3)),
        ],
        [
            (lambda x: x.permute(0, 1, 3, 2), "to the order"),
            (lambda x: x.permute(1, 0, 2, 3), "to the order"),
            (lambda x: torch.permute(x, (2, 1, 0, 3)), "to the order"),
        ],
    ),
    "transpose": swapped(torch.transpose, ("dim0", "dim1")),
    "swapdims": swapped(torch.swapdims, ("dim0", "dim1")),
    "swapaxes": swapped(torch.swapaxes, ("axis0", "axis1")),
    "movedim": swapped(torch.movedim, ("source", "destination")),
    "moveaxis": swapped(torch.moveaxis, ("source", "destination")),
    "t": Case((), [(lambda x: x.mean(1).t(), "to the order")], 1),
    "select": Case((), [(lambda x: x.select(1, 0), "select")]),
    "unbind": Case((), [(lambda x: x.unbind(1)[0], "unbind")]),
    "expand": Case((), [(lambda x: x.expand(3, 4, *x.shape[2:]), "expand of a map")]),
    "__getitem__": Case(
        [
            lambda x: x[:, 1:3],
            lambda x: x[:, ::2].mean((2, 3)),
            lambda x: x[..., :6, :5],  # one image ends before, the other is cut
            lambda x: x[:, :, 0:4:1].mean((2, 3)),
            lambda x: x[:].mean((2, 3)),
            lambda x: x.flatten(2)[:, 1:].mean(2),
        ],
        [
            (lambda x: x[:, 0], "__getitem__"),
            (lambda x: x[1:], "__getitem__"),
            (lambda x: x[:, :, 1:], "__getitem__"),
            (lambda x: x[:, :, ::2], "__getitem__"),
            (lambda x: x[..., :-1], "__getitem__"),
            (lambda x: x[:, None], "__getitem__"),
            (lambda x: x.flatten(2)[:, :, :3], "__getitem__"),
        ],
    ),
    "view": Case(
        [lambda x: x.view(len(x), 2, 2, *x.shape[2:]), lambda x: x.view(len(x), 4, -1).mean(2)],
        [
            (lambda x: x.view(len(x), -1), FEATURES),
            (lambda x: x.view(len(x) * 4, *x.shape[2:]), FEATURES),
            (lambda x: x.view(len(x), 4 * x.shape[2], x.shape[3]), FEATURES),
            (lambda x: x[:, :1].contiguous().view(len(x), -1), FEATURES),
        ],
    ),
    "reshape": Case(
        [lambda x: torch.reshape(x, (len(x), 4, -1)).amax(2)],
        [(lambda x: x.reshape(-1), FEATURES), (lambda x: x.permute(0, 2, 3, 1).reshape(len(x), -1, 4), FEATURES)],
    ),
    "flatten": Case(
        [lambda x: x.flatten(2).mean(2), lambda x: x.unflatten(1, (2, 2)).flatten(1, 2)],
        [
            (lambda x: x.flatten(1), FEATURES),
            (lambda x: x.flatten(0, 1), FEATURES),
            (lambda x: x.flatten(2).flatten(1), FEATURES),
        ],
    ),
    "unflatten": Case(
        [lambda x: x.unflatten(1, (2, 2)).mean((3, 4))],
        [(lambda x: x.flatten(2).unflatten(2, (x.shape[3], x.shape[2])), FEATURES)],
    ),
}

# ---- calls that look across positions

NOTHING = "it leaves nothing of the smallest image"


def convolution(n: int) -> Case:
    call, small = function(f"conv{n}d"), (3,) * n
    least = min(map(min, SIZES[n]))
    return Case(
        [
            lambda x: call(x, own(5, 4, *small)),
            lambda x: call(x, own(4, 1, *small), own(4), 2, 1, 1, 4),
            lambda x: call(x, own(5, 4, *small), padding="same"),
            lambda x: call(x, own(5, 4, *small[1:], 4), padding="same", dilation=2),  # even
            lambda x: call(x, own(5, 4, *small), padding="valid"),
            lambda x: call(x, own(5, 4, *small), stride=(2,) * n, padding=(2,) * n, dilation=2),
            lambda x: call(x, own(5, 4, *small), padding=1),  # as large as before
            lambda x: call(x, own(5, 4, *(1,) * n), stride=2),
            lambda x: call(x, own(5, 4, *(least,) * n)).mean(tuple(range(2, n + 2))),  # just one position
        ],
        [
            (lambda x: call(x, own(5, 4, *(least + 1,) * n)), NOTHING),
            (lambda x: call(x, x[(slice(None), slice(None), *(slice(1),) * n)]), "with weights made of the images"),
            (lambda x: call(x.transpose(1, 2), own(2, x.shape[2], *small)), f"conv{n}d of a map"),
        ],
        n,
    )


def transposed(n: int) -> Case:
    call = function(f"conv_transpose{n}d")
    return Case((), [(lambda x: call(x, own(4, 5, *(3,) * n)), f"conv_transpose{n}d of a map")], n)


def with_indices(n: int) -> Case:
    call = function(f"max_pool{n}d")
    return Case((), [(lambda x: call(x, 2, return_indices=True), "with indices")], n)


def windows(kind: str, n: int) -> Case:
    name, least = f"{kind}_pool{n}d", min(map(min, SIZES[n]))
    call = function(name)
    right: list[Call] = [
        lambda x: call(x, 2),
        lambda x: call(x, 3, 2, 1),
        lambda x: call(x, kernel_size=(3,) * n, stride=[2] * n, padding=1, ceil_mode=True),
        lambda x: call(x, 2, 2, 0, ceil_mode=True),
        lambda x: call(x, 1, 2),
        lambda x: call(x, 2, stride=None) * 2,
        lambda x: call(input=x, kernel_size=least),
    ]
    refused: list[tuple[Call, str]] = [
        (lambda x: call(x, least + 1), NOTHING),
        (lambda x: call(x.transpose(1, 2), 2), f"{name} of a map"),
    ]
    if kind == "max":
        right += [lambda x: call(x, 2, 1, 1, 2), lambda x: call(x, 2, 3, dilation=2, ceil_mode=True)]
        refused.append((lambda x: call(x, 2, return_indices=True), f"{name}.* with indices|max_pool{n}d_with_indices"))
    else:
        right += [
            lambda x: call(x, 3, 2, 1, False, False),
            lambda x: call(x, 3, 2, 1, True, count_include_pad=False),
            lambda x: call(x, 3, 1, 1, count_include_pad=True),
        ]
        if n > 1:
            right.append(lambda x: call(x, 3, 2, 1, divisor_override=5))
    return Case(right, refused, n)


def adaptive(kind: str, n: int) -> Case:
    name = f"adaptive_{kind}_pool{n}d"
    call = function(name)
    refused: list[tuple[Call, str]] = [(lambda x: call(x.transpose(1, 2), 2), f"{name}.* of a map")]
    if n > 1:
        refused.append((lambda x: call(x, (None, *(1,) * (n - 1))), f"{name}.* of a map"))
    if kind == "max":
        refused.append((lambda x: call(x, 2, return_indices=True), f"{name}.*indices"))
    right: list[Call] = [
        lambda x: call(x, 1),
        lambda x: call(x, (1,) * n),
        lambda x: call(x, 2),
        lambda x: call(x.float(), 1),
        lambda x: call(x.half(), 1),  # sums of halves are torch's
    ]
    if n > 1:
        right.append(lambda x: call(x, (1, *range(2, n + 1))))
    return Case(right, refused, n)


# ---- calls over all positions


def reduced(name: str) -> Case:
    if name in ("max", "min"):  # along one dimension, with indices: those of the image alone
        call = function(name)
        return Case(
            [
                lambda x: call(x.flatten(2), 2).values,
                lambda x: call(x.flatten(2), dim=-1, keepdim=True).indices.double(),
                lambda x: call(x, 1).values.mean((1, 2)),
                lambda x: F.avg_pool2d(call(x, 1, keepdim=True)[0], 3, 1, 1),
            ],
            [
                (lambda x: call(x, 2), f"{name} over dimensions"),
                (lambda x: call(x, 0), f"{name} over dimensions"),
                (lambda x: call(x), f"{name} of a whole batch"),
                (lambda x: call(x, x), f"{name} of a whole batch"),
            ],
        )
    norms = {"norm": torch.norm, "linalg_vector_norm": torch.linalg.vector_norm}
    plain = norms.get(name) or function(name)

    def call(x: Tensor, *dims: Any, **more: Any) -> Tensor:
        return plain(x, 2, *dims, **more) if name in norms else plain(x, *dims, **more)

    right: list[Call] = [
        lambda x: call(x, (2, 3)),
        lambda x: call(x, (-1, -2)),
        lambda x: call(x, (2, 3), True),
        lambda x: call(x, dim=(2, 3), keepdim=True),
        lambda x: call(x.float(), (2, 3)),
        lambda x: call(x, (1, 2, 3)),
        lambda x: call(x.permute(0, 2, 3, 1), (1, 2)),
        lambda x: call(x.flatten(2), 2),
        lambda x: F.avg_pool2d(call(x, 1, keepdim=True), 3, 1, 1),
        lambda x: call(x, 1).mean((1, 2)),
        lambda x: call(x.permute(0, 2, 3, 1), -1).mean((1, 2)),
    ]
    if name in ("mean", "sum"):
        right += [lambda x: call(x, (2, 3), dtype=torch.float32), lambda x: call(x.half(), (2, 3))]
    whole: list[Call] = (
        [lambda x: call(x)] if name not in ("logsumexp", "norm") else [lambda x: plain(x)][: name == "norm"]
    )
    return Case(
        right,
        [
            *((one, f"{name} of a whole batch") for one in whole),
            (lambda x: call(x, 2), f"{name} over dimensions"),
            (lambda x: call(x, (1, 3)), f"{name} over dimensions"),
            (lambda x: call(x, 0), f"{name} over dimensions"),
            (lambda x: call(x, (0, 2, 3)), f"{name} over dimensions"),
        ],
    )


ACROSS: dict[str, Case] = {
    **{f"conv{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": windows(kind, n) for kind, n in product(("max", "avg"), (1, 2, 3))},
    **{f"adaptive_{kind}_pool{n}d": adaptive(kind, n) for kind, n in product(("max", "avg"), (1, 2, 3))},
    **{f"conv_transpose{n}d": transposed(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": with_indices(n) for n in (1, 2, 3)},
    **{name: reduced(name) for name in (*REDUCTIONS, "norm", "linalg_vector_norm")},
    "std": Case((), [(lambda x: x.std((2, 3)), "std of a map")]),
    "std_mean": Case((), [(lambda x: torch.std_mean(x, (2, 3))[0], "std_mean of a map")]),
    "linalg_norm": Case((), [(lambda x: torch.linalg.norm(x, 2, 1), "linalg_norm of a map")]),
    "group_norm": Case(
        [lambda x: F.group_norm(x, 2, own(4), own(4)), lambda x: F.avg_pool2d(F.group_norm(x, 1), 3, 1, 1)],
        [(lambda x: F.group_norm(x.flatten(2), 2), "group_norm of a map"),
         (lambda x: F.group_norm(x.transpose(1, 2), 1), "group_norm of a map")],
    ),
    "instance_norm": Case(
        [
            lambda x: F.instance_norm(x, weight=own(4)),
            lambda x: F.instance_norm(x, own(4), own(4), use_input_stats=False),
        ],
        [(lambda x: F.instance_norm(x.flatten(2)), "instance_norm of a map")],
    ),
}  # fmt: skip

CASES = BY_POSITION | ACROSS


def test_everyone_is_here():
    assert CASES.keys() == {name for name in CALLS if kind_of(name) in RULES}
    assert all(case.refused for case in CASES.values())


@pytest.fixture
def asked(monkeypatch):
    """The names of calls whose rule was asked."""
    names: list[str] = []

    def told(rule: Any) -> Any:
        def asking(maps: PaddedMaps, op: ops.Operation, call: MapCall) -> Any:
            names.append(call.name)
            return rule(maps, op, call)

        return asking

    for kind, rule in RULES.items():
        monkeypatch.setitem(RULES, kind, told(rule))
    return names


@pytest.mark.parametrize("name", CASES)
def test_as_of_the_image_alone(name, asked):
    case = CASES[name]
    given = images(case.axes)
    for number, call in enumerate(case.right):
        asked.clear()
        found, _ = run(Asking(call), given)
        assert name in asked, f"{name}, call {number}: torch calls it {asked}"
        alone = run_alone(call, given)
        for one, other in zip(found, alone, strict=True):
            assert one.dtype == other.dtype
            tight = {torch.float64: 1e-12, torch.float32: 1e-5}.get(one.dtype, 1e-2)
            torch.testing.assert_close(one, other, rtol=tight, atol=tight, msg=lambda m: f"{name}, call {number}: {m}")  # noqa: B023


def run_alone(call: Call, given: list[Tensor]) -> list[Tensor]:
    """Of each image what the call gives where nothing is watched."""
    with torch.no_grad():
        return [Asking(call)(image[None])[0] for image in given]


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_is_refused_by_name(name, asked):
    case = CASES[name]
    for call, words in case.refused:
        with pytest.raises(Unsupported, match=words):
            run(Asking(call), images(case.axes))
    if name not in ("to", "type_as"):
        assert name in asked


def test_as_many_windows_as_torch_takes():
    """Every remainder, and windows that begin beyond the map."""
    kinds = product(range(1, 10), (1, 2, 3, 4), (1, 2, 3, 5), (0, 1, 2), (1, 2), (False, True))
    tried = 0
    for length, size, stride, padding, step, ceil in kinds:
        if 2 * padding > size or length + 2 * padding < (size - 1) * step + 1:
            continue
        out = F.max_pool1d(torch.zeros(1, 1, length), size, stride, padding, step, ceil)
        assert masking._cells(length, size, stride, padding, step, ceil) == out.shape[2]
        tried += 1
    assert tried > 500


@pytest.mark.parametrize("name", ["add_", "mul_", "div_", "pow_", "clamp_"])
def test_nothing_is_written_into_a_tensor_of_the_models(name):
    given = [image[:, :1, :1] for image in images(2)[1:]]
    mine = torch.ones(2, 4, 1, 1, dtype=torch.float64)
    with pytest.raises(Unsupported, match=f"{name} into a tensor that was there before"):
        run(Asking(lambda x: getattr(mine, name)(x)), given)
    run(Asking(lambda x: getattr(x, name)(mine)), given)


@pytest.mark.parametrize("over", [gs.Whole(), gs.Grid(2), gs.Pyramid((1, 2)), gs.Window(2)], ids=str)
def test_pools_of_ours_are_of_maps_as_they_come(over):
    for call in (lambda x: gs.pool(x.transpose(1, 2), "max", over), lambda x: gs.pool(x.flatten(2), "max", over)):
        with pytest.raises(Unsupported, match="pool"):
            run(Asking(call), images(2))
    found, _ = run(Asking(lambda x: gs.pool(x, "gem", over)), images(2))
    for one, image in zip(found, images(2), strict=True):
        torch.testing.assert_close(one, gs.pool(image[None] + 0.25, "gem", over)[0], rtol=1e-10, atol=1e-10)


def test_pools_of_ours_over_places_of_the_padded_map_are_refused():
    mask = gs.Mask(torch.ones(3, 7, 6, dtype=torch.bool))
    with pytest.raises(Unsupported, match="over=Mask"):
        run(Asking(lambda x: gs.pool(x, "mean", mask)), images(2))
    for parameter in (own(3, 4), own(3, 1, 7, 6)):
        with pytest.raises(Unsupported, match="a parameter for each image or position"):
            run(Asking(lambda x: gs.pool(x, "gem", p=parameter)), images(2))  # noqa: B023
    run(Asking(lambda x: gs.pool(x, "gem", p=own(4))), images(2))
    run(Asking(lambda x: gs.pool(x, "gem", p=own(1, 4))), images(2))


def test_a_pool_of_ours_between_watched_calls():
    """gapstone's own call has no entry in the table: it says itself what it makes."""
    found, _ = run(Asking(lambda x: F.avg_pool2d(gs.pool(x, "max", gs.Window(2)), 2, 1, 1)), images(2))
    for one, image in zip(found, images(2), strict=True):
        other = F.avg_pool2d(F.max_pool2d(image[None] + 0.25, 2), 2, 1, 1)[0]
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert padded(images(2)).shape == (3, 4, 7, 6)
