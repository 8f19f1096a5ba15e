"""Networks without their heads: images in, feature maps out.

>>> features = build("nin", in_channels=1)
>>> features(torch.rand(8, 1, 28, 28)).shape
torch.Size([8, 64, 7, 7])
>>> features.channels, features.stride, features.smallest
(64, 4, 1)

To add a network: one page here, one line in the table of registry.py.
"""

from gapstone.nets.features import Features, TooManyParametersError, at_most, dry_run, images_at_once, map_size
from gapstone.nets.hub import check_pretrained
from gapstone.nets.in_timm import register_timm
from gapstone.nets.registry import NAMES, NETS, TIMM, build
from gapstone.nets.zoo import pretrained_input

__all__ = [
    "NAMES",
    "NETS",
    "TIMM",
    "Features",
    "TooManyParametersError",
    "at_most",
    "build",
    "check_pretrained",
    "dry_run",
    "images_at_once",
    "map_size",
    "pretrained_input",
    "register_timm",
]
