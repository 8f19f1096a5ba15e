"""torch's own pooling samples and error inputs, which ship in its wheel, run against gapstone: OpInfo and ModuleInfo.

Every sample is the call a user of gapstone would write. It gives torch's answer and torch's gradient, or it differs for
a reason of `DIFFER`, known from the sample before it is run: a difference that nobody expected fails.

    python -m tests.contract.test_opinfo       how many of how many
"""

import importlib
import inspect
import sys
import warnings
from collections import Counter
from functools import cache
from itertools import product
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

import gapstone as gs

pytestmark = pytest.mark.slow  # torch's samples take 10 s to import; quick: test_functional.py, test_known_answers.py

# entry of op_db: the pool, and in which order its arguments come where they have no names
MAX = "kernel_size stride padding dilation ceil_mode return_indices"
MEAN = "kernel_size stride padding ceil_mode count_include_pad divisor_override"
POOLED = {
    **{f"nn.functional.max_pool{n}d": ("max", MAX) for n in (1, 2, 3)},
    **{f"nn.functional.avg_pool{n}d": ("mean", MEAN) for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_max_pool{n}d": ("max", "output_size return_indices") for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_avg_pool{n}d": ("mean", "output_size return_indices") for n in (1, 2, 3)},
    "max_pool2d_with_indices_backward": ("max", MAX),
}
LEFT_OUT = {
    "max_unpool": "pools nothing: it puts values back to where a maximum was",
    "fractional_max_pool": "its windows are drawn at random on every call: no region of gapstone",
}
# lp_pool has no OpInfo: its samples come from ModuleInfo, with more of the others
LAYERS = {
    f"{kind}{n}d": name
    for kind, name in {"Max": "max", "Avg": "mean", "AdaptiveMax": "max", "AdaptiveAvg": "mean", "LP": "lp"}.items()
    for n in ("Pool1", "Pool2", "Pool3")
}
LAYERS_LEFT_OUT = {**dict.fromkeys(("MaxUnpool",), LEFT_OUT["max_unpool"])}
LAYERS_LEFT_OUT["FractionalMaxPool"] = LEFT_OUT["fractional_max_pool"]

NO_MEAN = "integers have no mean: gapstone says so, torch rounds towards zero"
POWER = "lp of an odd or broken p: gapstone's is a norm, of |x|; torch's takes powers of x, and gives NaN or cancels"
DIFFER = (NO_MEAN, POWER)

WIDE = "padding of more than half a window: gapstone takes any that leaves no window on padding alone"
AXES = "gapstone takes the number of axes from the map"
ACCEPTED = (WIDE, AXES)


FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def internal(module):
    """A module of torch's own tests. Importing one takes seconds, and would forbid the whole process to set the flags
    of torch.backends: tests that train fail on the same worker afterwards."""
    with warnings.catch_warnings(), mock.patch.object(torch.backends, "disable_global_flags"):
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.testing._internal.{module}")


@cache
def entries():
    """Each entry of op_db that pools, by name."""
    op_db = internal("common_methods_invocations").op_db
    return {(op.name, op.variant_test_name): op for op in op_db if "pool" in op.name}


@cache
def layers():
    module_db = internal("common_modules").module_db
    return {info.name.removeprefix("nn."): info for info in module_db if "ool" in info.name}


def call(x, name, asked):
    """(x with a batch axis, region, parameters): what a user of gapstone writes for torch's arguments."""
    axes = asked.pop("axes")
    if x.dim() == axes + 1:
        x = x[None]

    def numbers(value):
        # torch takes (1,) for all axes alike
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value

    if "output_size" in asked:
        size = numbers(asked["output_size"])
        if isinstance(size, tuple) and None in size:
            size = tuple(own if cells is None else cells for cells, own in zip(size, x.shape[2:], strict=True))
        return x, gs.Grid(size), {}
    divisor = "positions"
    if name == "mean":
        divisor = "padded" if asked.get("count_include_pad", True) else "positions"
        if asked.get("divisor_override") is not None:
            divisor = asked["divisor_override"]
    stride = asked.get("stride")
    window = gs.Window(
        numbers(asked["kernel_size"]),
        None if stride in (None, ()) else numbers(stride),
        numbers(asked.get("padding", 0)),
        numbers(asked.get("dilation", 1)),
        asked.get("ceil_mode", False),
        divisor,
    )
    return x, window, {"p": asked["norm_type"]} if "norm_type" in asked else {}


def arguments(op, sample):
    """torch's arguments by name."""
    order = POOLED[op.name][1].split()
    axes = int(next(letter for letter in op.name if letter.isdigit()))
    return dict(zip(order, sample.args, strict=False)) | sample.kwargs | {"axes": axes}


