"""Other libraries' pools on the same arrays, each set to be as fast and as fair as it can be.

A peer makes ready all that is not measured (graphs, sessions, compiled code, buffers) and gives one call. It raises
NotImplementedError where it has no such pool, ImportError where it is not installed; both are noted in the table.

ONNX Runtime and OpenVINO write into memory that is there already; torch, Inductor, XLA and gapstone allocate, but for
the cases named `into`. Above some 32 MB that alone is a factor of two to five: fresh pages.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from math import inf, log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapstone.bench import eager_pools
from gapstone.bench.contenders import CaseArrays, Contender, Run


def inductor(job: CaseArrays) -> Run:
    """torch.compile of the formula. Its graphs hold the number of threads they were made with: made anew per job."""
    torch._dynamo.reset()
    # autograd runs the same backward again and again here, which must not give its buffers away
    torch._functorch.config.donated_buffer = False
    with torch.inference_mode(False):
        compiled = torch.compile(eager_pools.formula(job.case, job.mask), fullgraph=True, dynamic=False)
    if job.case.into:
        raise NotImplementedError("a graph makes its own answers")
    learned = () if job.learned is None else (job.learned,)
    if job.case.direction == "backward":
        return job.gradients(lambda x: compiled(x, *learned))
    return lambda: compiled(job.x, *learned)


def views(job: CaseArrays) -> Run:
    """torch.maximum of strided views, rows then columns: what one writes who wants no kernel at all."""
    case = job.case
    if case.pool != "max" or not case.window or case.direction == "backward" or case.into or case.dtype == "uint8":
        raise NotImplementedError("only a forward maximum over windows")
    size, stride, padding = case.window
    axes = range(2, len(case.shape))

    def along(x: Tensor, axis: int) -> Tensor:
        cells = (x.shape[axis] - size) // stride + 1
        parts = [x.narrow(axis, k, (cells - 1) * stride + 1) for k in range(size)]
        strided = [part[(slice(None),) * axis + (slice(None, None, stride),)] for part in parts]
        best = torch.maximum(strided[0], strided[1])
        for part in strided[2:]:
            torch.maximum(best, part, out=best)
        return best

    def run() -> Tensor:
        x = F.pad(job.x, (padding, padding) * len(axes), value=-inf) if padding else job.x
        for axis in reversed(axes):
            x = along(x, axis)
        return x

    return run


# ---- ONNX: one graph for two runtimes


@lru_cache(maxsize=4)
def graph(job: CaseArrays) -> bytes:
    """The pool as ONNX, float32, channels first."""
    from onnx import TensorProto, helper, numpy_helper

    case = job.case
    if case.direction == "backward" or case.layout != "contiguous" or case.dtype != "float32":
        raise NotImplementedError("only forward, channels first, float32")
    if case.masked or case.keep or case.learned:
        raise NotImplementedError("no such node")
    spatial = len(case.shape) - 2
    axes, constants = list(range(2, len(case.shape))), {}

    def constant(name: str, value: Any) -> str:
        constants[name] = numpy_helper.from_array(torch.as_tensor(value).numpy(), name)
        return name

    def node(kind: str, *inputs: str, out: str = "y", **more: Any) -> Any:
        return helper.make_node(kind, list(inputs), [out], **more)

    def reduced(kind: str, x: str, out: str = "y") -> Any:
        return node(kind, x, constant("axes", torch.tensor(axes)), out=out, keepdims=0)

    if case.window:
        size, stride, padding = case.window
        shape = {"kernel_shape": [size] * spatial, "strides": [stride] * spatial, "pads": [padding] * 2 * spatial}
        nodes = [node({"max": "MaxPool", "mean": "AveragePool"}[case.pool], "x", **shape)]
    elif case.pool in ("mean", "max"):
        nodes = [reduced({"mean": "ReduceMean", "max": "ReduceMax"}[case.pool], "x")]
    elif case.pool == "gem":
        p = torch.tensor(case.parameter)
        nodes = [
            node("Clip", "x", constant("least", torch.tensor(1e-6)), out="above"),
            node("Pow", "above", constant("p", p), out="powers"),
            reduced("ReduceMean", "powers", "sums"),
            node("Pow", "sums", constant("root", 1 / p)),
        ]
    elif case.pool == "logsumexp":
        r = torch.tensor(case.parameter)
        nodes = [
            node("Mul", "x", constant("r", r), out="scaled"),
            reduced("ReduceLogSumExp", "scaled", "sums"),
            node("Sub", "sums", constant("places", torch.tensor(log(prod(case.shape[2:])))), out="less"),
            node("Div", "less", "r"),
        ]
    elif case.pool == "avgmax":
        nodes = [
            reduced("ReduceMean", "x", "mean"),
            reduced("ReduceMax", "x", "largest"),
            node("Add", "mean", "largest", out="both"),
            node("Mul", "both", constant("half", torch.tensor(0.5))),
        ]
    else:
        raise NotImplementedError(f"no node for {case.pool}")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, case.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, tuple(job.truth[0].shape))
    made = helper.make_graph(nodes, "pool", [x], [y], list(constants.values()))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def onnxruntime(job: CaseArrays) -> Run:
    """Input and output bound to our memory, so nothing is copied and nothing is allocated."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    session = ort.InferenceSession(graph(job), options, providers=["CPUExecutionProvider"])
    out = torch.empty(job.truth[0].shape)
    binding = session.io_binding()
    for bind, name, array in ((binding.bind_input, "x", job.x), (binding.bind_output, "y", out)):
        bind(name, "cpu", 0, np.float32, tuple(array.shape), array.data_ptr())

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return out

    return run


