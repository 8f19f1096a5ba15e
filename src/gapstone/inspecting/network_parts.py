"""The network cut into a dozen parts at most: where its parameters, multiply-adds and memory are, at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from gapstone.inspecting.network_costs import ModuleCosts, NetworkPart

MOST = 14
LARGE = 0.6
"""Of the whole, in parameters, multiply-adds or memory: a part as large is cut again."""
SMALL = 0.005
"""Of the whole in all three: a part as small is told together with its neighbour."""


def parts_of(rows: Sequence[ModuleCosts]) -> tuple[NetworkPart, ...]:
    """In the order the model has them, together the whole: top-level modules; large ones cut into theirs, where these
    are many into stretches whose outputs have one size (`features 5–9`, at 112×112).

    rows: of `tree.each_once`, as what is shared must not be counted twice.
    """
    whole = rows[0]
    children = {row.path: _children(rows, row) for row in rows}
    parts = [_Stretch((whole,))]
    while True:
        others = sum(_share(part.part(), whole) >= SMALL for part in parts) - 1
        cuts = [(cut, n) for n, part in enumerate(parts) if (cut := _cut(part, children, whole, MOST - others))]
        if not cuts:
            break
        cut, number = max(cuts, key=lambda each: _share(parts[each[1]].part(), whole))
        parts[number : number + 1] = cut
    return _joined([p.part() for p in parts], whole)


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring modules of one parent."""

    rows: tuple[ModuleCosts, ...]
    own: ModuleCosts | None = None
    """A module whose own calls and parameters (outside its children) are meant."""

    def part(self) -> NetworkPart:
        first, last = self.rows[0], self.rows[-1]
        name = first.path or first.kind
        if last is not first:
            parent, _, begin = first.path.rpartition(".")
            end = last.path.rpartition(".")[2]
            alike = begin.rstrip("0123456789")
            end = end.removeprefix(alike) if end.removeprefix(alike).isdecimal() else end  # block_0–11
            name = f"{parent} {begin}–{end}" if parent else f"{begin}–{end}"
        shapes = [row.output for row in self.rows if row.output]
        kept = [row.kept_bytes for row in self.rows]
        return NetworkPart(
            name,
            shapes[-1] if shapes else None,
            sum(row.parameters for row in self.rows),
            sum(row.head_parameters for row in self.rows),
            sum(row.macs for row in self.rows),
            None if None in kept else sum(n for n in kept if n is not None),
        )


def _children(rows: Sequence[ModuleCosts], parent: ModuleCosts) -> list[ModuleCosts]:
    start = f"{parent.path}." if parent.path else ""
    return [row for row in rows if row.depth == parent.depth + 1 and row.path.startswith(start)]


def _cut(
    part: _Stretch, children: dict[str, list[ModuleCosts]], whole: ModuleCosts, most: int
) -> list[_Stretch] | None:
    """Into what is inside, `most` pieces that can be seen; None where it is small, or has nothing inside."""
    if len(part.rows) > 1 or part.own is not None:
        return None
    row = part.rows[0]
    inside = children[row.path]
    if not inside or _share(part.part(), whole) < LARGE:
        return None
    rest = _rest(row, inside)
    runs = groupby(inside, key=lambda child: child.output[1:] if child.output else None)
    for cut in ([_Stretch((child,)) for child in inside], [_Stretch(tuple(run)) for _, run in runs]):
        cut[:0] = [_Stretch((rest,), own=rest)] if rest is not None else []
        if sum(_share(piece.part(), whole) >= SMALL for piece in cut) <= most:
            return cut
    return None


def _rest(row: ModuleCosts, inside: Sequence[ModuleCosts]) -> ModuleCosts | None:
    """What a module does and holds itself, outside its children."""
    left = replace(
        row,
        path=f"{row.path or row.kind} itself",
        output=None,
        parameters=row.parameters - sum(child.parameters for child in inside),
        head_parameters=row.head_parameters - sum(child.head_parameters for child in inside),
        macs=row.macs - sum(child.macs for child in inside),
        kept_bytes=None if row.kept_bytes is None else row.kept_bytes - sum(child.kept_bytes or 0 for child in inside),
    )
    return left if left.parameters or left.macs or left.kept_bytes else None


def _share(part: NetworkPart, whole: ModuleCosts) -> float:
    return max(
        part.parameters / max(whole.parameters, 1),
        part.macs / max(whole.macs, 1),
        (part.kept_bytes or 0) / max(whole.kept_bytes or 1, 1),
    )


def _joined(parts: list[NetworkPart], whole: ModuleCosts) -> tuple[NetworkPart, ...]:
    """Without what is next to nothing, which is told with what comes after it (at the end: before it)."""
    kept: list[NetworkPart] = []
    waiting: NetworkPart | None = None
    for part in parts:
        whole_part = part if waiting is None else _together(waiting, part, part)
        if _share(whole_part, whole) < SMALL:
            waiting = whole_part
        else:
            kept.append(whole_part)
            waiting = None
    if waiting is not None:
        kept = [*kept[:-1], _together(kept[-1], waiting, kept[-1])] if kept else [waiting]
    return tuple(kept)


def _together(a: NetworkPart, b: NetworkPart, named: NetworkPart) -> NetworkPart:
    kept = None if a.kept_bytes is None or b.kept_bytes is None else a.kept_bytes + b.kept_bytes
    return NetworkPart(
        named.name,
        named.output,
        a.parameters + b.parameters,
        a.head_parameters + b.head_parameters,
        a.macs + b.macs,
        kept,
    )
