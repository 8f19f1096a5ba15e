"""`gs.stream` gives what the network and `gs.explain` give for the whole image."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gapstone as gs
from gapstone.any_size import kept_maps, stream_image
from gapstone.any_size import plan_bands as planning
from gapstone.any_size import self_check as checking
from gapstone.any_size.plan_bands import MOST_ROWS, parse_bytes, plan_bands, played_bytes
from gapstone.any_size.self_check import alike, self_check
from gapstone.any_size.thumbnail import Thumbnail
from gapstone.huge_images.open_huge_image import open_huge_image
from gapstone.images.intensity_range import Ranges
from gapstone.images.load import ImageError, convert
from gapstone.images.preprocessing import Preprocessing
from gapstone.streaming.row_layout import StreamError
from gapstone.streaming.row_recorder import record_rows
from tests.marks import slow_but

tifffile = pytest.importorskip("tifffile")
torchvision = pytest.importorskip("torchvision")
HEADS = ("gap", "gmp", "gem", "gem:p=learned", "lse", "avgmax", "catavgmax", "nin", "gap:16", "fc:grid=1")
SMALL = Preprocessing(3, (32, 32), (32, 32), (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    """Of images as small as these bands would hold all rows."""
    monkeypatch.setattr(planning, "PIXELS", 2048)


def classifier(head="gap", backbone="resnet18", channels=3, **more):
    torch.manual_seed(0)
    preprocessing = SMALL if channels == 3 else Preprocessing(1, (32, 32), (32, 32), (0.5,), (0.25,))
    model = gs.Classifier(backbone, head, ("cat", "dog", "fox"), preprocessing, **more).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def noise(height, width, channels=3, seed=0):
    """Not white: maps of it differ from place to place."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (-(-height // 16), -(-width // 16), channels), np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]


def whole(model, pixels, **options):
    x = model.preprocessing.normalise(torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None])
    return gs.explain(model, x, **options)


def check_same(streamed, explained):
    scale = explained.logits.abs().max()
    assert (streamed.logits - explained.logits).abs().max() <= 1e-5 * scale
    found = streamed.explanation
    assert torch.equal(found.classes, explained.classes)
    torch.testing.assert_close(found.maps, explained.maps, atol=float(1e-5 * scale), rtol=1e-3)
    torch.testing.assert_close(found.mean_map, explained.mean_map, atol=float(1e-5 * scale), rtol=1e-3)
    bias = explained.bias.expand_as(explained.logits)
    torch.testing.assert_close(found.bias.expand_as(bias), bias, atol=float(1e-5 * scale), rtol=1e-3)
    assert (found.additive, found.held, found.placement) == (explained.additive, explained.held, explained.placement)


@pytest.mark.parametrize("head", slow_but(HEADS, "gap", "gmp", "gem", "catavgmax", "nin"))
def test_maps_are_those_of_the_whole_image(head):
    model, pixels = classifier(head), noise(131, 203)
    streamed = gs.stream(model, pixels, top_k=3, progress=False)
    assert streamed.rows == 16
    check_same(streamed, whole(model, pixels, top_k=3))
    assert list(streamed.answers) == [model.labels[k] for k in streamed.logits[0].argsort(descending=True)]
    assert streamed.error < 1e-5


@pytest.mark.parametrize("name", slow_but(["nin", "googlenet", "vgg16", "timm:efficientnet_b0"], "nin"))
def test_other_backbones(name):
    model, pixels = classifier("gap", name), noise(150, 97)
    streamed = gs.stream(model, pixels, ["dog", "cat"], progress=False)
    check_same(streamed, whole(model, pixels, classes=["dog", "cat"]))
    assert streamed.passes == (17 if "b0" in name else 1)


def test_a_module_of_anybodys():
    torch.manual_seed(0)
    network, image = torchvision.models.resnet18(num_classes=10).eval(), torch.rand(3, 101, 67)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    streamed = gs.stream(network, image, labels=[f"c{k}" for k in range(10)], progress=False)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    check_same(streamed, gs.explain(network, image[None], top_k=5))
    assert streamed.explanation.labels[3] == "c3"
    assert streamed.picture is None
    with pytest.raises(ValueError, match="given normalised"):
        streamed.sheet()
    picture = noise(101, 67)
    assert streamed.sheet(picture=picture).width > 300
    alone = gs.stream(network, image[None], maps=False, progress=False)
    assert torch.equal(alone.logits, streamed.logits)
    with pytest.raises(ValueError, match=r"they were not asked for \(maps=False\)"):
        _ = alone.maps
    double = gs.stream(network.double(), image, progress=False)
    assert double.logits.dtype == torch.float64
    assert double.error < 1e-12