def openvino(job: CaseArrays) -> Run:
    """The same graph, in float32, on our memory."""
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino as ov

    core = ov.Core()
    hints = {"INFERENCE_NUM_THREADS": job.threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    compiled = core.compile_model(core.read_model(graph(job)), "CPU", hints)
    out = torch.empty(job.truth[0].shape)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(job.x.numpy(), shared_memory=True))
    request.set_output_tensor(ov.Tensor(out.numpy(), shared_memory=True))

    def run() -> Tensor:
        request.infer()
        return out

    return run


# ---- JAX


def jax(job: CaseArrays) -> Run:
    """XLA, jitted; channels-last maps as (N, H, W, C) arrays. Its threads are set once per process: one, here."""
    if job.threads != 1:
        raise NotImplementedError("XLA's threads are set once per process; measured with one")
    case = job.case
    if case.into or case.masked or case.keep:
        raise NotImplementedError("not written for JAX")
    if case.direction == "backward" and not case.window:
        raise NotImplementedError("a jitted gradient would count the forward too")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    os.environ.setdefault("NPROC", "1")
    import jax as library

    library.config.update("jax_cpu_enable_async_dispatch", False)
    last = case.layout == "channels-last"

    def array(x: Tensor) -> Any:
        return library.dlpack.from_dlpack((x.movedim(1, -1) if last else x).contiguous())

    def tensor(y: Any) -> Tensor:
        found = torch.from_dlpack(y)
        return found.movedim(-1, 1) if last and found.dim() == len(case.shape) else found

    made = _jax_pool(job, last)
    if case.direction == "backward":
        # of a window's maximum or mean the gradient needs no forward: XLA leaves it out
        jitted = library.jit(lambda x, g: library.vjp(made, x)[1](g)[0])
        inputs = array(job.x), array(job.grad)
    else:
        jitted = library.jit(made)
        inputs = (array(job.x),)

    return lambda: tensor(jitted(*inputs).block_until_ready())  # as a tensor: no copy, 3 µs


def _jax_pool(job: CaseArrays, last: bool) -> Callable[[Any], Any]:
    import jax.numpy as jnp
    from jax import lax, nn

    case = job.case
    spatial = len(case.shape) - 2
    axes = tuple(range(1, spatial + 1)) if last else tuple(range(2, spatial + 2))

    def around(inner: Any, outer: Any) -> Any:
        return (outer, *[inner] * spatial, outer) if last else (outer, outer, *[inner] * spatial)

    if case.window:
        size, stride, padding = case.window
        window = around(size, 1), around(stride, 1), around((padding, padding), (0, 0))
        if case.pool == "max":
            least = 0 if case.dtype == "uint8" else -inf
            return lambda x: lax.reduce_window(x, x.dtype.type(least), lax.max, *window)
        ones = jnp.ones((1, *case.shape[2:], 1) if last else (1, 1, *case.shape[2:]), case.dtype)
        counts = lax.reduce_window(ones, ones.dtype.type(0), lax.add, *window)
        return lambda x: lax.reduce_window(x, x.dtype.type(0), lax.add, *window) / counts
    given = case.parameter
    match case.pool:
        case "mean":
            return lambda x: x.mean(axes)
        case "max":
            return lambda x: x.max(axes)
        case "gem":
            return lambda x: (jnp.maximum(x, 1e-6) ** given).mean(axes) ** (1 / given)
        case "logsumexp":
            return lambda x: (nn.logsumexp(given * x, axes) - log(prod(case.shape[2:]))) / given
        case "avgmax":
            return lambda x: 0.5 * (x.mean(axes) + x.max(axes))
        case _:
            raise NotImplementedError(f"{case.pool} is not written for JAX")


PEERS: dict[str, Contender] = {
    "inductor": inductor,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "jax": jax,
    "views": views,
}
