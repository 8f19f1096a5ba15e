"""`gapstone convert --native`: fitted to pictures as they are, and tested on them so."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import gapstone as gs
from gapstone.converting import convert as convert_module
from gapstone.converting.conversion import ConvertRequest, document
from gapstone.converting.convert import convert
from gapstone.data.decoded_store import StoreError
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.sources import Source
from gapstone.data.split import split
from gapstone.images.load import ImageError
from gapstone.images.preprocessing import Preprocessing

COUNT = 40  # pictures of each class


def trained(head, path):
    """An untrained network with batch-norm statistics: a closed form finds much in random features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = gs.Classifier(
            "nin", head, ("fine", "coarse"), Preprocessing(3, (32, 32), (32, 32), (0.5,) * 3, (0.3,) * 3)
        )
        made.train()
        with torch.no_grad():
            for _ in range(30):
                made(torch.randn(32, 3, 32, 32))
    return made.eval().save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Fine and coarse noise: at one size of 32×32 the coarse one would be as fine as the other."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, cell in (("fine", 1), ("coarse", 4)):
        (folder / name).mkdir()
        for number in range(COUNT):
            h, w = (4 * int(side) for side in rng.integers(8, 20, 2))
            noise = rng.integers(0, 256, (h // cell, w // cell, 3), np.uint8)
            Image.fromarray(noise).resize((w, h), Image.Resampling.NEAREST).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {head: trained(head, folder / f"{head}.safetensors") for head in ("fc", "gap")}


def quietly(request):
    text = io.StringIO()
    return convert(request, console=Console(file=text, width=200)), text.getvalue()


def held_out(photos):
    source = open_source(str(photos))
    rows = split(source, scan(source), seed=0).test
    return [source.items[int(row)].path for row in rows], [source.classes[source.labels[row]] for row in rows]


def right(model, paths, truth, native):
    answers = model.predict(paths, native=native).argmax(1)
    return np.array([model.labels[k] for k in answers]) == truth


@pytest.mark.slow
def test_the_file_answers_as_the_report_says(models, photos, tmp_path):
    done, said = quietly(
        ConvertRequest(str(models["fc"]), "gap", str(photos), tmp_path / "new.safetensors", native=True)
    )
    paths, truth = held_out(photos)
    np.testing.assert_array_equal(done.correct, right(gs.load(tmp_path / "new.safetensors"), paths, truth, native=True))
    before = right(gs.load(models["fc"]), paths, truth, native=False)
    assert done.paired.before == before.mean()
    assert "After: every picture as it is, neither cut nor resized; before: resized to 32×32, which is all it" in said
    assert done.correct.mean() > 0.9
    assert done.moved[0] is None  # 4 px of a resized picture are others than of the picture as it is
    assert 0 < done.moved[1] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


def test_a_head_of_any_size_is_asked_natively_before_too(models, photos, tmp_path):
    done, said = quietly(
        ConvertRequest(str(models["gap"]), "gmp", str(photos), tmp_path / "new.safetensors", native=True)
    )
    paths, truth = held_out(photos)
    assert done.paired.before == right(gs.load(models["gap"]), paths, truth, native=True).mean()
    assert "Before and after: every picture as it is" in said
    assert done.moved[0] is not None


def test_other_classes_have_no_before(models, tmp_path):
    file = tmp_path / "new.safetensors"
    done, said = quietly(ConvertRequest(str(models["gap"]), "gmp", "digits", file, native=True, limit=200))
    assert document(done, gs.load(file))["native"] == {"before": None, "after": True}
    assert "After: every picture as it is, neither cut nor resized." in said


def test_moves_are_seen(models, photos, tmp_path, monkeypatch):
    """Where a move leaves nothing of any picture, all are answered alike: half of them right."""
    monkeypatch.setattr(convert_module, "moves", lambda size: (999, [torch.zeros_like]))
    done, _ = quietly(ConvertRequest(str(models["gap"]), "gmp", str(photos), tmp_path / "new.safetensors", native=True))
    assert done.moved == (0.5, 0.5)
    assert done.correct.mean() > 0.8


@pytest.mark.slow
def test_other_features_than_of_resized_pictures(models, photos, tmp_path):
    files = [tmp_path / "native.safetensors", tmp_path / "resized.safetensors"]
    for file, native in zip(files, (True, False), strict=True):
        quietly(ConvertRequest(str(models["gap"]), "gap", str(photos), file, native=native))
    first, second = (gs.load(file).head.classifier[-1].weight for file in files)
    assert not torch.allclose(first, second, rtol=1e-2)


@pytest.mark.slow  # quick: the reason of each picture, tests/ragged/test_native.py
def test_what_cannot_be_seen_as_it_is_is_left_out_and_said(photos, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wants = Preprocessing(3, (64, 64), (64, 64), (0.5,) * 3, (0.3,) * 3)
        gs.Classifier("vgg11_bn", "gap", ("fine", "coarse"), wants).eval().save(tmp_path / "vgg.safetensors")
    smallest = gs.load(tmp_path / "vgg.safetensors").features.smallest
    made = tmp_path / "few"
    for name in ("fine", "coarse"):
        (made / name).mkdir(parents=True)
        for path in (photos / name).iterdir():
            (made / name / path.name).symlink_to(path)
        Image.new("RGB", (smallest - 1, 90), (9, 9, 9)).save(made / name / f"small {name}.png")
        Image.effect_noise((smallest - 1, 80), 90).convert("RGB").save(made / name / f"other {name}.png")
    done, said = quietly(
        ConvertRequest(str(tmp_path / "vgg.safetensors"), "gmp", str(made), tmp_path / "new.safetensors", native=True)
    )
    assert f"×90 px, and the network needs at least {smallest} a side" in said or "×80 px, and the network" in said
    assert "(and 3 more)" in said
    parts = done.split
    assert len(parts.train) + len(parts.validation) + len(parts.test) == 2 * COUNT
    assert "unusable files left out" in parts.described


def test_stopped_while_it_looks_and_gone_on(models, photos, tmp_path, monkeypatch):
    request = ConvertRequest(
        str(models["fc"]), "gap", str(photos), tmp_path / "new.safetensors", native=True, batch_size=4
    )
    decoded, pixels = [], Source.pixels

    def counted(source, row, **options):
        decoded.append(row)
        if len(decoded) == 35 and stops:
            raise KeyboardInterrupt
        return pixels(source, row, **options)

    monkeypatch.setattr(Source, "pixels", counted)
    stops = True
    with pytest.raises(KeyboardInterrupt):
        quietly(request)
    stops = False
    first = set(decoded[:32])  # whole batches of four
    decoded.clear()
    done, _ = quietly(request)
    assert len(first) == 32
    assert not first & set(decoded)
    assert len(done.split.train) > 32


def test_a_file_that_goes_away_takes_nothing_along(models, photos, tmp_path, monkeypatch):
    request = ConvertRequest(
        str(models["fc"]), "gap", str(photos), tmp_path / "new.safetensors", native=True, batch_size=4
    )
    pixels = Source.pixels
    decoded = []

    def lost(source, row, **options):
        decoded.append(row)
        if len(decoded) == 70:  # the training images are 58
            raise ImageError("stale file handle")
        return pixels(source, row, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Source, "pixels", lost)
        with pytest.raises(StoreError, match=r"\.png: stale file handle"):
            quietly(request)
    assert len(list((tmp_path / ".new.safetensors.parts" / "kept").glob("*.npy"))) >= 1
    quietly(request)
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


def test_a_picture_replaced_after_it_was_checked_is_not_kept_under_its_old_hash(models, photos, tmp_path, monkeypatch):
    copy = shutil.copytree(photos, tmp_path / "photos")
    request = ConvertRequest(
        str(models["fc"]), "gap", str(copy), tmp_path / "new.safetensors", native=True, batch_size=4
    )
    pixels = Source.pixels

    def replaced(source, row, **options):
        path = source.items[row].path
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        return pixels(source, row, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Source, "pixels", replaced)
        with pytest.raises(StoreError, match=r"no longer the file that was looked at.*same command again"):
            quietly(request)
    quietly(request)
    assert (tmp_path / "new.safetensors").exists()


@pytest.mark.slow
def test_stopped_and_gone_on(models, photos, tmp_path, monkeypatch):
    request = ConvertRequest(
        str(models["fc"]), "gap", str(photos), tmp_path / "new.safetensors", native=True, batch_size=4
    )

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "model_costs", stop)
        with pytest.raises(KeyboardInterrupt):
            quietly(request)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".new.safetensors.parts" / "kept").glob("*.npy")}
    assert len(kept) == 2
    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "discard", lambda *_: None)
        quietly(request)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # not made again
    whole = ConvertRequest(
        str(models["fc"]), "gap", str(photos), tmp_path / "whole.safetensors", native=True, batch_size=4
    )
    quietly(whole)
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finetune": 3}, "--native and --finetune 3: .* Leave one of the two out"),
        ({"head": "fc"}, "head 'fc' .* 32×32 px .* gap or fc:grid=7"),
        ({"method": "distil"}, "asks the old head, fc, which takes only 32×32: leave --native out"),
    ],
)
def test_what_is_refused_at_once(models, photos, tmp_path, change, message):
    fine = {"model": str(models["fc"]), "head": "gap", "data": str(photos), "out": tmp_path / "out.safetensors"}
    with pytest.raises(ValueError, match=message):
        quietly(ConvertRequest(**fine | {"native": True} | change))
    assert not list(tmp_path.iterdir())
