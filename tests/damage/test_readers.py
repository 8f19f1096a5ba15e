"""Thousands of damages, at the readers: each gives what was written, or says that it is damaged or gone; nothing else.

What commands then do about it is in test_damage.py, a hundred times slower.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapstone.comparing import trial_files
from gapstone.data.decoded_store import Store, build
from gapstone.data.open_source import open_source
from gapstone.explaining.explain_folder import ExplainFolder
from gapstone.images.preprocessing import Preprocessing
from gapstone.storage import resumable_rows
from gapstone.storage.sealed_json import DamagedError, digests, read_sealed, read_vouched, sha256, write_sealed
from tests.damage.commands import copy
from tests.damage.damage import damage

DAMAGES = int(os.environ.get("GAPSTONE_TEST_READS", "100"))


class NoTrial:
    """As much of a trial as its folder depends on."""

    def __init__(self, number: int) -> None:
        self.id = f"{number:016x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of file that is read again, small."""
    folder, rng = tmp_path_factory.mktemp("readers"), np.random.default_rng(0)
    for number in range(3):
        arrays = {"test": np.arange(20), "answer": rng.integers(0, 3, 20), "maps": rng.normal(size=(2, 3, 4, 4))}
        facts = {"test_accuracy": float(rng.random()), "curve": rng.random(5).tolist(), "takes_only": None}
        trial_files.write_trial(NoTrial(number).id, facts, arrays, folder / "trials", None)
    source = open_source("digits")
    build(source, range(20), Preprocessing(1, (8, 8), (8, 8), (0.5,), (0.25,)), folder / "store")
    for name in ("maps", "pooled"):
        resumable_rows.compute_rows(
            folder / "kept", name, name, 30, lambda a, b: torch.arange(a, b)[:, None] * torch.ones(5), 8
        )
    (folder / "pictures.npz").write_bytes(rng.bytes(300))
    write_sealed(folder / "results.json", {"files": digests(folder, ["pictures.npz"]), "verdict": "equal"}, "results")
    write_sealed(folder / "plan.json", {"measured": {"threads": 1}, "data_path": "digits"}, "plan")
    write_sealed(folder / "speed.json", {"for": {"size": [8, 8]}, "heads": {"gap": {"median": 1.5}}}, "speed")
    looked = ExplainFolder(folder)
    for key in ("a", "b"):
        content = rng.bytes(200)
        looked.write_file(folder / "maps" / f"{key}.npz", content)
        looked.write_record(key, {"rows": [{"name": key, "answer": 1}], "files": {f"{key}.npz": sha256(content)}})
        looked.write_drawing(folder / "maps" / f"{key}.png", f"key of {key}", rng.bytes(200))
    return folder


def read(folder: Path) -> dict[str, Any]:
    """All that can be read, by what reads it; None for what is damaged or gone."""
    found: dict[str, Any] = {}

    def tell(name: str, reader: Any) -> None:
        try:
            found[name] = reader()
        except (DamagedError, FileNotFoundError):
            found[name] = None

    def store() -> Any:
        key = Store.read(folder / "store").key
        one = Store.read(folder / "store", check_if=key)
        return key, one.images.tobytes(), one.labels.tobytes(), one.indices.tobytes(), one.names

    def results() -> Any:
        facts = read_sealed(folder / "results.json", "results")
        return facts, read_vouched(folder, "pictures.npz", facts)

    def pictures(path: Path) -> Any:
        facts, arrays = trial_files.read(path)
        return facts, {key: value.tobytes() for key, value in arrays.items()}

    for number in range(3):
        name = NoTrial(number).id
        tell(name, lambda name=name: pictures(folder / "trials" / name))
    tell("store", store)
    for path in (Path("kept") / name for name in NAMES):
        one = resumable_rows._File(folder / "kept", path.name, 30)
        tell(path.name, lambda one=one: np.load(one.path).tobytes() if one.is_complete() else None)
    tell("results", results)
    tell("plan", lambda: read_sealed(folder / "plan.json", "plan"))
    tell("speed", lambda: read_sealed(folder / "speed.json", "speed"))
    for key in ("a", "b"):
        looked = ExplainFolder(folder)
        tell(f"record {key}", lambda key=key, looked=looked: looked.checked_record(key))
        path = folder / "maps" / f"{key}.png"
        drawn = looked.has_drawn(path, f"key of {key}")
        found[f"drawing {key}"] = path.read_bytes() if drawn else None
    return found


NAMES: list[str] = []


def test_what_is_damaged_is_never_read_as_something_else(folder: Path, tmp_path: Path) -> None:
    NAMES[:] = sorted(path.stem for path in (folder / "kept").glob("*.npy"))
    whole = read(folder)
    assert None not in whole.values()
    counted: Counter[str] = Counter()
    for seed in range(DAMAGES):
        here = copy(folder, tmp_path / str(seed))
        what = damage(here, np.random.default_rng(seed))
        found = read(here)
        for name, value in found.items():
            assert value is None or value == whole[name], f"seed {seed}: {what}: {name} is silently different"
        counted["found" if None in found.values() else "harmless"] += 1
    assert counted["found"] > DAMAGES / 2
    print(dict(counted))
