"""Published numbers of published networks, and a user's own module by hand. Nothing is downloaded, nothing computed."""

import json
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune, spectral_norm

from gapstone import Classifier
from gapstone.images.preprocessing import Preprocessing
from gapstone.inspecting import inspect
from gapstone.inspecting.model_names import model_named
from gapstone.inspecting.other_heads import AS_IT_IS, SPECS
from gapstone.models.model_cost import cost
from tests.schemas import check


def by_head(found):
    return {row.head: row for row in found.heads}


def by_path(found):
    return {row.path: row for row in found.rows}


@pytest.mark.parametrize(
    ("name", "parameters", "in_head", "gmacs"),
    [
        ("vgg16", 138_357_544, 0.894, 15.47),
        ("alexnet", 61_100_840, 0.960, 0.71),
        ("resnet50", 25_557_032, 0.080, 4.09),
        ("resnet18", 11_689_512, 0.044, 1.81),
    ],
)
def test_published_numbers(name, parameters, in_head, gmacs):
    pytest.importorskip("torchvision")
    found = inspect(model_named(f"torchvision:{name}"), name=name)
    assert found.parameters == parameters == found.rows[0].parameters
    assert found.head_parameters / found.parameters == pytest.approx(in_head, abs=5e-4)
    assert round(found.macs / 1e9, 2) == gmacs
    assert sum(part.parameters for part in found.parts) == parameters
    assert sum(part.macs for part in found.parts) == found.macs
    assert sum(part.kept_bytes for part in found.parts) == pytest.approx(found.kept_bytes, abs=50)
    assert by_head(found)[AS_IT_IS].total == parameters
    assert found.real is None


def test_auxiliary_heads_are_no_part_of_the_answer():
    pytest.importorskip("torchvision")
    found = inspect(model_named("torchvision:googlenet"))
    assert found.parameters - found.unused_parameters == 6_624_904
    assert round(found.macs / 1e9, 2) == 1.50
    assert found.head_parameters == 1_025_000
    rows = by_path(found)
    assert rows["aux1"].calls == rows["aux1"].macs == 0
    assert rows["aux1"].parameters + rows["aux2"].parameters == found.unused_parameters
    assert by_head(found)["gap"].total == 6_624_904  # another head takes the place of the main one, and nothing else


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("vgg16", 212),
        ("resnet18", 435),
        *(pytest.param(*known, marks=pytest.mark.slow) for known in (("resnet50", 427), ("convnext_tiny", 1688))),
    ],
)
def test_receptive_fields_of_last_maps(name, field):
    pytest.importorskip("torchvision")
    last = inspect(model_named(f"torchvision:{name}")).last_map
    assert last.field == (field, field)
    assert last.stride == (32, 32)
    assert not last.whole


@pytest.mark.slow
def test_squeeze_and_excite_sees_the_whole_image_besides():
    pytest.importorskip("timm")
    last = inspect(model_named("timm:efficientnet_b0")).last_map
    assert (last.field, last.whole) == ((851, 851), True)


class Small(nn.Module):
    """28 → 14 → 7: a map of 7×7×64, flattened into 500 units."""

    def __init__(self, asks=False):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.hidden, self.out = nn.Linear(7 * 7 * 64, 500), nn.Linear(500, 10)
        self.unused = nn.Linear(3, 4)
        self.asks, self.told = asks, []
        self.first.register_forward_hook(lambda *_: None)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.avg_pool2d(self.norm(self.second(x)), 2)
        if self.asks and float(x.detach().sum() + torch.rand(())) > 1e30:
            return x
        return self.out(F.relu(self.hidden(x.flatten(1))))


