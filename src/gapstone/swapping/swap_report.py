"""What a swap did: what was cut, what stands there now; and where a model's head is."""

from dataclasses import dataclass

from torch import nn

from gapstone.console.formatting import cell, display, format_size
from gapstone.heads import Head

KEPT = "gapstone_swapped"
"""The attribute of a model that holds its report."""


@dataclass(frozen=True)
class Cut:
    module: str
    """Its name in the model."""
    kind: str
    parameters: int


@dataclass(frozen=True, repr=False)
class Swapped:
    """What `swap_head` did to a model; printed, a few lines."""

    model: str
    """The class of the model that was given."""
    head: str
    """The spec of the new head; of a module of your own, its class."""
    at: str
    """Where it stands: the name of the module."""
    classes: int
    channels: int
    cells: tuple[int, ...]
    """Of the map that the head takes, (h, w), for images of `size`."""
    size: tuple[int, ...]
    cut: tuple[Cut, ...]
    before: int
    """Parameters of the model that was given."""
    after: int
    wrapped: bool
    """The network could not take the head in itself, and stands as `features` beside it."""

    def __str__(self) -> str:
        rows = [(c.module, c.kind, f"{c.parameters:,}") for c in self.cut]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        cut = [f"  {name:{widths[0]}}  {kind:{widths[1]}}  {n:>{widths[2]}}" for name, kind, n in rows]
        kind = f"TrunkAndHead, with the {self.model} in features.net" if self.wrapped else f"{self.model}, as before"
        return "\n".join(
            [
                f"{self.model}: head {self.head!r} of {self.classes} classes at {self.at!r}",
                f"map: {self.channels} channels, {format_size(self.cells)} for images of {format_size(self.size)}",
                f"parameters: {self.before:,} before, {self.after:,} after",
                f"class: {kind}",
                f"cut ({len(cut)}; module, kind, parameters):",
                *cut,
            ]
        )

    def __repr__(self) -> str:
        where = f"{self.model}: head {self.head!r} of {self.classes:,} classes at {self.at!r}"
        return display(f"Swapped({where}, {self.before:,} parameters before, {self.after:,} after)")

    def _repr_html_(self) -> str:
        return cell(str(self))


def swapped(model: nn.Module) -> Swapped:
    """What `swap_head` did to this model, when it was last called.

    Examples:
        >>> report = gs.swapped(gs.swap_head(torchvision.models.resnet18(), "gap", 10))
        >>> report.before, report.after
        (11689512, 11181642)
        >>> print(report)

    Args:
        model: what `swap_head` returned.

    Returns:
        A report of what was cut and what stands there now.

    Raises:
        ValueError: a model that does not come from `swap_head`.
    """
    report = vars(model).get(KEPT)
    if not isinstance(report, Swapped):
        raise ValueError(f"swapped({type(model).__name__}): this model's head was not swapped: gs.swap_head does that")
    return report


def head_of(model: nn.Module) -> tuple[str, Head]:
    """The name and the module of a model's gapstone head: the one that `swap_head` set, or else its only one.

        >>> head_of(gs.swap_head(torchvision.models.resnet18(), "gap"))
        ('avgpool', Head(…'gap', channels=512, classes=1000…))

    It is called once in a forward pass, with the map (N, C, h, w) and nothing else; what it gives are the logits.
    Raises: ValueError where there is none, or more than one.
    """
    report = vars(model).get(KEPT)
    if isinstance(report, Swapped):  # a head may also stand inside the network, and squeeze
        at = dict(model.named_modules()).get(report.at)
        if isinstance(at, Head):
            return report.at, at
        if at is not None:
            raise ValueError(
                f"{type(model).__name__} has a head of your own, a {type(at).__name__}, and one of gapstone's is "
                f"needed: gs.swap_head(model, 'gap') gives it one"
            )
    heads = [(name, module) for name, module in model.named_modules() if isinstance(module, Head)]
    if len(heads) != 1:
        names = ", ".join(repr(name) for name, _ in heads)
        raise ValueError(
            f"{type(model).__name__} has {len(heads)} gapstone heads ({names}), and one is needed"
            if heads
            else f"{type(model).__name__} has no gapstone head: gs.swap_head(model, 'gap') gives it one"
        )
    return heads[0]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
