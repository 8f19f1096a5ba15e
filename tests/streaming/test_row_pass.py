"""Networks played on bands of rows give what they give for the whole image."""

import pytest
import torch
from torch import nn

from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_pass import RowStream, play_bands
from gapstone.streaming.row_recorder import record_rows
from tests.marks import slow_but

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

NETS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=5),
    "googlenet": lambda: torchvision.models.googlenet(num_classes=5, aux_logits=False, init_weights=False),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=5),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5),
    "convnext_tiny": lambda: torchvision.models.convnext_tiny(num_classes=5),
    "tf_efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=5),
    "efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=5),
    "inception_v4": lambda: timm.create_model("inception_v4", num_classes=5),
}
SIZES = [(97, 83), (160, 96)]  # primes, and multiples of the strides


def lively(name):
    """A network whose batch norms have seen something, so that its answers are not all alike."""
    torch.manual_seed(0)
    network = NETS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def streamed(network, image, rows):
    """(the logits, how many times the image was read)."""
    recording = record_rows(network, image.shape[1], tuple(image.shape[2:]))
    stream, passes = RowStream(recording, image.device), 0
    while stream.logits is None:
        play_bands(stream, image.split(rows, 2), image.shape[2])
        passes += 1
        assert passes <= recording.passes
    return stream.logits, passes


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", slow_but(NETS, "resnet18", "googlenet", "tf_efficientnet_lite0"))
def test_logits_are_those_of_the_whole_image(name, size):
    network = lively(name).double()
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    for rows in (7, 32):
        found, passes = streamed(network, image, rows)
        assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()
        assert (passes > 1) == (name == "efficientnet_b0")  # squeeze-excite needs the whole image first


@pytest.mark.parametrize("size", [(1, 83), (83, 1), (5, 40), (31, 33)], ids=str)
def test_smaller_than_what_a_cell_sees(size):
    network, image = lively("resnet18").double(), torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    found, _ = streamed(network, image, 7)
    assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()


def test_in_single_precision():
    network, image = lively("resnet18"), torch.rand(1, 3, 131, 67)
    with torch.no_grad():
        whole = network(image)
    found, _ = streamed(network, image, 16)
    assert (found - whole).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.Upsample(scale_factor=2), "'1' \\(Upsample\\) cannot be streamed"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(9 * 9, 4), nn.Unflatten(2, (2, 2))), "cannot be streamed"),
    ],
)
def test_what_cannot_be_streamed_is_named(layer, says):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(StreamError, match=says):
        record_rows(network.eval(), 3, (9, 9))


def test_bands_of_another_height_are_refused():
    recording = record_rows(lively("resnet18"), 3, (64, 64))
    with pytest.raises(StreamError, match="the bands hold 40 rows, and the image was said to have 64"):
        play_bands(RowStream(recording, torch.device("cpu")), torch.rand(1, 3, 40, 64).split(8, 2), 64)
