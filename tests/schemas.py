"""The JSON Schemas of docs/, for the tests that make such documents."""

import copy
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SUFFIX = ".schema.json"
WRONG = {"no document": ["has this"]}
"""A value that fits nowhere."""
OPTIONAL = {
    "convert": ("multi_label",),
    "evaluated": (
        "scan/sizes/*",
        "scan/modes/*",
        "scan/ranges/*",
        "scan/several_labels",
        "scan/several_labels/images_by_number/*",
        "versions/*",
        "data/multi_label",
        "models/*/metrics/*",
        "models/*/by_class",
    ),
    "explained": ("multi_label", "pictures/*/undrawn", "pictures/*/classes/*/boxes"),
    "inspect": (),
    "predict": ("multi_label", "images/*/notes", "images/*/probabilities/*"),
    "results": (
        "scan/sizes/*",
        "scan/modes/*",
        "scan/ranges/*",
        "versions/*",
        "files/*",
        "worst/*/wrong/*",
        "worst/*/predictions/*",
        "worst/*/confidence/*",
        "heads/*/robustness_images",
        "heads/*/metrics/micro_f1",
        "heads/*/curves/*/validation_loss",
        "model/test_average_precision",
        "worst/*/nll/*",
        "scan/several_labels",
    ),
    "scan": ("sizes/*", "modes/*", "ranges/*", "several_labels", "several_labels/images_by_number/*"),
}
"""By schema, what a document may be without: entries of tables, and what is absent where there is nothing to say."""


@cache
def schemas() -> dict[str, Any]:
    """By file name."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted(DOCS.glob(f"*{SUFFIX}"))}


@cache
def validator(name: str) -> Any:
    """Of docs/NAME.schema.json."""
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    resources = [(file, referencing.Resource.from_contents(schema)) for file, schema in schemas().items()]
    registry = referencing.Registry().with_resources(resources)
    return jsonschema.Draft202012Validator(schemas()[f"{name}{SUFFIX}"], registry=registry)


def check(name: str, document: Any) -> None:
    """Assert that docs/NAME.schema.json takes this document."""
    errors = [f"{error.json_path}: {error.message[:200]}" for error in validator(name).iter_errors(document)]
    assert not errors, f"{name}{SUFFIX}: " + "; ".join(errors[:5])


def check_refuses_damage(name: str, document: Any) -> None:
    """Assert that docs/NAME.schema.json takes this document, and no damaged copy of it."""
    check(name, document)
    taken = [damage for damage, damaged in damages(name, shortened(document)) if validator(name).is_valid(damaged)]
    assert not taken, f"{name}{SUFFIX} takes a document {taken[:5]}"


def shortened(document: Any) -> Any:
    """A copy in which a list of objects has its first entry alone: the others are like it."""
    if isinstance(document, dict):
        return {key: shortened(value) for key, value in document.items()}
    if isinstance(document, list):
        return [
            shortened(value) for value in (document[:1] if document and isinstance(document[0], dict) else document)
        ]
    return document


def damages(name: str, document: Any) -> Iterator[tuple[str, Any]]:
    """(what is wrong, the damaged copy): another value, a key that is missing, a key too many, at every place."""
    yield "with a key too many", document | {"unexpected": WRONG}
    for path in places(document):
        where = "/".join(map(str, path))
        yield f"with another value at {where}", changed(document, path, WRONG)
        if isinstance(path[-1], str) and not any(fnmatch(where, pattern) for pattern in OPTIONAL[name]):
            yield f"without {where}", changed(document, path, None)
        if isinstance(at(document, path), dict):
            yield f"with a key too many in {where}", changed(document, (*path, "unexpected"), WRONG)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document; of lists of plain values, of the first."""
    entries = document.items() if isinstance(document, dict) else list(enumerate(document))[:1]
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        document = document[key]
    return document


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path; None removes it."""
    damaged = copy.deepcopy(document)
    parent = at(damaged, path[:-1])
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return damaged