@pytest.mark.parametrize("asks", [False, True])
def test_a_module_of_ones_own_by_hand(asks):
    found = inspect(Small(asks), 28)
    assert (found.channels, found.classes, found.name) == (1, 10, "Small")
    assert ("item" in found.real) if asks else found.real is None
    rows = by_path(found)
    assert rows["hidden"].parameters == 1_568_000 + 500  # what global average pooling has none of
    assert rows["first"].macs == 28 * 28 * 8 * 9
    assert rows["second"].macs == 14 * 14 * 64 * 8 * 9
    assert rows["hidden"].macs == 7 * 7 * 64 * 500
    assert rows["second"].output == (64, 14, 14)
    assert (rows["second"].field, rows["second"].stride) == ((8, 8), (2, 2))
    assert found.head_parameters == 1_568_500 + 5_010
    assert found.head_macs == 1_568_000 + 5_000
    assert found.unused_parameters == 16
    assert found.pooled == 4 * (14 * 14 * 8 + 7 * 7 * 64) + asks * 7 * 7 * 64  # the sum that it asks for
    assert found.single == 28 * 28 * 8 + 14 * 14 * 64 + 500 + 2 * asks  # ReLU, norm, ReLU; what it asks
    assert found.last_map.field == (10, 10)
    assert (found.last_map.channels, found.last_map.cells) == (64, (7, 7))
    assert str(found.sizes) == str(found.training_sizes) == "sides 28–31 px"
    heads = by_head(found)
    assert list(heads) == [AS_IT_IS, *SPECS]
    trunk = 80 + 4672 + 128
    for spec, own in {
        "gap": 650,
        "gmp": 650,
        "catavgmax": 1290,
        "nin": 650,
        "fc": 7 * 7 * 64 * 10 + 10,
        "fc:512": 7 * 7 * 64 * 512 + 512 + 5130,
        "fc:grid=7": 7 * 7 * 64 * 10 + 10,
    }.items():
        assert (heads[spec].parameters, heads[spec].total) == (own, trunk + own), spec
        assert heads[spec].bytes == 4 * (trunk + own)
    assert heads["gap"].macs == 640
    assert heads["nin"].macs == 64 * 10 * 49
    assert heads["gap"].sizes == heads["fc:grid=7"].sizes == "any side ≥ 4 px"
    assert heads["fc"].sizes == heads[AS_IT_IS].sizes == "sides 28–31 px"


class Tied(nn.Module):
    """Two convolutions of one weight, or one block that stands in two places."""

    def __init__(self, block):
        super().__init__()
        self.stem, self.b = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.c = nn.Conv2d(64, 64, 3, padding=1)
        self.c.weight = self.b.weight
        self.x, self.y = (nn.Sequential(self.b, nn.ReLU()), nn.Sequential(self.b if block else self.c, nn.ReLU()))
        self.fc = nn.Linear(64, 64)
        self.out = nn.Linear(64, 64)
        self.out.weight = self.fc.weight

    def forward(self, x):
        return self.out(self.fc(self.y(self.x(self.stem(x))).mean((2, 3))))


@pytest.mark.parametrize("block", [False, True])
def test_what_is_shared_is_counted_where_it_first_stands(block):
    found = inspect(Tied(block), 32)
    assert found.parameters == 3 * 64 * 9 + 64 + 64 * 64 * 9 + 64 + 64 + 64 * 64 + 64 + 64
    assert min(part.parameters for part in found.parts) >= 0
    assert sum(part.parameters for part in found.parts) == found.parameters
    assert sum(part.macs for part in found.parts) == found.macs
    assert found.head_parameters == 64 * 64 + 64 + 64
    assert sum(part.head_parameters for part in found.parts) == found.head_parameters
    rows = by_path(found)
    assert rows["c"].parameters == 64 * 64 * 9 + 64  # a module by itself has all it uses
    assert rows["out"].parameters == 64 * 64 + 64
    assert found.unused_parameters == 64 * block  # the bias of a convolution that nobody calls
    trunk = found.parameters - found.head_parameters - found.unused_parameters
    assert by_head(found)["gap"].total == trunk + 64 * 64 + 64


def test_hooks_of_the_user_are_told_of_nothing():
    told = []
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    model[0].register_forward_hook(lambda module, args, out: told.append(out))
    model[1].register_forward_pre_hook(partial(lambda name, module, args: told.append(name), "relu"))
    assert inspect(model, 16).real is None
    assert told == []
    model(torch.zeros(1, 3, 16, 16))
    assert len(told) == 2


