"""What `swap_head` promises, on small networks."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gapstone as gs
from gapstone.cutting.trunk import MapReached
from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.swapping import head_of, swap_head, swapped
from gapstone.tracing.tape import SplitError
from tests.swapping.swapping_checks import into_head, passes, torchvision_model


class Tutorial(nn.Module):
    """As in a well-known tutorial: one pool layer for all, and a view that knows the size."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2, 2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Plain(nn.Module):
    """ResNet's form: a pool layer takes the map."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 12, 3, 2, 1))
        self.pool, self.drop, self.fc = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.drop(torch.flatten(self.pool(self.body(x)), 1)))


class Written(Plain):
    """With a `forward` of the test's."""

    def __init__(self, head, **layers):
        super().__init__()
        self.head = head
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.head(self, self.body(x))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32)


HEADS = {
    "pool and linear": (lambda s, f: s.fc(s.pool(f).flatten(1)), {}, False),
    "squeezed": (lambda s, f: s.fc(s.pool(f).squeeze(-1).squeeze(-1)), {}, False),
    "a view of the width": (lambda s, f: s.fc(s.pool(f).view(len(f), 12)), {}, True),
    "mean of the answer": (lambda s, f: s.conv(s.pool(f)).mean((2, 3)), {"conv": nn.Conv2d(12, 5, 1)}, False),
    "channels last": (lambda s, f: s.fc(s.mean(f.permute(0, 2, 3, 1))), {"mean": None}, False),
    "mean, a function": (lambda s, f: s.fc(f.mean((2, 3))), {}, True),
    "relu, in place, then a function": (lambda s, f: s.fc(F.relu(f, inplace=True).mean((2, 3))), {}, True),
    "relu of the pooled": (lambda s, f: s.fc(F.relu(s.pool(f).flatten(1))), {}, True),
    "clamped": (lambda s, f: s.fc(s.pool(f).flatten(1)).clamp(-30, 30), {}, True),
    "softmax in eval mode": (
        lambda s, f: s.fc(s.pool(f).flatten(1)) if s.training else s.fc(s.pool(f).flatten(1)).softmax(1),
        {},
        True,
    ),
    "dropout, a function": (lambda s, f: F.dropout(s.fc(s.pool(f).flatten(1)), 0.5, s.training), {}, True),
    "a relu of the body's": (lambda s, f: s.body[2](s.fc(s.pool(f).flatten(1))), {}, True),
    "gem by hand": (lambda s, f: s.fc(f.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)), {}, True),
    "hidden layers and a norm": (
        lambda s, f: s.mlp(s.pool(f)),
        {"mlp": nn.Sequential(nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))},
        False,
    ),
    "flattened": (lambda s, f: s.flat(f.flatten(1)), {"flat": nn.Linear(12 * 64, 5)}, True),
    "a window of its size": (lambda s, f: s.fc(F.avg_pool2d(f, f.shape[2:]).flatten(1)), {}, True),
    "one map per class": (lambda s, f: F.relu(s.conv(f)).mean((2, 3)), {"conv": nn.Conv2d(12, 5, 1)}, None),
    "a parameter, not a layer": (lambda s, f: f.mean((2, 3)) @ s.w, {"w": nn.Parameter(torch.randn(12, 5))}, True),
    "two outputs in training": (
        lambda s, f: (s.fc(f.mean((2, 3))), s.aux(f)) if s.training else s.fc(f.mean((2, 3))),
        {"aux": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))},
        True,
    ),
    "layers in a list": (
        lambda s, f: s.rows[1](s.rows[0](s.pool(f).flatten(1))),
        {"rows": nn.ModuleList([nn.Linear(12, 6), nn.Linear(6, 5)])},
        False,
    ),
}


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((1, 2))


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_a_users_own(name, x):
    head, layers, wrapped = HEADS[name]
    layers = {key: Mean() if layer is None else copy.deepcopy(layer) for key, layer in layers.items()}
    original = Written(head, **layers).eval()
    model = swap_head(original, "gap", images=x)
    map = passes(original, model, x, 5)
    f = original.body(x).detach()
    torch.testing.assert_close(map, F.relu(f) if name.startswith("relu, in place") else f)
    if wrapped is not None:
        assert swapped(model).wrapped == wrapped
        assert isinstance(model, Written) != wrapped
    expected = sum(p.numel() for p in original.body.parameters()) + 12 * 5 + 5
    assert sum(p.numel() for p in model.parameters()) == expected  # nothing of the old head is left


