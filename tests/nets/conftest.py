"""Which networks `make test` builds."""

from pathlib import Path

import pytest

LARGE = {
    "vgg13", "vgg16", "vgg19", "vgg13_bn", "vgg16_bn", "vgg19_bn", "resnet34", "resnet50", "resnet50:small",
    "resnet101", "inception_v4", "inception_resnet_v1", "densenet121", "inception_v3", "dla34", "mambaout_femto",
    "regnety_002",
    "swin_tiny_patch4_window7_224", "efficientnet_b0",
}  # fmt: skip
"""Seconds each to build and run. Others of their kind are quick; so are these networks' tables of layers."""
SHAPES_ONLY = {"test_layer_tables.py", "test_in_timm.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in (item for item in items if item.path.parent == Path(__file__).parent):
        asked = getattr(getattr(item, "callspec", None), "params", {})
        if asked.get("name") in LARGE and item.path.name not in SHAPES_ONLY:
            item.add_marker(pytest.mark.slow)
