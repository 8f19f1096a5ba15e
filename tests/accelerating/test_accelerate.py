"""`accelerate` on networks as users write them: answers, and everything that must stay as it is."""

import copy
import gc
import io
import logging
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gapstone as gs
from gapstone.accelerating import functional
from tests.accelerating import user_code as user

ROUTES = {
    user.ByAlias: "F.max_pool2d",
    user.ByNn: "nn.functional.avg_pool2d",
    user.ByTorch: "torch.nn.functional.max_pool2d, torch.max_pool2d",
    user.ByName: "max_pool2d, avg_pool2d, torch_pool",
    user.ByPartial: "halve",
    user.ByHelper: "helper() → deeper() → F.avg_pool2d",
    user.Decorated: "function() → F.max_pool2d",
    user.Methods: "F.max_pool2d, F.avg_pool2d",
    lambda: user.Same(2): "F.max_pool2d",
    lambda: user.Deeper(2): "F.max_pool2d",
    user.closed: "inner.max_pool2d",
    user.Attribute: "max_pool2d, avg_pool2d",
    lambda: nn.MaxPool2d(3, 2, 1): "F.max_pool2d",
    lambda: nn.AvgPool2d(2): "F.avg_pool2d",
    lambda: nn.AdaptiveMaxPool2d(1): "F.adaptive_max_pool2d",
    lambda: nn.AdaptiveAvgPool2d(3): "F.adaptive_avg_pool2d",
}
LEFT = {
    user.ImportsInside: "imported inside",
    user.Held: "self.pooling",
    user.Both: "an attribute's name too",
    lambda: nn.MaxPool2d(2, return_indices=True): "MaxUnpool",
    lambda: nn.LPPool2d(2, 2): "formula",
    lambda: nn.FractionalMaxPool2d(2, 3): "random",
    lambda: nn.AdaptiveAvgPool2d(1): "limit",
    lambda: nn.AdaptiveAvgPool2d((1, 1)): "limit",
}
X = torch.rand(2, 16, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("given", [3, "resnet18", torch.nn.MaxPool2d])
def test_what_is_no_model_is_refused(given):
    for function in (gs.accelerate, gs.accelerated):
        with pytest.raises(TypeError, match=r"needs an nn\.Module"):
            function(given)


@pytest.fixture
def served(monkeypatch):
    """How often gapstone answered."""
    counts = []
    runner_of = functional.runner_of

    def counted(name, x, place):
        run = runner_of(name, x, place)
        counts.extend([name] if run is not None else [])
        return run

    monkeypatch.setattr(functional, "runner_of", counted)
    return counts


def net():
    torch.manual_seed(0)
    return user.Net()


@pytest.mark.parametrize(("make", "calls"), ROUTES.items())
def test_every_route_to_a_pool(make, calls, served):
    model = make()
    expected = model(X)
    fast = gs.accelerate(model)
    assert served == []
    torch.testing.assert_close(fast(X), expected)
    assert served
    (row,) = gs.accelerated(fast).changed
    assert (row.module, row.kind, row.what) == ("", type(model).__name__, calls)
    assert gs.accelerated(fast).left == ()
    # the original is as it was, and so is what gives back
    served.clear()
    model(X)
    undone = gs.accelerate(fast, undo=True)
    undone(X)
    assert served == []
    assert type(undone) is type(model)


@pytest.mark.parametrize(("make", "reason"), LEFT.items())
def test_what_is_left_has_a_reason(make, reason, served):
    model = make()
    fast = gs.accelerate(model)
    report = gs.accelerated(fast)
    assert report.changed == ()
    assert reason in " ".join(row.what for row in report.left)
    assert reason in str(report)
    fast(X)
    assert served == []


def test_arguments_and_documentation_stay():
    fast = gs.accelerate(user.Methods())
    torch.testing.assert_close(fast(X, 2.0, shift=1.0), user.Methods()(X, 2.0, shift=1.0))
    assert type(fast).forward.__annotations__ == user.Methods.forward.__annotations__
    assert repr(fast) == repr(user.Methods())
    assert type(fast).__module__ == user.__name__
    assert type(gs.accelerate(nn.MaxPool2d(2))).__doc__ == nn.MaxPool2d.__doc__


def test_globals_stay_alive(monkeypatch):
    fast = gs.accelerate(user.ByAlias())
    monkeypatch.setattr(user, "SCALE", 3.0)
    torch.testing.assert_close(fast(X), user.ByAlias()(X))
    monkeypatch.setattr(F, "relu", lambda x: x + 1)
    torch.testing.assert_close(fast(X), 3 * (F.max_pool2d(X, 2) + 1))


def test_state_mode_hooks_and_attributes_stay():
    model = net()
    seen = []
    model.pool.register_forward_hook(lambda *_: seen.append("pool"))
    model.note = {"some": "thing"}
    model.norm.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast = gs.accelerate(model)
    assert list(fast.state_dict()) == list(before)
    assert all(torch.equal(a, b) for a, b in zip(fast.state_dict().values(), before.values(), strict=True))
    assert [m.training for m in fast.modules()] == [m.training for m in model.modules()]
    assert [n for n, _ in fast.named_modules()] == [n for n, _ in model.named_modules()]
    assert fast.note == model.note
    assert set(vars(fast)) == set(vars(model))
    assert isinstance(fast, user.Net)
    assert isinstance(fast.pool, nn.MaxPool2d)
    fast(torch.rand(2, 3, 64, 64))
    assert seen == ["pool"]


def test_the_copy_is_deep_and_inplace_is_not():
    model = net()
    fast = gs.accelerate(model)
    assert fast is not model
    assert gs.accelerated(model).changed == ()
    assert [row.what for row in gs.accelerated(model).left] == ["not accelerated"] * 2
    with torch.no_grad():
        fast.last.bias.add_(1)
    assert not torch.equal(fast.last.bias, model.last.bias)
    assert gs.accelerate(model, inplace=True) is model
    assert len(gs.accelerated(model).changed) == 2


def test_twice_is_once():
    once = gs.accelerate(net())
    twice = gs.accelerate(once)
    assert type(twice) is type(once)
    assert gs.accelerated(twice) == gs.accelerated(once)
    # a parametrization makes a subclass of the class it finds
    normed = torch.nn.utils.parametrizations.weight_norm(gs.accelerate(user.Weighted()))
    kind = type(normed)
    again = gs.accelerate(normed, inplace=True)
    assert type(again) is kind
    assert gs.accelerated(again).changed[0].what == "F.max_pool2d"
    torch.testing.assert_close(again(X), user.Weighted()(X))


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, through_pickle, through_torch])
@pytest.mark.parametrize(
    "make", [net, lambda: user.Same(2), lambda: nn.Sequential(nn.Conv2d(3, 16, 1), user.ByAlias())]
)
def test_copies_stay_fast(make, way, served):
    fast = gs.accelerate(make())
    x = torch.rand(2, 3, 64, 64)
    again = way(fast)
    assert gs.accelerated(again) == gs.accelerated(fast)
    assert torch.equal(again(x), fast(x))
    assert set(served) >= {"max"}
    assert [type(m) for m in again.modules()] == [type(m) for m in fast.modules()]


