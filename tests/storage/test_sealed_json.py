"""A sealed file is read as it was written, or not at all."""

import json
import os

import numpy as np
import pytest

from gapstone.storage import block_digest
from gapstone.storage.sealed_json import (
    DamagedError,
    damage_note,
    digests,
    open_own,
    read_own,
    read_sealed,
    read_vouched,
    seal,
    write_sealed,
)

FACTS = {"name": "caf\udce9 고양이", "numbers": [1, 2.5, None], "none": {}}


def test_it_is_json_and_comes_back(tmp_path):
    for indent in (1, None):
        write_sealed(tmp_path / "a.json", FACTS, "a", indent)
        assert read_sealed(tmp_path / "a.json", "a") == FACTS
        plain = json.loads((tmp_path / "a.json").read_bytes())
        assert len(plain.pop("sealed")) == 64
        assert plain == FACTS


def test_every_other_content_is_damage(tmp_path):
    path, whole = tmp_path / "a.json", seal(FACTS, "a")
    spoilt = [whole[:size] for size in range(len(whole))]
    for place in range(len(whole)):
        spoilt.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    spoilt += [whole + b"\n", b"[]", b"{}", b"null", whole[1:], json.dumps(json.loads(whole)).encode()]
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"a\.json (has no seal|does not fit its seal)"):
            read_sealed(path, "a")
    path.write_bytes(whole)
    with pytest.raises(DamagedError, match="does not fit its seal"):
        read_sealed(path, "another")
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "none.json", "a")


def test_what_is_no_file_of_ours_is_not_followed_or_waited_for(tmp_path):
    write_sealed(tmp_path / "a.json", FACTS, "a")
    (tmp_path / "link").symlink_to(tmp_path / "a.json")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        for read in (read_own, block_digest.digest, lambda path: read_sealed(path, "a")):
            with pytest.raises(DamagedError, match=name):
                read(tmp_path / name)


def test_it_vouches_for_files_beside_it(tmp_path):
    (tmp_path / "b.npz").write_bytes(b"numbers")
    facts = {"files": digests(tmp_path, ["b.npz"])}
    assert read_vouched(tmp_path, "b.npz", facts) == b"numbers"
    (tmp_path / "b.npz").write_bytes(b"Numbers")
    with pytest.raises(DamagedError, match="does not fit its digest"):
        read_vouched(tmp_path, "b.npz", facts)
    (tmp_path / "b.npz").unlink()
    with pytest.raises(DamagedError, match="is missing"):
        read_vouched(tmp_path, "b.npz", facts)


def test_one_line_for_all(tmp_path):
    many = [DamagedError(tmp_path / f"{i}.json", "has no seal") for i in range(5)]
    assert damage_note(many[:1]) == f"{tmp_path}/0.json has no seal: made anew."
    assert damage_note(many).endswith("2.json has no seal, and 2 more files: made anew.")


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250])
def test_blocks_are_one_digest_however_they_come(tmp_path, monkeypatch, size):
    monkeypatch.setattr(block_digest, "BLOCK", 100)
    rng = np.random.default_rng(size)
    content = rng.bytes(size)
    (tmp_path / "a").write_bytes(content)
    found = block_digest.digest(tmp_path / "a")
    for step in (1, 7, 100, 300):
        made = block_digest.BlockDigest()
        for first in range(0, size, step):
            made.update(content[first : first + step])
        assert made.hexdigest() == found
    with open_own(tmp_path / "a") as file:
        assert b"".join(block_digest.first_bytes(file, size // 2)) == content[: size // 2]
    for place in range(size):
        (tmp_path / "a").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert block_digest.digest(tmp_path / "a") != found


@pytest.mark.parametrize("facts", [{}, {"sealed": "abc"}, {"n": 1, "sealed": ""}])
def test_facts_that_cannot_be_sealed(facts):
    with pytest.raises(ValueError, match="expected facts, none of them 'sealed'"):
        seal(facts, "me")
