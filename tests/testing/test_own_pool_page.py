"""docs/own-pool.md: its example runs as it stands."""

import re
from pathlib import Path

import pytest

from gapstone.pools import POOLS
from gapstone.testing import PoolReport

PAGE = Path(__file__).parents[2] / "docs" / "own-pool.md"


@pytest.fixture(autouse=True)
def unregistered():
    yield
    POOLS.pop("harmonic", None)


def test_the_example_runs(tmp_path, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 3
    file = tmp_path / "own.py"
    file.write_text("\n".join(blocks), "utf-8")
    space: dict[str, object] = {"__name__": "own"}
    exec(compile(file.read_text("utf-8"), str(file), "exec"), space)
    assert "harmonic" in POOLS
    assert "checked: laws, answers, gradient" in capsys.readouterr().out
    assert isinstance(space["head"].contributions(space["x"]).maps.sum().item(), float)
    assert PoolReport.__doc__
