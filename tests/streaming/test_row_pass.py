"""Networks played on bands of rows give what they give for the whole image."""

import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.nets.registry import build
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_pass import RowStream, play_bands
from gapstone.streaming.row_recorder import record_rows
from tests.marks import slow_but

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")


def ours(name, head):
    features = build(name)
    return nn.Sequential(features, gs.Head(head, features.channels, 5))


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
    "inception_resnet_v1": lambda: ours("inception_resnet_v1", "gap"),
    "inception_resnet_v2": lambda: timm.create_model("inception_resnet_v2", num_classes=5),
    "nin": lambda: ours("nin", "gap"),
    "vgg16": lambda: ours("vgg16", "gmp"),
    "mobilenetv3_small_100": lambda: timm.create_model("mobilenetv3_small_100", num_classes=5),
    "regnety_002": lambda: timm.create_model("regnety_002", num_classes=5),
    "convnextv2_atto": lambda: timm.create_model("convnextv2_atto", num_classes=5),
    "resnet50_gn": lambda: timm.create_model("resnet50_gn", num_classes=5),
}
PASSES = {
    "efficientnet_b0": 17,
    "mobilenetv3_small_100": 10,
    "regnety_002": 14,
    "convnextv2_atto": 13,
    "resnet50_gn": 50,
}
"""Of networks with layers that need the whole image first."""
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
        play_bands(stream, image.split(rows, 2))
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
    assert whole.std() > 0  # else any answer that is alike would do
    for rows in (7, 32):
        found, passes = streamed(network, image, rows)
        assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()
        assert passes == PASSES.get(name, 1)


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
    ("band", "says"),
    [
        (torch.rand(1, 3, 40, 64), "the bands hold 40 rows: the image has 64"),
        (torch.rand(1, 3, 80, 64), "the bands hold more rows: the image has 64"),
        (torch.rand(1, 3, 64, 32), r"a band \(1, 3, 8, 32\) of an image .*expected \(1, 3, rows, 64\)"),
        (torch.rand(2, 3, 64, 64), "expected \\(1, 3, rows, 64\\)"),
        (torch.rand(1, 3, 64, 64).double(), "a band of torch.float64: the network was recorded for torch.float32"),
    ],
)
def test_bands_of_another_image_are_refused(band, says):
    stream = RowStream(record_rows(lively("resnet18"), 3, (64, 64)), torch.device("cpu"))
    with pytest.raises(StreamError, match=says):
        play_bands(stream, band.split(8, 2))
    assert stream.logits is None


def test_rows_of_a_map_are_heard_as_they_are_made():
    network, image, heard = lively("resnet18").double(), torch.rand(1, 3, 608, 32, dtype=torch.float64), []
    recording = record_rows(network, 3, (608, 32))
    (pool,) = recording.totals
    stream = RowStream(recording, image.device)
    play_bands(stream, image.split(32, 2), {pool.maps[0]: heard.append})
    with torch.no_grad():
        whole = nn.Sequential(*list(network.children())[:-2])(image)
    assert len(heard) > 1
    torch.testing.assert_close(torch.cat(heard, 2), whole, rtol=1e-12, atol=1e-12)
