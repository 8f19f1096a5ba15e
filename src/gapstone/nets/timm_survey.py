"""What a dry run tells about a timm model: its map, its tokens, the sizes it takes, and which modules make what."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from gapstone.nets.last_stage import last_stage
from gapstone.nets.on_meta import dependence_alone, on_meta, shapes_alone
from gapstone.nets.prefix_tokens import prefix_tokens
from gapstone.nets.zoo import create_timm, resamples_positions

Size = tuple[int, int]


@final
class AsMap(nn.Module):
    """What timm's `forward_features` gave, as (N, C, h, w): channels second, patches on their grid.

    prefix: how many tokens, none of a patch, stand before those of the patches; they are left out. `size` is that of
    the images, (H, W): tokens have a grid of its proportions. Raises ValueError for what is no map.
    """

    def __init__(self, name: str, net: Any, fixed: Size | None, prefix: int = 0) -> None:
        super().__init__()
        self.name, self.channels, self.fixed, self.prefix = name, int(net.num_features), fixed, prefix
        self.ends_in_channels = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        self.grid: Callable[[Size], Size] | None = None
        """Cells (h, w) of images of a size, where timm resamples position embeddings."""
        if resamples_positions(name):
            self.grid = net.patch_embed.dynamic_feat_size

    def forward(self, y: Any, size: Size | None = None) -> Tensor:
        size = size or self.fixed
        if isinstance(y, Tensor) and y.ndim == 4:
            if self.ends_in_channels or y.shape[1] != self.channels == y.shape[3]:
                y = y.permute(0, 3, 1, 2)
            if y.shape[1] == self.channels:
                return cast(Tensor, y)
        elif isinstance(y, Tensor) and y.ndim == 3 and y.shape[2] == self.channels and size is not None:
            return self.on_grid(y[:, self.prefix :], size)
        raise self._no_map(y, size)

    def on_grid(self, patches: Tensor, size: Size) -> Tensor:
        """Patches (N, cells, C) as a map (N, C, h, w)."""
        cells = int(patches.shape[1])
        if self.grid is not None:
            h, w = self.grid(size)
        else:
            h = round(math.sqrt(cells * size[0] / size[1]))
            w = cells // max(h, 1)
        if h < 1 or h * w != cells:
            raise self._no_map(patches, size)
        return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], h, w)

    def _no_map(self, y: Any, size: Size | None) -> ValueError:
        what = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        images = f"images of {size[0]}×{size[1]} px" if size else "images of an unknown size"
        return ValueError(
            f"timm:{self.name} makes no feature map: from {images} came {what}, not (N, {self.channels}, h, w) nor one "
            f"token per cell; take another model (convolutional ones always work)"
        )


@dataclass(frozen=True)
class Survey:
    """What a dry run tells about a timm model."""

    channels: int
    stride: int
    smallest: int
    fixed: Size | None
    prefix: tuple[str, ...]
    """Tokens that are no patches, by the parameters they began as."""
    unused: tuple[str, ...]
    """Modules the maps do not need: the head."""
    last_stage: tuple[str, ...]
    """As `Features.last_stage`; () where the model cannot be cut."""


@cache
@torch.inference_mode(False)  # whoever asks: what the maps depend on is found through autograd
def survey(name: str, in_channels: int) -> Survey:
    """Run the model on shapes alone (the meta device: no memory, no arithmetic) and note what comes out.

    Raises ValueError where it makes no map, or knows no such model; ImportError without timm.
    """
    net = _on_meta(name, in_channels)
    side, width = net.default_cfg["input_size"][1:]
    images = torch.empty(1, in_channels, side, width, device="meta")
    y = _output(net, images)
    is_tokens = isinstance(y, Tensor) and y.ndim == 3
    prefix = prefix_before_patches(f"timm:{name}", net, net.forward_features, images) if is_tokens else ()
    as_map = AsMap(name, net, None, len(prefix))

    def cells(h: int, w: int) -> Size:
        given = y if (h, w) == (side, width) else _output(net, images.new_empty(1, in_channels, h, w))
        maps = as_map(given, (h, w))
        return int(maps.shape[2]), int(maps.shape[3])

    default = cells(side, width)
    if default == (1, 1):
        raise single_cell(f"timm:{name}", (side, width))
    fixed: Size | None = None
    smallest = side
    try:
        stride = stride_of(cells, (side, width), default)
        smallest = smallest_side(cells, side, stride)
    except Exception:  # whatever a network raises at a size that is not its own
        fixed, stride = (side, width), round(side / default[0])
    unused = unused_modules(net, lambda: as_map(net.forward_features(images), (side, width)))
    # tokens of an image of any size: alone, they do not say what grid they lie on
    grid_known = y.ndim == 4 or fixed is not None or as_map.grid is not None
    stage = _last_stage(net, images) if grid_known else ()
    return Survey(as_map.channels, stride, smallest, fixed, prefix, unused, stage)


@dataclass(frozen=True)
class PoolerSurvey:
    """What a dry run tells about a timm model's own pooler."""

    width: int
    """Of its vector."""
    unused: tuple[str, ...]
    """Modules that neither the map nor the pooler needs: the classifier."""


