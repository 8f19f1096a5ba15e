"""Networks whose calls are written down to run elsewhere: torch.jit, torch.fx, torch.export, ONNX, AOTInductor.

There gapstone's operators are not: the graphs are of torch's own.
"""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.pools import COMPOSITIONS, POOLS, WHOLE_ONLY
from tests.contract.truth import ONE_OF_EACH, given
from tests.marks import slow_but

REGIONS = {
    "Whole": gs.Whole(),
    "Window": gs.Window(3, 2, 1),
    "hanging Window": gs.Window(3, 2, 1, ceil_mode=True),
    "same Window": gs.Window(3, 2, "same"),
    "dilated Window": gs.Window(3, 2, 2, dilation=2),
    "Grid": gs.Grid((3, 2)),
    "Pyramid": gs.Pyramid((1, 2)),
}
EVERY = [*POOLS, *WHOLE_ONLY, *COMPOSITIONS, ("std", "max")]


def x32(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) + 0.1


class Net(nn.Module):
    """As a user writes one: layers, and a call."""

    def __init__(self, name, over, **parameters):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = gs.Pool(name, over=over, **parameters)
        self.called, self.parameters_of_call = name, parameters

    def forward(self, x):
        x = self.body(x).abs() + 0.1
        return self.pool(x).flatten(1), gs.pool(x, self.called, **self.parameters_of_call)


def net(name, kind):
    torch.manual_seed(0)
    return Net(name, REGIONS[kind], **(given(name, 4, torch.float32) if isinstance(name, str) else {})).eval()


@pytest.mark.parametrize("kind", slow_but(REGIONS, "Whole", "Window"))
@pytest.mark.parametrize("name", slow_but(EVERY, *ONE_OF_EACH), ids=str)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_torch_jit_trace(name, kind):
    model = net(name, kind)
    traced = torch.jit.trace(model, x32(2, 3, 8, 9), check_trace=False)
    assert "gapstone::" not in str(traced.inlined_graph)
    for images in (2, 5):
        x = x32(images, 3, 8, 9)
        torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("kind", ["Whole", "hanging Window", "Pyramid"])
@pytest.mark.parametrize("name", ["max", "gem", "topk", "attention", "median", "catavgmax"])
def test_torch_fx(name, kind):
    model = net(name, kind)
    traced = torch.fx.symbolic_trace(model)
    for copied in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        for shape in ((2, 3, 8, 9), (5, 3, 12, 7)):
            torch.testing.assert_close(copied(x32(*shape)), model(x32(*shape)))


def test_torch_fx_learns_what_is_learned():
    layer = gs.Pool("gem", learn=True)
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), layer))
    x = x32(2, 3, 8, 8)
    with torch.no_grad():
        traced.get_parameter("1.p").fill_(5.0)
    torch.testing.assert_close(traced(x), gs.pool(traced.get_submodule("0")(x), "gem", p=5.0))
    traced(x).sum().backward()
    assert traced.get_parameter("1.p").grad is not None


class Masked(nn.Module):
    def forward(self, x, mask, labels):
        return gs.pool(x, "max", gs.Mask(mask)), gs.pool(x, "gem", gs.Segments(labels, 3), p=2.0)


def test_torch_fx_of_regions_that_belong_to_a_batch():
    traced = torch.fx.symbolic_trace(Masked())
    x, mask, labels = x32(2, 3, 4, 4), x32(2, 4, 4) > 0.5, torch.arange(16).reshape(4, 4) % 3
    torch.testing.assert_close(traced(x, mask, labels), Masked()(x, mask, labels))


@pytest.mark.parametrize("spec", ["gap", "gmp", "gem:p=learned", "lse", "avgmax", "nin", "fc", "fc:grid=2", "gap:6"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_heads(spec):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), gs.Head(spec, 4, 5, size=(8, 9))).eval()
    x = x32(2, 3, 8, 9)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))
    traced = torch.jit.trace(model, x, check_trace=False)
    program = torch.export.export(model, (x,))
    assert "gapstone" not in str(program.graph)
    for found in (traced, program.module()):
        torch.testing.assert_close(found(x), model(x))
    torch.testing.assert_close(traced(x32(5, 3, 8, 9)), model(x32(5, 3, 8, 9)))


