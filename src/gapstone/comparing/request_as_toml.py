"""The options of a comparison as TOML, which `--config` and `gs.compare` read back."""

import json
import os
from dataclasses import fields
from typing import Any

from gapstone.comparing.compare_request import CompareRequest
from gapstone.heads import parse
from gapstone.nets.own_features import OWN_NETWORK

GIVEN_IN_PYTHON = "given in Python"
IN_PYTHON = {"group": "groups"}
"""Written as `gs.compare` calls them; --config knows both."""


def as_toml(request: CompareRequest) -> str:
    """All options that have a value, as they were asked for; what only Python can give is a comment.

    >>> print(as_toml(CompareRequest(TrainOptions("digits"), heads=("gap", "fc"), margin=1.0)))
    data = "digits"
    batch_size = 64
    …
    heads = ["gap", "fc"]
    seeds = 5
    keep = "best"
    margin = 1.0

    Switches that are off, and what was left to gapstone, are not there.
    """
    asked: dict[str, Any] = {field.name: getattr(request.choices, field.name) for field in fields(request.choices)}
    asked |= {field.name: getattr(request, field.name) for field in fields(request)}
    del asked["choices"], asked["user_code"]
    if request.folds:
        del asked["seeds"]
    lines = []
    for key, value in asked.items():
        if value is None or value is False:
            continue
        name = IN_PYTHON.get(key, key)
        text = _value(key, value)
        lines.append(f"# {name}: {GIVEN_IN_PYTHON}" if text is None else f"{name} = {text}")
    return "\n".join(lines)


def _value(key: str, value: object) -> str | None:
    """In TOML; None of what has no name that stands for it."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, tuple) and key != "data":  # arrays (images, labels) are one, too
        own = any(parse(head).own_head for head in value)
        return None if own else f"[{', '.join(_text(head) for head in value)}]"
    if not isinstance(value, str | os.PathLike) or (key == "backbone" and str(value).startswith(OWN_NETWORK)):
        return None
    text = os.fspath(value)
    return None if not isinstance(text, str) or not text.isprintable() else _text(text)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