def test_an_answer_that_holds_the_logits_stays_one(x):
    original = Written(lambda s, f: Answer(s.fc(s.pool(f).flatten(1)))).eval()
    model = swap_head(original, "gap", 3, images=x)
    assert isinstance(model, Written)
    assert isinstance(model(x), Answer)
    assert model(x).logits.shape == (2, 3)


def test_a_view_that_knows_the_size_is_no_longer_in_the_way(x):
    original = Tutorial().eval()
    model = swap_head(original, "gap").eval()  # noise of 224 px is refused by the network, 32 px taken
    assert swapped(model).size == (32, 32)
    map, out = into_head(model, x)
    expected = F.max_pool2d(F.relu(original.conv2(F.max_pool2d(F.relu(original.conv1(x)), 2))), 2)
    torch.testing.assert_close(map, expected)
    assert out.shape == (2, 10)
    assert model(torch.randn(3, 3, 97, 131)).shape == (3, 10)
    assert pickle.loads(pickle.dumps(model))(x).equal(out)


@pytest.mark.slow  # quick: test_families.py
def test_vgg16_becomes_small_and_takes_any_size():
    with torch.device("meta"):
        before = sum(p.numel() for p in torchvision_model("vgg16").parameters())
    original = torchvision_model("vgg16", init_weights=False).eval()  # 20 s otherwise
    model = swap_head(original, "gap", images=torch.randn(1, 3, 32, 32), inplace=True)
    assert model is original
    assert before == swapped(model).before == 138_357_544
    assert swapped(model).after == sum(p.numel() for p in model.parameters()) <= 15_227_688
    with torch.no_grad():
        for size in ((97, 131), (640, 480)):
            assert model(torch.randn(1, 3, *size)).shape == (1, 1000)


def test_what_stays(x):
    original = Plain().double().train()
    original.body[1].eval()
    original.drop.eval()
    original.body[0].weight.requires_grad_(False)
    before = copy.deepcopy(original.state_dict())
    random = torch.get_rng_state()
    swap_head(original, "gap", images=x.double())
    torch.set_rng_state(random)
    torch.rand(1)
    model = swap_head(original, "gem:p=learned", 3, images=x.double())
    assert model is not original
    assert all(torch.equal(value, before[key]) for key, value in original.state_dict().items())
    assert [m.training for m in model.body] == [True, False, True, True]
    assert model.training
    assert model.pool.training
    assert not model.drop.training
    assert not model.body[0].weight.requires_grad
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert isinstance(model.pool, Head)
    assert [name for name, _ in model.named_children()] == ["body", "pool", "drop", "fc"]
    assert not original._forward_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_only_the_new_weights_are_drawn(x):
    torch.manual_seed(3)
    head = Head("gap", 12, 5)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with torch.random.fork_rng():
        original = Plain()
    model = swap_head(original, "gap")
    torch.testing.assert_close(dict(model.pool.named_parameters()), dict(head.named_parameters()))
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wraps", [False, True])
def test_half(dtype, wraps, x):
    original = (Written(lambda s, f: s.fc(f.mean((2, 3)))) if wraps else Plain()).to(dtype)
    model = swap_head(original, "gap", 3)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.eval()(x.to(dtype)).dtype == dtype


def test_twice_and_a_head_of_one_size(x):
    for original in (Plain(), Written(lambda s, f: s.fc(f.mean((2, 3))))):
        counts = []
        model = original
        for head in ("gap", "gmp", "fc:4", "gap", "nin", "gap"):
            model = swap_head(model, head, images=x)
            counts.append(sum(p.numel() for p in model.parameters()))
            map, out = into_head(model.eval(), x)
            torch.testing.assert_close(map, original.eval().body(x))
            assert out.shape == (2, 5)
            if head == "fc:4":
                with pytest.raises(ValueError, match="was made for 8×8"):
                    model(torch.randn(1, 3, 64, 64))
        assert counts[0] == counts[1] == counts[3] == counts[5]
        assert len(list(model.modules())) <= len(list(swap_head(original, "gap", images=x).modules()))


def test_twice_on_tokens():
    """A flattening head on tokens is not found by watching: the head itself says where the map is."""
    original = torchvision_model("VisionTransformer").eval()
    images = torch.randn(2, 3, 64, 64)
    flat = swap_head(original, "fc", 3, images=images)
    again = swap_head(flat, "gap", images=images)
    assert again(images).shape == (2, 3)
    assert torch.equal(into_head(again, images)[0], into_head(flat, images)[0])


