"""What models that people wrote may do: keep tensors of their own, ask for sizes, mix the images of a batch."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gapstone as gs
from gapstone.nets import build
from gapstone.ragged import Unsupported, mixed_sizes, plan
from gapstone.ragged.mixed_sizes import _answers
from gapstone.ragged.padded_batch import run
from tests.marks import slow_but
from tests.ragged.test_mixed_sizes import POOLED

SIZES = [(20, 24), (30, 28), (25, 33), (20, 24)]


def images(sizes: list[tuple[int, ...]] = SIZES, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(channels, *size, generator=generator, dtype=torch.float64) for size in sizes]


@torch.no_grad()
def alone(model: nn.Module, given: list[Tensor]) -> Tensor:
    return torch.cat([model.eval()(image[None]) for image in given])


class Own(nn.Module):
    """With tensors of its own; `way` says what it does with them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.conv, self.maps = way, nn.Conv2d(3, 4, 3, padding=1), None
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("shift", torch.rand(1, 4, 1, 1))
        self.register_buffer("pattern", torch.rand(1, 4, 9, 9))
        self.register_buffer("scratch", torch.rand(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "mean.to(x)":
            x = x - self.mean.to(x)
        x = F.relu(self.conv(x))
        if self.way == "x.to(mean)":
            x = F.max_pool2d(x.to(self.mean), 3, 2, 1)
        if self.way == "type_as":
            x = x + self.shift.type_as(x)
        if self.way == "kept":
            self.maps = x
        out = x.mean((2, 3))
        if self.way == "pattern":  # its positions are none of an image
            out = out + F.avg_pool2d(self.pattern.to(x), 3, 1, 1).mean((2, 3))
        return out


@pytest.mark.parametrize("way", ["mean.to(x)", "x.to(mean)", "type_as", "kept", "pattern"])
def test_the_models_own_tensors_stay_its_own(way):
    model, given = Own(way).double().eval(), images()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = mixed_sizes(model, given, how="masked")
    for tensor in (*model.parameters(), *model.buffers(), *([model.maps] if way == "kept" else [])):
        assert not vars(tensor)  # nothing hangs on it
    torch.testing.assert_close(mixed_sizes(copy.deepcopy(model), given, how="masked"), found)
    pickle.loads(pickle.dumps(model))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    torch.testing.assert_close(found, alone(model, given), rtol=1e-12, atol=1e-12)


def test_nothing_hangs_on_maps_after_an_error():
    class Failing(Own):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise KeyError("mine")

    model = Failing("kept").double().eval()
    with pytest.raises(KeyError, match="mine"):
        run(model, images())
    assert not vars(model.maps)


def test_results_into_the_models_own_tensors_are_refused():
    class Into(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = torch.zeros(2, 3, 1, 1, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(x, 3, 3)  # a single cell of each
            return self.own.add_(x).mean((2, 3))

    model = Into()
    with pytest.raises(Unsupported, match="add_ into a tensor that was there before"):
        run(model, images([(3, 4), (4, 5)]))
    assert not vars(model.own)


def test_weights_made_of_the_images_are_refused():
    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, x[:, :, :3, :3]).mean((2, 3))

    with pytest.raises(Unsupported, match=r"conv2d .* with weights made of the images"):
        run(Dynamic(), images())


class Sized(nn.Module):
    """Another way from some size on; `way` says of what and how it is asked for."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.conv, self.wide = way, nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 256, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        large = {
            "width": lambda: x.shape[-1] > 96,
            "height": lambda: x.size(-2) > 96,
            "area": lambda: x.size()[2:].numel() > 96 * 96,
            "numbers": lambda: x[:, :1].numel() / len(x) > 96 * 96,
            "both": lambda: min(x.shape[2:]) > 96,
        }[self.way]()
        x = F.avg_pool2d(x, 2) if large else x
        return F.relu(self.wide(x)).mean((2, 3))


@pytest.mark.parametrize("way", slow_but(["width", "height", "area", "numbers", "both"], "both"))
def test_code_that_goes_another_way_for_large_images(way):
    model = Sized(way).double()
    small = images([(40, 41), (60, 62), (70, 50)])
    torch.testing.assert_close(mixed_sizes(model, small, how="masked"), alone(model, small), rtol=1e-9, atol=1e-9)
    given = images([(40, 41), (60, 62), (98, 97), (300, 50), (50, 300), (130, 110)])
    if way == "width":  # only the narrowest, 300×50, is on the other side of 96; the smallest, 98×97, is not
        given = [given[2], given[3], given[5]]
    with pytest.raises(Unsupported, match="answered differently padded and alone"):
        mixed_sizes(model, given, how="masked")
    model = Sized(way).double()
    mixed_sizes(model, small)
    many = [*given, *images([(33 + k, 130 - k) for k in range(40)])]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = mixed_sizes(model, many)
    torch.testing.assert_close(found, alone(model, many), rtol=1e-9, atol=1e-9)
    # a plan that joins nothing across 96 has nothing to warn of
    assert all("one by one" in str(one.message) for one in seen)


def test_a_model_found_out_goes_by_size_from_then_on():
    class Low(Sized):
        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(x, 2).amax((2, 3)) if x.shape[-1] > 96 else x.amax((2, 3))

    model = Low("width").double()
    assert not plan(model, images()).refused
    given = images([(90 + k, 92 + k) for k in range(9)])
    with pytest.raises(Unsupported):
        mixed_sizes(model, given, how="masked")
    assert not plan(model, given).refused  # "masked" was asked for, and said no: nothing is held against it
    with pytest.warns(UserWarning, match="9 images go one by one.*answered differently"):
        found = _answers(model, given, "auto")
    assert torch.equal(torch.stack(found), alone(model, given))
    assert plan(model, given).refused


def test_only_questions_about_sizes_count():
    class Asking(nn.Module):
        ask = staticmethod(lambda x: None)

        def forward(self, x: Tensor) -> Tensor:
            self.ask(x)
            return x.mean((2, 3))

    model = Asking()
    for ask, counts in {
        (lambda x: x.shape): True,
        (lambda x: x.size()): True,
        (lambda x: x.size(-1)): True,
        (lambda x: x.size(dim=2)): True,
        (lambda x: x.numel()): True,
        (lambda x: (x.dim(), x.ndim, x.size(0), x.size(1), len(x), x.dtype, x.device, x.is_contiguous())): False,
        (lambda x: x.mean((2, 3)).shape): False,
    }.items():
        model.ask = ask
        assert run(model, images())[1].reads is counts


@pytest.mark.parametrize("spec", [*POOLED, "fc:grid=3"])
def test_gapstones_own_need_no_check_of_each_batch(spec):
    features = build("nin")
    model = nn.Sequential(features, gs.Head(spec, features.channels, 3)).double().eval()
    assert not run(model, images())[1].reads


@pytest.mark.parametrize("how", ["auto", "buckets"])
@pytest.mark.parametrize("sizes", [SIZES, [(16, 16)] * 3])
def test_batch_norm_without_statistics_sees_one_image(how, sizes):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), gs.Pool("mean")).double().eval()
    given = [image * (k + 1) + k for k, image in enumerate(images(sizes))]
    with pytest.warns(UserWarning, match="batch norm without running statistics"):
        found = mixed_sizes(model, given, how)
    assert torch.equal(found, alone(model, given))
    with pytest.raises(Unsupported, match="batch norm without running statistics"):
        mixed_sizes(model, given, "masked")


def test_images_that_require_a_gradient():
    model, given = Own("mean.to(x)").double(), [image.requires_grad_() for image in images()]
    found = mixed_sizes(model, given, how="masked")
    assert not found.requires_grad
    torch.testing.assert_close(found, alone(model, given), rtol=1e-12, atol=1e-12)


def test_a_batch_as_one_tensor_is_a_list_of_images():
    model, batch = Own("").double(), torch.rand(4, 3, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(mixed_sizes(model, batch), alone(model, list(batch)))


X = torch.rand(3, 8, 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([torch.tensor(1.0)], r"tensors \(C, H, W\) of numbers.*torch.float32 \(\)"),
        ([X, torch.tensor(1.0)], r"torch.float32 \(\)"),
        ((image for image in [X, X]), "a list of tensors.*got a generator"),
        (torch.rand(8, 8), r"a list of tensors.*got a tensor \(8, 8\)"),
        ([X, X.double()], r"of one type.*float32 \(3, 8, 8\) on cpu and torch.float64 \(3, 8, 8\) on cpu"),
        ([X, X.to("meta")], "on one device.*on cpu and .* on meta"),
        ([X, X[:2]], r"as many channels.*\(3, 8, 8\) on cpu and torch.float32 \(2, 8, 8\)"),
        ([X, X.byte()], "torch.uint8"),
        ([X, X.numpy()], "got a ndarray"),
    ],
)
def test_images_that_are_none_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        mixed_sizes(Own(""), given)
