"""Networks on which a head could be set in the wrong place, or more be cut off than the head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import gapstone as gs
from gapstone.heads import Head
from gapstone.swapping import head_of, swap_head, swapped
from gapstone.tracing.tape import SplitError
from tests.swapping.swapping_checks import into_head, passes, torchvision_model


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.pool(self.body(x)).flatten(1))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 16)


# ---- a gapstone head that is not the network's


class Squeezed(nn.Module):
    """Squeeze and excite, with a gapstone head to squeeze."""

    def __init__(self, last):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
        self.squeeze, self.last = Head("gap", 8, 8), last

    def features(self, x):
        x = self.a(x).relu()
        return self.b(x * self.squeeze(x).sigmoid()[:, :, None, None]).relu()

    def forward(self, x):
        return self.last(self.features(x))


LAST = {
    "pool and linear": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    "a head": lambda: Head("gap", 16, 5),
    "a flattening head": lambda: Head("fc:4", 16, 5, (12, 12)),
}


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_head_that_squeezes_is_not_the_networks(last, inplace, x):
    original = Squeezed(LAST[last]()).eval()
    features = original.features(x).detach()
    model = swap_head(original, "gmp", 4, images=x, inplace=inplace).eval()
    assert (model is original) == inplace
    path, head = head_of(model)  # of two heads, the one that was set
    assert path.startswith("last")
    assert head.spec == "gmp"
    assert isinstance(model.squeeze, Head)
    assert {cut.module.split(".")[0] for cut in swapped(model).cut} == {"last"}
    torch.testing.assert_close(into_head(model, x)[0], features)
    again = swap_head(model, "gap", 3, images=x)
    torch.testing.assert_close(into_head(again, x)[0], features)


def test_whatever_fails_leaves_the_model_as_it_was(x, monkeypatch):
    def fails(_):
        raise RuntimeError("no more")

    original = Plain().eval()
    before, out = str(original), original(x)
    calls = iter([lambda module: sum(p.numel() for p in module.parameters())] * 3)  # the report's last is the fourth
    monkeypatch.setattr("gapstone.swapping.swap.count", lambda module: next(calls, fails)(module))
    with pytest.raises(RuntimeError, match="no more"):
        swap_head(original, "gap", images=x, inplace=True)
    assert str(original) == before
    assert torch.equal(original(x), out)


def test_a_hook_that_was_set_is_taken_off_where_what_is_left_does_not_run(x):
    class Asks(Plain):
        """It asks its classifier for something first, and no module takes the map."""

        def forward(self, x):
            assert self.fc.in_features == 8
            return self.fc(self.body(x).mean((2, 3)))

    original = Asks().eval()
    before, out = str(original), original(x)
    with pytest.raises(SplitError, match="does not run"):
        swap_head(original, "gap", images=x, inplace=True)
    assert str(original) == before
    assert torch.equal(original(x), out)  # a hook left on body would end the pass there
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in original.modules())


# ---- tokens


class Patches(nn.Module):
    """A vision transformer's form, for any size: patches of 4×8 px, a class token, an answer from the tokens."""

    def __init__(self, answer):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 12, (4, 8), (4, 8)), nn.Parameter(torch.randn(1, 1, 12))
        self.norm, self.head, self.answer = nn.LayerNorm(12), nn.Linear(12, 5), answer

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        return self.head(self.answer(x))


class Mean(nn.Module):
    def forward(self, x):
        return x[:, 1:].mean(1)


class Tokens(nn.Module):
    """No class token; a module takes the tokens, so the head could stand in the network."""

    def __init__(self):
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 12, (4, 8), (4, 8)), nn.Sequential(Rows(), nn.Linear(12, 5))

    def forward(self, x):
        return self.head(self.patch(x).flatten(2).transpose(1, 2))


class Rows(nn.Module):
    def forward(self, x):
        return x.mean(1)


@pytest.mark.parametrize("original", [Patches(lambda x: x[:, 0]), Patches(Mean()), Tokens()])
def test_tokens_of_images_of_other_proportions_are_refused(original):
    images = torch.randn(2, 3, 32, 64)  # 8×8 cells: the images' proportions, and the grid's, are two
    model = swap_head(original.eval(), "gap", 3, images=images).eval()
    assert swapped(model).cells == (8, 8)
    assert model.features(images).shape == (2, 12, 8, 8)
    assert model.features(torch.randn(1, 3, 64, 128)).shape == (1, 12, 16, 16)
    other = torch.randn(1, 3, 16, 128)  # 4×16 cells, as many as 8×8
    for call in (model, lambda images: gs.explain(model, images), torch.no_grad()(model)):
        with pytest.raises(ValueError, match=r"images of 16×128(.|\n)*8×8 in images of 32×64: give images of those"):
            call(other)
    again = swap_head(original, "gap", 3, images=torch.cat([other, other])).eval()
    assert again.features(other).shape == (1, 12, 4, 16)


# ---- training is another pass


