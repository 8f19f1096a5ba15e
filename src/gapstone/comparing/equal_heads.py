"""Heads that are the same function on these feature maps: comparing them would rank noise."""

from collections.abc import Sequence
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from gapstone.heads import BackboneOutput, Head, Reads, parse
from gapstone.models.classifier import Classifier


def equal_heads(
    heads: Sequence[str], given: Tensor | BackboneOutput, channels: int | None = None
) -> list[tuple[str, ...]]:
    """Groups of heads, each of at least two, whose linear layers read the same numbers.

    On maps of 1×1 cells all pools are one function, `fc:grid=1` is `gap` on any map, and `gem:p=1` is on maps without
    negative numbers. Inputs that stand twice (`catavgmax` on 1×1) do not make another function of a linear layer.
    A plain ViT's own pooler gives the class token, and that of many CNNs the mean. Attention over a single position has
    nothing to choose. Other pools that learn parameters, and heads that differ in hidden layers, dropout or norm, are
    never the same.

    >>> maps = torch.rand(4, 8, 1, 1)
    >>> equal_heads(["gap", "gmp", "nin", "fc", "gem:p=learned"], maps)
    [('gap', 'gmp', 'fc')]

    Args:
        heads: their specs, in the order in which they are named.
        given: what they read of a few images, together: maps (N, C, h, w), or more.
        channels: of a layer; None: those of the maps, of one layer.
    """
    output = given if isinstance(given, BackboneOutput) else BackboneOutput(given)
    width = channels or output.maps.shape[1]
    groups: dict[tuple[object, ...], list[tuple[str, list[Tensor]]]] = {}
    for spec in heads:
        parsed = parse(spec)
        if parsed.own_head is not None:
            continue
        wide = width if output.own is None or not parsed.reads.own else output.own.shape[1]
        head = Head(spec, wide, 2, tuple(output.maps.shape[2:])).eval()
        single = head.recipe.pools == ("attention",) and parsed.reads.maps_alone and output.maps[0, 0].numel() == 1
        if head.recipe.maps or (any(True for _ in head.pools.parameters()) and not single):
            continue  # its class maps, or its pool, are trained
        inputs = _inputs(head, output.part(parsed.reads, width), width)
        alike = parsed.hidden, parsed.number("dropout", 0.0), parsed.normed
        groups.setdefault(alike, []).append((spec, inputs))
    found = [group for alike in groups.values() for group in _split(alike)]
    return sorted(found, key=lambda group: heads.index(group[0]))


@torch.inference_mode()
def find_equal_heads(heads: Sequence[str], model: Classifier) -> tuple[list[tuple[str, ...]], tuple[int, int]]:
    """Groups of heads that are one function on the model's backbone, and the cells of its maps.

    The backbone has what the heads read.
    """
    # noise: of blank images, such as borders of scans, the maps may be constant, and mean and maximum the same there
    size = model.preprocessing.channels, *model.preprocessing.size
    noise = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
    features = model.features
    device = next(features.parameters()).device
    output = features.read(noise.to(device), reads_of(heads)).float()
    output = BackboneOutput(output) if isinstance(output, torch.Tensor) else output
    height, width = output.maps.shape[2:]
    return equal_heads(heads, output, features.channels), (height, width)


def reads_of(heads: Sequence[str]) -> Reads:
    """All that the heads read of the backbone together."""
    return reduce(or_, [parse(head).reads for head in heads], Reads())


def without_equals(heads: Sequence[str], groups: Sequence[Sequence[str]], baseline: str) -> tuple[str, ...]:
    """The heads with one of each group: the baseline, or the first."""
    left = {head for group in groups for head in group} - {_representative(group, baseline) for group in groups}
    return tuple(head for head in heads if head not in left)


def describe(groups: Sequence[Sequence[str]], baseline: str, cells: tuple[int, int]) -> list[str]:
    """A sentence per group."""
    sentences = []
    for group in groups:
        kept = _representative(group, baseline)
        others = [head for head in group if head != kept]
        verb = "are" if len(others) > 1 else "is"
        sentences.append(
            f"On these feature maps ({cells[0]}×{cells[1]}) {', '.join(others)} {verb} the same function as {kept}: "
            f"training {'them' if len(others) > 1 else 'it'}, too, would rank noise. Left out."
        )
    return sentences


def _representative(group: Sequence[str], baseline: str) -> str:
    return baseline if baseline in group else group[0]


@torch.no_grad()
def _inputs(head: Head, given: Tensor | BackboneOutput, channels: int) -> list[Tensor]:
    """What the linear layer reads, as the vectors (N, C) that stand side by side in it, each once."""
    inputs = head.vectors(given.float())
    if head.reads.own:
        return [inputs]
    if head.recipe.pools or head.recipe.class_token:
        parts = torch.split(inputs, channels, 1)
    else:  # flattened: a vector per cell
        parts = inputs.view(len(inputs), head.depth, -1).unbind(2)
    distinct: list[Tensor] = []
    for part in parts:
        if not any(_same(part, other) for other in distinct):
            distinct.append(part)
    return distinct


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def _split(alike: list[tuple[str, list[Tensor]]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    while alike:
        (first, inputs), *others = alike
        same = [
            spec
            for spec, other in others
            if len(other) == len(inputs) and all(any(_same(part, mine) for mine in inputs) for part in other)
        ]
        if same:
            found.append((first, *same))
        alike = [(spec, other) for spec, other in others if spec not in same]
    return found