@pytest.mark.parametrize("name", slow_but(["max", "mean", "gem", "topk", "std", "median", "attention"], "max"))
def test_torch_export_of_any_size_has_torchs_operators_alone(name):
    auto = torch.export.Dim.AUTO
    for kind in ("Whole", "hanging Window", "Grid"):
        model = net(name, kind)
        program = torch.export.export(model, (x32(2, 3, 16, 20),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
        assert "gapstone" not in str(program.graph)
        for shape in ((2, 3, 16, 20), (5, 3, 31, 17)):
            torch.testing.assert_close(program.module()(x32(*shape)), model(x32(*shape)))


class OverTheBatch(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.pool, self.query = gs.Pool(name, **given(name, 3, torch.float32)), None

    def forward(self, x, mask, labels, boxes):
        regions = gs.Mask(mask), gs.Segments(labels, 3), gs.Boxes(boxes, 2)
        return [self.pool(x, over=region) for region in regions]


@pytest.mark.parametrize("name", ["max", "gem", "topk", "attention", "median"])
def test_torch_export_of_regions_that_belong_to_a_batch(name):
    boxes = torch.tensor([[0.0, 0, 0, 3, 2], [1, 1, 1, 3, 3]])
    given = x32(2, 3, 4, 4), x32(2, 4, 4) > 0.3, torch.arange(16).reshape(4, 4) % 3, boxes
    program = torch.export.export(OverTheBatch(name), given)
    assert "gapstone" not in str(program.graph)
    torch.testing.assert_close(program.module()(*given), OverTheBatch(name)(*given))


class ByCalls(nn.Module):
    """Its head has to stand beside it."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


def by_layers():
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *pooled)


@pytest.mark.parametrize("make", [by_layers, ByCalls])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_swapped_head(make):
    torch.manual_seed(0)
    model = gs.swap_head(make().eval(), "gem", num_classes=3, images=x32(1, 3, 8, 9)).eval()
    x = x32(2, 3, 8, 9)
    for found in (
        torch.fx.symbolic_trace(model),
        torch.jit.trace(model, x, check_trace=False),
        torch.export.export(model, (x,)).module(),
    ):
        torch.testing.assert_close(found(x), model(x))


def test_feature_extraction_of_torchvision():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = net("gem", "hanging Window")
    found = extraction.create_feature_extractor(model, {"body": "body"})(x32(2, 3, 8, 9))
    assert found["body"].shape == (2, 4, 8, 9)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", EVERY, ids=str)
def test_onnx(name, dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    for kind in ("Whole", "hanging Window", "Grid"):
        model, x = net(name, kind), x32(2, 3, 8, 9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), tmp_path / "net.onnx", dynamo=dynamo, verbose=False)
        session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
        answers = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for found, right in zip(answers, model(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), right.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_aot_inductor(tmp_path):
    for name, kind in (("gem", "hanging Window"), ("topk", "Grid"), ("max", "Window")):
        model, x = net(name, kind), x32(2, 3, 8, 9)
        path = torch._inductor.aoti_compile_and_package(
            torch.export.export(model, (x,)), package_path=str(tmp_path / f"{name}.pt2")
        )
        torch.testing.assert_close(torch._inductor.aoti_load_package(path)(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantization_by_torch_fx():
    quantize = pytest.importorskip("torch.ao.quantization.quantize_fx")
    mapping = torch.ao.quantization.get_default_qconfig_mapping()
    torch.manual_seed(0)
    layer = gs.Pool("gem", learn=True, over=gs.Window(3, 2, 1))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, gs.Head("gmp", 4, 5)).eval()
    x = x32(2, 3, 16, 16)
    prepared = quantize.prepare_fx(model, mapping, (x,))
    torch.testing.assert_close(prepared(x), model(x))
    small = quantize.convert_fx(prepared)
    torch.testing.assert_close(small(x), model(x), rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_parameters_that_fsdp_shards():
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    layer = gs.Pool("gem", learn=True, over=gs.Window(3, 2, 1))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, gs.Head("gem:p=learned", 4, 5))
    x = x32(2, 3, 16, 16)
    right = model(x)
    slopes = torch.autograd.grad(right.sum(), list(model.parameters()))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(model[1], mesh=mesh)
        fully_shard(model, mesh=mesh)
        out = model(x)
        torch.testing.assert_close(out, right)
        out.sum().backward()
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            torch.testing.assert_close(parameter.grad.full_tensor(), slope)
    finally:
        dist.destroy_process_group()
