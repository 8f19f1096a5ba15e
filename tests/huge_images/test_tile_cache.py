"""Tiles are held up to a number of bytes; what was not used for longest goes first."""

import numpy as np

from gapstone.huge_images.tile_cache import TileCache


def test_what_is_held():
    cache, made = TileCache(300), []

    def ask(key, size=100):
        return cache.get(key, lambda: made.append(key) or np.zeros(size, np.uint8))

    for key in "abc":
        assert ask(key).nbytes == 100
    ask("a")
    assert made == ["a", "b", "c"]
    ask("d")  # b goes
    for key in "acd":
        ask(key)
    assert made == ["a", "b", "c", "d"]
    ask("b")
    assert made[-1] == "b"
    assert ask("huge", 301).nbytes == 301
    ask("huge", 301)
    assert made.count("huge") == 2
    for key in "cdb":  # nothing went for what cannot be held
        ask(key)
    assert made.count("c") + made.count("d") + made.count("b") == 4
