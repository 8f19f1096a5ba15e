"""The report of a swap, and where the head of a model is."""

from dataclasses import dataclass

from torch import nn

from gapstone.console.formatting import cell, display, format_size
from gapstone.heads import Head

REPORT_ATTRIBUTE = "gapstone_swapped"
"""The attribute of a model that holds its report."""


@dataclass(frozen=True)
class Cut:
    """A module that was removed."""

    module: str
    """Its name in the model."""
    kind: str
    """Its class."""
    parameters: int


@dataclass(frozen=True, repr=False)
class Swapped:
    """What `swap_head` did to a model; `print` shows it in a few lines."""

    model: str
    """The class of the original model."""
    head: str
    """The spec of the new head; of a module of your own, its class."""
    at: str
    """The name of the new head in the model."""
    classes: int
    channels: int
    cells: tuple[int, ...]
    """(h, w) of the map that the head takes, for images of `size`."""
    size: tuple[int, ...]
    cut: tuple[Cut, ...]
    before: int
    """Parameters of the original model."""
    after: int
    wrapped: bool
    """Whether the head stands beside the network (`TrunkAndHead`) instead of in it."""

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
        summary = f"{self.model}: head {self.head!r} of {self.classes:,} classes at {self.at!r}"
        return display(f"Swapped({summary}, {self.before:,} parameters before, {self.after:,} after)")

    def _repr_html_(self) -> str:
        return cell(str(self))


def swapped(model: nn.Module) -> Swapped:
    """Return the report of the last `swap_head` on this model.

    Examples:
        >>> report = gs.swapped(gs.swap_head(torchvision.models.resnet18(), "gap", 10))
        >>> report.before, report.after
        (11689512, 11181642)
        >>> print(report)

    Args:
        model: The module that `swap_head` returned.

    Returns:
        A report of what was removed and added.

    Raises:
        ValueError: If the model does not come from `swap_head`.
    """
    report = vars(model).get(REPORT_ATTRIBUTE)
    if not isinstance(report, Swapped):
        raise ValueError(f"swapped({type(model).__name__}): this model's head was not swapped: gs.swap_head does that")
    return report


def head_of(model: nn.Module) -> tuple[str, Head]:
    """Return the name and the module of a model's gapstone head: that of `swap_head`, or its only one.

        >>> head_of(gs.swap_head(torchvision.models.resnet18(), "gap"))
        ('avgpool', Head(…'gap', channels=512, classes=1000…))

    The head is called once in a forward pass, with the map (N, C, h, w) only, and returns the logits.

    Raises:
        ValueError: If the model has no gapstone head, or several.
    """
    report = vars(model).get(REPORT_ATTRIBUTE)
    if isinstance(report, Swapped):  # there may be other heads inside the network, such as in squeeze-and-excitation
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
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())