@pytest.mark.parametrize("asked", [{"classes": ["fox", "cat"]}, {"top_k": 2}, {"classes": [[2]]}], ids=str)
@pytest.mark.parametrize("few", [64, 2], ids=["all at once", "a pass more"])
def test_in_less_memory_than_the_map(monkeypatch, asked, few):
    """Of heads that are linear in a mean, what is asked for is made of the map's rows as they pass."""
    monkeypatch.setattr(kept_maps, "FEW", few)
    monkeypatch.setattr(kept_maps.KeptMap, "bytes", 10**12)
    model, pixels = classifier(), noise(131, 203)
    streamed = gs.stream(model, pixels, **asked, progress=False)
    check_same(streamed, whole(model, pixels, **asked))
    assert streamed.passes == (2 if few == 2 and "top_k" in asked else 1)
    check_same(
        gs.stream(classifier("nin"), pixels, top_k=3, memory="3TB", progress=False),
        whole(classifier("nin"), pixels, top_k=3),
    )
    for head in ("gmp", "gap:16"):
        with pytest.raises(StreamError, match=r"too little .* give as much, or maps=False"):
            gs.stream(classifier(head), pixels, **asked, progress=False)


@pytest.mark.parametrize("head", ["attention:queries=2", "fc:grid=3"])
def test_heads_that_take_the_whole_map_at_once(head):
    """The backbone is streamed; the head is given the map."""
    model, pixels = classifier(head), noise(131, 203)
    explained = whole(model, pixels, top_k=3)
    streamed = gs.stream(model, pixels, progress=False)
    check_same(streamed, explained)
    alone = gs.stream(model, pixels, maps=False, progress=False)
    assert torch.equal(alone.logits, streamed.logits)
    assert alone.explanation is None
    with pytest.raises(StreamError, match=r"too little .* give as much$"):
        gs.stream(model, pixels, memory="2MB", maps=False, progress=False)


def test_of_several_labels(monkeypatch):
    model, pixels = classifier(multi_label=True), noise(80, 70)
    explained = whole(model, pixels, top_k=2)
    for kept in (0, 10**12):
        monkeypatch.setattr(kept_maps.KeptMap, "bytes", kept)
        streamed = gs.stream(model, pixels, top_k=2, progress=False)
        check_same(streamed, explained)
        torch.testing.assert_close(streamed.probabilities, explained.probabilities)
        assert streamed.explanation.multi_label
        assert streamed.multi_label
    alone = gs.stream(model, pixels, maps=False, progress=False)
    torch.testing.assert_close(alone.probabilities, explained.probabilities)


def test_a_wrong_class_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(stream_image, "play_bands", None)
    with pytest.raises(ValueError, match="there is no class 'cats'; did you mean cat"):
        gs.stream(classifier(), noise(80, 70), ["cats"], progress=False)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.LogSigmoid()], ids=str)
def test_what_a_network_ends_in(end):
    torch.manual_seed(0)
    network, image = nn.Sequential(UsersGem(), end), torch.rand(3, 60, 50)
    explained = gs.explain(network, image[None], top_k=3)
    streamed, alone = (gs.stream(network, image, top_k=3, maps=maps, progress=False) for maps in (True, False))
    for one in (streamed, alone):
        torch.testing.assert_close(one.logits, network(image[None]).detach())
        torch.testing.assert_close(one.probabilities, explained.probabilities)
    assert streamed.explanation.end == explained.end
    torch.testing.assert_close(streamed.maps, explained.maps, atol=1e-5, rtol=1e-4)


class TwoMaps(nn.Module):
    """Whose logits come from two maps: no one explains them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(8, 2)

    def forward(self, x):
        first = self.first(x).relu()
        return self.out(torch.cat([first.mean((2, 3)), self.second(first).mean((2, 3))], 1))


class UsersGem(nn.Module):
    """A generalised mean in torch's own words."""

    def __init__(self):
        super().__init__()
        self.body, self.out = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.body(x).clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3))


def test_logits_without_maps_and_a_pool_of_the_users_own():
    torch.manual_seed(0)
    image = torch.rand(3, 60, 50)
    streamed = gs.stream(TwoMaps(), image, progress=False)
    assert streamed.explanation is None
    with pytest.raises(ValueError, match="there are no maps: its logits come from no one map"):
        _ = streamed.maps
    assert "no maps" in repr(streamed)
    network = UsersGem()
    check_same(gs.stream(network, image, progress=False), gs.explain(network, image[None], top_k=3))


