"""`module:NAME`: a network of the user's own, which exists in this process alone, as the trunk of heads.

`register_own` makes it known by its name; `build` and whatever is made by name then finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from gapstone.console.formatting import display
from gapstone.heads.reads import Reads
from gapstone.images.preprocessing import Preprocessing
from gapstone.nets.features import Features
from gapstone.nets.last_stage import last_stage
from gapstone.nets.on_meta import shapes_alone, state_shapes
from gapstone.nets.timm_survey import Size, smallest_side, stride_of
from gapstone.runtime.eval_mode import eval_mode

OWN_NETWORK = "module:"
"""How the name of a network of the user's own begins."""


@dataclass(frozen=True)
class OwnFacts:
    """What a dry run tells about a network of the user's own."""

    in_channels: int
    channels: int
    stride: int
    smallest: int
    fixed: Size | None
    last_stage: tuple[str, ...]
    fixed_weights: bool
    """Whether all networks that are made have the same weights: they were given, or are read from a file."""
    trained: bool | None
    """Whether these weights look trained; None: nothing shows it."""
    source: str
    """The class of the network and its module: "my_networks.Net"."""
    expected: Preprocessing | None = None
    """The images that trained weights expect; None: not known."""


@dataclass(frozen=True)
class OwnTrunk:
    """How a network of the user's own is made, up to its last map."""

    make: Callable[[], nn.Module]
    """Makes a network whose weights nobody else holds; random ones are drawn from torch's generator."""
    facts: OwnFacts


_registered: dict[str, OwnTrunk] = {}


def register_own(name: str, trunk: OwnTrunk) -> None:
    """Make a network known as `name`, which begins with `module:`."""
    assert name.startswith(OWN_NETWORK)
    _registered[name] = trunk


def is_registered(name: str) -> bool:
    """Whether there is a network of that name in this process."""
    return name in _registered


def own_facts(name: str) -> OwnFacts | None:
    """What is known of a network of the user's own; None of any other. Raises ValueError as `own_trunk`."""
    return own_trunk(name).facts if name.startswith(OWN_NETWORK) else None


def own_trunk(name: str) -> OwnTrunk:
    """The network of that name.

    Raises:
        ValueError: there is none in this process.
    """
    if name not in _registered:
        raise ValueError(
            f"{display(name)} is a network of one's own, which is not known here: it is given as an nn.Module, or a "
            f"function that builds one, in Python: gs.compare(…, backbone=network), gs.load(file, backbone=network)."
        )
    return _registered[name]


def find_facts(
    trunk: nn.Module,
    images: Tensor,
    fixed_weights: bool,
    trained: bool | None,
    source: str,
    expected: Preprocessing | None = None,
) -> OwnFacts:
    """What the network up to its map is, from passes on shapes alone; `images` are some that it takes."""
    side, width = int(images.shape[2]), int(images.shape[3])
    shapes = state_shapes(trunk)

    def cells(height: int, width: int) -> Size:
        given = torch.empty(2, images.shape[1], height, width, device="meta", dtype=images.dtype)
        with shapes_alone():
            maps = torch.func.functional_call(trunk, shapes, (given,))
        return int(maps.shape[2]), int(maps.shape[3])

    with eval_mode(trunk), torch.no_grad():
        maps = trunk(images)
        at_size, fixed, smallest = (int(maps.shape[2]), int(maps.shape[3])), None, side
        try:
            stride = stride_of(cells, (side, width), at_size)
            smallest = smallest_side(cells, side, stride)
        except Exception:  # whatever a network raises at a size that is not its own
            fixed, stride = (side, width), round(side / at_size[0])
        stage = last_stage(trunk, lambda: trunk(images), [])
    paths = tuple(f"net.{path}" for path in stage)
    channels = int(images.shape[1]), int(maps.shape[1])
    return OwnFacts(*channels, stride, smallest, fixed, paths, fixed_weights, trained, source, expected)


@final
class OwnFeatures(Features):
    """A network of the user's own up to its last map.

    >>> build("module:Net-1a2b3c4d")(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 320, 2, 2])
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        own = own_trunk(name)
        facts = own.facts
        if in_channels != facts.in_channels:
            raise ValueError(f"{display(name)} takes images of {facts.in_channels} channels, not {in_channels}.")
        self.name, self.in_channels = name, in_channels
        self.channels, self.stride = facts.channels, facts.stride
        self.smallest, self.fixed, self.last_stage = facts.smallest, facts.fixed, facts.last_stage
        self.net = own.make()

    def check_reads(self, reads: Reads) -> None:
        if reads.beyond:
            raise ValueError(
                f"{display(self.name)}: of a network of one's own the last map alone is read, not {reads.beyond}: take "
                f"gap, gmp or attention, or name the network, timm:NAME or hf:FOLDER"
            )

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        maps: Tensor = self.net(x)
        return maps
