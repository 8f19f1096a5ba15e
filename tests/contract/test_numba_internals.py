"""Numba's private names: with them kernels compile sooner, without them they are the same."""

import importlib.util
import sys

import numpy as np
import pytest

from gapstone.bench import doctor
from gapstone.loops import kernel_code, numba_internals
from gapstone.loops.kernels import Kernel
from gapstone.loops.vector_memory import number, writer


@pytest.fixture(autouse=True)
def tried_anew():
    works = numba_internals.works
    works.cache_clear()
    yield
    works.cache_clear()


def made():
    """A kernel with a function that is inlined and one that stays: of numbers at an address, 3 (a + 8) b."""
    k = kernel_code.namespace({"number": number})
    k.inlined = kernel_code.njit(lambda x: x + 8)

    def called(x, y):
        return 3 * k.inlined(x) * y

    k.called = kernel_code.njit(called, inline=False)
    k.write = writer()

    def kernel_of_test(address):
        k.write(address, k.called(number(address, 0), number(address, 1)))

    return kernel_code.emit(kernel_of_test, "kernel_of_test")


def result(code):
    numbers = np.array([5, 7], np.int64)
    Kernel("kernel_of_test", code).call(numbers.ctypes.data)
    return numbers.tolist()


def test_this_numba_has_them_all():
    """Whoever supports another Numba learns here that kernels take a third longer; they work all the same."""
    assert numba_internals.works()
    assert result(made()) == [273, 7]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("_Called", "_optimize_final_module"),
        ("_Inlined", "get_pointer_to_function"),
        ("_Inlined", "_finalize_final_module"),
        ("_Inline", "__init__"),
    ],
)
def test_a_numba_that_does_otherwise_compiles_kernels_itself(owner, name, monkeypatch):
    def changed(self, *_):
        raise AttributeError(name)

    monkeypatch.setattr(getattr(numba_internals, owner), name, changed)
    assert not numba_internals.works()
    assert result(made()) == [273, 7]


def test_a_numba_without_these_modules_compiles_kernels_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba.core.codegen", None)
    spec = importlib.util.spec_from_file_location("elsewhere", numba_internals.__file__)
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    assert not elsewhere.works()
    monkeypatch.setattr(kernel_code, "numba_internals", elsewhere)
    assert result(made()) == [273, 7]


def test_doctor_says_what_is_missing(monkeypatch):
    assert doctor.machine()["numba lacks"] == "nothing"
    monkeypatch.setattr(doctor, "works", lambda: False)
    assert "compile" in doctor.machine()["numba lacks"]
