"""A row per module, each with all that is inside it."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from gapstone.inspecting.forward_passes import PassFacts
from gapstone.inspecting.network_costs import ModuleCosts
from gapstone.tracing.arithmetic import Arithmetic


def rows_of(
    model: nn.Module, seen: PassFacts, tallies: dict[str, Arithmetic], memory: dict[str, int] | None
) -> tuple[ModuleCosts, ...]:
    """In the order of `named_modules()`, the model itself first.

    tallies, memory: by path, of each module's own calls, without those of the modules inside it.
    """
    return tuple(_row(path, module, seen, tallies, memory) for path, module in model.named_modules())


def each_once(rows: Sequence[ModuleCosts], model: nn.Module, seen: PassFacts) -> tuple[ModuleCosts, ...]:
    """The same rows, each parameter counted where it first stands: modules that share one are counted together."""
    head = _head(seen)
    first = [(path, p.numel(), id(p) in head) for path, p in model.named_parameters()]  # without duplicates

    def counted(row: ModuleCosts) -> ModuleCosts:
        inside = [(n, used) for path, n, used in first if not row.path or path.startswith(f"{row.path}.")]
        return replace(row, parameters=sum(n for n, _ in inside), head_parameters=sum(n for n, used in inside if used))

    return tuple(counted(row) for row in rows)


def _head(seen: PassFacts) -> frozenset[int]:
    """Parameters, by identity, that are used only after the last map."""
    return seen.answers - seen.split.trunk if seen.split else frozenset()


def _row(
    path: str, module: nn.Module, seen: PassFacts, tallies: dict[str, Arithmetic], memory: dict[str, int] | None
) -> ModuleCosts:
    def inside(other: str) -> bool:
        return not path or other == path or other.startswith(f"{path}.")

    told = seen.modules.get(path)
    tally = sum((t for other, t in tallies.items() if inside(other)), Arithmetic())
    parameters = {id(p): p.numel() for p in module.parameters()}
    head = _head(seen)
    places = told.field if told else None
    return ModuleCosts(
        path=path,
        kind=type(module).__name__,
        depth=path.count(".") + 1 if path else 0,
        output=told.output if told else None,
        calls=told.calls if told else 0,
        parameters=sum(parameters.values()),
        head_parameters=sum(n for key, n in parameters.items() if key in head),
        macs=tally.macs,
        pooled=tally.pooled,
        single=tally.single,
        kept_bytes=sum(n for other, n in memory.items() if inside(other)) if memory is not None else None,
        field=places.size if places else None,
        stride=places.stride if places else None,
        whole=places.whole if places else False,
    )