def gapstone(x, name, asked):
    batched, region, parameters = call(x, name, asked)
    y = gs.pool(batched, name, region, **parameters)
    return y if batched is x else y[0]


def right(mine, theirs, truth, least=0.0):
    """Off by at most twice what torch is off by, and one unit in the last place of the largest number, or `least`."""
    assert mine.dtype == theirs.dtype
    assert mine.shape == theirs.shape
    if not mine.numel() or torch.equal(mine, theirs):
        return
    mine, theirs, eps = mine.double(), theirs.double(), torch.finfo(mine.dtype).eps
    known = truth.isfinite()
    torch.testing.assert_close(mine[~known], theirs[~known], rtol=0, atol=0, equal_nan=True)
    mine, theirs, truth = mine[known], theirs[known], truth[known]
    if not truth.numel():
        return
    ulp = eps * max(truth.abs().max().item(), least)
    if eps < 1e-15:
        assert (mine - theirs).abs().max() <= 8 * ulp  # float64: torch itself is the truth
    else:
        assert (mine - truth).abs().max() <= 2 * (theirs - truth).abs().max() + ulp


def compare(torchs, name, x, asked, backward):
    """The answer, the gradient under a random weight of every number of it, and the answer where x is not finite."""
    x = x.detach()
    leaves = [x.clone().requires_grad_(backward), x.clone().requires_grad_(backward)]
    answers = torchs(leaves[0]), gapstone(leaves[1], name, dict(asked))
    if not x.is_floating_point():
        assert answers[0].dtype == answers[1].dtype
        assert torch.equal(*answers)
        return
    wide = x.double().requires_grad_(backward)
    truth = torchs(wide)
    right(answers[1].detach(), answers[0].detach(), truth.detach())
    if not backward:
        return
    weight = torch.randn(truth.shape).to(x.dtype)
    answers[0].backward(weight)
    answers[1].backward(weight)
    truth.backward(weight.double())
    right(leaves[1].grad, leaves[0].grad, wide.grad)
    spoilt = x.clone()
    for value in (torch.nan, torch.inf, -torch.inf):
        spoilt[torch.rand(x.shape) < 0.05] = value
    # the few answers that stay finite can be small by chance, and what was added up is not
    right(gapstone(spoilt, name, dict(asked)), torchs(spoilt), torchs(spoilt.double()), least=9.0)


def first(answer):
    return answer[0] if isinstance(answer, tuple) else answer


def of_op(key, dtype, found):
    """Run the samples of one entry in one dtype; count what passes, and what differs by its reason."""
    op = entries()[key, ""]
    name, _ = POOLED[key]
    backward = dtype in op.supported_backward_dtypes("cpu")
    for sample in op.sample_inputs("cpu", dtype):
        asked = arguments(op, sample)
        if name == "mean" and not dtype.is_floating_point:
            with pytest.raises(TypeError, match=r"convert with x\.float\(\)"):
                gapstone(sample.input, name, asked)
            found[NO_MEAN] += 1
            continue
        if key == "max_pool2d_with_indices_backward":
            # the gradient under ones
            direct = sample.input.detach().clone().requires_grad_()
            gapstone(direct, name, asked).sum().backward()
            theirs, truth = (op.op(x, *sample.args, **sample.kwargs) for x in (sample.input, sample.input.double()))
            right(direct.grad, theirs, truth)
        else:
            compare(lambda t, s=sample: first(op.op(t, *s.args, **s.kwargs)), name, sample.input, asked, backward)
        found["the same"] += 1


def of_layer(key, dtype, found):
    info, name = layers()[key], LAYERS[key]
    for sample in info.module_inputs_func(info, "cpu", dtype, False, True):
        given = sample.constructor_input
        layer, (x,) = info.module_cls(*given.args, **given.kwargs), sample.forward_input.args
        asked = dict(inspect.signature(info.module_cls).bind(*given.args, **given.kwargs).arguments)
        asked |= asked.pop("kwargs", {}) | {"axes": int(key[-2])}
        power = asked.get("norm_type", 2)
        if power % 2:
            # over |x| both mean the same; and torch's own answer there is known to be wrong
            assert bool((x < 0).any())
            assert not torch.equal(layer(x), gapstone(x, name, dict(asked)))
            compare(lambda t, layer=layer: first(layer(t)), name, x.abs() + 0.1, asked, True)
            found[POWER] += 1
            continue
        compare(lambda t, layer=layer: first(layer(t)), name, x, asked, True)
        found["the same"] += 1


