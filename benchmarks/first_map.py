"""Seconds from sending a 12-megapixel photo to `gapstone serve` until its maps are there: ResNet-18, 224 px.

python benchmarks/first_map.py photo.jpg        # enlarged to 4000×3000, with noise, so that it decodes like a camera's
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing

PORT = 8765
PAGE = f"http://127.0.0.1:{PORT}/"


def photo(path: Path) -> bytes:
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC), np.int16)
    noise = np.random.default_rng(0).normal(0, 9, (3000, 4000, 1)).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def model(folder: Path) -> Path:
    torch.manual_seed(0)
    shown = Preprocessing(3, (224, 224), (256, 256), (0.5,) * 3, (0.25,) * 3)
    return gs.Classifier("resnet18", "gap", [f"class {k}" for k in range(10)], shown).save(folder / "model.safetensors")


def asked(data: bytes) -> float:
    request = urllib.request.Request(f"{PAGE}api/explain", data, {"Content-Type": "image/jpeg"})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--servers", type=int, default=5, help="started anew, for the first answer of each")
    options = parser.parse_args()
    data, first, later = photo(options.photo), [], []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gapstone", "serve", str(model(Path(folder))), "--port", str(PORT)]
        for _ in range(options.servers):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
                try:
                    _wait(server)
                    first.append(asked(data))
                    later += [asked(data) for _ in range(5)]
                finally:
                    server.terminate()
    print(f"a JPEG of {len(data) / 1e6:.1f} MB, {torch.get_num_threads()} threads, {len(first)} servers")
    for name, seconds in (("first", first), ("later", later)):
        print(f"{name}: median {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


def _wait(server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise SystemExit(f"gapstone serve ended with {server.returncode}: is port {PORT} in use?")
        try:
            urllib.request.urlopen(PAGE, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("gapstone serve does not answer")


if __name__ == "__main__":
    main()
