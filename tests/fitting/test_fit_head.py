"""fit_head: a new head from one pass, everything else as it was; any kind of data; and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gapstone as gs
from gapstone.fitting.fit_head import fit, fit_head
from gapstone.fitting.fitting_data import InMemory, OnDisk
from gapstone.fitting.image_batches import stored_view
from gapstone.models.model_cost import cost
from gapstone.swapping.swap_report import head_of
from tests.fitting.world import LABELS, PREPROCESSING, classifier, images
from tests.marks import slow_but

CLOSED = ["gap", "gmp", "gem", "gem:p=learned", "lse:r=2", "avgmax", "catavgmax", "fc", "fc:grid=2", "gap:dropout=0.5"]
OTHER = images(400, seed=2)


def accuracy(model, data=OTHER):
    with torch.no_grad():
        return (model(data[0]).argmax(1) == data[1]).double().mean().item()


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.mark.parametrize("spec", CLOSED)
def test_what_the_linear_layer_sees(spec):
    head = gs.Head(spec, channels=5, classes=4, size=(6, 7)).eval()
    maps = torch.rand(3, 5, 6, 7)
    torch.testing.assert_close(head.classifier[-1](head.vectors(maps)), head(maps))


@pytest.mark.parametrize("method", ["logistic", "ridge"])
@pytest.mark.parametrize("spec", ["gap", "gmp", "catavgmax", "fc:grid=2", "fc"])
def test_a_head_that_answers(model, spec, method):
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    new = fit_head(model, images(300, seed=1), spec, method)
    assert accuracy(model) < 0.6 < 0.8 < accuracy(new)
    assert new.head.spec == spec
    assert new.labels == LABELS
    assert not new.training
    for key, value in new.features.state_dict().items():
        torch.testing.assert_close(value, before[f"features.{key}"], rtol=0, atol=0)
    for key, value in model.state_dict().items():  # what was given is not touched
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_it_can_be_saved(model, tmp_path):
    new = fit_head(model, images(100, seed=1), "gap")
    again = gs.load(new.save(tmp_path / "new.safetensors"))
    torch.testing.assert_close(again(OTHER[0]), new(OTHER[0]), rtol=0, atol=0)


def test_the_head_it_has_is_the_default():
    assert fit_head(classifier("gem:p=4"), images(100, seed=1)).head.spec == "gem:p=4"


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_probabilities_mean_something(model, method):
    new = fit_head(model, images(400, seed=1), "gap", method)
    with torch.no_grad():
        logits = new(OTHER[0])
    confidence = logits.softmax(1).max(1).values.mean().item()
    assert confidence == pytest.approx(accuracy(new), abs=0.1)  # ridge's raw scores would say 0.5


def test_any_kind_of_data_gives_the_same(model):
    x, y = images(130, seed=1)
    whole = fit_head(model, (x, y), "gap")
    for data in (DataLoader(TensorDataset(x, y), batch_size=50), [(x[:7], y[:7]), (x[7:], y[7:])], [[x, y]]):
        torch.testing.assert_close(fit_head(model, data, "gap").head.state_dict(), whole.head.state_dict())
    once = (batch for batch in [(x[:100], y[:100]), (x[100:], y[100:])])  # can be passed over once only
    torch.testing.assert_close(fit_head(model, once, "gap", finetune=0).head.state_dict(), whole.head.state_dict())


def test_data_is_seen_once_also_with_fine_tuning(model):
    x, y = images(130, seed=1)
    seen = []

    def batches():
        seen.append(1)
        yield x, y

    class Data:
        def __iter__(self):
            return batches()

    assert fit(model, InMemory(Data(), "cpu"), "gap", finetune=1).tuned is not None
    assert len(seen) == 1


def test_distil_imitates_the_old_head():
    teacher = fit_head(classifier(), images(300, seed=1), "gap")
    x, _ = images(300, seed=5)
    student = fit_head(
        teacher, (x, torch.zeros(300, dtype=torch.long)), "gap", "distil"
    )  # its labels are not looked at
    with torch.no_grad():
        torch.testing.assert_close(student(OTHER[0]), teacher(OTHER[0]), rtol=0.01, atol=0.05)


def test_new_labels(model):
    x, y = images(300, seed=1, classes=6)
    new = fit_head(model, (x, y), "gap", labels=tuple("abcdef"))
    assert new.labels == tuple("abcdef")
    assert new(x).shape == (300, 6)
    for names in (tuple("abcdef"), tuple("abc"), LABELS[::-1]):
        with pytest.raises(ValueError, match="one for each of its 3 classes in their order; labels= has other names"):
            fit_head(model, (x, y % 3), "gap", "distil", labels=names)
    assert fit_head(model, (x, y % 3), "gap", "distil", labels=list(LABELS)).labels == LABELS
    with pytest.raises(ValueError, match="at least two different names"):
        fit_head(model, (x, y), "gap", labels=("a", "a"))


def test_any_module_with_a_head():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            self.top = gs.Head("gmp", channels=8, classes=3)

        def forward(self, x):
            return self.top(self.body(x))

    net = Net()
    new = fit_head(net, images(300, seed=1), "gap")
    assert head_of(new)[1].spec == "gap"
    assert accuracy(new) > 0.9
    torch.testing.assert_close(new.body.state_dict(), net.body.state_dict(), rtol=0, atol=0)
    assert net.top.spec == "gmp"
    assert net.training
    assert not new.training
    with pytest.raises(ValueError, match=r"is known of a gs\.Classifier only"):
        fit_head(net, images(30, seed=1), "gap", finetune=1)


def test_a_swapped_network():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            self.fc = nn.Linear(8 * 14 * 14, 3)

        def forward(self, x):
            return self.fc(self.body(x).flatten(1))

    from gapstone.swapping.swap import swap_head

    swapped = swap_head(Net().eval(), "gap", images=OTHER[0][:2])
    new = fit_head(swapped, images(300, seed=1))
    assert accuracy(new) > 0.9
    report = gs.swapped(fit_head(swapped, images(300, seed=1), "catavgmax", labels=("a", "b", "c")))
    assert (report.head, report.before) == ("catavgmax", gs.swapped(swapped).before)
    assert report.after == 3 * 8 * 9 + 8 + 16 * 3 + 3
    assert gs.swapped(fit_head(swapped, images(300, seed=1, classes=6), labels=tuple("abcdef"))).classes == 6
    assert gs.swapped(swapped).head == "gap"
    assert gs.swapped(swapped).after == 3 * 8 * 9 + 8 + 8 * 3 + 3
    for count in (2, 4):
        with pytest.raises(ValueError, match="one for each of its 3 classes"):
            fit_head(swapped, images(30, seed=1), "gap", "distil", labels=tuple("abcd"[:count]))


def test_without_a_head_it_says_so():
    with pytest.raises(ValueError, match="no gapstone head"):
        fit_head(nn.Conv2d(3, 4, 1), images(10, seed=1), "gap")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "nin"}, "has no closed form: it has a ReLU"),
        ({"head": "gap:16"}, r"has no closed form: it has hidden layers \(16\)"),
        ({"head": "gpa"}, "not known"),
        ({"method": "svm"}, "method 'svm': expected logistic, ridge, distil"),
        ({"finetune": -1}, "finetune -1"),
    ],
)
def test_what_is_asked_is_checked_before_the_images_are_seen(model, arguments, message):
    def never():
        raise AssertionError("looked at the images")
        yield

    with pytest.raises(ValueError, match=message):
        fit_head(model, never(), **arguments)


def test_what_the_data_may_not_be(model):
    x, y = images(60, seed=1)
    holes = x.clone()
    holes[4, 0, 0, 0] = torch.nan
    bad = [
        ((x, torch.full((60,), 1)), "all 60 images are of one class, 'green'"),
        ((x, torch.where(y == 2, 0, y)), r"no images of 'blue' \(1 of 3 classes\)"),
        ((x, torch.where(y == 2, 7, y)), "label 7 stands for no class: there are 3"),
        ((x, y - 1), "label -1 stands for no class"),
        ((x, y.float()), "labels are float32"),
        ((x, y[:-1]), "60 images and 59 labels"),
        ([], "no images"),
        ([x], "expected batches"),
        (
            (torch.where(torch.arange(60)[:, None, None, None] == 4, torch.nan, x), y),
            "features of 1 of 60 images are not",
        ),
    ]
    for data, message in bad:
        with pytest.raises(ValueError, match=message):
            fit_head(model, data, "gap")
    with pytest.raises(ValueError, match="label 7"):
        fit_head(model, (x, y), "gap", validation=(x, torch.full((60,), 7)))


def test_stored_images_give_the_same_and_go_on_where_they_were(model, tmp_path):
    class Pictures:
        images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
        labels = np.arange(50) % 3

    rows = np.arange(3, 47)
    x = PREPROCESSING.normalise(torch.from_numpy(Pictures.images[rows]))
    expected = fit_head(model, (x, torch.from_numpy(Pictures.labels[rows])), "gap").head.state_dict()

    view = stored_view(Pictures(), PREPROCESSING, torch.device("cpu"))

    def data():
        return OnDisk(view, Pictures.labels, rows, "cpu", tmp_path / "kept", {"model": 1}, batch_size=64)

    torch.testing.assert_close(fit(model, data(), "gap").model.head.state_dict(), expected)
    files = sorted(path.name for path in (tmp_path / "kept").glob("*.npy"))
    assert len(files) == 1
    broken = copy.deepcopy(model)
    broken.features.forward = None  # what is kept is not made again
    torch.testing.assert_close(fit(broken, data(), "gap").model.head.state_dict(), expected)
    fit(model, data(), "gmp")  # another pool sees other numbers
    assert len(sorted((tmp_path / "kept").glob("*.npy"))) == 2


@pytest.mark.parametrize("spec", slow_but(CLOSED, "gap", "gem:p=learned", "fc"))
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_a_model_in_half_precision_stays_one(spec, dtype):
    model = classifier().to(dtype)
    x, y = images(200, seed=1)
    new = fit_head(model, (x.to(dtype), y), spec, "ridge")
    assert {p.dtype for p in new.parameters()} == {dtype}
    right = accuracy(new, (OTHER[0].to(dtype), OTHER[1]))
    assert right == pytest.approx(accuracy(fit_head(classifier(), (x, y), spec, "ridge")), abs=0.05)


def test_a_swapped_network_in_half_precision():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), gs.Head("gap", channels=8, classes=3)).to(torch.bfloat16)
    x, y = images(200, seed=1)
    new = fit_head(net, (x.to(torch.bfloat16), y), "gmp")
    assert {p.dtype for p in new.parameters()} == {torch.bfloat16}
    assert new(x[:2].to(torch.bfloat16)).shape == (2, 3)


@pytest.mark.parametrize("finetune", [0, 1])
def test_each_module_keeps_its_mode(finetune):
    model = classifier().train()
    model.features.block1.eval()  # frozen, as users do
    modes = [module.training for module in model.modules()]
    fit_head(model, images(100, seed=1), "gap", finetune=finetune)
    assert [module.training for module in model.modules()] == modes
    cost(model)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="Nin takes"):
        fit_head(model, (torch.zeros(4, 5, 16, 16), torch.arange(4) % 3), "gap")
    assert [module.training for module in model.modules()] == modes


def test_what_was_frozen_is_frozen_in_the_copy():
    model = classifier()
    model.features.block1.requires_grad_(False)
    new = fit_head(model, images(100, seed=1), "gap")
    assert {name for name, p in new.features.named_parameters() if not p.requires_grad} == {
        f"block1.{name}" for name, _ in model.features.block1.named_parameters()
    }
    assert all(p.requires_grad for p in new.head.parameters())


def test_a_generator_that_is_used_up(model):
    once = (batch for batch in [images(100, seed=1)])
    fit_head(model, once, "gap")
    with pytest.raises(ValueError, match=r"no images\. A generator is used up after one pass"):
        fit_head(model, once, "gap")


@pytest.mark.parametrize(("old", "new"), [("fc", "fc"), ("gap", "fc"), ("fc", None)])
@pytest.mark.parametrize("finetune", [0, 1])
def test_images_of_a_size_that_the_new_head_does_not_take(old, new, finetune):
    """Flattened maps of another size are other numbers, not fewer or more of the same."""
    x = torch.randn(30, 3, 24, 24)
    with pytest.raises(ValueError, match="head 'fc' was made for 4×4 feature maps and got 6×6"):
        fit_head(classifier(old), (x, torch.arange(30) % 3), new, finetune=finetune)


def test_images_of_different_sizes_are_seen_as_they_are(model):
    torch.manual_seed(0)
    several = [torch.rand(3, *size) for size in ((16, 16), (20, 12), (16, 16), (13, 17), (20, 12))]
    truth = torch.tensor([0, 1, 2, 0, 1])
    seen = []

    def make(given):
        seen.append(tuple(given.shape))
        return given.mean((2, 3))

    rows, labels = InMemory([(several, truth)], "cpu").rows("vectors", make, torch.float32)
    np.testing.assert_allclose(rows, torch.stack([image.mean((1, 2)) for image in several]).numpy(), rtol=1e-6)
    assert labels.tolist() == truth.tolist()
    assert sorted(seen) == [(1, 3, 13, 17), (2, 3, 16, 16), (2, 3, 20, 12)]
    with pytest.raises(ValueError, match="images of different sizes give maps of different sizes"):
        InMemory([(several, truth)], "cpu").rows("between", lambda given: given[:, :, ::2], torch.float16)
    with pytest.raises(ValueError, match="a tensor or a list of images"):
        InMemory([(["a.jpg"], truth[:1])], "cpu").rows("vectors", make, torch.float32)
    data, labels = images(300, seed=1)
    cut = [image if i % 2 else image[:, 1:] for i, image in enumerate(data)]
    assert accuracy(fit_head(model, [(cut, labels)], "gap")) > 0.8