def of_error(key, found):
    """Each of torch's error inputs is an error here, in words about the call; or it is accepted, and right."""
    op, (name, _) = entries()[key, ""], POOLED[key]
    for error in op.error_inputs("cpu"):
        sample = error.sample_input
        asked, x = arguments(op, sample), sample.input
        if reason := accepted(x, asked):
            answer_is_right(x, name, asked)
            found[reason] += 1
            continue
        with pytest.raises((ValueError, TypeError), match=r"^(Window|Grid|pool\()") as raised:
            gapstone(x, name, asked)
        assert len(str(raised.value)) > 40
        found["an error"] += 1


def accepted(x, asked):
    axes, size = asked["axes"], asked.get("kernel_size")
    if isinstance(size, int) and x.dim() == 3 and axes == 3:
        return AXES
    if not isinstance(size, int) or x.dim() < 2 or 0 in x.shape[1:]:
        return None
    span = (size - 1) * asked.get("dilation", 1) + 1
    return WIDE if size < 100 and span / 2 < asked.get("padding", 0) < span else None


def answer_is_right(x, name, asked):
    """On the sample itself, and on a map of numbers in its place, against torch on a map that is padded by hand."""
    assert not gapstone(x, name, dict(asked)).numel()
    x = torch.randn(2, *x.shape[1:])
    mine = gs.pool(x, name, call(x, name, dict(asked))[1])
    size, stride, pad, step = (asked.get(k, d) for k, d in zip(MAX.split()[:4], (1, None, 0, 1), strict=True))
    if name == "mean":
        assert torch.equal(mine, F.avg_pool1d(x, size, stride))
    else:
        assert torch.equal(mine, F.max_pool1d(F.pad(x, (pad, pad), value=-torch.inf), size, stride, 0, step))


def dtypes_of(key):
    return [d for d in FLOATS + INTEGERS if d in entries()[key, ""].supported_dtypes("cpu")]


def test_everyone_is_here():
    names = {name for name, _ in entries()}
    assert set(POOLED) == {name for name in names if not any(part in name for part in LEFT_OUT)}
    assert set(LAYERS) == {name for name in layers() if not any(part in name for part in LAYERS_LEFT_OUT)}
    assert all(any(part in name for name in names) for part in LEFT_OUT)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@pytest.mark.parametrize("key", POOLED)
def test_samples(key, dtype, tried):
    found = Counter()
    if dtype not in dtypes_of(key):
        pytest.skip(f"torch has no {key} of {dtype}")
    torch.manual_seed(0)
    of_op(key, dtype, found)
    whole = not dtype.is_floating_point
    assert set(found) == {NO_MEAN if whole and POOLED[key][0] == "mean" else "the same"}
    note(tried, "samples of torch's OpInfo", found)


@pytest.mark.parametrize("key", LAYERS)
def test_samples_of_layers(key, tried):
    found = Counter()
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        of_layer(key, dtype, found)
    assert set(found) == {"the same", *([POWER] if key.startswith("LP") else [])}
    note(tried, "samples of torch's ModuleInfo", found)


def test_error_inputs(tried):
    found = Counter()
    for key in POOLED:
        if entries()[key, ""].error_inputs_func is not None:
            of_error(key, found)
    assert set(found) == {"an error", *ACCEPTED}
    note(tried, "error inputs of torch's OpInfo", found)


def note(tried, what, found):
    for reason, count in found.items():
        tried[f"{what}: {reason}"] += count


def main():
    """N of M are the same, K differ; each with its reason."""
    total = {"samples": Counter(), "samples of layers": Counter(), "error inputs": Counter()}
    for key in POOLED:
        for dtype in dtypes_of(key):
            found = Counter()
            torch.manual_seed(0)
            of_op(key, dtype, found)
            print(f"{key:36} {str(dtype).removeprefix('torch.'):9}", dict(found))
            total["samples"] += found
        if entries()[key, ""].error_inputs_func is not None:
            of_error(key, total["error inputs"])
    for key, dtype in product(LAYERS, (torch.float64, torch.float32)):
        torch.manual_seed(0)
        of_layer(key, dtype, total["samples of layers"])
    for what, found in total.items():
        same = found["an error" if what == "error inputs" else "the same"]
        print(f"\n{what}: {same:,} of {found.total():,} as in torch, {found.total() - same} differ")
        for reason, count in found.items():
            if reason not in ("the same", "an error"):
                print(f"    {count:4} {reason}")
    for part, reason in LEFT_OUT.items():
        ops = [op for (name, _), op in entries().items() if part in name]
        count = sum(1 for op in ops for _ in op.sample_inputs("cpu", torch.float32))
        print(f"left out: {part}, {count} samples of float32: {reason}")


if __name__ == "__main__":
    sys.exit(main())
