"""What decoders send is data: it comes back as it went, or is refused before memory is taken for it."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data.image_info_cache import image_info_of, parse_image_info
from gapstone.images.preprocessing import Preprocessing
from gapstone.serve import read_picture as serve
from gapstone.workers import messages
from gapstone.workers.messages import MessageError
from gapstone.workers.worker_pool import Lost, run_workers
from tests.workers.crash import NONSENSE

WORK = "tests.workers.crash:work"


def through(value: object, **options: int) -> object:
    pipe = io.BytesIO()
    messages.send(pipe, value)
    pipe.seek(0)
    return messages.receive(pipe, **options)


def test_values_come_back() -> None:
    plain = {"a": [None, True, -3, 1.5, "é\udcff\n\0", b"\x00\xff", b""], "bytes": {"dict": {"array": [1]}}, "": []}
    assert through(plain) == plain
    assert through((1, (2,))) == [1, [2]]
    for shape in ((0, 3), (4, 5, 3), ()):
        array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        found = through([b"before", array.copy(), array])
        assert isinstance(found, list)
        assert found[0] == b"before"
        assert np.array_equal(found[1], array)
        assert np.array_equal(found[2], array)
    strided = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::3]
    assert np.array_equal(np.asarray(through(strided)), strided)


@pytest.mark.parametrize("value", [object(), np.zeros(3), Path("x"), {1, 2}, 1j, np.int64(3)])
def test_what_no_message_holds_is_said_by_the_sender(value: object) -> None:
    with pytest.raises(TypeError, match="message cannot hold"):
        messages.send(io.BytesIO(), [value])


def test_more_bytes_than_expected_are_not_read() -> None:
    assert through(bytes(100), largest=100) == bytes(100)
    with pytest.raises(MessageError, match="at most"):
        through(bytes(101), largest=100)


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused(what: str) -> None:
    pipe = io.BytesIO(NONSENSE[what] + bytes(1 << 20))
    if what == "no answer":
        assert messages.receive(pipe) == ["raises"]
    else:
        with pytest.raises(MessageError):
            messages.receive(pipe)


def test_an_end_within_a_message() -> None:
    pipe = io.BytesIO()
    messages.send(pipe, [1, b"abc"])
    for length in range(len(pipe.getvalue())):
        with pytest.raises(EOFError):
            messages.receive(io.BytesIO(pipe.getvalue()[:length]))


def test_damage_never_raises_anything_else() -> None:
    pipe = io.BytesIO()
    messages.send(pipe, ["done", {"a": [1.5, b"abc", np.zeros((2, 3), np.uint8)], "b": None}])
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        data = bytearray(pipe.getvalue())
        for at in random.integers(0, len(data), random.integers(1, 4)):
            data[at] = random.integers(0, 256)
        try:
            messages.receive(io.BytesIO(data))
        except (MessageError, EOFError):
            refused += 1
    assert refused > 1000


def test_a_decoder_that_talks_nonsense_loses_its_file_only() -> None:
    start = time.monotonic()
    tasks: list[object] = [0, *NONSENSE, 2]
    answers = dict(run_workers(WORK, tasks, 0, workers=2, time_limit=20))
    assert (answers[0], answers[len(tasks) - 1]) == (0, 2)
    for number, what in enumerate(tasks):
        if isinstance(what, str):
            assert isinstance(answers[number], Lost), what
            assert "the process decoding it answered with" in answers[number].reason, what
    assert time.monotonic() - start < 60


def test_a_decoder_that_stops_within_a_message_is_stopped() -> None:
    answers = dict(run_workers(WORK, [0, "half a message", 2], 0, workers=1, time_limit=1))
    assert answers == {0: 0, 1: Lost("took longer than 1 s and was stopped"), 2: 2}


def test_what_a_decoder_started_does_not_hold_us_up() -> None:
    answers = dict(run_workers(WORK, [0, "orphan", 2], 0, workers=1, time_limit=2))
    assert (answers[0], answers[2]) == (0, 2)
    assert isinstance(answers[1], Lost)


def test_answers_of_another_kind_are_refused(tmp_path: Path) -> None:
    """Well-formed, but not what is expected: a thumbnail too short, a picture of another size."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    honest = through(image_info_of((10_000, None, None), str(path)))
    assert isinstance(honest, list)
    assert parse_image_info(honest)[0].size == (30, 20)
    for at, wrong in [
        (0, 1),
        (1, 3),
        (3, [30]),
        (3, [30, 0]),
        (5, [1]),
        (6, None),
        (7, b"short"),
        (8, b""),
        (8, "text"),
    ]:
        with pytest.raises(MessageError):
            parse_image_info([*honest[:at], wrong, *honest[at + 1 :]])
    rules = [Preprocessing(3, (8, 8), (10, 12), (0.5,) * 3, (0.5,) * 3)]
    seen = through(serve.read(serve.worker_arguments(rules, 10_000), (path.read_bytes(), True)))
    assert isinstance(seen, dict)
    picture = serve.check_result(seen, rules)
    assert isinstance(picture, serve.UploadedPicture)
    assert picture.fitted[0].shape == (10, 12, 3)
    for name, wrong in [
        ("size", [1]),
        ("notes", [3]),
        ("fitted", []),
        ("preview", ["text/html", b""]),
        ("preview", b""),
    ]:
        with pytest.raises(MessageError):
            serve.check_result(seen | {name: wrong}, rules)
    with pytest.raises(MessageError):
        serve.check_result(seen | {"fitted": [np.zeros((12, 10, 3), np.uint8)]}, rules)
