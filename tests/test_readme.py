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
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = next(block for block in blocks if "model = gs.load" in block)
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


@pytest.mark.slow
def test_mypy_reads_the_examples_and_sees_what_is_not_there(tmp_path):
    """Whoever is checked by `mypy --strict` may write what the README shows; a name that there is not is found."""
    api = pytest.importorskip("mypy.api")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    model = "import torch, torchvision, gapstone as gs\n\nmodel: torch.nn.Module\n"
    for number, block in enumerate(blocks):
        known = "" if block.startswith("import") else model.replace("model: torch.nn.Module\n", "")
        (tmp_path / f"block{number}.py").write_text(known + block, "utf-8")
    wrong = ["gs.nonsense", 'gs.pool(torch.rand(1, 2, 3), "avg")', 'gs.Pool("maxx")', 'gs.partial(x, "median")']
    (tmp_path / "wrong.py").write_text(
        "import torch, gapstone as gs\n\nx = torch.rand(1, 2, 3)\n" + "".join(f"{line}\n" for line in wrong), "utf-8"
    )
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-torchvision.*,timm.*]\nignore_missing_imports = True\n", "utf-8")
    options = ["--strict", "--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")]
    out, _, _ = api.run([*options, *map(str, sorted(tmp_path.glob("*.py")))])
    assert re.findall(r"wrong\.py:(\d+): error", out) == [str(4 + i) for i in range(len(wrong))], out
    assert "block" not in out, out
