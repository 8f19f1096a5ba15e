"""The tables of `traced_head.py` and `geometry.py`: of each entry a call that is right and one that is refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

import gapstone as gs
from gapstone.loops import operators
from gapstone.loops.pool_call import PoolCall
from gapstone.pools import POOLS
from gapstone.tracing import geometry, linearity
from gapstone.tracing import operations as ops
from gapstone.tracing.geometry import Geometry
from gapstone.tracing.tape import Slot, SplitError, Tape, TapeCall, TapeStart
from gapstone.tracing.torch_calls import CALLS, DROPOUTS, PLAIN, read_call
from gapstone.tracing.trace import TapeRecorder
from gapstone.tracing.traced_head import TracedHead
from tests.tracing.test_torch_calls import kind_of

Head = Callable[[Tensor], Tensor]

N, C, K = 3, 4, 5


def own(*shape: int) -> Tensor:
    """A tensor of the model's, the same each time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 0.5


def maps() -> Tensor:
    return torch.rand(N, C, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.3


class Finding(TorchFunctionMode):
    """Which call is the first of that name that takes x."""

    def __init__(self, x: Tensor, first: str) -> None:
        super().__init__()
        self.x, self.first, self.count, self.found = x, first, 0, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if not self.found and getattr(func, "__name__", "") == self.first and any(one is self.x for one in args):
            self.found = self.count
        return func(*args, **(kwargs or {}))


def watched(
    head: Head, x: Tensor, first: str, was: str = "", now: str = "", axes: tuple[int, ...] = (2, 3)
) -> TracedHead:
    """The tail of a network whose last map is x, and whose head begins with that call; calls under another name."""
    with torch.no_grad():
        with Finding(x.clone(), first) as finding:
            head(finding.x)
        assert finding.found, f"no {first} takes the map"
        with TapeRecorder(TapeStart(finding.found, first, 0, axes)) as recorder:
            logits = head(x)
    tape = recorder.tape
    assert tape is not None
    tape.calls = [replace(call, name=now) if was and call.name == was else call for call in tape.calls]
    return TracedHead(tape, logits)


def linear(x: Tensor, columns: int = C) -> Tensor:
    return F.linear(x, own(K, columns), own(K))


@dataclass
class Case:
    """right, refused: heads of a map (N, C, 2, 3). also: what the first is, said so that autograd sees through it.
    named: what torch says of the call, where the entry is for a name that it says no longer."""

    right: Head
    refused: Head
    first: str = "mean"
    also: Head | None = None
    named: str = ""


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def kept(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def table(x: Tensor) -> Tensor:
    """One row for each image: no constant."""
    return own(N, C)


def moved(call: Head, pool: Head = mean) -> Case:
    """Only where it stands is another: refused where it brings in something of each image."""
    return Case(
        lambda x: linear(call(pool(x)).flatten(1)),
        lambda x: linear(call(pool(x) * table(x).view_as(pool(x))).flatten(1)),
    )


ODD = (2, 0, 3, 1)

MOVED = {
    "flatten": moved(lambda y: y.flatten(1), kept),
    "reshape": moved(lambda y: y.reshape(len(y), -1), kept),
    "view": moved(lambda y: y.view(len(y), 2, 2)),
    "squeeze": moved(lambda y: y.squeeze(3).squeeze(2), kept),
    "unsqueeze": moved(lambda y: y.unsqueeze(1)),
    "unflatten": moved(lambda y: y.unflatten(1, (2, 2))),
    "permute": moved(lambda y: y.view(len(y), 2, 2).permute(0, 2, 1)),
    **{
        name: moved(lambda y, name=name: getattr(y.view(len(y), 2, 2), name)(1, 2))
        for name in ("transpose", "swapaxes", "swapdims", "movedim", "moveaxis")
    },
    "t": moved(lambda y: y.t().t()),
    "contiguous": moved(lambda y: y.contiguous()),
    "clone": moved(lambda y: y.clone()),
    "alias": Case(lambda x: linear(mean(x).clone()), lambda x: linear(mean(x).clone() * table(x)), named="clone"),
    "detach": Case(
        lambda x: linear(mean(x).detach()),
        lambda x: linear(mean(x).detach() * table(x)),
        also=lambda x: linear(mean(x)),
    ),
    "chunk": moved(lambda y: torch.cat(y.chunk(2, 1)[::-1], 1)),
    "split": moved(lambda y: torch.cat(y.split((1, 3), 1)[::-1], 1)),
    "tensor_split": moved(lambda y: torch.cat(y.tensor_split((1, 3), 1)[::-1], 1)),
    "select": moved(lambda y: torch.stack([y.select(1, k) for k in ODD], 1)),
    "unbind": moved(lambda y: torch.stack(y.unbind(1)[::-1], 1)),
    "__getitem__": moved(lambda y: y[:, ODD]),
    **{
        name: Case(
            lambda x, call=call: linear(call([mean(x), x.amax((2, 3))], 1), 2 * C),
            lambda x, call=call: linear(call([mean(x), table(x)], 1), 2 * C),
        )
        for name, call in (("cat", torch.cat), ("concat", torch.concat), ("concatenate", torch.concatenate))
    },
    "stack": Case(
        lambda x: linear(torch.stack([mean(x), x.amax((2, 3))], 1).flatten(1), 2 * C),
        # a table of a row for each image, stacked, is of other dimensions: it is seen where it is multiplied
        lambda x: linear((torch.stack([mean(x), mean(x)], 1) * own(N, 2, C)).flatten(1), 2 * C),
    ),
}  # fmt: skip


def summed(call: Callable[[Tensor, Any], Tensor], named: str = "") -> Case:
    return Case(
        lambda x: call(call(linear(mean(x)), own(K)), own(1, K)),
        lambda x: call(linear(mean(x)), own(N, K)),
        named=named,
    )


SUMMED = {
    "add": summed(torch.add),
    "__add__": summed(torch.add, "add"),
    "__radd__": summed(torch.add, "add"),
    "add_": summed(Tensor.add_),
    "__iadd__": summed(Tensor.add_, "add_"),
    "sub": summed(torch.sub),
    "subtract": summed(torch.subtract),
    "subtract_": summed(Tensor.subtract_),
    "__ineg__": Case(lambda x: -linear(mean(x)), lambda x: -linear(mean(x)).relu(), named="neg"),
    "neg_": Case(lambda x: linear(mean(x)).neg_(), lambda x: linear(mean(x)).relu().neg_()),
    "__sub__": summed(torch.sub, "sub"),
    "sub_": summed(Tensor.sub_),
    "__isub__": summed(Tensor.sub_, "sub_"),
    "__rsub__": summed(lambda y, c: c.tolist()[0] - y if c.dim() == 1 else Tensor.__rsub__(y, c)),
    "rsub": summed(torch.rsub),
    "neg": Case(lambda x: -linear(mean(x)), lambda x: -linear(mean(x)).relu()),
    "__neg__": Case(lambda x: -linear(mean(x)), lambda x: -linear(mean(x)).relu(), named="neg"),
    "mean": Case(
        lambda x: torch.stack([linear(mean(x)), linear(x.amax((2, 3)))], 2).mean(2),
        lambda x: torch.stack([linear(mean(x)), linear(mean(x)).relu()], 2).mean(2),
    ),
    "sum": Case(
        lambda x: torch.stack([linear(mean(x)), linear(x.amax((2, 3)))], 2).sum(2),
        lambda x: torch.stack([linear(mean(x)), linear(mean(x)).tanh()], 2).sum(2),
    ),
    "expand": Case(
        lambda x: F.linear(mean(x), own(1, C)).expand(-1, K) + own(K),
        lambda x: F.linear(mean(x), own(1, C)).exp().expand(-1, K) + own(K),
    ),
}


def multiplied(call: Callable[[Tensor, Any], Tensor], named: str = "") -> Case:
    return Case(
        lambda x: linear(call(call(mean(x), own(C)), own(1, C))),
        lambda x: linear(call(mean(x), own(N, C))),
        named=named,
    )


def divided(call: Callable[..., Tensor], named: str = "") -> Case:
    return Case(lambda x: linear(call(mean(x), own(C))), lambda x: linear(call(own(N, C), mean(x))), named=named)


MULTIPLIED = {
    "mul": multiplied(torch.mul),
    "__mul__": multiplied(torch.mul, "mul"),
    "__rmul__": multiplied(torch.mul, "mul"),
    "mul_": multiplied(Tensor.mul_),
    "__imul__": multiplied(Tensor.mul_, "mul_"),
    "multiply": multiplied(torch.multiply),
    "multiply_": multiplied(Tensor.multiply_),
    **{name: divided(getattr(torch, name)) for name in ("divide", "true_divide")},
    **{name: divided(getattr(Tensor, name)) for name in ("divide_", "true_divide_")},
    "div": divided(torch.div),
    "__truediv__": divided(torch.div, "div"),
    "div_": divided(Tensor.div_),
    "__itruediv__": divided(Tensor.div_, "div_"),
    "matmul": Case(lambda x: mean(x) @ own(C, K), lambda x: mean(x) @ mean(x).T),
    "__matmul__": Case(lambda x: mean(x) @ own(C, K), lambda x: mean(x) @ mean(x).T, named="matmul"),
    "mm": Case(lambda x: torch.mm(mean(x), own(C, K)), lambda x: torch.mm(mean(x), mean(x).T)),
}


def layer(n: int) -> Case:
    call, ones = getattr(F, f"conv{n}d"), (1,) * n

    def pooled(x: Tensor) -> Tensor:
        return mean(x).view(len(x), C, *ones)

    return Case(
        lambda x: call(pooled(x), own(K, C, *ones), own(K)).flatten(1),
        lambda x: call(own(1, C, *ones), mean(x).view(len(x), C, *ones)).view(1, N).T.expand(-1, K) + own(K),
    )


LAYERED = {
    "linear": Case(lambda x: linear(linear(mean(x)), K), lambda x: F.linear(own(K, C), mean(x)).T),
    **{f"conv{n}d": layer(n) for n in (1, 2, 3)},
}

OTHERS = {
    "to": Case(lambda x: linear(mean(x).to(torch.float64)), lambda x: linear(mean(x).to(torch.int32).double())),
    "type_as": Case(
        lambda x: linear(mean(x).type_as(own(1))), lambda x: linear(mean(x).type_as(own(1).half()).double())
    ),
    "double": Case(lambda x: linear(mean(x).double()), lambda x: linear(mean(x).double().relu())),
    "type": Case(lambda x: linear(mean(x).type(torch.float64)), lambda x: linear(mean(x).type(torch.int32).double())),
    "float": Case(lambda x: F.linear(mean(x).float(), own(K, C).float()), lambda x: linear(mean(x)).float().relu()),
    "batch_norm": Case(
        lambda x: linear(F.batch_norm(mean(x), own(C), own(C), own(C), own(C))),
        lambda x: linear(F.batch_norm(mean(x), own(C), own(C), training=True)),
    ),
}

CASES = MOVED | SUMMED | MULTIPLIED | LAYERED | OTHERS


LINEAR = ("add", "sub", "neg", "mul", "div")
NEVER = {
    *("half", "bfloat16", "expand_as", "amax", "max", "amin", "min", "logsumexp", "__rmatmul__", "bmm", "baddbmm"),
    *(
        "einsum",
        "tensordot",
        "cdist",
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
        "__rdiv__",
        "__rtruediv__",
    ),
}
"""Names of kinds that may be linear, which are not."""


def is_never_linear(name: str) -> bool:
    kind = kind_of(name)
    if kind not in linearity.RULES or name in NEVER or name.startswith("conv_transpose"):
        return True
    return kind is ops.Elementwise and read_call(name, (0, 0), {}).function not in LINEAR


def test_everyone_is_here():
    """Of each name in the table a call that is right and one that is refused; or it is never linear."""
    may_be = {name for name in CALLS if not is_never_linear(name)}
    assert may_be == CASES.keys() | {name for name in CALLS if kind_of(name) is ops.Dropout}
    assert {name.rstrip("_") for name in CALLS if kind_of(name) is ops.Dropout} == DROPPED.keys()
    assert PLACED.keys() == {name for name in CALLS if kind_of(name) in geometry.RULES} - QUERIES
    pooled = {case.first.rstrip("0123456789d") for case in POOLED.values()}
    assert pooled >= {*PLAIN[ops.Reshape], "mean", "amax", "sum"}


@pytest.mark.parametrize("name", [name for name in CALLS if is_never_linear(name)])
def test_all_else_is_not_linear(name):
    """Whatever it is given: of the tape, one tensor or two."""
    x = maps()
    tape = Tape(x, (2, 3), 1)
    tape.record(torch.relu, (x,), {}, [x.half()])
    given: list[tuple[Any, ...]] = [(Slot(0, x.shape),), (Slot(0, x.shape), 2.0), (Slot(0, x.shape), Slot(1, x.shape))]
    for args in given:
        assert not linearity.is_linear(TapeCall(None, name, args, {}, (1,)), tape)


def expected(head: Head, x: Tensor) -> Tensor:
    """(N, K, h, w): gradient × activation of each class, which is what each position adds where all is linear."""
    x = x.clone().requires_grad_()
    logits = head(x)
    rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack([(g * x.detach()).sum(1) for g in rows], 1)


def adds_up(found: TracedHead, head: Head, x: Tensor) -> None:
    assert found.linear
    assert found.additive
    right = expected(head, x)
    made = found.maps(None)
    torch.testing.assert_close(made.double(), right.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made.sum((2, 3)).double() + found.bias(), found.logits.double(), rtol=1e-5, atol=1e-6)
    some = torch.tensor([[K - 1, 0]]).expand(N, -1) % found.logits.shape[1]
    torch.testing.assert_close(found.maps(some), made[:, some[0]])


@pytest.mark.parametrize("name", CASES)
def test_what_is_linear_adds_up_to_the_logits(name):
    case, x = CASES[name], maps()
    if name == "float":
        x = x.float()
    found = watched(case.right, x, case.first, case.named, name)
    assert name in [call.name for call in found.tape.calls]
    adds_up(found, case.also or case.right, x)


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_is_refused(name):
    case, x = CASES[name], maps()
    found = watched(case.refused, x, case.first, case.named, name)
    assert name in [call.name for call in found.tape.calls]
    assert not found.linear
    assert not found.additive


def test_rounding_is_not_linear():
    assert not watched(lambda x: linear(torch.div(mean(x), 0.1, rounding_mode="floor")), maps(), "mean").linear
    assert not watched(lambda x: linear(mean(x) * mean(x)), maps(), "mean").linear
    assert not watched(lambda x: linear(mean(x).double().to(torch.float16).double()), maps(), "mean").linear
    assert not watched(lambda x: linear(mean(x.half()).to(torch.float64)), maps(), "half").poolings


def test_what_makes_a_vector_of_a_single_cell_is_no_flattening():
    """Its length is that of a flattened map: |x| is not x."""
    x = maps()[:, :, :1, :1]
    found = watched(lambda x: linear(x.norm(dim=(2, 3))), x, "norm")
    assert not (found.linear and found.additive)
    adds_up(watched(lambda x: linear(x.flatten(1)), x, "flatten"), lambda x: linear(x.flatten(1)), x)


def test_a_constant_of_as_many_rows_as_one_image_is_one():
    """Of one image nobody can tell, and nothing is wrong."""
    one = maps()[:1]
    adds_up_of_one = watched(lambda x: linear(mean(x) * own(1, C)), one, "mean")
    assert adds_up_of_one.linear


# ---- dropout

DROPPED = {name: getattr(F, name, None) or getattr(torch, name) for name in DROPOUTS}
DROPS = [name for name in sorted(DROPOUTS) if name != "feature_dropout"]


def dropped(name: str, x: Tensor, **training: bool) -> Tensor:
    """Each with as many dimensions as it takes."""
    axes = int(name[7]) if name[-1] == "d" else 0
    y = mean(x).view(len(x), C, *(1,) * axes)
    given: dict[str, Any] = {"p": 0.5, "train": True} if name == "feature_dropout" else {"p": 0.5}
    if name == "feature_dropout" and "training" in training:
        given["train"] = training["training"]
    elif name != "feature_dropout":
        given |= training
    return linear(DROPPED[name](y, **given).flatten(1))


@pytest.mark.parametrize("name", DROPS)
def test_dropout(name):
    adds_up(watched(lambda x: dropped(name, x, training=False), maps(), "mean"), lambda x: linear(mean(x)), maps())
    for given in ({}, {"training": True}):
        if name.endswith("alpha_dropout") and not given:  # by default it does not drop
            adds_up(watched(lambda x: dropped(name, x), maps(), "mean"), lambda x: linear(mean(x)), maps())
            continue
        with pytest.raises(SplitError, match="drops units at random"):
            watched(lambda x: dropped(name, x, **given), maps(), "mean")  # noqa: B023


def test_feature_dropout_takes_its_word_by_position():
    def head(x: Tensor, train: bool) -> Tensor:
        return linear(torch.feature_dropout(kept(x), 0.5, train).flatten(1))

    adds_up(watched(lambda x: head(x, False), maps(), "mean"), lambda x: linear(mean(x)), maps())
    with pytest.raises(SplitError, match="drops units at random"):
        watched(lambda x: head(x, True), maps(), "mean")


# ---- the pools themselves


def ours(x: Tensor, name: Any, over: gs.regions.Region = gs.Whole(), **parameters: Any) -> Tensor:  # noqa: B008
    """gapstone's operator, which on so small a map leaves all to torch."""
    place = over.place(tuple(x.shape))
    return operators.pool(PoolCall.of(POOLS[name], x, place, tuple(parameters.values())), "reference", x)


POOLED = {
    "mean": Case(lambda x: linear(x.mean((-1, -2))), lambda x: linear(x.mean((2, 3)) + x.mean((1, 3)).sum(1, True))),
    "mean by keyword": Case(lambda x: linear(x.mean(dim=(2, 3))), lambda x: linear(x.mean(dim=(1, 3)), 2)),
    "amax": Case(lambda x: linear(x.amax((2, 3))), lambda x: linear(x.amax((1, 3)), 2), "amax"),
    "sum": Case(lambda x: linear(x.sum((2, 3))), lambda x: linear(x.sum((1, 2)), 3), "sum"),
    "adaptive mean": Case(
        lambda x: linear(F.adaptive_avg_pool2d(x, 1).flatten(1)),
        lambda x: linear(F.adaptive_avg_pool2d(x, 1).flatten(1) * x[:, :, 0, 0]),
        "adaptive_avg_pool2d",
    ),
    "adaptive mean, a grid": Case(
        lambda x: linear(F.adaptive_avg_pool2d(x, (2, 2)).flatten(1), 4 * C),
        lambda x: linear(F.adaptive_avg_pool2d(x, (2, 2)).relu().flatten(1), 4 * C),
        "adaptive_avg_pool2d",
    ),
    "adaptive max": Case(
        lambda x: linear(F.adaptive_max_pool2d(x, 1).flatten(1)),
        lambda x: linear(F.adaptive_max_pool2d(x, (1, 2)).flatten(1), 2 * C),  # of a grid no share is known
        "adaptive_max_pool2d",
    ),
    "average window": Case(
        lambda x: linear(F.avg_pool2d(x, (2, 3)).flatten(1)),
        lambda x: linear(F.avg_pool2d(x, (2, 3), padding=(1, 0), stride=(3, 1)).flatten(1)),
        "avg_pool2d",
    ),
    "average window with a divisor": Case(
        lambda x: linear(F.avg_pool2d(x, (2, 3), divisor_override=None).flatten(1)),
        lambda x: linear(F.avg_pool2d(x, (2, 3), divisor_override=7).flatten(1)),
        "avg_pool2d",
    ),
    "max window": Case(
        lambda x: linear(F.max_pool2d(x, (2, 3)).flatten(1)),
        lambda x: linear(F.max_pool2d(x, 2).flatten(1)),  # one cell, but not of all positions
        "max_pool2d",
    ),
    "ours": Case(lambda x: linear(ours(x, "mean")), lambda x: linear(ours(x, "logsumexp", r=2.0)), "pool"),
    "ours, max": Case(lambda x: linear(ours(x, "max")), lambda x: linear(ours(x, "logsumexp", r=1.0)), "pool"),
    "ours, a grid": Case(
        lambda x: linear(ours(x, "mean", gs.Grid(2)).flatten(1), 4 * C),
        lambda x: linear(ours(x, "max", gs.Grid(2)).flatten(1), 4 * C),
        "pool",
    ),
    "ours, a window": Case(
        lambda x: linear(ours(x, "mean", gs.Grid(1)).flatten(1)),
        lambda x: linear(ours(x, "mean", gs.Window((2, 3))).flatten(1)),
        "pool",
    ),
    "gem with a number": Case(
        lambda x: linear(ours(x, "gem", p=2.5)), lambda x: linear(ours(x, "softmax", r=1.0)), "pool"
    ),
    "gem with a parameter": Case(
        lambda x: linear(ours(x, "gem", p=torch.tensor(2.5))),
        lambda x: linear(ours(x, "variance", correction=0.0)),
        "pool",
    ),
    **{
        name: Case(
            lambda x, call=call: linear(call(x), 6 * C), lambda x, call=call: linear(call(x).relu(), 6 * C), name
        )
        for name, call in {
            "flatten": lambda x: x.flatten(1),
            "view": lambda x: x.view(len(x), -1),
            "reshape": lambda x: x.reshape(len(x), -1),
            "unflatten": lambda x: x.unflatten(1, (2, 2)).flatten(1),
        }.items()
    },
    "a row of positions": Case(
        lambda x: linear(x.flatten(2).mean(2)), lambda x: linear(x.flatten(2)[:, :, :4].mean(2)), "flatten"
    ),
    "a window of a row": Case(
        lambda x: linear(F.avg_pool1d(x.flatten(2), 6).flatten(1)),
        lambda x: linear(F.avg_pool1d(x.flatten(2), 3).flatten(1), 2 * C),
        "flatten",
    ),
}


@pytest.mark.parametrize("name", [name for name in POOLED if name != "unflatten"])
def test_pools_of_the_map(name):
    case, x = POOLED[name], maps()
    right: Head = lambda x: _plainly(case.right, name, x)  # noqa: E731
    adds_up(watched(case.right, x, case.first), right, x)
    found = watched(case.refused, x, case.first)
    assert not (found.linear and found.additive)  # no pool whose weights are those of every image
    if found.additive:
        made = found.maps(None).sum((2, 3)).double() + found.bias()
        torch.testing.assert_close(made, found.logits.double(), rtol=1e-5, atol=1e-6)


def _plainly(head: Head, name: str, x: Tensor) -> Tensor:
    """gapstone's own operators have their formulas here, for autograd."""
    if name.startswith("gem"):
        return linear(x.clamp(min=1e-6).pow(2.5).mean((2, 3)).pow(1 / 2.5))
    return head(x)


def test_maps_go_where_the_positions_are():
    """Channels last: the map has its channels behind."""
    x = maps().permute(0, 2, 3, 1).contiguous()

    def head(x: Tensor) -> Tensor:
        return linear(x.mean((1, 2)))

    found = watched(head, x, "mean", axes=(1, 2))
    torch.testing.assert_close(found.maps(None), expected(lambda y: linear(mean(y)), maps()))


def test_logits_that_do_not_come_from_the_map_are_refused():
    with pytest.raises(SplitError, match="do not come from the map"):
        watched(lambda x: (mean(x), own(N, K))[1], maps(), "mean")


# ---- where positions lie


@dataclass
class Placed:
    """right: a call that averages, or moves, positions. lost: one that loses them."""

    right: Head | None = None
    lost: Callable[[Tensor], Any] | None = None
    axes: int = 2


def convolved(n: int) -> Placed:
    call = getattr(F, f"conv{n}d")
    weight = torch.full((1, 1, 3, *(2,) * (n - 1)), 1 / (3 * 2 ** (n - 1)), dtype=torch.float64)
    return Placed(
        lambda x: call(x, weight, None, 2, (1, *(0,) * (n - 1)), 2),
        None,
        n,
    )


def averaged(n: int) -> Placed:
    return Placed(lambda x: getattr(F, f"avg_pool{n}d")(x, (3, *(2,) * (n - 1)), 2, 1, False, False), None, n)


def topped(n: int, name: str) -> Placed:
    call = getattr(F, name)

    def middle(x: Tensor) -> Tensor:
        values: list[Any] = [call(s * x, (3, *(2,) * (n - 1)), (2,) * n, 0, 2) for s in (1, -1)]
        high, low = (one[0] if isinstance(one, tuple) else one for one in values)
        return (high - low) / 2

    return Placed(middle, None, n)


def spread(n: int) -> Placed:
    return Placed(
        lambda x: getattr(F, f"conv_transpose{n}d")(x, torch.ones(1, 1, *(3,) * n).double(), None, 2, 1), None, n
    )


PLACED = {
    **{f"conv{n}d": convolved(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": spread(n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": averaged(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d": topped(n, f"max_pool{n}d") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": topped(n, f"max_pool{n}d_with_indices") for n in (1, 2, 3)},
    "pool": Placed(
        lambda x: gs.pool(x, "mean", gs.Window((3, 2), 2, dilation=2)), lambda x: ours(x, "mean", gs.Grid(2))
    ),
    "pad": Placed(lambda x: F.pad(x, (2, 1, -1, 3))),
    "__getitem__": Placed(lambda x: x[..., 3:, 1::2], lambda x: x[:, :, 0]),
    "interpolate": Placed(
        lambda x: F.interpolate(x, scale_factor=(2, 3), mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "permute": Placed(lambda x: x.permute(0, 3, 1, 2)),
    "transpose": Placed(lambda x: x.transpose(1, 3)),
    "swapaxes": Placed(lambda x: x.swapaxes(-1, 2)),
    "swapdims": Placed(lambda x: x.swapdims(2, 3)),
    "movedim": Placed(lambda x: x.movedim(1, -1)),
    "moveaxis": Placed(lambda x: x.moveaxis((2, 3), (0, 1))),
    "t": Placed(lost=lambda x: x[0, 0].t()),
    "select": Placed(lost=lambda x: x.select(2, 1)),
    "unbind": Placed(lost=lambda x: x.unbind(2)[1]),
    "pixel_unshuffle": Placed(lambda x: F.pixel_unshuffle(x, 2)),
    "fold": Placed(lost=lambda x: F.fold(F.unfold(x, 2), x.shape[2:], 2)),
    "unfold": Placed(lost=lambda x: x.unfold(2, 2, 2)),
    "flip": Placed(lost=lambda x: x.flip(2)),
    "fliplr": Placed(lost=torch.fliplr),
    "flipud": Placed(lost=torch.flipud),
    "roll": Placed(lost=lambda x: x.roll(1, 2)),
    "rot90": Placed(lost=lambda x: x.rot90(1, (2, 3))),
    "__get__": Placed(lost=lambda x: x.mT),
    "grid_sample": Placed(
        lost=lambda x: F.grid_sample(x, torch.zeros(len(x), *x.shape[2:], 2).double(), align_corners=False)
    ),
    "index_select": Placed(lost=lambda x: x.index_select(2, torch.arange(x.shape[2]).flip(0))),
    "gather": Placed(lost=lambda x: x.gather(2, torch.zeros_like(x).long())),
    "take_along_dim": Placed(lost=lambda x: x.take_along_dim(torch.zeros_like(x).long(), 2)),
    "sort": Placed(lost=lambda x: x.sort(2)),
}  # fmt: skip


QUERIES = {"dim", "size", "numel", "nelement", "is_contiguous", "stride"}
"""They give no tensors."""


def place(name: str, x: Tensor, args: tuple[Any, ...], kwargs: Any = None, at: Geometry | None = None) -> Any:
    """Where positions lie after a call, by its rule alone."""
    op = read_call(name, args, kwargs or {})
    return geometry.RULES[type(op)](op, x, at or Geometry.of_input(x))


class Places(TorchFunctionMode):
    """The field of what one call of that name makes of `x`, by its rule alone."""

    def __init__(self, name: str, x: Tensor) -> None:
        super().__init__()
        self.name, self.x, self.found = name, x, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == self.name:
            self.found.append(place(self.name, self.x, args, kwargs))
        return func(*args, **kwargs)


def field(name: str, call: Callable[[Tensor], Any], x: Tensor) -> tuple[Geometry | None, Any]:
    with Places(name, x) as places:
        out = call(x)
    assert places.found, f"torch does not say {name} of this call"
    return places.found[0], out


def ramps(axes: int) -> list[Tensor]:
    """Per axis an image of which every pixel holds its own place along it."""
    size = (20, 22, 18)[:axes]
    return [
        torch.arange(n, dtype=torch.float64)
        .view(*(n if a == axis else 1 for a in range(axes)))
        .expand(size)[None, None]
        for axis, n in enumerate(size)
    ]


@pytest.mark.parametrize("name", [name for name, case in PLACED.items() if case.right is not None])
def test_a_ramp_shows_where_positions_lie(name):
    """An average of places is the place of the average: what comes out of a ramp is where its position lies."""
    case = PLACED[name]
    for axis, ramp in enumerate(ramps(case.axes)):
        ramp = ramp.contiguous()
        given = torch.ones_like(ramp) if name.startswith("conv_t") else ramp
        found, out = field(name, case.right, given)
        assert found is not None
        if name.startswith("conv_t"):
            # backwards: the middle of all that one position is spread to lies where it lies
            x = torch.ones_like(ramp).requires_grad_()
            y = case.right(x)
            along = torch.arange(y.shape[2 + axis], dtype=torch.float64)
            along = along.view(*(-1 if a == axis else 1 for a in range(case.axes)))
            (reached,) = torch.autograd.grad((y * along).sum(), x, retain_graph=True)
            (weight,) = torch.autograd.grad(y.sum(), x)
            seen, right = found.start[axis] + found.stride[axis] * (reached / weight), ramp
            seen, right = (_along(one, 2 + axis) for one in (seen, right))
        else:
            at = found.axes[axis]
            seen = out.mean(1, keepdim=True) if name == "pixel_unshuffle" else out
            seen = _along(seen, at)
            right = found.start[axis] + found.stride[axis] * torch.arange(len(seen), dtype=torch.float64)
        inside = (right > 3) & (right < ramp.shape[2 + axis] - 4)  # at the border windows hang over
        assert int(inside.sum()) > 1
        torch.testing.assert_close(seen[inside], right[inside], rtol=1e-12, atol=1e-12)
    if case.lost is not None:
        x = ramps(case.axes)[0].contiguous()
        assert field(name, case.lost, x)[0] is None


def _along(x: Tensor, axis: int) -> Tensor:
    """Through the middle of all others."""
    for other in range(x.dim()):
        if other != axis:
            x = x.narrow(other, x.shape[other] // 2, 1)
    return x.flatten()


@pytest.mark.parametrize("name", [name for name, case in PLACED.items() if case.right is None])
def test_calls_that_lose_places(name):
    x = ramps(2)[0].contiguous()
    assert PLACED[name].lost is not None
    assert field(name, PLACED[name].lost, x)[0] is None


@pytest.mark.parametrize("name", ["avg_pool2d", "max_pool2d"])
@pytest.mark.parametrize("unset", [(), (None,), ([],)])
def test_windows_without_a_stride_move_by_their_size(name, unset):
    x = torch.zeros(1, 1, 12, 12)
    found = place(name, x, (x, (2, 3), *unset))
    assert found == Geometry((2, 3), (2.0, 3.0), (0.5, 1.0))
    assert place(name, x, (x, 2, 1)) == Geometry((2, 3), (1.0, 1.0), (0.5, 0.5))


def test_axes_that_are_swapped_by_keyword():
    x = torch.zeros(1, 2, 5, 6)
    for name, given in (("swapaxes", {"axis0": 1, "axis1": -1}), ("transpose", {"dim0": 1, "dim1": 3})):
        found = place(name, x, (x,), given)
        assert found == replace(Geometry.of_input(x), axes=(2, 1))


def test_convolutions_of_what_lies_otherwise_lose_places():
    behind = Geometry((1, 2), (1.0, 1.0), (0.0, 0.0))
    x, weight = torch.zeros(1, 8, 9, 4), torch.zeros(2, 8, 3, 3)
    assert place("conv2d", x, (x, weight), at=behind) is None
    assert place("conv_transpose2d", x, (x, weight), at=behind) is None
    assert place("conv2d", x, (x[0], torch.zeros(2, 8, 3))) is None  # of another rank
    assert place("conv2d", x, (x,), {"weight": None}) is None


def test_calls_without_a_rule_keep_places_where_nothing_moved():
    x, field = torch.zeros(2, 3, 4, 5), Geometry((2, 3), (2.0, 2.0), (0.0, 1.0))
    assert geometry.same_positions([(x, field)], torch.zeros(2, 7, 4, 5)) == field
    for shape in ((2, 3, 4, 6), (2, 3, 5, 5), (2, 4, 4, 5, 9), (2, 4, 5)):
        assert geometry.same_positions([(x, field)], torch.zeros(shape)) is None
    half, other = replace(field, start=(1.0, 1.0)), replace(field, start=(1.1, 1.0))
    assert geometry.same_positions([(x, field), (x, half)], x) == replace(field, start=(0.5, 1.0))
    assert geometry.same_positions([(x, field), (x, other)], x) is None  # more than half a cell apart
    assert geometry.same_positions([(x, field), (x, replace(field, stride=(4.0, 2.0)))], x) is None
    assert geometry.same_positions([(x, field), (torch.zeros(2, 3, 1, 1), half)], x) == field  # a gate has no places
    assert geometry.same_positions([], x) is None


def test_reshapes_keep_places_where_only_other_dimensions_change():
    x, field = torch.zeros(2, 6, 4, 5), Geometry((2, 3), (2.0, 2.0), (0.0, 1.0))
    assert geometry.reshaped(x, field, torch.zeros(2, 2, 3, 4, 5)) == replace(field, axes=(3, 4))
    assert geometry.reshaped(x, field, torch.zeros(12, 4, 5)) == replace(field, axes=(1, 2))
    for shape in ((2, 6, 20), (4, 5), (2, 6, 5, 4), (2, 4, 5, 6)):
        assert geometry.reshaped(x, field, torch.zeros(shape)) is None
    behind, last = torch.zeros(2, 4, 5, 6), replace(field, axes=(1, 2))
    assert geometry.reshaped(behind, last, torch.zeros(2, 4, 5, 3, 2)) == last
    assert geometry.reshaped(behind, last, torch.zeros(2, 20, 6)) is None
    assert geometry.reshaped(behind, last, torch.zeros(1, 4, 5, 12)) is None
