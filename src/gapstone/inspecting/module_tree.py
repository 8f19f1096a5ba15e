"""A row of costs per module, including its children."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from gapstone.inspecting.forward_passes import PassFacts
from gapstone.inspecting.network_costs import ModuleCosts
from gapstone.tracing.arithmetic import Arithmetic


def module_rows(
    model: nn.Module, facts: PassFacts, tallies: dict[str, Arithmetic], memory: dict[str, int] | None
) -> tuple[ModuleCosts, ...]:
    """Return a row per module in the order of `named_modules()`, the model itself first.

    By path, `tallies` has the arithmetic of each module's own calls without its children, and `memory` the bytes that
    they save for backward; None if the model does not train.
    """
    return tuple(_row(path, module, facts, tallies, memory) for path, module in model.named_modules())


def count_shared_once(rows: Sequence[ModuleCosts], model: nn.Module, facts: PassFacts) -> tuple[ModuleCosts, ...]:
    """Return the rows with each shared parameter counted only in the first module that has it."""
    head = _head_parameters(facts)
    owners = [(path, p.numel(), id(p) in head) for path, p in model.named_parameters()]  # without duplicates

    def recount(row: ModuleCosts) -> ModuleCosts:
        inside = [(n, used) for path, n, used in owners if not row.path or path.startswith(f"{row.path}.")]
        return replace(row, parameters=sum(n for n, _ in inside), head_parameters=sum(n for n, used in inside if used))

    return tuple(recount(row) for row in rows)


def _head_parameters(facts: PassFacts) -> frozenset[int]:
    """Return the parameters, by `id`, that are used only after the last map."""
    return facts.used - facts.split.trunk if facts.split else frozenset()


def _row(
    path: str, module: nn.Module, facts: PassFacts, tallies: dict[str, Arithmetic], memory: dict[str, int] | None
) -> ModuleCosts:
    def inside(other: str) -> bool:
        return not path or other == path or other.startswith(f"{path}.")

    module_facts = facts.modules.get(path)
    tally = sum((t for other, t in tallies.items() if inside(other)), Arithmetic())
    parameters = {id(p): p.numel() for p in module.parameters()}
    head = _head_parameters(facts)
    field = module_facts.field if module_facts else None
    return ModuleCosts(
        path=path,
        kind=type(module).__name__,
        depth=path.count(".") + 1 if path else 0,
        output=module_facts.output if module_facts else None,
        calls=module_facts.calls if module_facts else 0,
        parameters=sum(parameters.values()),
        head_parameters=sum(n for key, n in parameters.items() if key in head),
        macs=tally.macs,
        pooled=tally.pooled,
        single=tally.single,
        kept_bytes=sum(n for other, n in memory.items() if inside(other)) if memory is not None else None,
        field=field.size if field else None,
        stride=field.stride if field else None,
        whole=field.whole if field else False,
    )