class Checkpointed(Plain):
    reentrant = True

    def forward(self, x):
        x = checkpoint(self.body, x, use_reentrant=self.reentrant) if self.training else self.body(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_map_inside_a_reentrant_checkpoint_would_not_train(x):
    original = Checkpointed()
    with pytest.raises(SplitError, match="give it use_reentrant=False"):
        swap_head(original, "gap", images=x, inplace=True)
    assert not any(m._forward_hooks for m in original.modules())
    original.reentrant = False
    model = swap_head(original, "gap", images=x).train()
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.features.net.reentrant = True  # switched on later: said, too
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        model(x.requires_grad_())


class Augmented(Plain):
    """Learned augmentation of the images, and learned noise on the map."""

    def __init__(self):
        super().__init__()
        self.augment, self.noise = nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.body(self.augment(x) if self.training else x)
        return self.answer(x + self.noise(x) if self.training else x)

    def answer(self, x):
        return self.fc(self.pool(x).flatten(1))


class WithLabels(Augmented):
    """Whoever trains it sets labels; without them its forward pass fails, after the map."""

    labels = None

    def answer(self, x):
        out = super().answer(x)
        return out - self.labels[:, None] if self.training else out


@pytest.mark.parametrize("make", [Augmented, WithLabels])
def test_what_runs_in_training_only_stays(make, x):
    original = make()
    model = swap_head(original, "gap", 5, images=x).train()
    net = getattr(getattr(model, "features", None), "net", model)
    assert isinstance(net.noise, nn.Conv2d)
    assert isinstance(net.augment[0], nn.Conv2d)
    map, _ = into_head(model, x)
    expected = original.body(original.augment(x))
    torch.testing.assert_close(map, expected + original.noise(expected))
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def relu_then_mean(s, f):
    return s.fc(F.relu(f).mean((2, 3)))


@pytest.mark.parametrize("answer", [relu_then_mean, lambda s, f: s.fc(f.mean((2, 3)))])
def test_an_augmentation_stays_and_an_auxiliary_head_goes_where_no_module_takes_the_map(answer, x):
    class Both(Plain):
        def __init__(self):
            super().__init__()
            self.augment = nn.Sequential(nn.Conv2d(3, 3, 1))
            self.aux = nn.Sequential(nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

        def forward(self, x):
            f = self.body(self.augment(x) if self.training else x)
            return (answer(self, f), self.aux(f)) if self.training else answer(self, f)

    original = Both()
    model = swap_head(original, "gap", images=x).train()
    assert [cut.module for cut in swapped(model).cut] == ["fc", "aux"]
    torch.testing.assert_close(into_head(model, x)[0], original.body(original.augment(x)))


def test_auxiliary_heads_still_go():
    original = torchvision_model("googlenet").eval()
    model = swap_head(original, "gap", 7, images=torch.randn(2, 3, 64, 64))
    assert {"aux1", "aux2", "fc"} <= {cut.module for cut in swapped(model).cut}


class Dropping(Plain):
    """Dropout before the pool, as functions and as a layer."""

    def __init__(self, head):
        super().__init__()
        self.drop, self.head = nn.Dropout2d(0.5), head

    def forward(self, x):
        return self.head(self, self.body(x))


DROPS = {
    "then a mean": (lambda s, f: s.fc(F.dropout2d(f, 0.5, s.training).mean((2, 3))), "Dropout2d"),
    "by its keywords": (lambda s, f: s.fc(F.dropout(f, training=s.training).mean((2, 3))), "Dropout"),
    "before a relu": (lambda s, f: s.fc(F.relu(F.dropout2d(f, 0.5, s.training)).mean((2, 3))), "Dropout2d Replay"),
    "after a relu": (lambda s, f: s.fc(F.dropout2d(F.relu(f), 0.5, s.training).mean((2, 3))), "Replay Dropout2d"),
    "then a pool": (lambda s, f: s.fc(s.pool(F.dropout2d(f, 0.5, s.training)).flatten(1)), None),
    "then a pool, clamped": (
        lambda s, f: s.fc(s.pool(F.dropout2d(f, 0.5, s.training)).flatten(1)).clamp(-9, 9),
        "",
    ),
}


@pytest.mark.parametrize("name", DROPS)
def test_a_dropout_of_the_map_stays(name):
    head, then = DROPS[name]
    images = torch.rand(64, 3, 16, 16)
    original = Dropping(head)
    model = original
    for _ in range(2):  # also in the next swap
        model = swap_head(model, "gap", images=images)
        assert hasattr(model, "features") == (then is not None)
        if then is not None:
            assert " ".join(type(layer).__name__ for layer in model.features.then) == then
        f = original.body(images)
        seen = into_head(model.train(), images)[0]
        lost = (seen == 0) & (f > 1e-6)
        assert 0.4 < lost.sum() / (f > 1e-6).sum() < 0.6
        kept = (seen != 0) & (f > 1e-6)
        torch.testing.assert_close(seen[kept], 2 * f[kept])
        torch.testing.assert_close(into_head(model.eval(), images)[0], f)


@pytest.mark.parametrize(
    "head",
    [
        lambda s, f: s.fc(s.drop(f).mean((2, 3))).clamp(-9, 9),
        lambda s, f: s.fc(s.drop(input=f).mean((2, 3))).clamp(-9, 9),
    ],
)
def test_a_dropout_layer_after_the_map_goes_with_the_head(head, x):
    """And where its head then stands beside the network, the layer is not looked for any more."""
    original = Dropping(head)
    model = swap_head(original, "gap", images=x)
    assert {cut.module for cut in swapped(model).cut} == {"drop", "fc"}
    torch.testing.assert_close(into_head(model.train(), x)[0], original.body(x))
    passes(original.eval(), model, x, 5)


def seldom(s, f):
    s.passes = getattr(s, "passes", 0) + s.training
    return s.fc(s.pool(f).flatten(1)) * (2 if s.training and s.passes % 3 == 0 else 1)


CHANGED = {
    "in every third pass of training": seldom,
    "a clamp far out": lambda s, f: s.fc(s.pool(f).flatten(1)).clamp(-1000, 1000),
    "a seldom dropout": lambda s, f: F.dropout(s.fc(s.pool(f).flatten(1)), 0.1, s.training),
}


@pytest.mark.parametrize("name", CHANGED)
def test_an_answer_that_is_changed_after_the_head(name, x):
    for seed in range(6):
        torch.manual_seed(seed)
        model = swap_head(Dropping(CHANGED[name]), "gap", images=x)
        assert swapped(model).wrapped, seed


# ---- modes of torch, and arguments


@pytest.mark.parametrize("images", [None, (2, 3, 16, 16)])
def test_inside_inference_mode(images):
    original = Plain()
    with torch.inference_mode():
        model = swap_head(original, "gap", 4, images=images and torch.randn(images))
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None and not p.is_inference() for p in model.parameters())


def test_the_images_stay_as_they_are(x):
    class Clamped(Plain):
        def forward(self, x):
            return super().forward(x.clamp_(0, 1))

    before = x.clone()
    swap_head(Clamped(), "gap", images=x)
    assert torch.equal(x, before)


class Gives(Plain):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, x):
        return self.give(super().forward(x))


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda y: {"logits": y}, "gave a dict for 2 images, and logits"),
        (lambda y: (y, y), "gave a tuple for 2 images, and logits"),
        (lambda y: y[None], r"gave \(1, 2, 5\) for 2 images, and logits"),
        (lambda y: y.sum(0, keepdim=True), r"gave \(1, 5\) for 2 images, and logits"),
    ],
)
def test_what_gives_no_logits(give, words, x):
    with pytest.raises(SplitError, match=words + r"(.|\n)*give at= and num_classes(.|\n)*body  \(2, 8, 14, 14\)"):
        swap_head(Gives(give), "gap", 4, images=x)
    assert swap_head(Gives(give), "gap", 4, at="body", images=x)(x).shape == (2, 4)


