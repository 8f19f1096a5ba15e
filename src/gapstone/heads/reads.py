"""What a head reads of a backbone: the last map, unless it says more."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Reads:
    """What a head is made for.

    >>> gs.Head("cls+gap:layers=4", channels=384, classes=10).reads
    Reads(maps=True, class_token=True, own=False, layers=4)
    """

    maps: bool = True
    """The map (N, layers · C, h, w)."""
    class_token: bool = False
    """(N, layers · C)."""
    own: bool = False
    """The vector (N, D) of the backbone's own pooler."""
    layers: int = 1
    """How many of the backbone's last layers are side by side in maps and class token, the last one last."""

    @property
    def maps_alone(self) -> bool:
        return not (self.class_token or self.own)

    @property
    def what(self) -> str:
        """What it reads besides maps, in words; "" where nothing."""
        return "the class token" if self.class_token else "the backbone's own pooler" if self.own else ""


@dataclass(frozen=True)
class BackboneOutput:
    """What a backbone hands to a head that reads more than maps.

    >>> output = features.read(images, Reads(class_token=True))
    >>> output.maps.shape, output.class_token.shape
    (torch.Size([2, 384, 16, 16]), torch.Size([2, 384]))
    """

    maps: Tensor
    class_token: Tensor | None = None
    own: Tensor | None = None

    def float(self) -> "BackboneOutput":
        token, own = (None if x is None else x.float() for x in (self.class_token, self.own))
        return BackboneOutput(self.maps.float(), token, own)
