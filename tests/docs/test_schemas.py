"""The JSON Schemas themselves; that documents fit them is tested where the documents are made (tests/schemas.py)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.schemas import DOCS, OPTIONAL, SUFFIX, check, schemas, validator


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object in a schema."""
    if isinstance(schema, dict):
        if "object" in (schema.get("type"), *(schema["type"] if isinstance(schema.get("type"), list) else ())):
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


@pytest.mark.parametrize("file", sorted(schemas()))
def test_a_schema_is_one_of_2020_12_and_closed(file):
    schema = schemas()[file]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    type(validator(file.removesuffix(SUFFIX))).check_schema(schema)
    for part in objects(schema):
        assert part["additionalProperties"] is not True
        assert set(part.get("required", ())) <= set(part.get("properties", ()))


def test_every_schema_is_tried_and_told():
    assert {file.removesuffix(SUFFIX) for file in schemas()} == set(OPTIONAL)
    pages = "".join(path.read_text("utf-8") for path in sorted(DOCS.glob("*.md")))
    assert set(re.findall(rf"\((\w+{re.escape(SUFFIX)})\)", pages)) == set(schemas())


def test_the_error_names_the_place():
    with pytest.raises(AssertionError, match=r"predict\.schema\.json: .*\$\.images\[0\]"):
        check("predict", {"schema": 1, "model": "m", "native": False, "labels": [], "images": [{"name": 3}]})