@pytest.mark.slow  # quick: testing/test_check_pool.py
def test_a_pickle_opens_in_another_process(tmp_path):
    torch.save(gs.accelerate(nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2))), tmp_path / "model.pt")
    code = f"""
import torch
model = torch.load({str(tmp_path / "model.pt")!r}, weights_only=False)
import gapstone as gs
print(gs.accelerated(model).changed[0].module, model(torch.rand(1, 3, 64, 64)).shape[-1])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "32"]


def test_shared_modules_and_wrappers(served):
    pool = nn.MaxPool2d(2)
    model = nn.DataParallel(nn.Sequential(pool, nn.Sequential(pool)))
    fast = gs.accelerate(model)
    assert fast.module[0] is fast.module[1][0]
    assert torch.equal(fast(X), model(X))
    assert served


def test_a_forward_on_the_instance_stays(served):
    model = nn.MaxPool2d(2)
    model.forward = lambda x: F.max_pool2d(x, 3)
    fast = gs.accelerate(model)
    assert torch.equal(fast(X), F.max_pool2d(X, 3))
    assert served == []
    assert "replaced on the instance" in str(gs.accelerated(fast))


def test_torch_fx_graphs(served):
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 16, 1), user.ByName(), nn.MaxPool2d(2)))
    x = torch.rand(2, 3, 64, 64)
    fast = gs.accelerate(graph)
    torch.testing.assert_close(fast(x), graph(x))
    assert served == ["max", "mean", "max", "max"]
    assert [row.what for row in gs.accelerated(fast).changed] == [
        "max_pool2d, avg_pool2d, max_pool2d_1",
        "F.max_pool2d",
    ]
    assert torch.equal(copy.deepcopy(fast)(x), fast(x))
    # torch.fx pickles code, and traces it anew when it is opened: its functions are torch's again
    again = through_pickle(fast)
    torch.testing.assert_close(again(x), fast(x))
    assert [row.module for row in gs.accelerated(again).changed] == ["2"]
    assert gs.accelerated(gs.accelerate(again)) == gs.accelerated(fast)
    served.clear()
    gs.accelerate(fast, undo=True)(x)
    assert served == []
    torch.fx.symbolic_trace(gs.accelerate(net()))(x)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript():
    scripted = torch.jit.script(nn.Sequential(nn.MaxPool2d(2)))
    fast = gs.accelerate(nn.Sequential(scripted, nn.MaxPool2d(2)))
    assert [row.module for row in gs.accelerated(fast).changed] == ["1"]
    assert "TorchScript" in str(gs.accelerated(fast))
    again = torch.jit.script(gs.accelerate(nn.Sequential(nn.MaxPool2d(2), user.ByAlias().eval())[:1]))
    assert torch.equal(again(X), F.max_pool2d(X, 2))


def graphs_of(model, **options):
    """The compiled model, and the operators of each graph as it is made."""
    seen = []

    def backend(module, inputs):
        seen.append([node.target for node in module.graph.nodes if node.op == "call_function"])
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend, **options)
    return compiled, seen


@pytest.mark.slow  # quick: test_every_route_compiles
@pytest.mark.parametrize("dynamic", [None, True])
def test_torch_compile(dynamic):
    model = net()
    fast = gs.accelerate(model)
    compiled, seen = graphs_of(fast, dynamic=dynamic)
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
    assert not any("gapstone" in str(target) for target in seen[0])
    for network in (model, compiled):
        network(x).square().sum().backward()
    assert [str(target) for target in seen[-1]].count("gapstone.pool") == 1
    for a, b in zip(model.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad)


@pytest.mark.parametrize("make", ROUTES)
def test_every_route_compiles(make):
    model = make()
    compiled, seen = graphs_of(gs.accelerate(model))
    torch.testing.assert_close(compiled(X), model(X))
    assert not any("gapstone" in str(target) for target in seen[-1])


@pytest.mark.slow  # Inductor compiles C++ for a minute
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_inductor():
    model = net()
    fast = gs.accelerate(model)
    compiled = torch.compile(fast, fullgraph=True)
    x = torch.rand(4, 3, 64, 64)
    for network in (model, compiled):
        network(x).square().sum().backward()
    for a, b in zip(model.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4)


def test_channels_last():
    model = net().eval()
    fast = gs.accelerate(model, channels_last=True)
    assert fast.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(fast(x), model(x))


def test_one_line_is_logged(caplog):
    with caplog.at_level(logging.INFO, "gapstone"):
        gs.accelerate(nn.Sequential(nn.MaxPool2d(2), nn.LPPool2d(2, 2)))
    (message,) = caplog.messages
    assert "1 modules changed, 1 left" in message


def test_the_report_is_a_table():
    text = str(gs.accelerated(gs.accelerate(nn.Sequential(nn.MaxPool2d(2), nn.LPPool2d(2, 2)))))
    assert [line.split()[:2] for line in text.splitlines()] == [
        ["changed", "(1)"], ["0", "MaxPool2d"], ["left", "(1)"], ["1", "LPPool2d"],
    ]  # fmt: skip
    assert str(gs.accelerated(nn.Linear(1, 1))) == "no pools"


@pytest.mark.parametrize(("given", "hint"), [(nn.MaxPool2d, "not its class"), (F.relu, "itself"), (None, "itself")])
def test_what_is_no_module(given, hint):
    with pytest.raises(TypeError, match=f"needs an nn.Module.*{hint}"):
        gs.accelerate(given)


def test_what_cannot_be_copied(served):
    model = nn.Sequential(nn.MaxPool2d(2))
    model[0].kept = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(TypeError, match="inplace=True"):
        gs.accelerate(model)
    gs.accelerate(model, inplace=True)(X)
    assert served == ["max"]


def test_slots(served):
    fast = gs.accelerate(user.Slots(), inplace=True)  # torch cannot copy such a module
    assert torch.equal(fast(X), F.max_pool2d(X, 2))
    assert served == ["max"]


def test_a_class_that_wants_no_subclass():
    class Closed(nn.Module):
        def __init_subclass__(cls):
            raise TypeError("final")

        def forward(self, x):
            return F.max_pool2d(x, 2)

    model = nn.Sequential(Closed(), nn.MaxPool2d(2))
    report = gs.accelerated(gs.accelerate(model))
    assert [row.module for row in report.changed] == ["1"]
    assert [(row.module, row.what) for row in report.left] == [("0", "its class cannot be changed: final")]


def test_undo_leaves_nothing_in_modules():
    """The names that accelerated classes read go with the last of them."""
    gc.collect()
    before = set(vars(torch.nn.modules.pooling)), set(vars(user))
    model = nn.Sequential(user.ByAlias(), nn.MaxPool2d(2)).eval()
    report = str(gs.accelerated(model))
    assert (set(vars(torch.nn.modules.pooling)), set(vars(user))) == before  # to look is to leave
    fast = gs.accelerate(model)
    again = pickle.loads(pickle.dumps(fast))
    gs.accelerate(model, inplace=True)
    added = set(vars(torch.nn.modules.pooling)) - before[0], set(vars(user)) - before[1]
    gs.accelerate(model, inplace=True, undo=True)
    assert str(gs.accelerated(model)) == report
    gs.accelerate(fast, inplace=True, undo=True)
    assert (set(vars(torch.nn.modules.pooling)) - before[0], set(vars(user)) - before[1]) == added
    torch.testing.assert_close(again(X), model(X))  # the last one still reads them
    gs.accelerate(again, inplace=True, undo=True)
    assert (set(vars(torch.nn.modules.pooling)), set(vars(user))) == before
