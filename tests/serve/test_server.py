"""The server as a process of its own: many clients, slow ones, those that never end, and how it starts and stops."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from rich.console import Console

from gapstone.serve.client_limits import ClientLimits
from gapstone.serve.run_server import PORT, TRIED, _announce, _bind, _names, serve
from tests.serve.serving import Client, Live, encoded, picture

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_client.py"

pytestmark = pytest.mark.xdist_group("serve")


def ask(url: str, data: bytes) -> tuple[int, dict[str, object]]:
    request = Request(f"{url}api/explain", data=data, headers={"Content-Type": "image/png"})
    try:
        with urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def connect(live: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.port), timeout=30)


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def trickle(connection: socket.socket, more: bytes) -> None:
    for _ in range(60):
        connection.sendall(more)
        time.sleep(0.5)


HEAD = b"POST /api/explain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def test_fifty_at_once_are_all_answered_rightly(live: Live) -> None:
    pictures = [encoded(picture(60 + n, 80, seed=n)) for n in range(10)]
    alone = [ask(live.url, data)[1]["models"] for data in pictures]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: ask(live.url, pictures[n % 10]), range(50)))
    assert [status for status, _ in answers] == [200] * 50
    assert all(answer["models"] == alone[n % 10] for n, (_, answer) in enumerate(answers))
    assert len({json.dumps(models) for models in alone}) == 10


def test_slow_clients_are_cut_off_and_take_nobodys_place(live: Live) -> None:
    with ExitStack() as open_until_the_end:
        slow = [open_until_the_end.enter_context(connect(live)) for _ in range(ClientLimits().jobs + 10)]
        for connection in slow:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 10)
        drip, head = (open_until_the_end.enter_context(connect(live)) for _ in range(2))
        drip.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        head.sendall(HEAD)  # and never an end of the head
        assert ask(live.url, encoded(picture()))[0] == 200, "only who has sent all is in the queue"
        for connection in slow:
            told = everything(connection)
            assert told.startswith(b"HTTP/1.1 408 ")
            assert b"did not arrive within 2 s" in told
            assert b"content-security-policy" in told
        for connection, more in ((drip, b"x"), (head, b"X-A: b\r\n")):  # a byte now and then does not buy time
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                trickle(connection, more)


def test_too_much_is_refused_with_a_message_that_arrives(live: Live) -> None:
    status, told = ask(live.url, b"x" * 10_000_000)  # urllib sends all before it listens
    assert (status, told["error"]) == (413, "The file is too large: at most 3 MB are taken.")


def test_a_body_without_end_is_cut_off(live: Live) -> None:
    with connect(live) as endless:
        endless.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"

        def send_for_half_a_minute() -> None:
            began = time.monotonic()
            while time.monotonic() - began < 30:
                endless.sendall(chunk)
                time.sleep(0.01)

        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            send_for_half_a_minute()


def test_nonsense_is_no_reason_to_stop(live: Live) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"x" * 100_000 + b"\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ):
        with connect(live) as connection:
            connection.sendall(nonsense)
            connection.settimeout(10)
            try:
                told = everything(connection)
            except ConnectionResetError:
                told = b""
            assert b"Traceback" not in told
    assert ask(live.url, encoded(picture()))[0] == 200


def test_a_decoder_that_takes_too_long_is_stopped_and_replaced(client: Client) -> None:
    here = client(decode_seconds=0.25)
    headers = {"Content-Type": "image/png"}
    assert here.post("/api/explain", content=encoded(picture()), headers=headers).status_code == 200
    slow = encoded(picture(8, 8).resize((7000, 7000)), compress_level=1)
    for _ in range(3):
        response = here.post("/api/explain", content=slow, headers=headers)
        assert response.status_code == 422
        assert "took longer than 0.25 s and was stopped" in response.json()["error"]
    assert here.post("/api/explain", content=encoded(picture()), headers=headers).status_code == 200


def test_a_reader_that_dies_takes_only_its_picture_along(live: Live) -> None:
    assert ask(live.url, encoded(picture()))[0] == 200
    children = Path(f"/proc/{live.process.pid}/task/{live.process.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the reading processes")
    tasks = Path(f"/proc/{live.process.pid}/task").iterdir()
    readers = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    assert len(readers) == 2
    for pid in readers:
        os.kill(pid, signal.SIGKILL)
    for pid in readers:  # killed is not yet dead, on a busy machine
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    for _ in range(3):
        assert ask(live.url, encoded(picture()))[0] == 200


def test_the_example_client(live: Live, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    run = subprocess.run([sys.executable, EXAMPLE, live.url, path], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("one.safetensors\n")
    assert run.stdout.count(" %  ") == 3
    assert "row" in run.stdout
    path.write_bytes(b"no picture")
    run = subprocess.run([sys.executable, EXAMPLE, live.url, path], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "cannot be read" in run.stderr


def test_a_taken_port_is_told_and_the_next_taken_where_none_was_asked_for() -> None:
    first = _bind("127.0.0.1", None)
    second = _bind("127.0.0.1", None)
    with first, second:
        port, next_port = first.getsockname()[1], second.getsockname()[1]
        assert PORT <= port < next_port < PORT + TRIED
        with pytest.raises(OSError, match=f"--port {port} on 127.0.0.1: taken by another program. Choose another"):
            _bind("127.0.0.1", port)
    with _bind("127.0.0.1", port):
        pass


@pytest.mark.parametrize(
    ("host", "url", "warned"),
    [
        ("127.0.0.1", "http://127.0.0.1:1/", False),
        ("localhost", "http://localhost:1/", False),
        ("::1", "http://[::1]:1/", False),
        ("0.0.0.0", "http://127.0.0.1:1/", True),
        ("::", "http://[::1]:1/", True),
        ("192.168.1.5", "http://192.168.1.5:1/", True),
    ],
)
def test_a_public_address_is_warned_of(host: str, url: str, warned: bool) -> None:
    console = Console(file=io.StringIO(), width=200)
    _announce(host, 1, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"Open {url} " in said
    assert ("no password" in said) == warned


def test_two_models_of_one_name_are_told_apart() -> None:
    assert _names(["a/m.safetensors", "timm:resnet18"]) == ["m.safetensors", "timm:resnet18"]
    assert _names(["a/m.safetensors", "b/m.safetensors"]) == ["m.safetensors (first)", "m.safetensors (second)"]


def test_what_cannot_be_served_is_told_before_anything_is_bound(model_files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one model, or two to compare; 3 were given"):
        serve([str(model_files[0])] * 3)
    with pytest.raises(ValueError, match="no such file"):
        serve([str(tmp_path / "none.safetensors")], port=0)
    with pytest.raises(OSError, match="no address of that name"):
        serve([str(model_files[0])], host="nowhere.invalid", port=0)
