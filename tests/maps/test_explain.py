"""Exact where the head allows it, honest where not; found in any model; nothing of the user's changes."""

import numpy as np
import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain_head
from gapstone.tracing.tape import SplitError


def net(head: nn.Module, channels: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1), nn.ReLU(), head
    )


class Head(nn.Module):
    """A user's own: the pool is given as a function."""

    def __init__(self, pool, width=8, classes=5):
        super().__init__()
        self.pool, self.fc = pool, nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.pool(x))


def by_autograd(model: nn.Module, images: torch.Tensor, features: int = 4) -> torch.Tensor:
    """Gradient × activation of every class at the output of the first `features` layers of a Sequential."""
    x = model[:features](images).detach().requires_grad_()
    logits = model[features:](x)
    rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack([(row * x).sum(1) for row in rows], 1).detach()


EXACT = {
    "adaptive": lambda x: nn.functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "mean": lambda x: x.mean((2, 3)),
    "mean, twice": lambda x: x.mean(-1).mean(-1),
    "max": lambda x: nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
    "amax": lambda x: x.amax(dim=(-2, -1)),
    "sum": lambda x: x.sum((2, 3)),
    "window": lambda x: nn.functional.avg_pool2d(x, (x.shape[2], x.shape[3])).squeeze(-1).squeeze(-1),
    "avgmax": lambda x: 0.5 * (x.mean((2, 3)) + x.amax((2, 3))),
    "gapstone": lambda x: gs.pool(x, "gem", p=3),
    "compositions": lambda x: gs.pool(x, "avgmax"),
    "scaled": lambda x: x.mean((2, 3)) * 3 + 1,
}


@pytest.mark.parametrize("name", EXACT)
def test_pools_of_a_users_model_are_exact(name):
    model = net(Head(EXACT[name])).eval()
    images = torch.rand(3, 3, 20, 28)
    explained = gs.explain(model, images)
    assert explained.maps.shape == (3, 5, 5, 7)
    assert explained.completeness.max() < 1e-5
    assert explained.additive or name == "mean, twice"
    torch.testing.assert_close(explained.logits, model(images).detach())
    torch.testing.assert_close(explained.maps, by_autograd(model, images), rtol=1e-4, atol=1e-6)
    assert not any(t.requires_grad for t in (explained.maps, explained.bias, explained.logits))


@pytest.mark.parametrize("shape", [(3, 3, 20, 28), (1, 3, 32, 32)])
def test_both_pools_side_by_side(shape):
    model = net(Head(lambda x: torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1), 16)).eval()
    images = torch.rand(shape)
    explained = gs.explain(model, images)
    assert explained.additive
    assert explained.completeness.max() < 1e-5
    torch.testing.assert_close(explained.maps, by_autograd(model, images), rtol=1e-4, atol=1e-6)


def test_flattened_and_pooled_to_a_grid():
    flat = net(nn.Sequential(nn.Flatten(), nn.Linear(8 * 5 * 7, 4))).eval()
    explained = gs.explain(flat, torch.rand(2, 3, 20, 28))
    assert explained.additive
    assert explained.maps.shape == (2, 4, 5, 7)
    assert explained.completeness.max() < 1e-5
    grid = net(nn.Sequential(nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(48, 4))).eval()
    images = torch.rand(2, 3, 20, 28)
    explained = gs.explain(grid, images)
    assert explained.additive
    assert explained.maps.shape == (2, 4, 5, 7)  # of the map before the grid
    assert explained.completeness.max() < 1e-5
    torch.testing.assert_close(explained.maps, by_autograd(grid, images), rtol=1e-4, atol=1e-6)


def pooled(*layers: nn.Module, cells: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Flatten(), *layers)


