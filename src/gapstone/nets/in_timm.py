"""The networks that timm lacks, as timm's models: `timm.create_model("gapstone_googlenet", num_classes=10)`."""

import sys
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from gapstone.nets.features import Features
from gapstone.nets.registry import build

Level = tuple[str, int, int]
"""The module that ends a level of detail, its channels, and its stride."""


@dataclass(frozen=True)
class Entry:
    net: str
    """As `gapstone.nets.build` knows it."""
    side: int
    """Of the images it was made for."""
    first: str
    """The first convolution."""
    levels: tuple[Level, ...]


ENTRIES = {
    "gapstone_nin": Entry("nin", 32, "block1.0", (("block1", 16, 1), ("block2", 32, 2), ("block3", 64, 4))),
    "gapstone_nin_paper": Entry(
        "nin:paper", 32, "block1.0", (("block1", 96, 1), ("block2", 192, 2), ("block3", 192, 4))
    ),
    "gapstone_nin_imagenet": Entry(
        "nin:imagenet", 224, "block1.0",
        (("block1", 96, 4), ("block2", 256, 8), ("block3", 384, 16), ("block4", 1024, 32)),
    ),
    "gapstone_googlenet": Entry(
        "googlenet", 224, "conv1.conv",
        (("conv1", 64, 2), ("conv3", 192, 4), ("inception3b", 480, 8), ("inception4e", 832, 16),
         ("inception5b", 1024, 32)),
    ),
    "gapstone_inception_resnet_v1": Entry(
        "inception_resnet_v1", 299, "conv2d_1a.conv",
        (("conv2d_2b", 64, 2), ("conv2d_4a", 192, 4), ("repeat_1", 256, 8), ("repeat_2", 896, 16),
         ("block8", 1792, 32)),
    ),
}  # fmt: skip
default_cfgs: dict[str, dict[str, Any]] = {}
"""Where timm's `register_model` looks for them: in the module of what is registered."""


def register_timm() -> list[str]:
    """Make the networks that timm lacks known to it; the names it now knows them by. Calling it again changes nothing.

        >>> gapstone.nets.register_timm()
        ['gapstone_nin', 'gapstone_nin_paper', 'gapstone_nin_imagenet', 'gapstone_googlenet', …]
        >>> timm.create_model("gapstone_googlenet", num_classes=10, in_chans=1, global_pool="catavgmax", drop_rate=0.2)

    There are no weights: `pretrained=True` is an error. Raises ImportError without timm.
    """
    try:
        import timm
        from timm.models import register_model
    except ImportError as error:
        raise ImportError(
            f"register_timm() needs timm: pip install 'gapstone[zoo]' (here: {error}); gapstone.nets.build() does not"
        ) from error
    for name, entry in ENTRIES.items():
        if not timm.is_model(name):
            default_cfgs[name] = {
                "url": "",
                "num_classes": 1000,
                "input_size": (3, entry.side, entry.side),
                "pool_size": None,
                "crop_pct": 0.875,
                "interpolation": "bicubic",
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "first_conv": f"features.{entry.first}",
                "classifier": "fc",
            }
            register_model(_entrypoint(name))
    return list(ENTRIES)


def _entrypoint(name: str) -> Any:
    def make(pretrained: bool = False, **given: Any) -> nn.Module:
        from timm.models import build_model_with_cfg

        # A file of one's own (pretrained_cfg_overlay={"file": …}) is timm's to load.
        if pretrained and not (given.get("pretrained_cfg") or given.get("pretrained_cfg_overlay")):
            raise ValueError(
                f"create_model({name!r}, pretrained=True): nobody has published weights for it; take pretrained=False, "
                f"or your own with checkpoint_path="
            )
        hooks = {"feature_cls": "hook", "no_rewrite": True, "out_indices": tuple(range(len(ENTRIES[name].levels)))}
        model: nn.Module = build_model_with_cfg(TimmModel, name, pretrained, feature_cfg=hooks, name=name, **given)
        return model

    make.__name__ = make.__qualname__ = name
    setattr(sys.modules[__name__], name, make)  # timm adds the name to our __all__
    return make


@final
class TimmModel(nn.Module):
    """A network of gapstone's with what timm asks of a model: a pool of timm's choice, dropout, one linear layer."""

    def __init__(
        self, name: str, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        entry = ENTRIES[name]
        self.features: Features = build(entry.net, in_chans)
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.num_features = self.head_hidden_size = self.features.channels
        self.feature_info = [
            {"num_chs": channels, "reduction": stride, "module": f"features.{path}"}
            for path, channels, stride in entry.levels
        ]
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """`num_classes` 0: no linear layer; `global_pool` "": no pool either, so that maps come out; None: as it is."""
        from timm.layers.classifier import create_classifier

        kind = str(self.global_pool.pool_type) if global_pool is None else global_pool
        pool, layer = create_classifier(self.num_features, num_classes, pool_type=kind)
        like = next(self.parameters())
        self.num_classes = num_classes
        self.global_pool: nn.Module = pool.train(self.training)
        self.fc: nn.Module = layer.to(like.device, like.dtype).train(self.training)
        self.head_hidden_size = self.num_features * pool.feat_mult()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        if enable:
            raise ValueError(f"{type(self).__name__}: gradient checkpointing is not supported")

    def forward_features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.features(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.global_pool(x))
        if pre_logits:
            return x
        logits: Tensor = self.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
