"""Thousands of pictures need no more memory than a few: what is loaded ahead is bounded, and is small."""

import io
import threading

from rich.console import Console

from gapstone.explaining import draw_maps, map_pass
from gapstone.explaining.explain_files import explain_files
from gapstone.explaining.explain_request import ExplainRequest
from tests.explaining.tiny import make_model, make_pictures

BATCH = 4


def explain(model, pictures, out, **options):
    request = ExplainRequest(str(model), (str(pictures),), batch_size=BATCH, **options)
    explain_files(request, out, Console(file=io.StringIO()))


def test_no_more_than_three_batches_are_loaded_ahead(model, tmp_path, monkeypatch):
    folder = make_pictures(tmp_path / "photos", 120, (8, 8))
    lock, loaded, asked, most = threading.Lock(), 0, 0, 0
    load, ask = map_pass._load, map_pass._explain_and_write

    def counted(*given):
        nonlocal loaded, most
        picture = load(*given)
        with lock:
            loaded += 1
            most = max(most, loaded - asked)
        return picture

    def consumed(opened, what, pictures, *more):
        nonlocal asked
        record = ask(opened, what, pictures, *more)
        with lock:
            asked += len(pictures)
        return record

    monkeypatch.setattr(map_pass, "_load", counted)
    monkeypatch.setattr(map_pass, "_explain_and_write", consumed)
    explain(model, folder, tmp_path / "out", drawings=False)
    assert loaded == asked == 120
    assert BATCH < most <= 3 * BATCH


def test_what_waits_for_the_network_is_as_small_as_it_sees_it(tmp_path, monkeypatch):
    model = make_model(tmp_path / "m.safetensors", size=(32, 32), stored=(36, 36))
    folder = make_pictures(tmp_path / "photos", 6, (700, 900))
    waiting = []
    ask = map_pass._explain_and_write
    monkeypatch.setattr(map_pass, "_explain_and_write", lambda *given: waiting.extend(given[2]) or ask(*given))
    explain(model, folder, tmp_path / "out", drawings=False)
    assert {picture.fitted.shape for picture in waiting} == {(36, 36, 3)}
    assert {picture.size for picture in waiting} == {(700, 900)}


def test_no_more_than_a_few_pictures_are_drawn_at_a_time(model, tmp_path, monkeypatch):
    folder = make_pictures(tmp_path / "photos", 60, (8, 8))
    lock, started, told = threading.Lock(), 0, 0
    most = 0
    draw = draw_maps.draw
    work = draw_maps._draw_picture

    def counted(*given):
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - told)
        return work(*given)

    def watched(*given):
        def tell(done):
            nonlocal told
            told = done
            given[-2](done)

        return draw(*given[:-2], tell, given[-1])

    monkeypatch.setattr(draw_maps, "_draw_picture", counted)
    monkeypatch.setattr(draw_maps, "draw", watched)
    explain(model, folder, tmp_path / "out", drawings=False, html=True)
    assert started == 60
    assert most <= 2 * draw_maps.THREADS + draw_maps.THREADS + 1
