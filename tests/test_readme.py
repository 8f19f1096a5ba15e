"""What the README shows is so."""

import re
from pathlib import Path

import pytest
import torch

import gapstone as gs
from gapstone.heads import RECIPES
from gapstone.nets import NAMES

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_python_runs_and_gives_what_its_comments_say():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    code = code[: code.index("model = gs.load")]
    names: dict[str, object] = {}
    checked = 0
    for line in filter(None, code.splitlines()):
        exec(line, names)
        statement, _, comment = line.partition("#")
        if shape := re.match(r"\s*(\([\d, ]+\))", comment):
            value = eval(statement.partition(" = ")[2] or statement, names)
            got = getattr(value, "maps", value)
            assert tuple(getattr(got, "shape", got)) == eval(shape[1]), line
            checked += 1
    assert checked == 4
    torch.testing.assert_close(eval("(a + b).finish()", names), gs.pool(names["x"], "mean"))
    assert eval("torch.allclose(parts.maps.sum((2, 3)) + parts.bias, head(x), atol=1e-5)", names)


@pytest.mark.slow
def test_the_swap_is_as_it_says():
    torchvision = pytest.importorskip("torchvision")
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "swap_head" in block)
    names = {"gs": gs, "torch": torch, "torchvision": torchvision}
    exec(code, names)
    assert "138,357,544 before, 14,719,818 after" in str(gs.swapped(names["model"]))
    assert eval("model(torch.rand(1, 3, 97, 131)).shape", names) == (1, 10)


def test_every_head_and_network_is_named():
    for name in [*RECIPES, *NAMES]:
        assert f"`{name}`" in README, name


def test_both_commands_are_there():
    assert "make demo" in README
    assert "make test" in README
    assert "@@" not in README
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