@pytest.mark.parametrize("wraps", [False, True])
def test_copies_files_and_states(wraps, x):
    make = (lambda: Written(relu_then_mean)) if wraps else Plain
    model = swap_head(make(), "gap", images=x).eval()
    assert swapped(model).wrapped == wraps
    out = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), out)
        assert swapped(twin) == swapped(model)
        with torch.no_grad():
            head_of(twin)[1].classifier[0].bias.add_(1)  # its own
        torch.testing.assert_close(twin(x), out + 1)
        assert torch.equal(model(x), out)
    other = swap_head(make(), "gap", images=x).eval()
    assert not torch.allclose(other(x), out)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), out)


def relu_then_mean(self, f):
    return self.fc(F.relu(f).mean((2, 3)))


@pytest.mark.parametrize("wraps", [False, True])
def test_compiled_and_exported(wraps, x):
    model = swap_head(Written(relu_then_mean) if wraps else Plain(), "gap", images=x).eval()
    with torch.no_grad():
        out = model(x)
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), out)
        dynamic = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
        program = torch.export.export(model, (x,), dynamic_shapes=dynamic).module()
        torch.testing.assert_close(program(x), out)
        other = torch.randn(3, 3, 40, 48)
        torch.testing.assert_close(program(other), model(other))


def test_inside_another_network(x):
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Plain()

        def forward(self, x):
            return self.net((x - 0.5) / 0.25)

    original = Normalised().eval()
    model = swap_head(original, "gmp", 4, images=x)
    assert head_of(model)[0] == "net.pool"
    map = passes(original, model, x, 4)
    torch.testing.assert_close(map, original.net.body((x - 0.5) / 0.25))


def test_a_body_without_gradients(x):
    class Frozen(Plain):
        def forward(self, x):
            with torch.no_grad():
                f = self.body(x)
            return self.fc(self.pool(f).flatten(1))

    original = Frozen().eval()
    model = swap_head(original, "gap", images=x)
    torch.testing.assert_close(into_head(model, x)[0], original.body(x))


def test_a_module_of_two_names(x):
    original = Plain().eval()
    original.last = original.fc
    model = swap_head(original, "gap", images=x)
    passes(original, model, x, 5)
    assert isinstance(model.last, nn.Identity)


def test_the_old_network_says_that_it_ends_at_its_map(x):
    original = Written(relu_then_mean).eval()
    model = swap_head(original, "gap", images=x, inplace=True)
    assert model.features.net is original
    assert model(x).shape == (2, 5)
    with pytest.raises(MapReached, match="use what swap_head returned"):
        original(x)


def test_a_hook_of_the_users_stays(x):
    original = Plain().eval()
    calls = []
    original.body.register_forward_hook(lambda *_: calls.append(1))
    model = swap_head(original, "gap", images=x, inplace=True)
    calls.clear()
    model(x)
    assert calls == [1]


# ---- at=


def test_a_map_of_the_users_choice(x):
    original = torchvision_model("resnet18").eval()
    images = torch.randn(2, 3, 64, 64)
    model = swap_head(original, "gap", 3, at="layer2", images=images)
    map = passes(original, model, images, 3)
    assert map.shape == (2, 128, 8, 8)
    assert {c.module for c in swapped(model).cut} >= {"layer3", "layer4", "fc"}
    # a module whose answer is changed in place afterwards
    inner = swap_head(original, "gap", 3, at="layer4.1.bn2", images=images)
    assert into_head(inner, images)[0].min() < 0


def test_at_that_cannot_be(x):
    with pytest.raises(ValueError, match="no such module; its last ones are body, "):
        swap_head(Plain(), "gap", at="layer4", images=x)
    with pytest.raises(
        SplitError, match=r"is \(2, 5\) for 2 images(.|\n)*such as at=\"body\"(.|\n)*body  \(2, 12, 8, 8\)"
    ):
        swap_head(Plain(), "gap", at="fc", images=x)
    unused = Plain()
    unused.more = nn.Conv2d(3, 3, 1)
    with pytest.raises(SplitError, match="was not called"):
        swap_head(unused, "gap", at="more", images=x)


# ---- refused


def test_two_maps_are_refused_and_named(x):
    class Two(Plain):
        def __init__(self):
            super().__init__()
            self.other = nn.Conv2d(3, 12, 3, 4, 1)

        def forward(self, x):
            return self.fc(self.body(x).mean((2, 3)) + self.other(x).mean((2, 3)))

    before = Two().eval()
    state = copy.deepcopy(before)
    with pytest.raises(SplitError, match=r"something else of the image(.|\n)*other  \(2, 12, 8, 8\)"):
        swap_head(before, "gap", images=x, inplace=True)
    assert str(before) == str(state)
    one = swap_head(before, "gap", at="body", images=x)
    torch.testing.assert_close(into_head(one, x)[0], before.body(x))


