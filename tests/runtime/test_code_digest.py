"""A digest of code: the same in another process and after a change of comments, another after one of what it does."""

import functools
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gapstone.runtime.code_digest import UnknownCodeError, code_digest, generators_in, is_installed

NET = """
import functools, math, torch
from torch import nn
import helper

SCALE = 2.0
TABLE = frozenset({"a", "b", "c", "d"})

def act(x):
    # a comment
    return torch.relu(x) * SCALE if "a" in TABLE else x

@functools.cache
def width():
    return 4

class Base(nn.Module):
    def norm(self, x):
        return x / math.sqrt(2)

class Net(Base):
    gain = 3
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, width(), 3)
    def forward(self, x):
        return helper.shift(self.norm(act(self.conv(x))))
    @property
    def first(self):
        return 1
    @staticmethod
    def second(x=1):
        return x
"""
HELPER = "def shift(x): return inner(x) + 1\ndef inner(x): return x\n"


def digest_in(folder, net=NET, helper=HELPER):
    """Of the class in a module of a folder, in a process of its own, whose strings are hashed anew."""
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(net)
    (folder / "helper.py").write_text(helper)
    code = "import net; from gapstone.runtime.code_digest import code_digest; print(code_digest(net.Net))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def loaded(net=NET, helper=HELPER):
    """The class, from text, without a file."""
    module = types.ModuleType("helper")
    exec(helper, module.__dict__)
    space = {"__name__": "net_of_text", "helper": module}
    exec(net.replace("import helper\n", ""), space)
    return space["Net"]


@pytest.mark.slow
def test_it_is_the_same_in_another_process(tmp_path):
    first = digest_in(tmp_path / "a")
    assert digest_in(tmp_path / "b", NET.replace("# a comment", "# another")) == first
    assert digest_in(tmp_path / "c", helper=HELPER.replace("inner(x) + 1", "inner(x) + 2")) != first


CHANGES = [
    ("* SCALE if", "+ SCALE if"),
    ("SCALE = 2.0", "SCALE = 3.0"),
    ('"c", "d"', '"c", "e"'),
    ("return 4", "return 5"),
    ("math.sqrt(2)", "math.sqrt(3)"),
    ("gain = 3", "gain = 4"),
    ("return 1\n", "return 2\n"),
    ("def second(x=1)", "def second(x=2)"),
    ("class Net(Base)", "class Net(nn.Module)"),
]


def test_what_it_does_changes_it():
    code = {code_digest(loaded(NET.replace(*change))) for change in CHANGES}
    others = [("+ 1", "+ 2"), ("return x", "return -x")]
    helpers = {code_digest(loaded(helper=HELPER.replace(*change))) for change in others}
    same = code_digest(loaded())
    assert len({same} | code | helpers) == 1 + len(CHANGES) + 2
    assert code_digest(loaded(NET.replace("# a comment", "# another\n\n"))) == same
    assert code_digest(loaded("\n\n" + NET)) == same


def made(width=3, scale=1.0):
    return lambda: nn.Linear(width, int(scale))


def test_closures_arguments_and_values():
    assert code_digest(made(3)) == code_digest(made(3)) != code_digest(made(4))
    assert code_digest(functools.partial(nn.Linear, 3)) != code_digest(functools.partial(nn.Linear, 4))
    assert code_digest(functools.partial(nn.Linear, 3)) == code_digest(functools.partial(nn.Linear, 3))
    assert code_digest({"a": [1, {2, 3}]}) == code_digest({"a": [1, {3, 2}]}) != code_digest({"a": [1, {3, 4}]})
    assert code_digest(np.zeros(3)) != code_digest(np.zeros(3, np.float32))
    assert code_digest(1) != code_digest(True) != code_digest(1.0)

    def recursive(n):
        return n and recursive(n - 1)

    assert code_digest(recursive) == code_digest(recursive)


def test_a_network_with_its_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = code_digest(net)
    assert code_digest(net.eval()) == before  # its mode is not what it is
    for change in (
        lambda: net[0].weight.data.add_(1),
        lambda: net[1].running_mean.add_(1),
        lambda: setattr(net[0], "stride", (2, 2)),
        lambda: net[0].weight.requires_grad_(False),
        lambda: net[0].register_forward_hook(lambda module, args, out: out * 2),
    ):
        change()
        assert code_digest(net) != before
        before = code_digest(net)


def test_what_cannot_be_told():
    with pytest.raises(UnknownCodeError, match=r"a value of the class _io\.TextIOWrapper"):
        code_digest({"file": sys.__stdout__})
    thing = object()
    with pytest.raises(UnknownCodeError, match=r"builtins\.object"):
        code_digest(lambda: thing)


def test_what_is_installed():
    assert is_installed("torch.nn.functional")
    assert is_installed("json")
    assert not is_installed("__main__")
    assert not is_installed(__name__)
    assert not is_installed(None)
    assert Path(torch.__file__).parts.count("site-packages")


def test_generators_count_by_their_state_and_are_found():
    def code(generator):
        return lambda: generator

    makers = (np.random.default_rng, np.random.RandomState, random.Random, lambda k: torch.Generator().manual_seed(k))
    for make in makers:
        assert code_digest(code(make(1))) == code_digest(code(make(1)))
        assert code_digest(code(make(1))) != code_digest(code(make(2)))
        held = make(1)
        assert [each is held for each in generators_in({"a": [code(held)]})] == [True]
    with pytest.raises(UnknownCodeError, match=r"a random\.SystemRandom"):
        code_digest(random.SystemRandom())
    before = code_digest(random.choice)
    random.random()
    assert code_digest(random.choice) == before  # of a generator that all code shares
    assert generators_in([random.choice, np.random.rand]) == []


def test_an_attribute_is_no_global_of_the_same_name():
    def digest(fc):
        known = {"fc": fc}
        exec("def f(x): return x.fc", known)
        return code_digest(known["f"])

    assert digest(1) == digest(2)


def test_what_cannot_be_looked_at_is_unknown():
    class Closed:
        def __getattribute__(self, name):
            raise RuntimeError("closed")

    with pytest.raises(UnknownCodeError, match=r"Closed, which cannot be looked at \(RuntimeError\)"):
        code_digest([Closed()])
