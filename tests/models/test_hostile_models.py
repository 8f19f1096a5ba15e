"""3,000 damaged and forged model files and 500 of others' weights: a model that answers, or one sentence; no growth.

`python -m tests.models.test_hostile_models 3000` says how many of which, and how much memory was taken.
"""

import copy
import json
import random
import re
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gapstone.images.preprocessing import Preprocessing
from gapstone.models.backbone_weights import read_weights
from gapstone.models.classifier import Classifier, ModelFileError, load

WORDS = (
    *(None, True, 0, -1, 3, 2.5, 1e308, 10**30, "", "gap", "fc:999999", "nin", "resnet18", "timm:resnet18", "x" * 300),
    *([], {}, [[]], [1, 2], [4096, 4096], "\x1b[31m\x00‮", float("nan"), "timm:convnext_xxlarge", ["a", "a"]),
)


def resident() -> int:
    """Bytes in memory; a test that needs it is skipped where the system does not say."""
    try:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
    except (OSError, IndexError):
        pytest.skip("needs /proc/self/status")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or cut off, half the time in the header; or the header's JSON changed."""
    length = int.from_bytes(data[:8], "little")
    kind = chance.randrange(8)
    if kind >= 4:
        header = json.loads(data[8 : 8 + length])
        if kind >= 6:
            about = json.loads(header["__metadata__"]["gapstone"]) if "__metadata__" in header else {}
            change(about, chance)
            header["__metadata__"] = {"gapstone": json.dumps(about)}
        else:
            change(header, chance)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]
    changed = bytearray(data)
    end = len(data) if chance.random() < 0.5 else 8 + length
    if kind <= 1:
        for _ in range(chance.randint(1, 5)):
            changed[chance.randrange(end)] = chance.randrange(256)
    elif kind == 2:
        start = chance.randrange(end)
        part = changed[start : start + chance.randint(1, 1000)]
        changed[start : start + len(part)] = part * chance.choice([0, 2])
    else:
        del changed[chance.randrange(end) :]
    return bytes(changed)


def change(document: Any, chance: random.Random) -> None:
    """One value, at any depth, becomes another."""
    while True:
        keys = list(document) if isinstance(document, dict) else range(len(document))
        if not keys:
            return
        key = chance.choice(list(keys))
        if isinstance(document[key], dict | list) and chance.random() < 0.8:
            document = document[key]
            continue
        if isinstance(document, dict) and chance.random() < 0.2:
            del document[key]
        else:
            document[key] = copy.deepcopy(chance.choice(WORDS))
        return


def run(count: int, folder: Path, seed: int = 0) -> tuple[Counter[str], int, float]:
    """What came of them; the growth of memory from the first fifth to the end; the slowest, in seconds."""
    chance = random.Random(seed)
    torch.manual_seed(0)
    model = Classifier("nin", "gap", ("a", "b", "c"), Preprocessing(3, (16, 16), (16, 16), (0.5,) * 3, (0.5,) * 3))
    whole, path = model.save(folder / "whole.safetensors").read_bytes(), folder / "m.safetensors"
    weights = safetensors.torch.save(model.features.state_dict())
    ends: Counter[str] = Counter()
    before, slowest = 0, 0.0
    for number in range(count):
        foreign = number % 7 == 6
        path.write_bytes(mutated(weights if foreign else whole, chance))
        start = time.monotonic()
        try:
            if foreign:
                read_weights(path, "nin")
            else:
                assert load(path)(torch.zeros(1, model.features.in_channels, 16, 16)).isfinite().all()
            ends["opened"] += 1
        except ModelFileError as error:
            ends["a model refused" if len(str(error)) < 2000 else "a long message"] += 1
        except ImportError:  # timm is not there
            ends["ImportError"] += 1
        except ValueError:
            ends["weights refused" if foreign else "no ModelFileError"] += 1
        slowest = max(slowest, time.monotonic() - start)
        if number == count // 5:
            before = resident()
    return ends, resident() - before, slowest


@pytest.mark.parametrize("count", [150, pytest.param(3500, marks=pytest.mark.slow)])
def test_no_traceback_and_no_growth(count: int, tmp_path: Path) -> None:
    ends, growth, slowest = run(count, tmp_path)
    print(ends, growth, slowest)
    assert ends["a model refused"] > count // 2
    assert set(ends) <= {"opened", "a model refused", "weights refused", "ImportError"}
    assert growth < 100e6


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        ends, growth, slowest = run(int(sys.argv[1]), Path(place))
    print(f"{dict(ends)}; {growth / 1e6:.1f} MB more at the end than after a fifth; the slowest took {slowest:.2f} s")
