"""The table of torch calls: how they are read, however they are spelled, and that every visitor knows every kind."""

import typing
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gapstone.ragged import masking
from gapstone.tracing import geometry, linearity, receptive_field
from gapstone.tracing import operations as ops
from gapstone.tracing.torch_calls import CALLS, name_of, read_call
from gapstone.tracing.trace import Arguments, Function, Keywords, Tracer

KINDS = {kind for kind in vars(ops).values() if isinstance(kind, type) and issubclass(kind, ops.Operation)}


def kind_of(name: str) -> type[ops.Operation]:
    """What a reader makes of the calls of a name."""
    reader: Any = CALLS[name]
    if isinstance(reader, partial) and reader.args and isinstance(reader.args[0], ops.Operation):
        return type(reader.args[0])
    function = getattr(reader, "func", reader)
    kind: type[ops.Operation] = function if isinstance(function, type) else typing.get_type_hints(function)["return"]
    return kind


KEEPS_PLACES = {
    ops.AdaptivePool, ops.BatchNorm, ops.Cast, ops.Concat, ops.Copy, ops.Dropout, ops.Elementwise, ops.Expand, ops.Glu,
    ops.GroupNorm, ops.InstanceNorm, ops.LayerNorm, ops.LinearLayer, ops.MatrixProduct, ops.Normalize, ops.Operation,
    ops.PerPosition, ops.Reduce, ops.Reshape, ops.Scale, ops.Softmax, ops.Chunk, ops.Squeeze,
}  # fmt: skip
"""Where the shape stays."""
LOCAL = {
    ops.BatchNorm, ops.Cast, ops.Concat, ops.Copy, ops.Dropout, ops.Elementwise, ops.Expand, ops.Glu, ops.Normalize,
    ops.Operation, ops.Pad, ops.PerPosition, ops.Permute, ops.Query, ops.Rearrange, ops.Reshape, ops.Scale, ops.Slice,
    ops.Chunk, ops.Squeeze,
}  # fmt: skip
"""A position sees afterwards what it saw before, as far as its place is known."""
NEVER_LINEAR = {
    ops.AdaptivePool, ops.Glu, ops.GroupNorm, ops.InstanceNorm, ops.LayerNorm, ops.Normalize, ops.Operation, ops.Pad,
    ops.PerPosition, ops.PixelUnshuffle, ops.Query, ops.Rearrange, ops.RegionPool, ops.Resize, ops.Scale, ops.Softmax,
    ops.WindowPool,
}  # fmt: skip
NOT_MASKED = {
    ops.MatrixProduct, ops.Operation, ops.Pad, ops.PixelUnshuffle, ops.Query, ops.Rearrange, ops.RegionPool, ops.Resize,
    ops.Squeeze,
}  # fmt: skip


def test_everyone_is_here():
    """A new kind needs an entry in each visitor, or in the set here of those that it does not handle."""
    assert {kind_of(name) for name in CALLS} == KINDS - {ops.Operation}
    sees = {*receptive_field.SPANS, *receptive_field.MIXES, *receptive_field.POOLS, *receptive_field.ATTENTIONS}
    for handled, others in (
        (geometry.RULES.keys(), KEEPS_PLACES),
        (sees | {ops.LinearLayer}, LOCAL),
        (linearity.RULES.keys(), NEVER_LINEAR),
        (masking.RULES.keys(), NOT_MASKED),
    ):
        assert handled | others == KINDS
        assert not handled & others


x = torch.zeros(2, 3, 8, 9)
weight = torch.zeros(4, 3, 3, 2)

SPELLINGS: list[tuple[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]] = [
    ("conv2d", [((x, weight, None, 2, (1, 1)), {}), ((x, weight), {"padding": 1, "stride": (2, 2)})]),
    ("conv2d", [((x, weight, None, 1, "same"), {}), ((x, weight), {"padding": "same"})]),
    ("conv2d", [((x, weight, None, 1, "valid"), {}), ((x, weight), {}), ((x, weight), {"padding": [0]})]),
    (
        "max_pool2d",
        [((x, 3), {}), ((x, (3, 3), None), {}), ((x, [3, 3], []), {}), ((x,), {"kernel_size": 3, "stride": 3})],
    ),
    ("avg_pool2d", [((x, 3, 2, 0, True), {}), ((x, 3, 2), {"ceil_mode": True})]),
    ("adaptive_avg_pool2d", [((x, 1), {}), ((x, (1, 1)), {}), ((x,), {"output_size": [1, 1]})]),
    ("mean", [((x, (2, 3), True), {}), ((x, (-2, -1)), {"keepdim": True}), ((x,), {"axis": (2, -1), "keepdim": True})]),
    ("sum", [((x,), {}), ((x, None), {}), ((x, ()), {})]),
    ("permute", [((x, 0, 2, 3, 1), {}), ((x, (0, -2, -1, 1)), {}), ((x,), {"dims": (0, 2, 3, 1)})]),
    ("transpose", [((x, 1, -1), {}), ((x,), {"dim0": 1, "dim1": 3})]),
    ("swapaxes", [((x, 1, -1), {}), ((x,), {"axis0": 1, "axis1": 3})]),
    ("movedim", [((x, 1, -1), {}), ((x, (1,), (3,)), {}), ((x,), {"source": 1, "destination": 3})]),
    ("layer_norm", [((x, (8, 9)), {}), ((x,), {"normalized_shape": [8, 9], "eps": 1e-5})]),
    ("cat", [(((x, x), 1), {}), (((x, x),), {"dim": 1})]),
    ("div", [((x, 2.0), {}), ((x,), {"other": 2.0}), ((), {"other": 2.0, "input": x})]),
    ("softmax", [((x, 1), {}), ((x,), {"dim": 1}), ((x,), {"dim": 1, "_stacklevel": 3, "dtype": None})]),
    ("chunk", [((x, 2, 1), {}), ((x,), {"chunks": 2, "dim": 1})]),
    ("split", [((x, (1, 2), 1), {}), ((x, [1, 2]), {"dim": 1}), ((x,), {"split_size_or_sections": 1, "dim": 1})]),
]


