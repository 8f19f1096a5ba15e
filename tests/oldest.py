"""The lowest versions that the metadata allows, as pip takes them: what `make test-oldest` installs.

python tests/oldest.py            torch==2.14 numpy==1.26 ...
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest(extras: tuple[str, ...] = ("zoo", "hf", "serve", "onnx", "datasets", "slides")) -> list[str]:
    """Raises ValueError for a requirement without a lowest version: nobody could say that it works."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    pins = []
    for one in asked:
        found = re.fullmatch(r"([\w-]+)>=([\w.]+)", one)
        if found is None:
            raise ValueError(f"pyproject.toml: {one!r} names no lowest version; write name>=version.")
        pins.append(f"{found[1]}=={found[2]}")
    return pins


if __name__ == "__main__":
    sys.stdout.write(" ".join(oldest()) + "\n")
