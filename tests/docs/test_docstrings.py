"""Every public name has a docstring in Google's form, with an example that is run (test_examples.py)."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gapstone as gs

SECTIONS = ("Examples", "Args", "Returns", "Raises")
NO_EXAMPLE = {
    "Classifier.check_native",
    "Definition.bind",
    "Head.check",
    "Inspection.as_json",
    "Inspection.save",
    "Pool.reset_parameters",
}
"""What is said in words and by its class's example."""


def public() -> Iterator[tuple[str, Any]]:
    """Every public name, and the methods that classes define under their own names."""
    for name in gs.PUBLIC:
        value = getattr(gs, name)
        yield name, value
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and function.__doc__ and not method.startswith("_"):
                    yield f"{name}.{method}", function


NAMES = dict(public())


def sections(text: str) -> dict[str, str]:
    """The text of each section of a docstring; "" is what stands before them and between."""
    found: dict[str, str] = {"": ""}
    now = ""
    for line in text.split("\n"):
        if header := re.fullmatch(r"(\w+):", line):
            now = header[1]
            found[now] = ""
            continue
        if line and not line.startswith(" "):
            now = ""
        found[now] += f"{line}\n"
    return found


def parameters(value: Any) -> list[str]:
    """Names of the parameters of a function, or of making a class."""
    if inspect.isclass(value) and value.__init__ is object.__init__:
        return []
    function: Callable[..., Any] = value.__init__ if inspect.isclass(value) else value
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_is_a_line_and_a_full_stop(name):
    summary, _, rest = inspect.getdoc(NAMES[name]).partition("\n")
    assert summary.endswith(".")
    assert not rest or rest.startswith("\n")


@pytest.mark.parametrize("name", NAMES)
def test_sections_are_googles(name):
    value = NAMES[name]
    text = inspect.getdoc(value)
    said = sections(text)
    assert set(said) - {""} <= set(SECTIONS)
    if len(text.splitlines()) == 1:
        assert name.endswith((".forward", ".tensor", ".trial_image", ".extra_repr", ".parameters_of_pool"))
        return
    assert ">>>" in said.get("Examples", "") or name in NO_EXAMPLE, "no example"
    told = re.findall(r"^    (\w+): ", said.get("Args", ""), re.MULTILINE)
    if name != "Inspection":  # it is made by `inspect`
        assert told == parameters(value)
    if not inspect.isclass(value):
        returns = inspect.signature(value).return_annotation
        assert ("Returns" in said) == (returns not in (None, "None"))
    for error in re.findall(r"^    (\S+)", said.get("Raises", ""), re.MULTILINE):
        assert re.fullmatch(r"\w+(Error|Exception):", error), error