class TwoInputs(Plain):
    def forward(self, x, y):
        return super().forward(x) + y


def test_what_takes_more_than_images(x):
    with pytest.raises(ValueError, match=r"calls TwoInputs\(images\) with nothing else(.|\n)*missing 1 required"):
        swap_head(TwoInputs(), "gap")
    with pytest.raises(TypeError) as caught:
        swap_head(TwoInputs(), "gap", images=x)
    assert "called TwoInputs(images) with nothing else" in caught.value.__notes__[0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_images_of_another_type(dtype, x):
    with pytest.raises(RuntimeError) as caught:
        swap_head(Plain(), "gap", images=x.to(dtype))
    assert f"of {dtype} on cpu; its weights are of torch.float32 on cpu" in caught.value.__notes__[0]

    class Converts(Plain):
        def forward(self, x):
            return super().forward(x.float() / 255)

    assert swap_head(Converts(), "gap", images=x.to(dtype))(x.to(dtype)).shape == (2, 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_image(channels):
    original = Plain()
    original.body[0] = nn.Conv2d(channels, 8, 3)
    with pytest.raises(ValueError, match=r"is a single image: give a batch of it, image\[None\]"):
        swap_head(original, "gap", images=torch.randn(channels, 16, 16))


def test_sounds_that_become_pictures_are_no_single_image():
    class Spectra(Plain):
        def __init__(self):
            super().__init__()
            self.body[0] = nn.Conv2d(1, 8, 3)

        def forward(self, x):
            return super().forward(x.unflatten(2, (16, -1)))

    with pytest.raises(SplitError, match="not seen as a grid over the images"):
        swap_head(Spectra(), "gap", 4, images=torch.randn(1, 1, 256))


def test_a_model_without_numbers():
    with torch.device("meta"):
        original = Plain()
    with pytest.raises(ValueError, match="holds no numbers"):
        swap_head(original, "gap")


def test_a_module_named_by_its_second_name(x):
    original = Plain()
    original.trunk = original.body
    for at in ("body", "trunk"):
        assert swap_head(original, "gap", 4, at=at, images=x)(x).shape == (2, 4)
        assert gs.explain(original.eval(), x, at=at).maps.shape[-2:] == (14, 14)
