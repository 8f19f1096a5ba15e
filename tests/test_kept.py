"""One pass, kept: the same rows after a stop; other facts, another file."""

import numpy as np
import pytest
import torch

from gapstone import kept
from gapstone.kept import KeptError, keep


def rows(first, last):
    return torch.arange(first, last)[:, None].float() * torch.ones(3)


def test_rows_are_made_once_and_read_back(tmp_path):
    asked = []

    def make(first, last):
        asked.append((first, last))
        return rows(first, last)

    for _ in range(2):
        array = keep(tmp_path, "maps", {"a": 1}, 10, make, 4)
        assert np.array_equal(array, rows(0, 10))
        assert not array.flags.writeable
    assert asked == [(0, 4), (4, 8), (8, 10)]
    keep(tmp_path, "maps", {"a": 2}, 10, make, 4)
    assert len(asked) == 6
    assert len([p for p in tmp_path.iterdir() if p.suffix != ".lock"]) == 2


def test_a_stopped_pass_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SYNC", 1)
    asked = []

    def make(first, last):
        if first == 6 and not asked.count(6):
            asked.append(6)
            raise KeyboardInterrupt
        asked.append(first)
        return rows(first, last)

    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, "maps", 0, 10, make, 2)
    assert not list(tmp_path.glob("*.npy"))
    assert np.array_equal(keep(tmp_path, "maps", 0, 10, make, 2), rows(0, 10))
    assert asked == [0, 2, 4, 6, 6, 8]


def test_half_precision_is_kept_where_it_fits_and_refused_where_not(tmp_path):
    assert keep(tmp_path, "half", 0, 4, rows, 4, torch.float16).dtype == np.float16
    with pytest.raises(KeptError, match="values up to 3e\\+05 do not fit into half precision"):
        keep(tmp_path, "large", 0, 4, lambda a, b: rows(a, b) * 1e5, 4, torch.float16)


def test_a_full_disk_is_told_before(tmp_path):
    with pytest.raises(KeptError, match="GB are free"):
        keep(tmp_path, "huge", 0, 10**13, lambda a, b: torch.zeros(b - a, 100), 4)
