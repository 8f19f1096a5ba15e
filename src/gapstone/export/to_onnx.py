"""The exported graph as an ONNX file: standard operators, named sizes, labels and preprocessing inside."""

import ast
import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from gapstone.export.file_metadata import texts
from gapstone.export.verify import ExportError, Run

OPSET = 18
"""The oldest opset, which torch's exporter writes without a conversion; ONNX Runtime reads it since 1.14 (2023)."""

NEWEST = 23
"""The newest opset that was tried."""

TRUNK = "features/"
"""Prefix of the names of nodes that compute the feature maps; those of the head start with "head/"."""

AXES = {
    "images": ("batch", None, "height", "width"),
    "logits": ("batch", None),
    "maps": ("batch", None, "rows", "columns"),
}
LIMIT = 2_000_000_000  # bytes of weights: the limit of protobuf, less the graph itself


def need_onnx() -> None:
    """Raise ImportError with what to install, if gapstone[onnx] is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export to ONNX needs pip install 'gapstone[onnx]' (here: {error})") from error


def write_onnx(program: ExportedProgram, metadata: dict[str, Any], opset: int, maps: bool, path: Path) -> None:
    """Write the graph with its metadata, each a text or JSON.

    >>> session = onnxruntime.InferenceSession("photos.onnx")
    >>> logits, maps = session.run(None, {"images": images})          # float32 (N, C, H, W), normalised
    >>> labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    """
    import onnx
    import torch

    outputs = ["logits", "maps"] if maps else ["logits"]
    weights = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if weights > LIMIT:
        raise ValueError(f"export: {weights / 1e9:.1f} GB of weights do not fit into one ONNX file (2 GB); take --pt2.")
    with _quiet(), _export_errors():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=outputs,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    if (written := model.opset_import[0].version) != opset:
        raise ValueError(f"export: torch wrote opset {written} where {opset} was asked for; leave out --opset.")
    graph = model.graph
    for number, node in enumerate(graph.node):
        node.name = _node_name(node, number)
        node.doc_string = ""
    # notes of torch: paths of this machine, generated names of sizes
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph):
        del item.metadata_props[:]
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        _name_axes(value)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, texts(metadata))
    model.producer_name, model.producer_version = "gapstone", metadata["gapstone"]
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def read_onnx(path: Path) -> Run:
    """Return a function that runs the file in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return list(session.run(None, {"images": images}))

    return run


def _node_name(node: Any, number: int) -> str:
    """Return the name of a node by its place in the network: `features/block1/0/Conv_3`."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))[:-1]  # without the last, the operator
    path = scopes[-1].removeprefix("both.") if scopes else ""
    return "/".join([*(part for part in path.split(".") if part), f"{node.op_type}_{number}"])


def _name_axes(value: Any) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, AXES[value.name], strict=True):
        if axis.HasField("dim_param") and name:
            axis.dim_param = name


@contextlib.contextmanager
def _export_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the exporter raises many kinds
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"export: torch.onnx cannot write this network ({reason}); --pt2 may") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the output and the warnings of torch's exporter; errors are still raised."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
