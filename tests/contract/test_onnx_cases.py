"""ONNX's own pooling node cases, from the onnx package, run against gapstone.

Every case becomes the call a user of gapstone would write. All give ONNX's numbers; the positions that MaxPool gives
beside them are read off gapstone's gradient. Nothing of a case is left out: what is not known here fails.
"""

import warnings
from functools import cache

import numpy as np
import pytest
import torch

import gapstone as gs

pytestmark = pytest.mark.slow  # the onnx package computes all of its cases first: 10 s
onnx = pytest.importorskip("onnx", reason="ONNX's cases come with the onnx package")

POOLED = {
    "AveragePool": "mean",
    "MaxPool": "max",
    "LpPool": "lp",
    "GlobalAveragePool": "mean",
    "GlobalMaxPool": "max",
    "GlobalLpPool": "lp",
}
LEFT_OUT = {
    "MaxUnpool": "pools nothing: it puts values back to where a maximum was",
    "MaxRoiPool": "no node case",
}
# pools that no node case asks for
NO_CASE = {"GlobalLpPool"}
# cases whose numbers ONNX typed in with four digits: its own tolerance
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-3}


@cache
def cases():
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it computes all of ONNX's cases, some of which overflow on purpose
        found = load_model_tests(kind="node")
    if not any(case.model for case in found):
        pytest.skip("this version of onnx keeps its cases in files")
    return {case.name: case for case in found if any("Pool" in node.op_type for node in case.model.graph.node)}


def asked(case):
    (node,) = case.model.graph.node
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return node.op_type, {k: v.decode() if isinstance(v, bytes) else v for k, v in given.items()}


def call(op, given, x):
    """(region, parameters, leftover): what a user of gapstone writes for a node's attributes."""
    given = dict(given)
    parameters = {"p": given.pop("p", 2)} if "Lp" in op else {}
    if op.startswith("Global"):
        return gs.Whole(), parameters, given
    size, axes = tuple(given.pop("kernel_shape")), x.dim() - 2
    stride, step = (tuple(given.pop(key, (1,) * axes)) for key in ("strides", "dilations"))
    pads = given.pop("pads", (0,) * 2 * axes)
    padding = tuple(zip(pads[:axes], pads[axes:], strict=True))
    match given.pop("auto_pad", "NOTSET"):
        case "SAME_UPPER":
            padding = "same"
        case "SAME_LOWER":  # as "same", but the odd place is before: pairs say so
            room = zip(x.shape[2:], size, stride, strict=True)
            total = [max((-(-length // s) - 1) * s + k - length, 0) for length, k, s in room]
            padding = tuple((t - t // 2, t // 2) for t in total)
    divisor = "padded" if given.pop("count_include_pad", 0) else "positions"
    window = gs.Window(size, stride, padding, step, bool(given.pop("ceil_mode", 0)), divisor)
    return window, parameters, given


def test_everyone_is_here():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if "Pool" in schema.name or "pool" in schema.name}
    assert known == {*POOLED, *LEFT_OUT}
    ops = {asked(case)[0] for case in cases().values()}
    assert ops == {*POOLED} - NO_CASE


@pytest.mark.parametrize("op", POOLED)
def test_node_cases(op, tried):
    for case in cases().values():
        own, given = asked(case)
        if own != op:
            continue
        for (x,), expected in case.data_sets:
            x = torch.from_numpy(np.array(x))
            region, parameters, left = call(op, given, x)
            order = left.pop("storage_order", 0)
            assert not left, f"{case.name}: {left} is not known here"
            answer = gs.pool(x, POOLED[op], region, **parameters)
            value = torch.from_numpy(np.array(expected[0]))
            assert answer.dtype == value.dtype
            # ONNX's reference adds in float32 too: each may be off by two units in the last place of the largest
            eps = ROUNDED.get(case.name, 4 * torch.finfo(value.dtype).eps if value.is_floating_point() else 0)
            assert answer.numel() == value.numel(), case.name
            off = (answer.reshape(value.shape).double() - value.double()).abs().max()
            assert off <= (0 if op == "MaxPool" else eps * value.abs().max()), case.name
            tried["ONNX node cases: the same"] += 1
            if len(expected) > 1:
                assert positions(x, region, order) == expected[1].flatten().tolist(), case.name
                tried["ONNX node cases: of these with positions, the same, read off the gradient"] += 1


def positions(x, region, order):
    """Where each maximum was, counted as ONNX does: over the whole tensor, along rows (0) or columns (1)."""
    x = x.requires_grad_()
    count = gs.pool(x, "max", region).numel()
    found = []
    for k in range(count):
        (one,) = torch.autograd.grad(gs.pool(x, "max", region).flatten()[k], x)
        flat = one.transpose(-1, -2) if order else one
        found += flat.flatten().nonzero().flatten().tolist()
    return found
