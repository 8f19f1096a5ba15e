"""A streamed run that is stopped goes on where it was, to the same numbers."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import gapstone as gs
from gapstone.any_size import kept_maps, stream_checkpoint
from gapstone.any_size import plan_bands as planning
from gapstone.streaming import row_pass
from gapstone.streaming.row_layout import StreamError

from .test_stream import classifier, noise

tifffile = pytest.importorskip("tifffile")
QUIET = {"progress": False, "check": False}


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    monkeypatch.setattr(planning, "PIXELS", 2048)
    monkeypatch.setattr(stream_checkpoint, "EVERY", 0)
    monkeypatch.setattr(stream_checkpoint, "SHARE", 1e9)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, noise(211, 133), photometric="rgb", tile=(32, 32), compression="zlib")
    return path


class Stopped(BaseException):
    """As Ctrl-C is."""


def stopped_after(bands, monkeypatch):
    """The pass breaks off after so many bands of all passes; returns the list of bands that are played."""
    played, whole = [], row_pass.RowPass.band

    def band(self, rows, final):
        if bands is not None and len(played) == bands:
            raise Stopped
        played.append(rows.shape[2])
        whole(self, rows, final)

    monkeypatch.setattr(row_pass.RowPass, "band", band)
    return played


class Norms(nn.Module):
    """Three passes: two group norms, and a squeeze."""

    def __init__(self):
        super().__init__()
        self.scale, self.offset = 1.5, torch.tensor(0.25)  # neither is in its state_dict
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 5, padding=2), nn.Linear(8, 4)
        self.first, self.second, self.last = nn.GroupNorm(2, 8), nn.GroupNorm(4, 8), nn.ReLU()

    def forward(self, x):
        x = self.first(self.a(x)).relu() * self.scale + self.offset
        x = x * x.amax((2, 3), keepdim=True).sigmoid()
        x = self.last(self.second(self.b(x)) + x)
        return self.fc(x.mean((2, 3)))


def model_of(name):
    torch.manual_seed(0)
    if name in ("gap", "gmp", "lse", "gem:p=learned", "attention"):
        return classifier(name)
    return gs.Classifier(
        Norms() if name == "norms" else name, "gap", ("cat", "dog", "fox"), classifier().preprocessing
    ).eval()


@pytest.mark.parametrize("name", ["gap", "gmp", "lse", "gem:p=learned", "attention", "norms", "googlenet"])
def test_it_goes_on_to_the_same_numbers(name, image, tmp_path, monkeypatch):
    model, path = model_of(name), tmp_path / "run.checkpoint"
    with monkeypatch.context() as context:
        played = stopped_after(None, context)
        expected = gs.stream(model, image, **QUIET)
    total = len(played)
    assert total == expected.passes * (-(-211 // expected.rows)) > 3
    for stop in {1, total // 2, total - 1}:
        with monkeypatch.context() as context:
            stopped_after(stop, context)
            with pytest.raises(Stopped):
                gs.stream(model, image, checkpoint=path, **QUIET)
        assert path.exists()
        with monkeypatch.context() as context:
            again = stopped_after(None, context)
            found = gs.stream(model, image, checkpoint=path, **QUIET)
        assert total - stop <= len(again) <= total - stop + 1
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.maps, expected.maps)
        assert np.array_equal(found.picture, expected.picture)
        assert not path.exists()


def test_maps_of_the_most_probable_classes_of_many(image, tmp_path, monkeypatch):
    """What is added to these alone is kept, in a pass of its own."""
    torch.manual_seed(0)
    labels = tuple(map(str, range(70)))
    model = gs.Classifier("resnet18", "gap", labels, classifier().preprocessing).eval()
    monkeypatch.setattr(kept_maps.KeptMap, "bytes", property(lambda self: 1 << 60))
    expected = gs.stream(model, image, **QUIET)
    assert expected.passes == 2
    with monkeypatch.context() as context:
        stopped_after(3 * -(-211 // expected.rows) // 2, context)
        with pytest.raises(Stopped):
            gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)
    found = gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)
    assert torch.equal(found.maps, expected.maps)


def test_damage_that_an_earlier_run_saw_is_told(image, tmp_path, monkeypatch):
    with tifffile.TiffFile(image) as file:
        start, count = file.pages[0].dataoffsets[2], file.pages[0].databytecounts[2]
    with image.open("r+b") as file:
        file.seek(start + count // 2)
        file.write(bytes(20))
    model = classifier()
    with monkeypatch.context() as context:
        stopped_after(6, context)
        with pytest.raises(Stopped), pytest.warns(UserWarning, match="cannot be decoded"):
            gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)
    found = gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)
    assert "1 part of" in found.notes[-1]


def test_another_run_or_a_damaged_file_is_refused(image, tmp_path, monkeypatch):
    model, path = classifier(), tmp_path / "c"
    with monkeypatch.context() as context:
        stopped_after(2, context)
        with pytest.raises(Stopped):
            gs.stream(model, image, checkpoint=path, **QUIET)
    kept = path.read_bytes()
    other = classifier()
    with torch.no_grad():
        other.head.classifier[-1].bias[0] += 1
    for changed, options in ((other, {}), (model, {"top_k": 1}), (model, {"maps": False}), (model, {"memory": "90MB"})):
        if options == {"memory": "90MB"}:
            monkeypatch.setattr(planning, "PIXELS", 1024)
        with pytest.raises(StreamError, match=r"is of another run: .*delete it to begin anew"):
            gs.stream(changed, image, checkpoint=path, **QUIET, **options)
        assert path.read_bytes() == kept
    monkeypatch.setattr(planning, "PIXELS", 2048)
    os.utime(image)
    with pytest.raises(StreamError, match="is of another run"):
        gs.stream(model, image, checkpoint=path, **QUIET)
    for content in (b"", b"no checkpoint", kept[: len(kept) // 2]):
        path.write_bytes(content)
        with pytest.raises(StreamError, match=r"cannot be read .* Delete it to begin anew"):
            gs.stream(model, image, checkpoint=path, **QUIET)


@pytest.mark.parametrize("change", ["scale", "offset"])
def test_a_constant_of_the_network_that_changed_is_another_run(change, image, tmp_path, monkeypatch):
    network = Norms()
    model = gs.Classifier(network, "gap", ("cat", "dog", "fox"), classifier().preprocessing).eval()
    given = next(part for part in model.modules() if isinstance(part, Norms))
    with monkeypatch.context() as context:
        stopped_after(5, context)
        with pytest.raises(Stopped):
            gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)
    setattr(given, change, getattr(given, change) + 1)
    with pytest.raises(StreamError, match="is of another run"):
        gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)


def test_an_array_has_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="checkpoint goes with a file as image"):
        gs.stream(classifier(), noise(64, 64), checkpoint=tmp_path / "c", **QUIET)


def test_it_is_written_as_seldom_as_it_takes(image, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_checkpoint, "EVERY", 3600)
    written = []
    monkeypatch.setattr(stream_checkpoint.StreamCheckpoint, "write", lambda *args: written.append(args))
    gs.stream(classifier(), image, checkpoint=tmp_path / "c", **QUIET)
    assert not written


@pytest.mark.slow
def test_after_a_kill(image, tmp_path):
    model = classifier()
    model.save(tmp_path / "m.safetensors")
    code = f"""
import sys, time
import gapstone as gs
from gapstone.any_size import stream_checkpoint, plan_bands
from gapstone.streaming import row_pass
plan_bands.PIXELS, stream_checkpoint.EVERY, stream_checkpoint.SHARE = 2048, 0, 1
whole = row_pass.RowPass.band
row_pass.RowPass.band = lambda self, rows, final: (time.sleep(0.2), whole(self, rows, final))[1]
gs.stream("{tmp_path}/m.safetensors", "{image}", checkpoint="{tmp_path}/c", progress=False, device="cpu")
"""
    run = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "c").exists():
        assert run.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    run.send_signal(signal.SIGKILL)
    run.wait()
    found = gs.stream(model, image, checkpoint=tmp_path / "c", **QUIET)
    assert torch.equal(found.logits, gs.stream(model, image, **QUIET).logits)
