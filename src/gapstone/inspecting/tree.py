"""A row per module, each with all that is inside it."""

from torch import nn

from gapstone.cost import Tally
from gapstone.inspecting.passes import Looked
from gapstone.inspecting.result import Row


def rows_of(
    model: nn.Module, seen: Looked, tallies: dict[str, Tally], memory: dict[str, int] | None
) -> tuple[Row, ...]:
    """In the order of `named_modules()`, the model itself first.

    tallies, memory: by path, of each module's own calls, without those of the modules inside it.
    """
    return tuple(_row(path, module, seen, tallies, memory) for path, module in model.named_modules())


def _row(path: str, module: nn.Module, seen: Looked, tallies: dict[str, Tally], memory: dict[str, int] | None) -> Row:
    def inside(other: str) -> bool:
        return not path or other == path or other.startswith(f"{path}.")

    told = seen.modules.get(path)
    tally = sum((t for other, t in tallies.items() if inside(other)), Tally())
    parameters = {id(p): p.numel() for p in module.parameters()}
    head = seen.answers - seen.split.trunk if seen.split else frozenset()
    places = told.seen if told else None
    return Row(
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
        field=places.field if places else None,
        stride=places.stride if places else None,
        whole=places.whole if places else False,
    )