@pytest.mark.parametrize(
    "pixels", [noise(90, 70), noise(90, 70, 1), noise(90, 70, 1)[:, :, 0]], ids=["rgb", "1", "gray"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_colour(pixels, channels):
    model = classifier(channels=channels)
    shown = pixels if pixels.ndim == 3 else pixels[:, :, None]
    check_same(gs.stream(model, pixels, progress=False, top_k=2), whole(model, convert(shown, channels), top_k=2))


def test_files(tmp_path):
    """A pyramid, a level by its µm, and the same from an open image."""
    model, pixels = classifier(), noise(300, 260)
    coarse = pixels[::2, ::2]
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "resolutionunit": "CENTIMETER"}
        file.write(pixels, subifds=1, resolution=(40000, 40000), **options)
        file.write(coarse, subfiletype=1, resolution=(20000, 20000), **options)
    finest = gs.stream(model, path, top_k=3, progress=False)
    check_same(finest, whole(model, pixels, top_k=3))
    assert finest.size == (300, 260)
    assert np.array_equal(finest.picture, pixels)
    for options in ({"level": 1}, {"level_um": 0.5}):
        check_same(gs.stream(model, str(path), top_k=3, progress=False, **options), whole(model, coarse, top_k=3))
    with pytest.raises(ValueError, match=r"level_um=0.3: .* has the levels \(µm per px\) 0 \(0.25\), 1 \(0.5\); take"):
        gs.stream(model, path, level_um=0.3, progress=False)
    with pytest.raises(ValueError, match=r"level=2: .* has 2 levels, from 0"):
        gs.stream(model, path, level=2, progress=False)
    with pytest.raises(ValueError, match="not both"):
        gs.stream(model, path, level=1, level_um=0.5, progress=False)


def test_a_damaged_part_is_said(tmp_path):
    model, path = classifier(), tmp_path / "x.tif"
    tifffile.imwrite(path, noise(256, 256), tile=(128, 128), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].dataoffsets[1]
    content = bytearray(path.read_bytes())
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="cannot be decoded"):
        streamed = gs.stream(model, path, progress=False)
    assert any("1 part of" in note and "row 0, column 128" in note for note in streamed.notes)


def test_values_of_more_than_8_bits(tmp_path):
    deep = noise(80, 90).astype(np.uint16) * 257
    with pytest.raises(ImageError, match="the array: it has uint16 values, and which of them are black and white"):
        gs.stream(classifier(), deep, progress=False)


class Refused(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.out = nn.Upsample(scale_factor=2, mode="bilinear"), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.up(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "image", "options", "error", "says"),
    [
        (Refused, torch.rand(3, 40, 40), {}, StreamError, r"'up' \(Upsample\) cannot be streamed"),
        (Refused, np.zeros((40, 40, 3), np.uint8), {}, TypeError, "an nn.Module does not say how its"),
        (Refused, torch.rand(2, 3, 40, 40), {}, ValueError, r"one image \(C, H, W\) or \(1, C, H, W\)"),
        (UsersGem, torch.rand(3, 40, 40), {"memory": "1MB"}, StreamError, "1.0 MB are too little .*about .*maps=False"),
        (UsersGem, torch.rand(3, 40, 40), {"memory": "much"}, ValueError, "expected a number of bytes, or a size such"),
        (UsersGem, torch.rand(3, 40, 40), {"level": 1}, ValueError, "of files with several resolutions"),
        (UsersGem, torch.rand(3, 40, 40), {"classes": [7]}, ValueError, "there is no class 7"),
        (classifier, np.zeros((40, 40, 3, 1), np.uint8), {}, ValueError, r"one image \(H, W\) or \(H, W, C\)"),
        (classifier, np.zeros((40, 40, 5), np.uint8), {}, ImageError, "5 channels"),
        (classifier, [1, 2], {}, TypeError, "not a list"),
        (classifier, "nowhere.tif", {}, FileNotFoundError, "nowhere.tif"),
        (lambda: classifier("fc"), np.zeros((90, 90, 3), np.uint8), {}, ValueError, "takes no others"),
        (lambda: classifier("gap", "vgg11"), noise(20, 40), {}, ValueError, "are too few: .* at least 32 a side"),
        (lambda: 3, torch.rand(3, 40, 40), {}, TypeError, "stream takes a model, and got a int"),
    ],
)  # fmt: skip
def test_what_is_refused(model, image, options, error, says):
    with pytest.raises(error, match=says):
        gs.stream(model(), image, progress=False, **options)


def test_a_network_that_differs_is_noticed(monkeypatch):
    """A rule that were wrong would show in the small image, before the work."""
    network = UsersGem()
    assert self_check(network, 3, (1000, 1000), 2, torch.device("cpu")) < 1e-6
    play = checking.play_bands
    monkeypatch.setattr(checking, "play_bands", lambda stream, bands: play(stream, (band * 1.01 for band in bands)))
    with pytest.raises(StreamError, match=r"UsersGem, row by row, differs from itself .* by .*which is no rounding"):
        self_check(network, 3, (1000, 1000), 2, torch.device("cpu"))
    with pytest.raises(StreamError, match="differs"):
        gs.stream(network, torch.rand(3, 50, 50), progress=False)
    gs.stream(network, torch.rand(3, 50, 50), progress=False, check=False)


