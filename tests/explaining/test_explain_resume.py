"""A run that is killed, or stopped with Ctrl-C, goes on and ends with the bytes of one that was not."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gapstone.explaining import map_pass
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_folder import unique_name
from gapstone.explaining.explain_request import ExplainRequest
from gapstone.storage.atomic import UNFINISHED
from tests.explaining.tiny import make_model, make_pictures

COUNT = 20

pytestmark = pytest.mark.kernels  # a run in this process goes on with what a killed one left, to the bit


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("many") / "photos", COUNT)


def command(model, pictures, out):
    options = ["--html", "--batch-size", "4", "--out", str(out)]
    return [sys.executable, "-m", "gapstone", "explain", str(model), str(pictures), *options]


def results(out):
    """Everything a person or a script reads."""
    files = [out / "explained.json", out / "index.html", *(out / "maps").iterdir()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files if path.exists()}


def times(out):
    files = [*(out / "maps").glob("[!.]*"), *(out / ".looked").glob("[!.]*.json"), *(out / ".thumbs").glob("[!.]*")]
    return {path: path.stat().st_mtime_ns for path in files}


def explain(model, *pictures, out, **options):
    console = Console(file=io.StringIO(), width=200)
    explain_files(ExplainRequest(str(model), tuple(map(str, pictures)), **options), out, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def unbroken(model, many, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    explain(model, many, out=out, html=True, batch_size=4)
    found = results(out)
    assert len(found) == 2 * COUNT + 2
    return found


@pytest.mark.slow  # quick: comparing/test_resume.py; other options and pictures, below
@pytest.mark.parametrize(
    ("how", "when"),
    [
        (signal.SIGKILL, "looking"),
        pytest.param(signal.SIGKILL, "drawing", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "drawing", marks=pytest.mark.slow),
    ],
)
def test_the_same_bytes_after_a_stop(model, many, unbroken, tmp_path, how, when):
    out = tmp_path / "broken"
    sign = (out / ".looked", "[!.]*.json") if when == "looking" else (out / "maps", "[!.]*.png")
    with subprocess.Popen(command(model, many, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 600  # a machine may be slow; none of this is timed
        while not (sign[0].exists() and any(sign[0].glob(sign[1]))):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(how)
        _, errors = process.communicate(timeout=300)
    done = times(out)
    assert 0 < len(done) < 2 * COUNT + COUNT // 4, "it was not stopped in the middle"
    assert not (out / "explained.json").exists()
    assert not (out / "index.html").exists()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert b"The same command goes on from here" in errors
    explain(model, many, out=out, html=True, batch_size=4)
    assert results(out) == unbroken
    after = times(out)
    assert all(after[path] == then for path, then in done.items()), "what was done was done again"
    assert not list(out.rglob(UNFINISHED))


def test_a_second_run_does_nothing_and_says_so(model, pictures, tmp_path, monkeypatch):
    explain(model, pictures, out=tmp_path / "out", html=True)
    before, then = results(tmp_path / "out"), times(tmp_path / "out")

    def never(*_):
        raise AssertionError("a picture was read again")

    monkeypatch.setattr(map_pass, "_load", never)
    said = explain(model, pictures, out=tmp_path / "out", html=True)
    assert "5 of 5 pictures had been looked at before" in said
    assert results(tmp_path / "out") == before
    assert times(tmp_path / "out") == then


def test_another_model_under_the_same_name_is_never_mixed_up(pictures, tmp_path):
    model, out = tmp_path / "m.safetensors", tmp_path / "out"
    make_model(model, seed=0)
    explain(model, pictures, out=out)
    first = results(out)
    make_model(model, seed=1)
    assert "looked at before" not in explain(model, pictures, out=out)
    second = results(out)
    assert all(second[name] != data for name, data in first.items())
    explain(model, pictures, out=tmp_path / "fresh")
    assert second == results(tmp_path / "fresh")
    make_model(model, seed=0)  # back again: the first one's maps have been overwritten and are not taken for its own
    explain(model, pictures, out=out)
    assert results(out) == first


@pytest.mark.parametrize(
    ("options", "looks_again"),
    [
        ({"classes": "dog"}, True),
        ({"plain": True}, True),
        pytest.param({"top": 2}, True, marks=pytest.mark.slow),
        pytest.param({"all_classes": True}, True, marks=pytest.mark.slow),
        pytest.param({"box": "none"}, True, marks=pytest.mark.slow),
        ({"how": "cells"}, False),
        pytest.param({"alpha": 0.5}, False, marks=pytest.mark.slow),
    ],
)
def test_other_options_give_what_a_fresh_run_gives(model, pictures, tmp_path, options, looks_again):
    out = tmp_path / "out"
    explain(model, pictures, out=out, html=True)
    before = results(out)
    said = explain(model, pictures, out=out, html=True, **options)
    assert ("looked at before" not in said) == looks_again
    explain(model, pictures, out=tmp_path / "fresh", html=True, **options)
    assert results(out) == results(tmp_path / "fresh")
    for name, data in results(out).items():
        if name.endswith(".png"):
            assert (levels(data, before[name]) <= 1) if "all_classes" in options else data != before[name]


def levels(png, other):
    """By how much two pictures differ at most. Maps of all classes come from one product of matrices, those of some
    from a smaller one, which a processor may add up in another order: a pixel may be rounded the other way."""
    pixels = [np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in (png, other)]
    return np.abs(pixels[0] - pixels[1]).max()


def test_a_changed_picture_is_done_again(model, pictures, tmp_path):
    out = tmp_path / "out"
    explain(model, pictures, out=out, html=True, batch_size=2)
    then = times(out)
    changed = pictures / "p003.png"
    before = changed.stat()
    pixels = np.asarray(Image.open(changed)).copy()
    pixels[:] = pixels[::-1]
    Image.fromarray(pixels).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    said = explain(model, pictures, out=out, html=True, batch_size=2)
    assert "3 of 5 pictures had been looked at before" in said
    explain(model, pictures, out=tmp_path / "fresh", html=True, batch_size=2)
    assert results(out) == results(tmp_path / "fresh")
    untouched = out / "maps" / f"{unique_name(pictures / 'p000.png')}.npz"
    assert times(out)[untouched] == then[untouched]


def test_a_touched_picture_is_read_again_and_no_more(model, pictures, tmp_path, monkeypatch):
    out = tmp_path / "out"
    explain(model, pictures, out=out)
    before, then = results(out), times(out)
    for picture in pictures.iterdir():
        os.utime(picture, ns=(1, 1))
    monkeypatch.setattr(map_pass, "_explain_and_write", None)
    explain(model, pictures, out=out)
    assert results(out) == before
    assert times(out) == then


def test_damage_is_mended(model, pictures, tmp_path):
    out = tmp_path / "out"
    explain(model, pictures, out=out, html=True, batch_size=2)
    before = results(out)
    npz, png = (sorted((out / "maps").glob(f"*.{suffix}"))[0] for suffix in ("npz", "png"))
    npz.write_bytes(npz.read_bytes()[:-9])
    png.write_bytes(png.read_bytes()[:-9])
    with (out / ".looked" / "files.jsonl").open("a") as file:
        file.write('["cut short by a ki')
    record = sorted((out / ".looked").glob("*.json"))[-1]
    record.write_bytes(record.read_bytes()[:50])
    explain(model, pictures, out=out, html=True, batch_size=2)
    assert results(out) == before


def test_more_and_fewer_pictures(model, pictures, tmp_path):
    out = tmp_path / "out"
    explain(model, pictures, out=out, batch_size=2)
    make_pictures(pictures, 7)
    said = explain(model, pictures, out=out, batch_size=2)
    assert "4 of 7 pictures had been looked at before" in said
    (pictures / "p006.png").unlink()
    explain(model, pictures, out=out, batch_size=2)
    document = json.loads((out / "explained.json").read_text("ascii"))
    assert len(document["pictures"]) == 6


def test_two_at_once_are_refused(model, pictures, tmp_path):
    import fcntl

    out = tmp_path / "out"
    explain(model, pictures, out=out, drawings=False)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another gapstone explain is at work"):
            explain(model, pictures, out=out)


def test_a_picture_that_changes_between_the_passes_is_told(model, pictures, tmp_path, monkeypatch):
    from gapstone.explaining import explain_files

    draw = explain_files._draw_maps

    def change(*given):
        Path(pictures / "p001.png").write_bytes((pictures / "p002.png").read_bytes())
        return draw(*given)

    monkeypatch.setattr(explain_files, "_draw_maps", change)
    with pytest.raises(ValueError, match=r"p001\.png was changed while gapstone was at work"):
        explain(model, pictures, out=tmp_path / "out")
