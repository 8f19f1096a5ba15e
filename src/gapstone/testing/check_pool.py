"""`check_pool`: one call that runs the contract of pools on a definition of your own."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial as bind

import torch
from torch import Tensor

from gapstone.loops import compiled
from gapstone.loops.pool_call import LoopName, PoolCall
from gapstone.pooling.call_checks import Value
from gapstone.pooling.pool_function import pool_by_loop
from gapstone.pools import POOLS, Definition
from gapstone.pools.digest import digest
from gapstone.pools.registration import registered
from gapstone.regions import Grid, Mask, Region, Whole, Window
from gapstone.regions.places import Intervals
from gapstone.testing import pool_checks as checks
from gapstone.testing.pool_checks import Formula, Given
from gapstone.testing.region_cases import Axis, regions

SIZES = ((1,), (7, 1), (9, 11), (3, 4, 5))
NARROW = (torch.float32, torch.float16, torch.bfloat16)
"""Tried on the first map of two axes alone: what is wrong in them is wrong for every size."""
EVERY = {
    "merging": checks.check_merging,
    "order": checks.check_order,
    "NaN": checks.check_nan,
    "nothing": checks.check_empty,
    "maps": checks.check_maps,
}


@dataclass(frozen=True)
class PoolReport:
    """What was checked of a pool, and what gapstone cannot do with it."""

    checked: tuple[str, ...]
    cannot: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"checked: {', '.join(self.checked)}", *(f"not possible: {line}" for line in self.cannot)])


def check_pool(
    definition: Definition,
    formula: Formula,
    *,
    parameters: Given | None = None,
    signed: bool = False,
    compile: bool = True,
) -> PoolReport:
    """Run the contract of pools on a definition.

    Examples:
        >>> from gapstone.testing import check_pool
        >>> report = check_pool(harmonic, lambda x: x.shape[-1] / (1 / x).sum(-1))

    The answers over every kind of region, in every dtype and layout, are those of the formula on the positions; the
    gradient is the formula's; states of tiles add up; nothing, NaN, weights and learned parameters are as they should
    be; the compiled loop agrees with the reference. The pool need not be registered.

    Args:
        definition: the pool.
        formula: the same pool written differently: a function of a float64 tensor that pools its last axis. It is
            differentiated by torch.
        parameters: numbers that are given to every call and to the formula, by name.
        signed: try negative numbers, too; else all are positive.
        compile: compile the pool's kernels, some seconds each, and compare them with the reference.

    Returns:
        What was checked, and what cannot be derived from the definition.

    Raises:
        AssertionError: the first thing that is wrong.
        ValueError: the definition cannot be registered.
    """
    given = dict(parameters or {})
    name = definition.name
    with registered(definition):
        values = tuple(given.get(key, p.default) for key, p in definition.parameters.items())
        if missing := [k for k, v in zip(definition.parameters, values, strict=True) if v is None]:
            raise ValueError(f"pool {name!r} needs {', '.join(missing)}: give check_pool(…, parameters=…).")
        checks.check_laws(definition, tuple(v for v in values if v is not None))
        _check_formula(name, formula, given, signed)
        checked = ["laws", "answers", "gradient", *EVERY]
        for check in EVERY.values():
            check(name, given, signed)
        if definition.weighted:
            checks.check_weights(name, formula, given, signed)
            checked.append("weights")
        if definition.slope:
            checks.check_slope(name, given, signed)
            checked.append("slope")
        if compile and compiled.refuses(_whole_map(definition)) is None:
            _check_compiled(name, given, signed)
            checked.append("compiled loop")
        return PoolReport(tuple(checked), tuple(cannot(definition)))


def cannot(definition: Definition) -> Iterator[str]:
    """What does not follow from the definition, one sentence each."""
    if not definition.adds_up:
        yield "class activation maps whose parts add up to the score (adds_up=False)"
    if not definition.weighted:
        yield "a Mask of weights (weighted=False)"
    if definition.parameters and definition.slope is None:
        yield f"learning {', '.join(definition.parameters)} (no slope)"
    if definition.integers is None:
        yield "maps of integers (integers=None)"
    if definition.count is None:
        yield "a Window's divisor (count=None)"
    if reason := compiled.refuses(_whole_map(definition)):
        yield f"a compiled loop ({reason}): the reference answers"
    elif digest(definition) is None:
        yield "kernels on disk, they are compiled anew in every process (the functions' source cannot be read)"


def _whole_map(definition: Definition) -> PoolCall:
    return PoolCall(definition, Intervals(None), (1, 1, 1), torch.float32, "cpu", "contiguous")


def _check_formula(name: str, formula: Formula, given: Given, signed: bool) -> None:
    """Answers and gradients by the reference loop, over all kinds of regions."""

    def formula_of(x: Tensor, answers: Axis) -> Tensor:
        return checks.pooled_by_formula(formula, x, answers, given)

    ask = bind(_ask, name, given, "reference")
    for sizes in SIZES:
        for case in (case for kind in regions(sizes).values() for case in kind):
            for dtype in (torch.float64, *(NARROW if sizes == SIZES[2] else ())):
                x = checks.made_map(2, 3, *sizes, dtype=dtype, seed=sum(sizes), signed=signed)
                checks.check_answer(ask, formula_of(x, case.answers), x, case)
            x = checks.made_map(2, 3, *sizes, seed=1 + sum(sizes), signed=signed)
            checks.check_gradient(ask, formula_of, x, case)


def _ask(name: str, given: Given, loop: LoopName, x: Tensor, region: Region) -> Tensor:
    return pool_by_loop(x, name, region, loop, **given)


def _check_compiled(name: str, given: Given, signed: bool) -> None:
    """The compiled loop's answers and gradients are the reference's."""
    x = checks.made_map(2, 5, 9, 11, dtype=torch.float32, signed=signed)
    mask = torch.arange(99).reshape(9, 11) % 3 != 0
    learned = [key for key, parameter in POOLS[name].parameters.items() if parameter.learned]
    for region in (Whole(), Window(3, 1, 1), Grid(2), Mask(mask)):
        for laid in checks.layouts(x):
            results = [_with_gradients(name, given, learned, loop, laid, region) for loop in ("reference", "compiled")]
            for what, a, b in zip(("answer", "gradient", "slope"), *results, strict=False):
                scale = float(a.abs().nan_to_num(0.0).max().clamp(min=1e-3))
                where = f"the compiled loop's {what} over {region!r}, strides {laid.stride()}, is not the reference's"
                checks.close(b, a, where, 2e-5, 2e-5 * scale)


def _with_gradients(
    name: str, given: Given, learned: list[str], loop: LoopName, x: Tensor, region: Region
) -> list[Tensor]:
    x = x.detach().requires_grad_()
    numbers = {key: given.get(key) or POOLS[name].parameters[key].default or 1.0 for key in learned}
    tensors = {key: torch.tensor([float(number)]).requires_grad_() for key, number in numbers.items()}
    values: dict[str, Value] = {**given, **tensors}
    out = pool_by_loop(x, name, region, loop, **values)
    g = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad(out, [x, *tensors.values()], g)]
