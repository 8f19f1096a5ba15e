"""The numbers of an inspection: a row per module, the parts, the sizes, the costs of other heads."""

from dataclasses import asdict, dataclass
from typing import Any

from gapstone.console.formatting import display, format_size
from gapstone.inspecting.input_sizes import InputSizes

SCHEMA = 1
"""Increased when a field of the JSON changes its meaning."""


@dataclass(frozen=True)
class ModuleCosts:
    """The costs of a module, including its children."""

    path: str
    """As in `named_modules()`; "" is the model itself."""
    kind: str
    """Its class."""
    depth: int
    output: tuple[int, ...] | None
    """Shape for one image, without the batch; None if it was not called, or returned no tensor."""
    calls: int
    parameters: int
    head_parameters: int
    """Those of them that are used only after the last map."""
    macs: int
    pooled: int
    single: int
    kept_bytes: int | None
    """Bytes saved for the backward pass, per image."""
    field: tuple[int, ...] | None
    """Receptive field (h, w) in pixels; None if unknown, or without positions."""
    stride: tuple[float, ...] | None
    """Distance of neighbouring positions of the output in pixels."""
    whole: bool
    """Whether the output depends on the whole image: by a global pool, squeeze-and-excitation, attention, …"""


@dataclass(frozen=True)
class NetworkPart:
    """A part of the network; all parts together are the whole network."""

    name: str
    output: tuple[int, ...] | None
    parameters: int
    head_parameters: int
    macs: int
    kept_bytes: int | None


@dataclass(frozen=True)
class LastMap:
    """The last map; fields as in `ModuleCosts`."""

    channels: int
    cells: tuple[int, ...]
    field: tuple[int, ...] | None
    stride: tuple[float, ...] | None
    whole: bool


@dataclass(frozen=True)
class OtherHead:
    """The costs of a head on this network."""

    head: str
    """A spec of `gapstone.heads`; "as it is": the model's own."""
    parameters: int
    """Parameters of the head."""
    total: int
    """Parameters of the network with this head."""
    macs: int
    """Multiply-adds of the head."""
    bytes: int
    """Bytes of all parameters."""
    sizes: str
    """The image sizes that the network takes with this head."""


@dataclass(frozen=True, repr=False)
class NetworkCosts:
    """The costs of a network; counts are for one image of `size`."""

    name: str
    size: tuple[int, int]
    channels: int
    classes: int | None
    output: tuple[int, ...] | None
    dtype: str
    real: str | None
    """Why the model was run on zeros; None: on shapes alone."""
    parameters: int
    parameter_bytes: int
    unused_parameters: int
    """Those that the output does not depend on (auxiliary heads in eval mode)."""
    head_parameters: int | None
    """Those that are used only after the last map; None without a last map."""
    macs: int
    """Multiply-adds of convolutions and matrix products."""
    head_macs: int | None
    pooled: int
    """Values that pools read: k·k per output of a k×k window, an addition or a comparison each."""
    single: int
    """Output values of norms, activations and sums, whatever each of them costs."""
    peak_bytes: int
    """Peak memory of inference, besides parameters and image."""
    kept_bytes: int | None
    """Bytes saved for the backward pass per image, besides parameters; None if it cannot be trained at `size`."""
    last_map: LastMap | None
    no_map: str | None
    """Why there is no last map."""
    sizes: InputSizes
    training_sizes: InputSizes | None
    """Sizes in training mode with two or more images; None if no size was found that trains."""
    not_trained: str | None
    """Why it does not train at `size`; None if it does."""
    rows: tuple[ModuleCosts, ...]
    parts: tuple[NetworkPart, ...]
    heads: tuple[OtherHead, ...]
    """The model's own head, then every head of gapstone; empty without a last map."""

    def as_json(self) -> dict[str, Any]:
        """Return all fields under their names, `schema`, and the sizes also as text.

        Returns:
            A document for `json.dumps`, as docs/inspect.schema.json describes it.
        """
        document = asdict(self)
        for name in ("sizes", "training_sizes"):
            if document[name] is not None:
                document[name]["text"] = str(getattr(self, name))
        return {"schema": SCHEMA, **document}

    def __repr__(self) -> str:
        name = f"{self.name}, " if self.name else ""
        return display(
            f"{type(self).__name__}({name}{self.parameters:,} parameters, {self.macs:,} multiply-adds for an image of "
            f"{format_size(self.size)})"
        )
