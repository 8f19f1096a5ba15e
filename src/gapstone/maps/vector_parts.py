"""What each position adds to a vector that a backbone makes of its tokens: a class token, its own pooler's answer.

    vector = rest + Σ_j part_j        from one look at the last block in which it hears of the patches (decision 29)
    logit  = W · vector + b           so position j adds W · part_j, for any head on that vector

So the parts of an image are made once, and serve every head and seed of a frozen backbone. They are those of
`gs.explain`, which sends the logits of one model the same way. Of several layers side by side, each layer's token is
taken apart through the block before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.heads.reads import BackboneOutput, Reads, read_backbone
from gapstone.maps.explanation import Explanation
from gapstone.maps.targets import Classes, select_classes
from gapstone.pooling import Pool, share
from gapstone.runtime.eval_mode import eval_mode
from gapstone.tracing.held_tokens import GATES
from gapstone.tracing.locate_head import locate_head
from gapstone.tracing.placement import Placement


class VectorOf(nn.Module):
    """A backbone as a network whose answer is one of its vectors.

    own: that of its own pooler; else the class token of a layer, counted back from the last.
    """

    def __init__(self, features: nn.Module, own: bool = False, back: int = 1) -> None:
        super().__init__()
        self.features, self.own, self.back = features, own, back

    def forward(self, images: Tensor) -> Tensor:
        reads = Reads(own=True) if self.own else Reads(class_token=True, layers=self.back)
        output = read_backbone(self.features, images, reads)
        assert isinstance(output, BackboneOutput)
        vector = output.own if self.own else output.class_token
        assert vector is not None
        return vector if self.own else vector[:, : vector.shape[1] // self.back]


@dataclass(frozen=True)
class VectorParts:
    """A vector (N, D) of each image, taken apart: `parts.sum(2)` is the vector."""

    parts: Tensor
    """(N, D, 1 + cells): first what is of no position, then what each position adds; single precision or wider."""
    grid: tuple[int, ...]
    """Of the cells."""
    placement: Placement
    additive: bool
    held: tuple[str, ...]

    def to(self, device: str) -> "VectorParts":
        return replace(self, parts=self.parts.to(device))

    @staticmethod
    def cat(layers: "Sequence[VectorParts]") -> "VectorParts":
        """Of several vectors side by side."""
        held = tuple(dict.fromkeys(words for layer in layers for words in layer.held))
        first = layers[0]
        parts, additive = torch.cat([layer.parts for layer in layers], 1), all(layer.additive for layer in layers)
        return VectorParts(parts, first.grid, first.placement, additive, held)


def vectors_read(reads: Reads) -> list[tuple[bool, int]]:
    """(own, back) of `VectorOf` for each vector that a head answers from, in its order.

    >>> vectors_read(Reads(class_token=True, layers=2)), vectors_read(Reads(own=True)), vectors_read(Reads())
    ([(False, 2), (False, 1)], [(True, 1)], [])
    """
    if reads.own:
        return [(True, 1)]
    return [(False, back) for back in range(reads.layers, 0, -1)] if reads.class_token else []


@torch.no_grad()
def vector_parts(vector: VectorOf, images: Tensor) -> VectorParts:
    """The parts, by one pass after the first. Raises SplitError where the vector has none."""
    traced, location = locate_head(vector, images)
    parts, rest = traced.maps(None), traced.bias()
    prefix = 0 if location.mixed else location.prefix
    cells = parts.flatten(2)[:, :, prefix:]
    grid = location.grid or location.cells
    first = rest.expand(len(cells), -1) + parts.flatten(2)[:, :, :prefix].sum(2)
    whole = torch.cat([first[:, :, None].to(cells), cells], 2)
    return VectorParts(whole, grid, Placement.of(location), traced.additive, traced.holds)


def explain_vectors(
    head: Head,
    parts: VectorParts,
    maps: Tensor | None = None,
    classes: Classes | None = None,
    *,
    top_k: int | None = None,
    labels: tuple[str, ...] | None = None,
) -> Explanation:
    """The maps of a head that answers from a vector, beside pools of the maps (N, C, *cells) where it has some."""
    cells = parts.parts[:, :, 1:]
    x = cells.new_empty(len(cells), 0, *parts.grid) if maps is None else maps.to(cells)
    vector = parts.parts.sum(2)
    given = BackboneOutput(x, None, vector) if head.reads.own else BackboneOutput(x, vector)
    assert head.classifier is not None
    with eval_mode(head), torch.no_grad():
        pools = [layer for layer in head.pools if isinstance(layer, Pool)]
        shares = [share(x, pool.name, **pool.parameters_of_pool()) * x for pool in pools]
        each = torch.cat([cells, *(part.flatten(2) for part in shares)], 1).transpose(1, 2)
        logits, made = _through(head.classifier, head.vectors(given), each)
    selected = select_classes(classes, top_k, logits, labels)
    bias = logits - made.sum(1)
    found = made.transpose(1, 2)
    if selected is not None:
        rows = torch.arange(len(found), device=found.device)[:, None]
        found = torch.cat([found[rows, selected], found.mean(1, keepdim=True)], 1)
    found = found.reshape(*found.shape[:2], *parts.grid)
    hidden = any(isinstance(layer, nn.ReLU) for layer in head.classifier)
    held = tuple(dict.fromkeys((*parts.held, *([GATES] if hidden else []))))
    return Explanation.made(found, selected, bias, logits, parts.additive, parts.placement, labels, held)


def _through(classifier: nn.Sequential, vector: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (N, C) of vectors (N, D), and what each of their parts (N, J, D) adds to them, (N, J, C): layers
    without their biases, and the gates that the vectors open.
    """
    for layer in classifier:
        if isinstance(layer, nn.ReLU):
            parts, vector = parts * (vector > 0)[:, None], vector.relu()
        else:
            parts, vector = layer(parts) - layer(torch.zeros_like(vector))[:, None], layer(vector)
    return vector, parts
