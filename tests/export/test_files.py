"""What is written: standard ONNX and a .pt2 without gapstone, sizes left open, the facts inside."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from gapstone.export.export_module import LogitsAlone, logits_and_maps
from gapstone.export.file_metadata import file_metadata
from gapstone.export.size_range import SizeRange, size_range
from gapstone.export.to_onnx import read_onnx, write_onnx
from gapstone.export.to_pt2 import FACTS, graph, read_pt2, write_pt2
from gapstone.export.verify import TOLERANCE, ExportError, verify
from gapstone.maps.explain import explain

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NINE = ["gap:8", "gmp", "gem:p=learned", "lse:8", "avgmax", "catavgmax:8,6", "nin:8", "fc:8", "fc:8:grid=3"]
TWO = ["gem:p=learned", "fc:8:grid=3"]
"""One export each: every pool, every way to join, flattened and in a grid, with hidden layers where that changes it."""


@pytest.fixture(scope="module")
def gap(make, tmp_path_factory):
    """(opened, sizes, a.onnx, a.pt2) of nin with gap."""
    opened = make()
    folder = tmp_path_factory.mktemp("gap")
    program, takes = graph(logits_and_maps(opened), size_range(opened))
    write_pt2(program, file_metadata(opened), folder / "a.pt2")
    write_onnx(program, file_metadata(opened), 18, True, folder / "a.onnx")
    return opened, takes, folder / "a.onnx", folder / "a.pt2"


def compare(run, opened, shapes):
    for number, shape in enumerate(shapes):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        explained = explain(opened.model, images)
        logits, maps = run(images.numpy())
        for found, expected in ((logits, explained.logits), (maps, explained.maps)):
            largest = float(expected.abs().max())
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5 * largest)


# ten seconds each; test_module.py asks the same of the program before it is written, of all heads
@pytest.mark.parametrize(
    "head",
    [pytest.param(head, marks=[pytest.mark.slow] * (head != "gem:p=learned")) for head in NINE],
)
def test_every_head_in_onnx_runtime(make, head, tmp_path):
    opened = make(head=head)
    program, takes = graph(logits_and_maps(opened), size_range(opened))
    write_onnx(program, file_metadata(opened), 18, True, tmp_path / "a.onnx")
    assert takes.fixed == (head == "fc:8")
    shapes = [(1, 3, 28, 28), (3, 3, 28, 28)] + ([] if takes.fixed else [(2, 3, 33, 47), (1, 3, 3, 2)])
    compare(read_onnx(tmp_path / "a.onnx"), opened, shapes)
    standard(onnx.load(tmp_path / "a.onnx"))


def standard(model):
    assert {node.domain for node in model.graph.node} == {""}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert len(model.functions) == 0
    assert not {node.op_type for node in model.graph.node} & {"Einsum", "Loop", "If", "Scan", "BatchNormalization"}


@pytest.mark.parametrize("backbone", ["nin:paper", "timm:test_convnext"])
@pytest.mark.slow
def test_networks_that_tie_themselves_to_a_size(make, backbone, tmp_path):
    """Ceil-mode pools, whose last window torch.export makes a condition of; maps in channels-last memory."""
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    opened = make(backbone, size=(32, 32))
    program, takes = graph(logits_and_maps(opened), size_range(opened))
    assert not takes.fixed
    write_pt2(program, file_metadata(opened), tmp_path / "a.pt2")
    write_onnx(program, file_metadata(opened), 18, True, tmp_path / "a.onnx")
    shapes = [(1, 3, 32, 32), (3, 3, 64, 45), (2, 3, 67, 34), (1, 3, 65, 66)]
    for run in (read_pt2(tmp_path / "a.pt2"), read_onnx(tmp_path / "a.onnx")):
        compare(run, opened, shapes)


def test_pt2_takes_any_size_and_number(gap):
    compare(read_pt2(gap[3]), gap[0], [(1, 3, 28, 28), (5, 3, 28, 28), (2, 3, 61, 35), (1, 3, 1, 1)])


@pytest.mark.slow  # quick: test_pt2_takes_any_size_and_number
def test_pt2_needs_no_gapstone(gap, tmp_path):
    images = torch.randn(2, 3, 30, 41)
    torch.save(images, tmp_path / "images.pt")
    code = f"""
import sys, json
sys.modules["gapstone"] = None  # an import of it fails
import torch
facts = {{"{FACTS}": ""}}
module = torch.export.load({str(gap[3])!r}, extra_files=facts).module()
logits, maps = module(torch.load({str(tmp_path / "images.pt")!r}))
torch.save((logits, maps), {str(tmp_path / "answers.pt")!r})
print(json.dumps(json.loads(facts["{FACTS}"])["labels"]))
print({{str(node.target).split(".")[0] for node in module.graph.nodes if node.op == "call_function"}})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    labels, namespaces = run.stdout.splitlines()
    assert json.loads(labels) == ["arduino", "esp 32", "Ω"]
    assert namespaces == "{'aten'}" or namespaces.count("gapstone") == 0
    logits, maps = torch.load(tmp_path / "answers.pt")
    explained = explain(gap[0].model, images)
    torch.testing.assert_close(logits, explained.logits)
    torch.testing.assert_close(maps, explained.maps)