@pytest.mark.parametrize(("side", "stride"), [(16384, 32), (10001, 32), (50, 32), (97, 64), (160, 64), (12345, 16)])
def test_the_small_image_leaves_the_same_remainder(side, stride):
    small = alike(side, 96, stride)
    assert small % stride == side % stride
    assert small <= min(side, 96 + stride)
    assert small >= min(side, 96)


def test_a_network_that_takes_no_small_image():
    network = torchvision.models.inception_v3(num_classes=3, init_weights=False, aux_logits=False).eval()
    assert self_check(network, 3, (331, 299), 32, torch.device("cpu")) < 1e-4


def test_more_memory_takes_more_rows(monkeypatch):
    monkeypatch.setattr(planning, "PIXELS", 1 << 19)
    recording = record_rows(torchvision.models.resnet18(num_classes=5), 3, (4096, 512))
    held = lambda rows: 0  # noqa: E731
    plans = [plan_bands(recording, parse_bytes(f"{size}MB"), held) for size in (120, 160, 400, 4000)]
    assert [plan.rows for plan in plans] == sorted(plan.rows for plan in plans)
    assert plans[0].rows < plans[-1].rows == MOST_ROWS
    assert all(plan.bytes <= size * 10**6 for plan, size in zip(plans, (120, 160, 400, 4000), strict=True))
    for plan, size in zip(plans[:-1], (120, 160, 400), strict=True):
        more = planning.SPARE + played_bytes(recording, 2 * plan.rows)
        assert more > size * 10**6 or plan.rows == planning.PIXELS // 512
    assert played_bytes(recording, 64) > 1.5 * played_bytes(recording, 32) - 64 * 512 * 64


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize("size", [(40, 30), (2100, 37), (5, 3000)], ids=str)
def test_the_small_picture_is_the_mean_of_squares(size, rows):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    small = Thumbnail(size, 3)
    for top in range(0, size[0], rows):
        small.add(pixels[top : top + rows])
    factor = -(-max(size) // 1024)
    expected = [
        [pixels[y : y + factor, x : x + factor].mean((0, 1)) for x in range(0, size[1], factor)]
        for y in range(0, size[0], factor)
    ]
    assert np.abs(small.pixels - np.array(expected)).max() <= 0.5


def test_what_is_shown():
    model = classifier()
    streamed = gs.stream(model, noise(131, 203), progress=False)
    assert repr(streamed).startswith("Streamed(131×203 px, ")
    assert "maps 5×7" in repr(streamed)
    assert "<img" in streamed._repr_html_()
    evidence = streamed.evidence()
    assert evidence[0].label == next(iter(streamed.answers))
    assert evidence[0].size == (131, 203)
    assert streamed.sheet().width > streamed.sheet(classes=1).width


@pytest.mark.parametrize("channels", [1, 5])
def test_files_of_more_than_8_bits_are_seen_on_the_models_range(channels, tmp_path):
    """Decoded whole or piece by piece: a guess from the picture alone would be another answer, without an error."""
    ranges = Ranges(integers=(0, 4095)) if channels == 1 else Ranges(integers=((0, 4095),) * 5)
    seen = Preprocessing(channels, (32, 32), (32, 32), (0.5,) * channels, (0.25,) * channels, ranges)
    torch.manual_seed(0)
    model = gs.Classifier("resnet18", "gap", ("cat", "dog"), seen).eval()
    values = np.random.default_rng(0).integers(300, 900, (70, 60, channels)).astype(np.uint16)  # dim
    expected = gs.stream(model, values, progress=False)
    plain = {"photometric": "minisblack"}
    np.save(tmp_path / "a.npy", values)
    tifffile.imwrite(tmp_path / "a.tif", values if channels > 1 else values[..., 0], planarconfig="contig", **plain)
    if channels == 1:
        Image.fromarray(values[..., 0]).save(tmp_path / "a.png")
    else:
        tifffile.imwrite(tmp_path / "pages.tif", values, **plain)  # 70 of 60×5 px
        tifffile.imwrite(tmp_path / "stack.ome.tif", values.transpose(2, 0, 1), metadata={"axes": "CYX"}, **plain)
    for path in sorted(tmp_path.iterdir()):
        assert torch.equal(gs.stream(model, path, progress=False).logits, expected.logits), path
        with open_huge_image(path) as opened:
            assert torch.equal(gs.stream(model, opened, progress=False).logits, expected.logits), path
    assert pickle.loads(pickle.dumps(open_huge_image(tmp_path / "a.npy", ranges))).ranges == ranges
    tifffile.imwrite(tmp_path / "other.tif", values[..., [0, 0]], planarconfig="contig", **plain)
    with pytest.raises(ImageError, match=f"it has 2 channels, and the model takes images of {channels}: give it"):
        gs.stream(model, tmp_path / "other.tif", progress=False)
