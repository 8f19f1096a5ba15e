"""Divides a network into at most MOST parts that show where parameters, multiply-adds and memory are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from gapstone.inspecting.network_costs import ModuleCosts, NetworkPart

MOST = 14
LARGE = 0.6
"""A part with this share of the parameters, multiply-adds or memory is divided further."""
SMALL = 0.005
"""A part with less than this share of all three is merged with its neighbour."""


def network_parts(rows: Sequence[ModuleCosts]) -> tuple[NetworkPart, ...]:
    """Return the parts in the order of the model: its top-level modules, with large ones divided into their children.

    Many children become runs of equal output size (`features 5–9`, at 112×112). The rows are those of
    `count_shared_once`, so that nothing is counted twice.
    """
    whole = rows[0]
    children = {row.path: _children(rows, row) for row in rows}
    parts = [_ModuleRun((whole,))]
    while True:
        visible_others = sum(_share(part.part(), whole) >= SMALL for part in parts) - 1
        cuts = [
            (pieces, n)
            for n, part in enumerate(parts)
            if (pieces := _split(part, children, whole, MOST - visible_others))
        ]
        if not cuts:
            break
        pieces, number = max(cuts, key=lambda candidate: _share(parts[candidate[1]].part(), whole))
        parts[number : number + 1] = pieces
    return _merge_small([p.part() for p in parts], whole)


@dataclass(frozen=True)
class _ModuleRun:
    """Neighbouring modules of one parent."""

    rows: tuple[ModuleCosts, ...]
    divisible: bool = True
    """False for the calls and parameters of a module without its children."""

    def part(self) -> NetworkPart:
        first, last = self.rows[0], self.rows[-1]
        name = first.path or first.kind
        if last is not first:
            parent, _, begin = first.path.rpartition(".")
            end = last.path.rpartition(".")[2]
            prefix = begin.rstrip("0123456789")
            end = end.removeprefix(prefix) if end.removeprefix(prefix).isdecimal() else end  # block_0–11
            name = f"{parent} {begin}–{end}" if parent else f"{begin}–{end}"
        shapes = [row.output for row in self.rows if row.output]
        return _sum(name, shapes[-1] if shapes else None, self.rows)


def _sum(
    name: str, output: tuple[int, ...] | None, parts: Sequence[ModuleCosts] | Sequence[NetworkPart]
) -> NetworkPart:
    memory = [part.kept_bytes for part in parts]
    return NetworkPart(
        name,
        output,
        sum(part.parameters for part in parts),
        sum(part.head_parameters for part in parts),
        sum(part.macs for part in parts),
        None if None in memory else sum(n for n in memory if n is not None),
    )


def _children(rows: Sequence[ModuleCosts], parent: ModuleCosts) -> list[ModuleCosts]:
    start = f"{parent.path}." if parent.path else ""
    return [row for row in rows if row.depth == parent.depth + 1 and row.path.startswith(start)]


def _split(
    part: _ModuleRun, children: dict[str, list[ModuleCosts]], whole: ModuleCosts, most: int
) -> list[_ModuleRun] | None:
    """Divide a part into its children, with at most `most` visible pieces; None if it is small or has no children."""
    if len(part.rows) > 1 or not part.divisible:
        return None
    row = part.rows[0]
    inside = children[row.path]
    if not inside or _share(part.part(), whole) < LARGE:
        return None
    remainder = _costs_without(row, inside)
    runs = groupby(inside, key=lambda child: child.output[1:] if child.output else None)
    for pieces in ([_ModuleRun((child,)) for child in inside], [_ModuleRun(tuple(run)) for _, run in runs]):
        pieces[:0] = [_ModuleRun((remainder,), divisible=False)] if remainder is not None else []
        if sum(_share(piece.part(), whole) >= SMALL for piece in pieces) <= most:
            return pieces
    return None


def _costs_without(row: ModuleCosts, inside: Sequence[ModuleCosts]) -> ModuleCosts | None:
    """Return the costs of a module without its children; None if there are none."""
    remainder = replace(
        row,
        path=f"{row.path or row.kind} itself",
        output=None,
        parameters=row.parameters - sum(child.parameters for child in inside),
        head_parameters=row.head_parameters - sum(child.head_parameters for child in inside),
        macs=row.macs - sum(child.macs for child in inside),
        kept_bytes=None if row.kept_bytes is None else row.kept_bytes - sum(child.kept_bytes or 0 for child in inside),
    )
    return remainder if remainder.parameters or remainder.macs or remainder.kept_bytes else None


def _share(part: NetworkPart, whole: ModuleCosts) -> float:
    return max(
        part.parameters / max(whole.parameters, 1),
        part.macs / max(whole.macs, 1),
        (part.kept_bytes or 0) / max(whole.kept_bytes or 1, 1),
    )


def _merge_small(parts: list[NetworkPart], whole: ModuleCosts) -> tuple[NetworkPart, ...]:
    """Merge small parts with the next part, and at the end with the one before."""
    visible: list[NetworkPart] = []
    pending: NetworkPart | None = None
    for part in parts:
        merged = part if pending is None else _sum(part.name, part.output, (pending, part))
        if _share(merged, whole) < SMALL:
            pending = merged
        else:
            visible.append(merged)
            pending = None
    if pending is not None:
        last = visible.pop() if visible else None
        visible.append(_sum(last.name, last.output, (last, pending)) if last else pending)
    return tuple(visible)
