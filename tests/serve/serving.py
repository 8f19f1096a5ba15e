"""A small model with weights from a seed, pictures, and the server as a process: what is tested is the server."""

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from starlette.testclient import TestClient

from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier

LABELS = ("cat", "dog", "eel", "fox")
BASE = "http://127.0.0.1:8765"
Client = Callable[..., TestClient]


def small(seed: int, head: str = "gap", labels: tuple[str, ...] = LABELS) -> Classifier:
    torch.manual_seed(seed)
    preprocessing = Preprocessing(3, (32, 32), (36, 36), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model = Classifier("nin", head, labels, preprocessing)
    with torch.no_grad():  # random logits lie within 0.1 of each other: too close to tell a mistake by
        for parameter in model.head.parameters():
            parameter.normal_(0, 3)
    return model.eval()


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Image.Image:
    """Something with an up and a down: noise, brighter to the lower right."""
    noise = np.random.default_rng(seed).integers(0, 100, (height, width, 3))
    slope = np.add.outer(np.linspace(0, 75, height), np.linspace(0, 75, width))[..., None]
    return Image.fromarray((noise + slope).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


class Live:
    """`gapstone serve` as a process of its own."""

    def __init__(self, arguments: str) -> None:
        imports = "from gapstone.serve.client_limits import ClientLimits; from gapstone.serve.run_server import serve"
        code = f"{imports}; serve({arguments})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
            start_new_session=True,
        )
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if "Open " in line:
                break
        found = re.search(r"http://\S+?:(\d+)/", "".join(self.said))
        assert found, "".join(self.said)
        self.url, self.port = found[0], int(found[1])
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stdout or ()), daemon=True)
        self._reader.start()

    def stop(self, how: int) -> int:
        self.process.send_signal(how)
        code = self.process.wait(20)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code
