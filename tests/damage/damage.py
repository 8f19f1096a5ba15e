"""What can happen to the files of a folder, at random: `damage(folder, rng)` does one thing and says what."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

EXCHANGED = ("[]", "{}", "null", "", '"text"', "[[[[", "1e999")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(folder: Path, rng: np.random.Generator) -> str:
    """One thing, to one file (or two)."""
    all_files = files(folder)
    path = all_files[int(rng.integers(len(all_files)))]
    ways = [truncate, flip, zero, delete, swap]
    if path.suffix in (".json", ".rows") or path.name == ".gapstone":
        ways += [exchange, lose_a_key, edit]
    way = ways[int(rng.integers(len(ways)))]
    said = way(path, all_files, rng)
    return f"{way.__name__} {path.relative_to(folder)}{said}"


def truncate(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    size = int(rng.integers(path.stat().st_size + 1))
    with path.open("r+b") as file:
        file.truncate(size)
    return f" to {size}"


def flip(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    for _turn in range(int(rng.integers(1, 9)) if content else 0):
        content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))
    return ""


def zero(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    first, last = sorted(int(place) for place in rng.integers(len(content) + 1, size=2))
    content[first:last] = bytes(last - first)
    path.write_bytes(bytes(content))
    return f" {first}:{last}"


def delete(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    path.unlink()
    return ""


def swap(path: Path, all_files: list[Path], rng: np.random.Generator) -> str:
    alike = [other for other in all_files if other.suffix == path.suffix and other != path]
    same_name = [other for other in alike if other.name == path.name]  # of two trials, above all
    others = same_name or alike or [other for other in all_files if other != path]
    if not others:
        return delete(path, all_files, rng) + " (alone)"
    other = others[int(rng.integers(len(others)))]
    aside = path.with_name("aside")
    shutil.move(path, aside)
    shutil.move(other, path)
    shutil.move(aside, other)
    return f" with {other.name}"


def exchange(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    text = EXCHANGED[int(rng.integers(len(EXCHANGED)))]
    path.write_text(text)
    return f" for {text!r}"


def lose_a_key(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    facts = json.loads(path.read_text("utf-8"))
    key = sorted(facts)[int(rng.integers(len(facts)))]
    del facts[key]
    path.write_text(json.dumps(facts))
    return f": {key}"


def edit(path: Path, _: list[Path], rng: np.random.Generator) -> str:
    facts = json.loads(path.read_text("utf-8"))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in pairs:
            if isinstance(one, dict | list):
                walk(one)
            elif isinstance(one, int | float):
                places.append((value, key))

    walk(facts)
    if not places:
        return delete(path, _, rng)
    container, key = places[int(rng.integers(len(places)))]
    container[key] = container[key] + 1
    path.write_text(json.dumps(facts, indent=1))
    return f": {key}"