@pytest.mark.parametrize("made", ["pruned", "normed", "told by a method"])
def test_hooks_that_are_part_of_the_model_run(made):
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.out = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Linear(8, 2)
            self.maps = []
            self.body.register_forward_hook(self.keep)

        def keep(self, _module, _args, out):
            self.maps.append(out)

        def forward(self, x):
            self.body(x)
            return self.out(self.maps.pop().mean((2, 3)))

    model = Told()
    if made == "pruned":
        prune.l1_unstructured(model.body[0], "weight", 0.5)
    elif made == "normed":
        spectral_norm(model.body[0])
    found = inspect(model, 16)
    assert found.real is None
    assert found.parameters == 216 + 8 + 18
    assert found.unused_parameters == 0
    assert model.maps == []


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(asks, training):
    torch.manual_seed(3)
    model = Small(asks).train(training)
    model.second.eval()
    model.hidden.weight.requires_grad_(False)
    model(torch.rand(4, 1, 28, 28)).sum().backward()
    modes = [module.training for module in model.modules()]
    state = {name: (id(t), t.clone()) for name, t in (*model.named_parameters(), *model.named_buffers())}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    learns = [p.requires_grad for p in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    random, fast, dtype = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()
    inspect(model, 28)
    assert [module.training for module in model.modules()] == modes
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert id(tensor) == state[name][0]
        assert torch.equal(tensor, state[name][1]), name
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert (p.grad is None) == (grad is None)
        assert grad is None or torch.equal(p.grad, grad)
    assert [p.requires_grad for p in model.parameters()] == learns
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert torch.get_default_dtype() is dtype
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("asks", [False, True])
def test_frozen_parameters_take_part_all_the_same(asks):
    model = Small(asks)
    free = inspect(model, 28)
    for parameter in model.first.parameters():
        parameter.requires_grad_(False)
    frozen = inspect(model, 28)
    assert (frozen.unused_parameters, frozen.head_parameters) == (free.unused_parameters, free.head_parameters)
    assert frozen.kept_bytes == free.kept_bytes
    assert not model.first.weight.requires_grad


def test_memory_kept_is_what_training_keeps():
    """Of two layers by hand: a convolution keeps its input (here a ReLU's answer, which the ReLU keeps, too)."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    found = inspect(model, 10)
    rows = by_path(found)
    assert rows["1"].kept_bytes == 8 * 100 * 4
    assert rows["0"].kept_bytes == rows["2"].kept_bytes == 0  # the image is nobody's; the ReLU's answer is counted once
    assert rows["3"].kept_bytes == 0  # a mean is told by the shape alone
    assert found.kept_bytes == found.rows[0].kept_bytes == 800 * 4
    assert found.peak_bytes == 2 * 8 * 100 * 4  # the first convolution's answer and the ReLU's


def test_shared_modules_are_counted_once_and_run_twice():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    found = inspect(model, 16)
    assert found.parameters == 84 + 8
    row = by_path(found)["0"]
    assert (row.calls, row.macs, row.field) == (2, 2 * 16 * 16 * 3 * 3 * 9, (5, 5))


def test_a_classifier_says_itself_where_its_head_begins():
    labels, preprocessing = ("a", "b", "c"), Preprocessing(1, (28, 28), (28, 28), (0.5,), (0.5,))
    for head in ("nin", "gap", "fc:16"):
        model = Classifier("nin", head, labels, preprocessing)
        found = inspect(model)
        assert found.size == (28, 28)
        assert found.head_parameters == cost(model)["head_parameters"]
        assert found.macs == cost(model)["macs"]
        assert (found.last_map.channels, found.last_map.cells) == (64, (7, 7))
        heads = by_head(found)
        assert heads["gap"].sizes == "any side ≥ 1 px"
        assert heads[AS_IT_IS].sizes == ("sides 25–28 px" if head == "fc:16" else "any side ≥ 1 px")
        assert heads["fc"].sizes == "sides 25–28 px"


@pytest.mark.slow
def test_own_networks_come_with_their_published_head():
    assert inspect(model_named("vgg16")).parameters == 138_357_544
    assert by_path(inspect(model_named("nin:paper", size=(32, 32)), 32))["head"].parameters == 193_000
    assert inspect(model_named("resnet50")).parameters == 25_557_032


def test_a_class_token_has_no_last_map():
    pytest.importorskip("torchvision")
    found = inspect(model_named("torchvision:vit_b_16"))
    assert found.last_map is None
    assert found.head_parameters is None
    assert "class token" in found.no_map
    check("inspect", json.loads(json.dumps(found.as_json())))
    assert found.heads == ()
    assert str(found.sizes) == "224×224 px only"
    assert found.parameters == 86_567_656
    assert by_path(found)["encoder"].whole


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"size=30×30, channels=3\).*Sequential|does not take such images"):
        inspect(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(nn.Conv2d(3, 2, 1), torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="scripted"):
        inspect(traced)
    with pytest.raises(ValueError, match="lazy"):
        inspect(nn.Sequential(nn.LazyConv2d(3, 3)))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        inspect(Small(), (28, 28, 28))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        inspect("vgg16")