def test_the_facts_inside(gap):
    opened, _, file, _ = gap
    model = onnx.load(file)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["labels"]) == list(opened.labels)
    preprocessing = json.loads(facts["preprocessing"])
    assert any("28 rows of 28 pixels" in line for line in preprocessing.pop("recipe"))
    assert type(opened.preprocessing).from_json(preprocessing) == opened.preprocessing
    assert (facts["backbone"], facts["head"]) == ("nin", "gap")
    assert facts["gapstone"] == model.producer_version
    said = json.loads(facts["maps"])
    assert said["additive"] is True
    explained = explain(opened.model, torch.randn(1, 3, 28, 28))
    np.testing.assert_allclose(said["bias"], explained.bias.numpy(), rtol=1e-6)
    placement = said["placement"]
    assert (placement["size"], placement["cells"]) == ([28, 28], [7, 7])
    assert placement["stride"] == list(explained.placement.stride)
    assert placement["start"] == list(explained.placement.start)
    assert placement["exact"] is explained.placement.exact


def test_inputs_and_outputs_have_names(gap):
    model = onnx.load(gap[2])
    named = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert named == {
        "images": ["batch", 3, "height", "width"],
        "logits": ["batch", 3],
        "maps": ["batch", 3, "rows", "columns"],
    }
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("features/block1/") for name in names) >= 4


def test_nothing_of_this_machine_is_inside(gap):
    for file in gap[2:]:
        data = file.read_bytes()
        assert b"site-packages" not in data
        assert b".py" not in data.replace(b".pytorch", b"")


def test_onnx_reference_evaluator_agrees(gap):
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(gap[2]))
    compare(lambda images: evaluator.run(None, {"images": images}), gap[0], [(2, 3, 9, 14)])


@pytest.mark.slow  # quick: test_module.py
def test_logits_alone(make, tmp_path):
    opened = make(head="gmp")
    program, _ = graph(LogitsAlone(logits_and_maps(opened)), size_range(opened))
    write_onnx(program, file_metadata(opened, maps=False), 20, False, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    assert [output.name for output in model.graph.output] == ["logits"]
    assert model.opset_import[0].version == 20
    assert "ArgMax" not in {node.op_type for node in model.graph.node}
    assert "maps" not in {entry.key for entry in model.metadata_props}
    (found,) = verify(read_onnx(tmp_path / "a.onnx"), opened, [(2, 3, 28, 28)], "ONNX Runtime")
    assert found.maps is None
    assert found.logits < 1e-5


def test_a_size_that_cannot_stay_open_is_fixed(make):
    class Fours(torch.nn.Module):
        def forward(self, images):
            if images.shape[2] % 4 or images.shape[3] % 4:
                raise ValueError("not in fours")
            return images.mean((1, 2, 3))

    given = size_range(make())
    program, takes = graph(Fours(), given)
    assert takes.fixed
    assert not given.fixed
    assert program.module()(torch.rand(5, 3, 28, 28)).shape == (5,)


def test_what_cannot_be_traced_is_told(make):
    class Branches(torch.nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ExportError, match=r"torch\.export cannot trace this network"):
        graph(Branches(), size_range(make()))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda logits, maps: (logits * 1.001, maps), "logits on images 1×3×28×28"),
        (lambda logits, maps: (logits, maps.flip(3)), "maps on images 1×3×28×28"),
        (lambda logits, maps: (logits, maps * float("nan")), "maps on"),
        (lambda logits, maps: (logits, maps[..., 1:]), r"maps.* have the shape \(1, 3, 7, 6\), not \(1, 3, 7, 7\)"),
    ],
)
def test_the_check_sees_what_is_wrong(make, wrong, says):
    opened = make()

    def run(images):
        explained = explain(opened.model, torch.from_numpy(images))
        return [part.numpy() for part in wrong(explained.logits, explained.maps)]

    with pytest.raises(ExportError, match=says):
        verify(run, opened, size_range(opened).trials(), "a reader")
    right = verify(
        lambda images: [part.numpy() for part in (explain(opened.model, torch.from_numpy(images)).logits,)],
        opened,
        size_range(opened).trials(),
        "a reader",
    )
    assert len(right) == 5
    assert all(one.logits <= TOLERANCE for one in right)


def test_a_near_tie_in_one_draw_is_forgiven(make):
    opened = make(head="gmp")
    draws = []

    def run(images):
        draws.append(images)
        explained = explain(opened.model, torch.from_numpy(images))
        maps = explained.maps.flip(3) if len(draws) == 1 else explained.maps
        return [explained.logits.numpy(), maps.numpy()]

    verify(run, opened, [(1, 3, 28, 28)], "a reader")
    assert len(draws) == 2
    assert not np.array_equal(*draws)


def test_trials():
    from gapstone.export.size_range import SizeRange

    shapes = SizeRange(3, (224, 160), 32, fixed=False).trials()
    assert shapes[:2] == [(1, 3, 224, 160), (3, 3, 224, 160)]
    assert len({shape[2:] for shape in shapes}) == 4
    assert all(shape[2] % 2 and shape[3] % 2 for shape in shapes[3:])
    assert min(shapes[-1][2:]) >= 32
    assert [shape[2:] for shape in SizeRange(1, (28, 28), 1, fixed=True).trials()] == [(28, 28)] * 2


def test_padding_by_the_images_size_is_not_tried_with_open_sizes(monkeypatch):
    """torch.export would say so after a minute of EfficientNet-Lite0."""
    from timm.layers.conv2d_same import Conv2dSame

    tried, whole = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: tried.append(k["dynamic_shapes"]) or whole(*a, **k))
    module = torch.nn.Sequential(Conv2dSame(3, 4, 3, stride=2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    _, takes = graph(module.eval(), SizeRange(3, (28, 28), 1, fixed=False))
    assert takes.fixed
    ((dims,),) = tried
    assert list(dims) == [0]
