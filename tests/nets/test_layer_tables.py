"""The sizes in the papers' tables and figures, layer by layer, on shapes alone."""

import pytest
import torch

from gapstone.nets import build

# channels, height, width after a module, for images of `side`
TABLES = {
    # arXiv 1409.4842, table 1
    "googlenet": (
        224,
        {
            "conv1": (64, 112, 112),
            "maxpool1": (64, 56, 56),
            "conv3": (192, 56, 56),
            "maxpool2": (192, 28, 28),
            "inception3a": (256, 28, 28),
            "inception3b": (480, 28, 28),
            "maxpool3": (480, 14, 14),
            "inception4a": (512, 14, 14),
            "inception4b": (512, 14, 14),
            "inception4c": (512, 14, 14),
            "inception4d": (528, 14, 14),
            "inception4e": (832, 14, 14),
            "maxpool4": (832, 7, 7),
            "inception5a": (832, 7, 7),
            "inception5b": (1024, 7, 7),
        },
    ),
    # arXiv 1602.07261, figures 3 and 9
    "inception_v4": (
        299,
        {
            "features.0": (32, 149, 149),
            "features.1": (32, 147, 147),
            "features.2": (64, 147, 147),
            "features.3": (160, 73, 73),
            "features.4": (192, 71, 71),
            "features.5": (384, 35, 35),
            "features.9": (384, 35, 35),
            "features.10": (1024, 17, 17),
            "features.17": (1024, 17, 17),
            "features.18": (1536, 8, 8),
            "features.21": (1536, 8, 8),
        },
    ),
    # arXiv 1602.07261, figures 14 and 15
    "inception_resnet_v1": (
        299,
        {
            "conv2d_1a": (32, 149, 149),
            "conv2d_2a": (32, 147, 147),
            "conv2d_2b": (64, 147, 147),
            "maxpool_3a": (64, 73, 73),
            "conv2d_3b": (80, 73, 73),
            "conv2d_4a": (192, 71, 71),
            "conv2d_4b": (256, 35, 35),
            "repeat_1": (256, 35, 35),
            "mixed_6a": (896, 17, 17),
            "repeat_2": (896, 17, 17),
            "mixed_7a": (1792, 8, 8),
            "block8": (1792, 8, 8),
        },
    ),
    # the authors' nin_imagenet for Caffe
    "nin:imagenet": (
        224,
        {
            "block1": (96, 54, 54),
            "pool1": (96, 27, 27),
            "block2": (256, 27, 27),
            "pool2": (256, 13, 13),
            "block3": (384, 13, 13),
            "pool3": (384, 6, 6),
            "block4": (1024, 6, 6),
        },
    ),
    # arXiv 1512.03385, table 1
    "resnet34": (
        224,
        {
            "conv1": (64, 112, 112),
            "layer1": (64, 56, 56),
            "layer2": (128, 28, 28),
            "layer3": (256, 14, 14),
            "layer4": (512, 7, 7),
        },
    ),
    "resnet101": (
        224,
        {
            "conv1": (64, 112, 112),
            "layer1": (256, 56, 56),
            "layer2": (512, 28, 28),
            "layer3": (1024, 14, 14),
            "layer4": (2048, 7, 7),
        },
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_sizes(name: str) -> None:
    side, table = TABLES[name]
    with torch.device("meta"):
        features = build(name)
    found: dict[str, tuple[int, ...]] = {}
    for path in table:
        features.get_submodule(path).register_forward_hook(
            lambda _m, _given, maps, path=path: found.__setitem__(path, tuple(maps.shape[1:]))
        )
    maps = features(torch.empty(2, 3, side, side, device="meta"))
    assert found == table
    assert tuple(maps.shape[1:]) == list(table.values())[-1]


@pytest.mark.parametrize(
    ("name", "head", "total"),
    [
        ("vgg11", 123_642_856, 132_863_336),
        ("vgg13", 123_642_856, 133_047_848),
        ("vgg16", 123_642_856, 138_357_544),
        ("vgg19", 123_642_856, 143_667_240),
        ("resnet34", 513_000, 21_797_672),
        ("resnet101", 2_049_000, 44_549_160),
        ("googlenet", 1_025_000, 6_624_904),
        ("inception_v4", 1_537_000, 42_679_816),
        ("nin:imagenet", 1_025_000, 7_595_176),
    ],
)
def test_the_published_totals_with_a_head_of_1000_classes(name: str, head: int, total: int) -> None:
    from gapstone.heads import Head

    spec = "fc:4096,4096:dropout=0.5" if name.startswith("vgg") else "nin" if name.startswith("nin") else "gap"
    with torch.device("meta"):
        features = build(name)
        made = Head(spec, features.channels, 1000, (7, 7))
    assert sum(p.numel() for p in made.parameters()) == head
    assert sum(p.numel() for p in features.parameters()) + head == total


def test_googlenet_with_its_auxiliary_heads_has_torchvisions_total() -> None:
    from gapstone.nets.googlenet import Auxiliary, GoogLeNet

    with torch.device("meta"):
        parts = [GoogLeNet(), Auxiliary(512, 1000), Auxiliary(528, 1000)]
    assert sum(p.numel() for part in parts for p in part.parameters()) + 1_025_000 == 13_004_888
