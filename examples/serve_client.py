"""Ask a running `gapstone serve` about a picture, with nothing but Python's own library and numpy.

$ gapstone serve photos.safetensors &
$ python examples/serve_client.py http://127.0.0.1:8765 cat.jpg
photos.safetensors
  93.0 %  cat   logit 4.10, of which +0.31 from row 3, column 4
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray


def explain(server: str, picture: bytes) -> dict[str, Any]:
    """The document of docs/serve.md. Raises ValueError with the server's reason."""
    request = Request(
        f"{server.rstrip('/')}/api/explain", data=picture, headers={"Content-Type": "application/octet-stream"}
    )
    try:
        with urlopen(request, timeout=60) as response:
            document: dict[str, Any] = json.load(response)
            return document
    except HTTPError as error:
        with error:
            raise ValueError(json.load(error)["error"]) from None


def maps(model: dict[str, Any]) -> NDArray[np.float32]:
    """(K, h, w): the maps of a model's K most probable classes, in logits per cell."""
    packed = model["maps"]
    return np.frombuffer(base64.b64decode(packed["base64"]), packed["dtype"]).reshape(packed["shape"])


def main(server: str, path: str) -> None:
    document = explain(server, Path(path).read_bytes())
    for model in document["models"]:
        print(model["name"])
        for entry, values in zip(model["classes"][:3], maps(model), strict=False):
            row, column = np.unravel_index(values.argmax(), values.shape)
            print(
                f"{100 * entry['probability']:6.1f} %  {entry['label']}   logit {entry['logit']:.2f}, "
                f"of which {values[row, column]:+.2f} from row {row + 1}, column {column + 1}"
            )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError, TypeError) as error:
        sys.exit(f"usage: serve_client.py SERVER PICTURE: {error}")
