"""The numbers of an inspection: a row per module, the parts, the sizes, what other heads would cost."""

from dataclasses import asdict, dataclass
from typing import Any

from gapstone.console.formatting import display, format_size
from gapstone.inspecting.input_sizes import InputSizes

SCHEMA = 1
"""Raised when a field of the JSON changes its meaning."""


@dataclass(frozen=True)
class ModuleCosts:
    """A module, with all that is inside it."""

    path: str
    """As in `named_modules()`; "" is the model itself."""
    kind: str
    """Its class."""
    depth: int
    output: tuple[int, ...] | None
    """Shape for one image, without the batch; None where it was not called, or gave no tensor."""
    calls: int
    parameters: int
    head_parameters: int
    """Of them, used only after the last map."""
    macs: int
    pooled: int
    single: int
    kept_bytes: int | None
    """What it keeps for the backward pass, per image."""
    field: tuple[int, ...] | None
    """Receptive field (h, w) in pixels; None: not known, or no positions."""
    stride: tuple[float, ...] | None
    """Pixels from one position of its output to the next."""
    whole: bool
    """Something of the whole image comes in: a pool over all positions, squeeze and excite, attention, group norm."""


@dataclass(frozen=True)
class NetworkPart:
    """A stretch of the network, of which the parts together are the whole."""

    name: str
    output: tuple[int, ...] | None
    parameters: int
    head_parameters: int
    macs: int
    kept_bytes: int | None


@dataclass(frozen=True)
class LastMap:
    channels: int
    cells: tuple[int, ...]
    field: tuple[int, ...] | None
    stride: tuple[float, ...] | None
    whole: bool


@dataclass(frozen=True)
class OtherHead:
    """What a head costs on this network."""

    head: str
    """A spec of `gapstone.heads`; "as it is": the model's own."""
    parameters: int
    """Of the head."""
    total: int
    """Of the network with it."""
    macs: int
    """Of the head."""
    bytes: int
    """Of all parameters."""
    sizes: str
    """The image sizes it takes, on this network."""


@dataclass(frozen=True, repr=False)
class NetworkCosts:
    """What a network is made of and what it costs; counts are for one image of `size`."""

    name: str
    size: tuple[int, int]
    channels: int
    classes: int | None
    output: tuple[int, ...] | None
    dtype: str
    real: str | None
    """Why it had to be run on zeros; None: on shapes alone."""
    parameters: int
    parameter_bytes: int
    unused_parameters: int
    """Of them, those that take no part in the answer (auxiliary heads, in eval mode)."""
    head_parameters: int | None
    """Of them, those used only after the last map; None where no last map was found."""
    macs: int
    """Multiply-adds of convolutions and matrix products."""
    head_macs: int | None
    pooled: int
    """Values that pools read: k·k for each answer of a k×k window, an addition or a comparison each."""
    single: int
    """Values made by norms, activations, sums: one for each, whatever it takes."""
    peak_bytes: int
    """Most in use at once while it answers, besides parameters and image."""
    kept_bytes: int | None
    """What training keeps for the backward pass, per image, besides parameters; None where it cannot be trained so."""
    last_map: LastMap | None
    no_map: str | None
    """Why there is no last map."""
    sizes: InputSizes
    training_sizes: InputSizes | None
    """In training mode, with two images or more; None where none was found that trains."""
    not_trained: str | None
    """Why it does not train at `size`; None: it does."""
    rows: tuple[ModuleCosts, ...]
    parts: tuple[NetworkPart, ...]
    heads: tuple[OtherHead, ...]
    """The model's own, then every head of gapstone's; empty where no last map was found."""

    def as_json(self) -> dict[str, Any]:
        """Everything, under the names of the fields, with `schema` 1; sizes as text, too.

        Returns:
            A document for `json.dumps`, as docs/inspect.schema.json describes it.
        """
        found = asdict(self)
        for name in ("sizes", "training_sizes"):
            if found[name] is not None:
                found[name]["text"] = str(getattr(self, name))
        return {"schema": SCHEMA, **found}

    def __repr__(self) -> str:
        what = f"{self.name}, " if self.name else ""
        return display(
            f"{type(self).__name__}({what}{self.parameters:,} parameters, {self.macs:,} multiply-adds for an image of "
            f"{format_size(self.size)})"
        )
