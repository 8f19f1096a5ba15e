"""The pictures of docs/what-a-head-does.md, from the page's own code. `make docs` runs this.

The page is run from top to bottom; what its blocks have made is drawn. tests/test_tutorial.py also checks that each
line gives what the comment behind it says.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tutorial_digits
import tutorial_photos

PAGE = Path(__file__).parents[1] / "what-a-head-does.md"
PICTURES: dict[str, Callable[[dict[str, Any]], Path]] = {
    "feature-maps": tutorial_photos.feature_maps,
    "window": tutorial_photos.window,
    "max-and-mean": tutorial_photos.max_and_mean,
    "cost": tutorial_photos.cost,
    "vector": tutorial_digits.vector,
    "terms": tutorial_digits.terms,
    "scene": tutorial_digits.scene,
    "shift": tutorial_digits.shift,
    "against": tutorial_digits.against,
}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def run(page: str, told: Callable[[str, Any], None] = lambda line, value: None) -> dict[str, Any]:
    """Run the page's code and give its names; `told(line, value)` hears of each expression and commented assignment."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        lines = block.splitlines()
        for node in ast.parse(block).body:
            line = lines[(node.end_lineno or 0) - 1]
            if isinstance(node, ast.Expr):
                told(line, eval(compile(ast.Expression(node.value), str(PAGE), "eval"), names))
            else:
                exec(compile(ast.Module([node], []), str(PAGE), "exec"), names)
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and "#" in line:
                    told(line, names[node.targets[0].id])
    return names


def main() -> None:
    torch.set_num_threads(1)  # sums in one order: the same pictures every time
    made = run(PAGE.read_text("utf-8"))
    for draw in PICTURES.values():
        draw(made)


if __name__ == "__main__":
    main()