HIDDEN = {
    "hidden layer": nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 64), nn.ReLU(True), nn.Linear(64, 5)
    ),
    "hidden on a grid": nn.Sequential(
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6), nn.GELU(), nn.Linear(6, 5)
    ),
    "a pool of their own": Head(lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)),
    "log-sum-exp": Head(lambda x: gs.pool(x, "logsumexp", r=5)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_other_heads_are_gradient_times_activation_and_say_so(name):
    model = net(HIDDEN[name]).eval()
    images = torch.rand(3, 3, 20, 28)
    explained = gs.explain(model, images)
    assert not explained.additive
    torch.testing.assert_close(explained.maps, by_autograd(model, images), rtol=1e-4, atol=1e-6)
    some = gs.explain(model, images, [4, 0])
    torch.testing.assert_close(some.maps, explained.maps[:, [4, 0]], rtol=1e-4, atol=1e-6)
    left = (explained.maps.sum((2, 3)) + explained.bias - explained.logits).abs()
    torch.testing.assert_close(explained.completeness, left)
    if name != "a pool of their own":  # homogeneous of degree 1 above its clamp: complete though not promised
        assert left.max() > 1e-4


def test_squeeze_and_excite_is_no_head():
    class Excited(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.se, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

        def forward(self, x):
            x = self.conv(x)
            x = x * torch.sigmoid(self.se(x.mean((2, 3), keepdim=True)))
            return self.fc(torch.relu(x).mean((2, 3)))

    model = Excited().eval()
    explained = gs.explain(model, torch.rand(2, 3, 9, 9))
    assert explained.additive
    assert explained.completeness.max() < 1e-6


def test_a_wrong_way_the_second_time_is_noticed():
    class Fickle(nn.Module):
        """Its path depends on the picture's brightness: the first pass tells nothing about the second."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x):
            if x.mean() > 0.5:
                return self.fc((torch.relu(self.a(x)) + 0).mean((2, 3)))
            return self.fc(torch.relu(self.b(x) + 1).sub(1).abs().contiguous().mean((2, 3)))

    model = Fickle().eval()
    dark, bright = torch.rand(2, 3, 8, 8) * 0.1, torch.rand(2, 3, 8, 8) * 0.1 + 0.9
    for images in (dark, bright, dark, dark):
        explained = gs.explain(model, images)
        assert explained.completeness.max() < 1e-5
        torch.testing.assert_close(explained.logits, model(images).detach())


@pytest.mark.parametrize("dims", [1, 3])
def test_one_and_three_dimensions(dims):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    model = nn.Sequential(conv(2, 6, 3, 2, 1), nn.ReLU(), Head(lambda x: x.mean(tuple(range(2, x.dim()))), 6)).eval()
    explained = gs.explain(model, torch.rand(2, 2, *(9, 10, 11)[:dims]))
    assert explained.maps.shape == (2, 5, *(5, 5, 6)[:dims])
    assert explained.completeness.max() < 1e-6
    assert explained.placement.stride == (2.0,) * dims
    assert explained.placement.exact


def test_tokens_stand_on_their_grid():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            return self.fc(torch.relu(x @ torch.eye(8)).mean(1))

    explained = gs.explain(Tokens().eval(), torch.rand(2, 3, 16, 24))
    assert explained.maps.shape == (2, 5, 4, 6)
    assert explained.completeness.max() < 1e-6
    assert explained.placement.stride == (4.0, 4.0)
    assert explained.placement.start == (1.5, 1.5)


class TestNothingOfTheUsersChanges:
    def test_mode_gradients_hooks_buffers_and_generator(self):
        trunk = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)
        model = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).train()
        model[1].eval()  # frozen, as people do
        model[0].weight.requires_grad_(False)
        modes = [module.training for module in model.modules()]
        before = {key: value.clone() for key, value in model.state_dict().items()}
        images, state = torch.rand(2, 3, 9, 9), torch.get_rng_state()
        explained = gs.explain(model, images)
        assert explained.completeness.max() < 1e-6
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        assert not model[0].weight.requires_grad
        assert model[5].weight.requires_grad
        assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    def test_also_when_it_fails(self):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).train()
        with pytest.raises(SplitError):
            gs.explain(model, torch.rand(1, 3, 9, 9))
        assert model.training

    def test_a_gapstone_head(self):
        head = gs.Head("fc:16:dropout=0.5", 8, 5, (4, 6)).train()
        with torch.inference_mode():
            x = torch.rand(3, 8, 4, 6)
        state = torch.get_rng_state()
        explain_head(head, x)
        assert head.training
        assert torch.equal(state, torch.get_rng_state())
        assert all(parameter.grad is None for parameter in head.parameters())


@pytest.mark.parametrize(
    "spec", ["gap", "gmp", "gem", "gem:p=learned", "avgmax", "catavgmax", "nin", "fc", "fc:grid=3"]
)
def test_every_head_that_adds_up(spec):
    torch.manual_seed(0)
    head = gs.Head(spec, 8, 5, (4, 6))
    explained = explain_head(head, torch.rand(3, 8, 4, 6))
    assert explained.additive
    assert explained.completeness.max() < 1e-5
    own = torch.tensor([[0, 4], [1, 2], [3, 3]])
    some = explain_head(head, torch.rand(3, 8, 4, 6), own)
    assert some.maps.shape == (3, 2, 4, 6)
    assert some.completeness.max() < 1e-5


@pytest.mark.parametrize("spec", ["lse", "fc:16", "gap:16:dropout=0.5", "nin:8", "fc:16:grid=3"])
def test_every_other_head(spec):
    torch.manual_seed(0)
    head = gs.Head(spec, 8, 5, (4, 6)).eval()
    x = torch.rand(3, 8, 4, 6)
    explained = explain_head(head, x)
    if explained.additive:
        assert spec == "nin:8"
        return
    free = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head(free)[:, 2].sum(), free)
    torch.testing.assert_close(explained.maps[:, 2], (gradient * x).sum(1))
    assert explained.completeness.max() > 1e-4


def test_a_classifier_takes_files_and_pictures():
    torch.manual_seed(0)
    model = gs.Classifier(
        "nin", "gap", ("cat", "dog", "owl"), Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3)
    )
    pictures = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), np.uint8)
    explained = gs.explain(model, pictures, top_k=2)
    assert explained.labels == ("cat", "dog", "owl")
    assert explained.maps.shape == (2, 2, 8, 8)
    torch.testing.assert_close(explained.probabilities, model.predict(pictures))
    assert (explained.classes[:, 0] == explained.logits.argmax(1)).all()
    assert explained.placement.stride == (4.0, 4.0)
    assert explained.placement.start == (0.0, 0.0)
    named = gs.explain(model, pictures, ["owl", 0])
    assert named.classes.tolist() == [[2, 0], [2, 0]]
    each = gs.explain(model, pictures, [["owl"], ["dog"]])
    assert each.classes.tolist() == [[2], [1]]
    torch.testing.assert_close(each.maps[0, 0], named.maps[0, 0])


class TestErrors:
    model = net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))).eval()
    images = torch.rand(2, 3, 16, 16)

    @pytest.mark.parametrize(
        ("classes", "says"),
        [
            ([5], "no class 5: they go from 0 to 4"),
            ([-1], "no class -1"),
            ([[1], [2], [3]], "3 rows for 2 images"),
            ([[1], [2, 3]], r"rows of \[1, 2\] classes"),
            ([[1], 2], "not a mixture"),
            ([], "empty"),
            (["cat"], "has no labels"),
            (torch.rand(2, 1), "whole numbers"),
            (torch.zeros(3, 1, dtype=torch.long), "3 rows for 2 images"),
        ],
    )
    def test_classes(self, classes, says):
        with pytest.raises(ValueError, match=says):
            gs.explain(self.model, self.images, classes)

    def test_names(self):
        with pytest.raises(ValueError, match="did you mean tiger"):
            gs.explain(self.model, self.images, ["tigre"], labels=("cat", "dog", "tiger", "owl", "bat"))
        with pytest.raises(ValueError, match="3 labels for 5 logits"):
            gs.explain(self.model, self.images, labels=("cat", "dog", "tiger"))
        with pytest.raises(ValueError, match="not both"):
            gs.explain(self.model, self.images, [1], top_k=2)

    def test_images(self):
        with pytest.raises(TypeError, match="got a ndarray"):
            gs.explain(self.model, np.zeros((2, 16, 16, 3), np.uint8))
        with pytest.raises(ValueError, match="at least one image"):
            gs.explain(self.model, torch.rand(0, 3, 16, 16))

    def test_no_map(self):
        class Covariance(nn.Module):
            def __init__(self):
                super().__init__()
                self.patch, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(64, 5)

            def forward(self, x):
                f = self.patch(x).flatten(2)
                return self.fc((f @ f.transpose(1, 2)).flatten(1))

        with pytest.raises(SplitError, match=r'at="layer4"'):
            gs.explain(Covariance().eval(), self.images)
        explained = gs.explain(Covariance().eval(), self.images, at="patch")  # as it says
        assert explained.maps.shape == (2, 5, 4, 4)
        assert not explained.additive
        with pytest.raises(ValueError, match="no such module; its last ones are patch, fc"):
            gs.explain(Covariance().eval(), self.images, at="layer4")

    def test_one_position_that_answers_alone(self):
        class Corner(nn.Module):
            def __init__(self):
                super().__init__()
                self.patch, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

            def forward(self, x):
                return self.fc(self.patch(x).flatten(2).transpose(1, 2)[:, 0])

        for at in (None, "patch"):
            explained = gs.explain(Corner().eval(), self.images, at=at)
            assert explained.maps.shape == (2, 5, 4, 4)
            assert explained.completeness.max() < 1e-6
            assert (explained.maps[:, :, 0, 0] != 0).all()
            assert (explained.maps[:, :, 0, 1:] == 0).all()

    def test_two_ways(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 5), nn.Linear(16, 5)

            def forward(self, x):
                return self.fc(torch.cat([self.a(x).mean((2, 3)), self.b(x).amax((2, 3))], 1))

        with pytest.raises(SplitError, match="one map cannot explain them"):
            gs.explain(Two().eval(), self.images)

    def test_no_logits(self):
        with pytest.raises(SplitError, match=r"gave a tensor of shape \(2, 8, 4, 4\)"):
            gs.explain(self.model[:4], self.images)


@pytest.mark.parametrize("size", [(3, 2), (8, 8), (1, 1)])
@pytest.mark.parametrize("spec", ["catavgmax:8,6", "gmp:8", "gem:8", "avgmax:8"])
def test_hidden_layers_on_maps_of_any_size(spec, size):
    """Which calls a pool makes depends on the map's size."""
    torch.manual_seed(0)
    head = gs.Head(spec, 64, 5).eval()
    x = torch.rand(2, 64, *size)
    free = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head(free)[:, 2].sum(), free)
    torch.testing.assert_close(explain_head(head, x).maps[:, 2], (gradient * x).sum(1), rtol=1e-4, atol=1e-6)


def test_labels_of_the_batch_are_one_class_of_each_image():
    """As captum and pytorch-grad-cam take them; a list is the same for every image."""
    model = net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))).eval()
    images, y = torch.rand(3, 3, 20, 28), torch.tensor([4, 0, 2])
    every = gs.explain(model, images)
    for labels in (y, y.numpy(), y.to(torch.uint8)):
        own = gs.explain(model, images, labels)
        assert own.classes.tolist() == [[4], [0], [2]]
        torch.testing.assert_close(own.maps[:, 0], every.maps[torch.arange(3), y])
        assert own.completeness.shape == (3, 1)
        assert own.completeness.max() < 1e-5
    assert gs.explain(model, images, y.tolist()).classes.tolist() == [[4, 0, 2]] * 3
    assert gs.explain(model, images[:1], y[:1]).classes.tolist() == [[4]]
    assert gs.explain(model, images, torch.tensor(4)).classes.tolist() == [[4]] * 3
    with pytest.raises(ValueError, match=r"has 2 for 3 images; .*classes\.tolist\(\)"):
        gs.explain(model, images, y[:2])
