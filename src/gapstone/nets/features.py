"""A network without its head: (N, in_channels, H, W) → (N, channels, h, w)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from gapstone.heads.reads import BackboneOutput, Reads, read_backbone
from gapstone.nets.on_meta import shapes_alone, state_shapes
from gapstone.runtime.torch_internals import unseen_by_modes


class _Reached(Exception):
    """A forward pass came to where it was to stop."""


class Features(nn.Module):
    """The trunk that makes feature maps; a head (`gapstone.heads`) turns them into logits.

    >>> features = build("resnet18", in_channels=3)
    >>> features.channels, features.stride, features.smallest
    (512, 32, 1)
    >>> features(torch.rand(2, 3, 224, 224)).shape
    torch.Size([2, 512, 7, 7])

    Cut before its last stage, so that what comes before runs once, and the last stage is trained under a new head:

    >>> between = features.before_last(images)
    >>> torch.equal(features.last(between), features(images))
    True

    Abstract: each network is one final class that sets the four numbers and the last stage, and writes `forward`.
    """

    channels: int
    """Channels of the last feature map."""
    stride: int
    """Total stride: pixels of input from one cell of the last map to the next."""
    smallest: int
    """The smallest input side that gives a map at all (far below what gives a good one)."""
    fixed: tuple[int, int] | None = None
    """(H, W) where the network takes only that size, as ViT and Swin do; None where it takes any size."""
    in_channels: int
    """Channels of the image."""
    prefix: tuple[str, ...] = ()
    """Tokens of the last layer that are no patches of the image (class token, registers), by the parameters they began
    as, in the model's order; no head pools them."""
    own_width: int | None = None
    """Of the vector of the network's own pooler, where it was built with it."""
    pooler: tuple[str, ...] = ()
    """Names of the weights in the state_dict that the network's own pooler alone needs, where it was built with it."""
    last_stage: tuple[str, ...]
    """Paths of the modules that, called one after another on a single tensor, make the maps: what is fine-tuned."""

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not say how it makes its maps")

    @property
    def class_token(self) -> str | None:
        """The first of `prefix` that is called so: where tokens stand can be seen, what they are for cannot."""
        return next((name for name in self.prefix if "cls" in name or "class" in name), None)

    def check_reads(self, reads: Reads) -> None:
        """Raises ValueError where the network does not have what a head reads."""
        who = type(self).__name__
        if reads.class_token:
            raise ValueError(f"{who} has no class token, as a convolutional network: take gap, gmp or attention")
        if reads.own:
            raise ValueError(f"own: {who} has no pooler of its own, only networks of timm's have: take gap")
        if reads.layers > 1:
            raise ValueError(
                f"layers={reads.layers}: the maps of {who}'s stages differ in size and channels, so they cannot stand "
                f"side by side: leave it out, or take a ViT"
            )

    def width(self, reads: Reads) -> int:
        """The `channels` of a head that reads this: of a layer's map, or of the network's own pooler."""
        return self.own_width if reads.own and self.own_width is not None else self.channels

    def read(self, x: Tensor, reads: Reads) -> Tensor | BackboneOutput:
        """What a head reads, of images as `forward` takes them; maps alone come as a tensor.

        >>> vit = build("timm:vit_tiny_patch16_224")
        >>> vit.read(images, Reads(class_token=True)).class_token.shape
        torch.Size([2, 192])

        Raises: ValueError as `check_reads`.
        """
        self.check_reads(reads)
        return read_backbone(self, x, reads)

    @property
    def last_block(self) -> str:
        """Path of the first module of the last stage. Raises ValueError where a network (timm's) has no such stage."""
        if not self.last_stage:
            raise ValueError(
                f"{type(self).__name__} has no last stage that starts from a single tensor: train all of it, or its "
                f"head alone, or take another network (gapstone's own, timm's ResNets and ConvNeXts have one)"
            )
        return self.last_stage[0]

    def last_modules(self) -> list[nn.Module]:
        """The modules of the last stage, in the order they run; their parameters are what is fine-tuned."""
        _ = self.last_block
        return [self.get_submodule(path) for path in self.last_stage]

    def before_last(self, x: Tensor) -> Tensor:
        """What the last stage is given, (N, …), for images as `forward` takes them; nothing after it is computed."""
        inputs: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs.append(args[0])
            raise _Reached

        handle = self.get_submodule(self.last_block).register_forward_pre_hook(stop)
        try:
            self(x)
        except _Reached:
            return inputs[0]
        finally:
            handle.remove()
        raise AssertionError(f"{type(self).__name__} never reached its {self.last_block}")

    def last(self, between: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The maps, from what `before_last` gave: the same as `forward` of the images, to the last bit.

        size: (H, W) of the images; tokens of a network that takes any size do not say their grid.
        """
        for module in self.last_modules():
            between = module(between)
        return between

    def check(self, x: Tensor) -> None:
        """Refuse, in words, an input this network cannot take. Raises ValueError."""
        # An exported or compiled graph has its own checks; ours would pin its dynamic sizes.
        if torch.compiler.is_compiling():
            return
        # What watches a forward pass (gapstone.ragged) need not see sizes that are only checked.
        with unseen_by_modes():
            self._check(x)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} takes (N, {self.in_channels}, H, W) and got {tuple(x.shape)}; "
                f"build it with in_channels= as many as the images have"
            )
        size = (x.shape[2], x.shape[3])
        if self.fixed is not None and size != self.fixed:
            raise ValueError(
                f"{type(self).__name__} takes only {self.fixed[0]}×{self.fixed[1]} px and got {size[0]}×{size[1]}; "
                f"resize the images, or take a convolutional network (any size)"
            )
        if min(size) < self.smallest:
            raise ValueError(
                f"{type(self).__name__} needs at least {self.smallest} px a side and got {size[0]}×{size[1]}; "
                f"enlarge the images, or take a network of smaller stride (nin, resnet18:small)"
            )


@dataclass(frozen=True)
class DryRun:
    """What a network does with images of one size, found without computing anything."""

    size: tuple[int, int]
    """(h, w) of the last map."""
    bytes: int
    """Of memory that one image needs at the least: the largest input and output of a step, together."""


def dry_run(features: nn.Module, channels: int, size: tuple[int, int]) -> DryRun:
    """Run on shapes alone (the meta device), so it costs no memory at any size; weights stay where they are.

    >>> dry_run(build("resnet18"), 3, (224, 160)).size
    (7, 5)

    Raises ValueError where the network cannot take that size.
    """
    shapes = state_shapes(features)
    # Two images: batch norm in training refuses a single value per channel, which a 1×1 map of one image is.
    images = torch.empty(2, channels, *size, device="meta")
    largest = 0

    def measure(_module: nn.Module, args: tuple[object, ...], output: object) -> None:
        nonlocal largest
        tensors = {id(x): x for x in (*args, *(output if isinstance(output, tuple | list) else [output]))}
        largest = max(largest, sum(x.nbytes for x in tensors.values() if isinstance(x, Tensor)))

    handles = [m.register_forward_hook(measure) for m in features.modules() if next(m.children(), None) is None]
    try:
        with torch.no_grad(), shapes_alone():
            maps = torch.func.functional_call(features, shapes, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return DryRun((int(maps.shape[2]), int(maps.shape[3])), largest // 2)


def map_size(features: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """The size (h, w) of the last map for images of `size` (H, W) and `channels`, without computing anything.

    >>> map_size(build("resnet18"), 3, (224, 160))
    (7, 5)

    Raises ValueError where the network cannot take that size.
    """
    return dry_run(features, channels, size).size


AT_ONCE = 1 << 25
"""Bytes of a step of a network that are faster than more, on a CPU.

The C library takes blocks of 32 MB and more from the system anew each time, which clears every page of them. A pass of
EfficientNet-Lite0 at 224 px over 64 images at once took 46 ms of a core per image, 21 of them for
that; over 4 at once 24.
"""


def images_at_once(features: nn.Module, channels: int, size: tuple[int, int], most: int = 64) -> int:
    """How many images of `size` (H, W) a pass without gradients should run on at once on a CPU, at most `most`.

    >>> images_at_once(build("resnet18"), 3, (224, 224)), images_at_once(build("nin"), 3, (32, 32))
    (5, 64)
    """
    return max(1, min(most, AT_ONCE // dry_run(features, channels, size).bytes))


class TooManyParametersError(ValueError):
    """A network has more parameters than it was allowed."""


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """While networks are built in this thread: TooManyParametersError as soon as they have more than `count`
    parameters together, before anything is done with them.
    """
    thread, total = threading.get_ident(), 0

    def count_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is not None and threading.get_ident() == thread:
            total += parameter.numel()
            if total > count:
                raise TooManyParametersError(f"more than {count:,} parameters")

    handle = register_module_parameter_registration_hook(count_parameter)
    try:
        yield
    finally:
        handle.remove()


def initialise(features: nn.Module, mode: str = "fan_out") -> None:
    """Kaiming-normal convolutions, zero biases, batch norm the identity (arXiv 1502.01852; torchvision's choice).

    `mode` "fan_out" keeps the size of gradients, as torchvision's ResNet and VGG; "fan_in" that of activations,
    which matters where no batch norm follows and the fans differ (3 channels into 192).
    """
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
