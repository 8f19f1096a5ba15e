"""Kernels share the functions that they call: those that are made of the same (`kernel_code.made_of`)."""

import ctypes
import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from gapstone.loops import compiled, kernel_code, specialize, vector_memory
from gapstone.loops.kernel_code import bound, made_of, namespace
from gapstone.loops.kernels import Kernel
from gapstone.loops.tuned import lanes, whole_back_codegen, whole_codegen
from gapstone.loops.tuned.pixel_codegen import Pixels
from gapstone.loops.tuned.row_back_codegen import RowsBack
from gapstone.loops.tuned.row_codegen import Rows
from gapstone.loops.tuned.whole_back_codegen import WholeMapBack
from gapstone.loops.tuned.whole_codegen import WholeMap
from gapstone.regions.places import Intervals, Labels, Windows
from tests.contract.test_compiled_loop import FORMULAS, PARAMETER
from tests.loops_by_name import call_of
from tests.marks import slow_but

pytest.importorskip("numba")

PLACES = {
    "whole": Intervals(None),
    "labels": Labels(torch.zeros(1, 4, 4, dtype=torch.long), 2),
    "windows": Intervals((Windows(3, 2, 1, 0, 0, 1),) * 2),
}

TUNED = [
    Rows("max", "f32", 3, 3, 2, 2), RowsBack("max", "f32", 3, 3, 2, 2), Pixels("max", "f32", 3, 3, 2, 2, 1, 1, 1, 1),
    *(WholeMap("gem", "f32", columns) for columns in (False, True)),
    *(WholeMapBack("gem", "f32", columns) for columns in (False, True)),
]  # fmt: skip


@pytest.fixture
def bind(monkeypatch):
    """`bind.kernels(name, x, place)`: of a call and its gradient, not compiled; `bind.helpers`: what they call."""
    helpers = []

    def njit(function, inline=True):
        helpers.append((function, made_of(function)))
        return kernel_code.njit(function, inline)

    for module in (specialize, lanes, whole_codegen, whole_back_codegen):
        monkeypatch.setattr(module, "njit", njit)
    monkeypatch.setattr(specialize, "kernel", specialize.bind)

    def kernels(name, x, place):
        given = (PARAMETER[name],) if name in PARAMETER else ()
        for ask in compiled.kernels(call_of(name, x, place, given, True), x):
            ask()

    return SimpleNamespace(kernels=kernels, helpers=helpers)


@pytest.mark.parametrize("name", slow_but(FORMULAS, "max", "gem"))
def test_nothing_is_bound_after_it_was_told_what_a_function_is_made_of(bind, name):
    """Numba reads names when it compiles: a function that was told too early would be taken for another one."""
    for dtype in (torch.float32, torch.bfloat16):
        for place in PLACES.values():
            bind.kernels(name, torch.rand(1, 3, 4, 4).to(dtype), place)
    for spec in TUNED:
        spec.bind("test")
    assert len(bind.helpers) > 100
    for function, parts in bind.helpers:
        assert parts == made_of(function), function


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", slow_but(FORMULAS, "max", "gem"))
def test_a_kernel_is_made_of_what_another_one_compiled(bind, name, place, monkeypatch):
    made = []
    monkeypatch.setattr(kernel_code, "_helpers", {})
    monkeypatch.setattr(
        kernel_code.numba_internals, "helper", lambda function, inline: made.append(function) or object()
    )
    for _ in range(2):
        bind.kernels(name, torch.rand(1, 3, 4, 4), PLACES[place])
    assert 2 * len(made) <= len(bind.helpers)


def one(x):
    return x + number + k.word(x)  # noqa: F821 - bound


def test_what_does_the_same_is_made_of_the_same():
    def told(function=one, **names):
        return made_of(bound(function, {"number": 1, "k": namespace({"word": math.sin}), **names}))

    def scaled(by):
        return lambda x: by * x

    def by_default(by):
        return lambda x, by=by: by * x

    def several(x):
        return [one(y) for y in (lambda: x)()]

    assert told() == told(k=namespace({"word": math.sin, "other": 2}))
    different = [told(), told(number=2), told(number=True), told(number=1.0), told(number=0.0), told(number=-0.0),
                 told(k=namespace({"word": math.cos})), made_of(scaled(2)), made_of(scaled(3)), made_of(scaled(True)),
                 made_of(by_default(2)), made_of(by_default(3))]  # fmt: skip
    assert None not in different
    assert all(a != b for a, b in itertools.combinations(different, 2))
    untold = {"not there yet": made_of(bound(one, {"k": namespace({})})), "in no namespace": told(k=namespace({})),
              "to be compiled": told(number=one), "another function inside": made_of(several),
              "no hash": told(number=[1])}  # fmt: skip
    for why, parts in untold.items():
        assert parts is None, why


def test_functions_of_one_code_and_other_names_are_others(monkeypatch):
    """To machine code: the numbers of each."""
    monkeypatch.setattr(kernel_code, "_helpers", {})
    found = []
    for add in (3, 3, 5):
        k = namespace({"number": vector_memory.number, "write": vector_memory.writer()})
        k.added = kernel_code.njit(bound(added, {"ADD": add}), inline=False)
        code = kernel_code.emit(bound(store_added, {"k": k}, f"kernel_{len(found)}"), f"of_test_{len(found)}")
        at = (ctypes.c_int64 * 2)(10, 0)
        Kernel(f"of_test_{len(found)}", code).call(ctypes.addressof(at))
        found.append((at[1], k.added))
    assert [number for number, _ in found] == [13, 13, 15]
    assert found[0][1] is found[1][1]
    assert found[0][1] is not found[2][1]


def added(x):
    return x + ADD  # noqa: F821 - bound


def store_added(address):
    k.write(address + 8, k.added(k.number(address, 0)))  # noqa: F821 - bound