def test_what_cannot_be_swapped_is_as_it_was(x):
    class Joined(Plain):
        def forward(self, x):
            return self.fc((self.body(x) + self.body[3].bias.sum() * self.body(x).sigmoid()).mean((2, 3)))

    original = Joined().eval()
    before, out = str(original), original(x)
    with pytest.raises(SplitError, match="outside of all its modules"):
        swap_head(original, "gap", images=x, inplace=True)
    assert str(original) == before
    assert torch.equal(original(x), out)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in original.modules())


def test_a_network_that_is_another_one_without_its_head(x):
    class Odd(Plain):
        """Its map depends on a number that it reads off its classifier."""

        def forward(self, x):
            factor = self.fc.weight.detach()[0, 0].item() if isinstance(self.fc, nn.Linear) else 3.0
            return self.fc(self.pool(self.body(x) * factor).flatten(1)) if factor != 3 else self.pool(self.body(x) * 3)

    original = Odd().eval()
    before, out = str(original), original(x)
    with pytest.raises(SplitError, match="makes other maps without its head"):
        swap_head(original, "gap", images=x, inplace=True)
    assert str(original) == before  # all is put back
    assert torch.equal(original(x), out)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in original.modules())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"head": "gapp"}, ValueError, "Did you mean 'gap'"),
        ({"head": "gap", "num_classes": 0}, ValueError, "num_classes=0"),
        ({"head": "gap", "num_classes": 2.0}, ValueError, "num_classes=2.0"),
        ({"head": "gap", "images": [1]}, ValueError, "images=list"),
        ({"head": "gap", "images": torch.zeros(0, 3, 8, 8)}, ValueError, r"images=\(0, 3, 8, 8\)"),
        ({"head": "gap", "images": torch.zeros(1, 4, 8, 8)}, RuntimeError, "channels"),
    ],
)
def test_arguments_that_cannot_be(arguments, error, words):
    model = Plain()
    with pytest.raises(error, match=words):
        swap_head(model, **arguments)
    assert isinstance(model.pool, nn.AdaptiveAvgPool2d)


def test_models_that_cannot_be(x):
    with pytest.raises(TypeError, match="Give the model, not its class"):
        swap_head(Plain, "gap")
    with pytest.raises(TypeError, match="compile afterwards"):
        swap_head(torch.compile(Plain(), backend="eager"), "gap")
    with pytest.raises(ValueError, match="it has no Conv2d, and names no size"):
        swap_head(nn.Linear(3, 3), "gap")
    with pytest.raises(SplitError, match="None of its modules gives a feature map"):
        swap_head(nn.Sequential(nn.Flatten(2), nn.Linear(1024, 3), nn.Softmax(1), nn.Flatten()), "gap", images=x)
    with pytest.raises(ValueError, match="not swapped"):
        swapped(Plain())
    with pytest.raises(ValueError, match="no gapstone head"):
        head_of(Plain())
    with pytest.raises(ValueError, match="2 gapstone heads"):
        head_of(nn.ModuleList([Head("gap", 2, 2), Head("gap", 2, 2)]))


def test_a_classifier_stays_one(tmp_path):
    original = gs.Classifier("nin", "nin", ("a", "b", "c"), Preprocessing(1, (28, 28), (28, 28), (0.5,), (0.5,)))
    images = torch.randn(2, 1, 28, 28)
    model = swap_head(original, "gem:p=2")
    assert isinstance(model, gs.Classifier)
    assert head_of(model)[0] == "head"
    torch.testing.assert_close(into_head(model.eval(), images)[0], original.eval().features(images))
    again = gs.load(model.save(tmp_path / "m.safetensors"))
    assert again.head.spec == "gem:p=2"
    torch.testing.assert_close(again(images), model(images))
    with pytest.raises(ValueError, match="3 labels"):
        swap_head(original, "gap", 4)


def test_the_report():
    report = swapped(swap_head(Plain(), "gap", images=torch.zeros(1, 3, 32, 32)))
    assert str(report) == (
        "Plain: head 'gap' of 5 classes at 'pool'\n"
        "map: 12 channels, 8×8 for images of 32×32\n"
        "parameters: 1,181 before, 1,181 after\n"
        "class: Plain, as before\n"
        "cut (3; module, kind, parameters):\n"
        "  pool  AdaptiveAvgPool2d   0\n"
        "  drop  Dropout             0\n"
        "  fc    Linear             65"
    )