@pytest.mark.parametrize(("name", "calls"), SPELLINGS, ids=lambda value: value if isinstance(value, str) else "")
def test_by_position_and_by_name(name, calls):
    readings = [read_call(name, args, kwargs) for args, kwargs in calls]
    assert type(readings[0]) is kind_of(name)
    assert all(_plain(reading) == _plain(readings[0]) for reading in readings)


def _plain(op: ops.Operation) -> dict[str, Any]:
    """Its fields; tensors by identity."""
    values = {field: getattr(op, field) for field in op.__dataclass_fields__}
    return {
        key: id(value) if isinstance(value, torch.Tensor) else value
        for key, value in values.items()
        if key != "tensors"
    }


ALIASES = {
    "add_": "add",
    "__iadd__": "add",
    "multiply": "mul",
    "clip": "clamp",
    "__truediv__": "div",
    "logsigmoid": "log_sigmoid",
}


@pytest.mark.parametrize(("name", "function"), ALIASES.items())
def test_spellings_of_one_function(name, function):
    assert read_call(name, (x, 2), {}).function == function


def test_reversed_operands():
    op = read_call("__rtruediv__", (x, 2.0), {})
    assert isinstance(op, ops.Elementwise)
    assert op.function == "div"
    assert op.input == 2.0
    assert op.other is x


def test_values_per_axis():
    op = read_call("conv2d", (x, torch.zeros(4, 3, 4, 3)), {"padding": "same", "dilation": (1, 2)})
    assert isinstance(op, ops.Convolution)
    assert (op.kernel_size, op.padding, op.dilation) == ((4, 3), ((1, 2), (2, 2)), (1, 2))  # the odd one behind
    padded = read_call("pad", (x, (2, 1, -1, 3)), {})
    assert isinstance(padded, ops.Pad)
    assert padded.padding == ((0, 0), (0, 0), (-1, 3), (2, 1))
    assert F.pad(x, (2, 1, -1, 3)).shape == (2, 3, 10, 12)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 0, 1, 2)])
def test_orders_are_torchs(order):
    sizes = torch.zeros(2, 3, 5, 7)
    for name, args in (("permute", order), ("movedim", ((0, 1), (2, 0))), ("movedim", (1, -1)), ("swapdims", (1, -1))):
        op = read_call(name, (sizes, *args), {})
        assert isinstance(op, ops.Permute)
        assert tuple(getattr(sizes, name)(*args).shape) == tuple(sizes.shape[d] for d in op.order)


def test_what_is_not_in_the_table_and_what_torch_refuses():
    assert read_call("cumsum", (x, 1), {}) == ops.Operation("cumsum")
    assert type(read_call("conv2d", (x,), {})) is ops.Operation
    assert type(read_call("permute", (x,), {})) is ops.Operation


class Readings(Tracer):
    """What every call is read as."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[ops.Operation] = []

    def call(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        self.operations.append(read_call(name_of(func), args, kwargs))
        return func(*args, **kwargs)


TOKENS, ROW, KERNEL = torch.rand(2, 4, 6), torch.rand(4), torch.rand(2, 4, 3)
AS_TORCH_SAYS = {
    ops.BatchNorm: lambda x: F.batch_norm(x, ROW, ROW, ROW, ROW),
    ops.LayerNorm: lambda x: F.rms_norm(F.layer_norm(x, (6,)), (6,)),
    ops.GroupNorm: lambda x: F.group_norm(x, 2, ROW),
    ops.InstanceNorm: lambda x: F.instance_norm(x, weight=ROW),
    ops.Normalize: lambda x: F.normalize(x, dim=2),
    ops.Dropout: lambda x: F.dropout(F.alpha_dropout(x, training=False), 0.5, False),
    ops.Softmax: lambda x: F.log_softmax(F.softmax(x, 2), -1).softmax(1),
    ops.Glu: lambda x: F.glu(x),
    ops.WindowPool: lambda x: F.avg_pool1d(F.max_pool1d(x, 2), 2),
    ops.AdaptivePool: lambda x: F.adaptive_avg_pool1d(F.adaptive_max_pool1d(x, 3), 1),
    ops.Convolution: lambda x: F.conv1d(x, KERNEL, stride=2),
    ops.Resize: lambda x: F.interpolate(x, scale_factor=2.0),
    ops.Pad: lambda x: F.pad(x, (1, 1)),
    ops.Concat: lambda x: torch.cat([x, torch.stack([x, x], 1)[:, 0]], 1),
    ops.Chunk: lambda x: (x.chunk(2, dim=1), x.split([1, 3], 1), torch.tensor_split(x, 2, dim=1)),
    ops.Scale: lambda x: (x.norm(dim=1), torch.linalg.vector_norm(x, dim=1), x.std(1), torch.std_mean(x, 1)),
    ops.Reduce: lambda x: (x.mean((1, 2)), x.amax(1, keepdim=True), torch.logsumexp(x, 2), x.max(2)),
}


@pytest.mark.parametrize("kind", AS_TORCH_SAYS, ids=lambda kind: kind.__name__)
def test_calls_are_read_as_torch_says_them(kind):
    """torch passes some arguments on by names of its own."""
    with Readings() as readings:
        AS_TORCH_SAYS[kind](TOKENS)
    assert kind in map(type, readings.operations)
    assert all(type(op) is not ops.Operation for op in readings.operations)
