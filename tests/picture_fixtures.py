"""Made images and class folders for the tests of this room."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GAPSTONE_CACHE", str(folder))
    return folder


@pytest.fixture
def picture() -> Callable[..., Picture]:
    """`picture(7, 60, 80)`: smooth, textured, and another one for every seed."""

    def make(seed: int, height: int = 48, width: int = 64, channels: int = 3) -> Picture:
        random = np.random.default_rng(seed)
        coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        return pixels if channels == 3 else pixels[..., :1].copy()

    return make


@pytest.fixture
def class_folder(tmp_path: Path, picture: Callable[..., Picture]) -> Callable[..., Path]:
    """`class_folder({"cat": 3, "dog": 4})`: a folder of different PNG pictures; keys may hold slashes."""

    def make(counts: dict[str, int], height: int = 48, width: int = 64) -> Path:
        root = tmp_path / "data"
        seed = 0
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                seed += 1
                Image.fromarray(picture(seed, height, width)).save(root / name / f"{i}.png")
        return root

    return make