@cache
@torch.inference_mode(False)
def survey_pooler(name: str, in_channels: int) -> PoolerSurvey:
    """What timm computes between the last layer and the classifier. Raises ValueError where that is no vector."""
    facts = survey(name, in_channels)
    net = _on_meta(name, in_channels)
    images = torch.empty(1, in_channels, *net.default_cfg["input_size"][1:], device="meta")
    as_map = AsMap(name, net, None, len(facts.prefix))

    def both() -> tuple[Tensor, Tensor]:
        y = net.forward_features(images)
        return as_map(y, tuple(images.shape[2:])), net.forward_head(y, pre_logits=True)

    try:
        vector = both()[1]
    except (AttributeError, TypeError):
        vector = None
    if not isinstance(vector, Tensor) or vector.ndim != 2:
        raise ValueError(f"own: timm:{name} has no pooler that gives one vector of an image; take gap")
    return PoolerSurvey(int(vector.shape[1]), unused_modules(net, lambda: torch.cat([x.flatten() for x in both()])))


@cache
def layer_count(name: str, in_channels: int) -> int:
    """How many of its last layers timm hands out, alike in their tokens; 1 where it does not.

    The last of them, after the final norm, has to be what `forward_features` gives.
    """
    facts = survey(name, in_channels)
    net = _on_meta(name, in_channels)
    images = torch.empty(2, in_channels, *net.default_cfg["input_size"][1:], device="meta")
    with torch.no_grad(), shapes_alone():
        y = net.forward_features(images)
        if y.ndim != 3:
            return 1
        try:
            found = net.forward_intermediates(
                images, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
            )
        except (AttributeError, TypeError, AssertionError):
            return 1
    layers = [layer if isinstance(layer, tuple) else (layer, y[:, :0]) for layer in found]
    last = tuple(y[:, len(facts.prefix) :].shape), tuple(y[:, : len(facts.prefix)].shape)
    alike = all((tuple(patches.shape), tuple(before.shape)) == last for patches, before in layers)
    return len(layers) if alike else 1


def _on_meta(name: str, in_channels: int) -> Any:
    with on_meta():
        return create_timm(name, in_channels, pretrained=False).eval()


def _output(net: Any, images: Tensor) -> Any:
    with torch.no_grad(), shapes_alone():
        return net.forward_features(images)


def stride_of(cells: Callable[[int, int], Size], size: Size, at_size: Size) -> int:
    """Pixels per cell: of the cells gained per pixel added, right even where unpadded convolutions eat the border.

    448 is a multiple of all strides in use (7, 14, 16, 32, 64). `at_size`: the cells at `size`.
    """
    return round(448 / (cells(size[0] + 448, size[1] + 448)[0] - at_size[0]))


def prefix_before_patches(who: str, net: nn.Module, run: Callable[[Tensor], object], images: Tensor) -> tuple[str, ...]:
    """As `Survey.prefix`, of the tokens that `run` gives of an image."""
    # two images: a parameter that is given to each of them is told from one that is added to all
    tokens = prefix_tokens(net, run, images.expand(2, -1, -1, -1))
    before = [token for token in tokens if token]
    if 0 < len(before) == len(tokens):
        raise single_cell(who, images.shape[2:])
    if any(token is None for token in tokens[: len(before)]):
        raise ValueError(
            f"{who} makes no feature map: {len(before)} of its tokens are no patches, and do not stand before "
            f"those that are; take another model (convolutional ones always work)"
        )
    return tuple(before)


def single_cell(who: str, size: Sequence[int]) -> ValueError:
    return ValueError(
        f"{who} makes no feature map: {size[0]}×{size[1]} px become a single cell (a class token); "
        f"take another model (convolutional ones always work)"
    )


def _last_stage(net: Any, images: Tensor) -> tuple[str, ...]:
    levels = getattr(net, "feature_info", [])
    levels = levels if isinstance(levels, list) else levels.info
    stage = last_stage(net, lambda: _output(net, images), [str(level["module"]) for level in levels])
    return (*(f"net.{path}" for path in stage), "as_map") if stage else ()


def smallest_side(cells: Callable[[int, int], Size], side: int, stride: int) -> int:
    """The shortest side that gives a map; `side` does."""

    def works(n: int) -> bool:
        try:
            return min(cells(n, n)) >= 1
        except Exception:  # as above: each network has its own way to refuse
            return False

    if works(1):  # most do, padded as they are; a dry run costs 0.1 s
        return 1
    # First over whole strides, then within one: some networks (DLA, HRNet) take nothing else.
    good, bad = side, 0
    for step in (stride, 1):
        while good - bad > step:
            middle = bad + max((good - bad) // (2 * step), 1) * step
            good, bad = (middle, bad) if works(middle) else (good, middle)
    return good


def unused_modules(net: nn.Module, run: Callable[[], Tensor]) -> tuple[str, ...]:
    """Paths of the modules on whose parameters what `run` gives does not depend."""
    # timm's heads hide under fc, classifier, head, head_dist, conv_head, pre_logits, fc_norm, …: rather than a list of
    # names, ask autograd which parameters the maps depend on.
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad(), dependence_alone():
        made = run()
        torch.autograd.backward(made, torch.ones_like(made))
    unused: list[str] = []
    for path, module in net.named_modules():
        parameters = list(module.parameters())
        inside = any(path.startswith(f"{outer}.") for outer in unused)
        if path and parameters and not inside and all(p.grad is None for p in parameters):
            unused.append(path)
    return tuple(unused)
