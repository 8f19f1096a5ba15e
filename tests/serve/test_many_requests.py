"""10,000 hostile and honest requests: every one answered or closed, never a traceback, no growth.

`python -m tests.serve.test_many_requests 10000` says what the answers were, and how much memory was taken.
"""

import contextlib
import random
import re
import signal
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serve.serving import Live, encoded, picture, small

pytestmark = pytest.mark.xdist_group("serve")

EXPLAIN = "/api/explain"
PATHS = (f"{EXPLAIN}?preview=1", "/api/models", "/", "/page.js", "/../../etc/passwd", f"{EXPLAIN}?x=%00")
KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "QOI", "SGI", "DDS")


def pictures() -> list[bytes]:
    found = []
    for number, kind in enumerate(KINDS):
        with contextlib.suppress(KeyError, OSError):  # not in this build of Pillow
            found.append(encoded(picture(20 + 7 * number, 30 + 5 * number, number), kind))
    return found


def request(chance: random.Random, honest: list[bytes]) -> bytes:
    """A picture as it is, damaged, cut off or none; a head as it should be, or damaged too."""
    body = bytearray(chance.choice(honest))
    kind = chance.randrange(10)
    if kind < 4:
        for _ in range(chance.randint(1, 20)):
            body[chance.randrange(len(body))] = chance.randrange(256)
    elif kind == 4:
        del body[chance.randrange(len(body)) :]
    elif kind == 5:
        body = bytearray(chance.randbytes(chance.randrange(3000)))
    method = "POST" if chance.random() < 0.9 else chance.choice(["GET", "PUT", "DELETE", "HEAD", "TRACE", "X" * 50])
    path = EXPLAIN if chance.random() < 0.7 else chance.choice(PATHS)
    length = len(body) if chance.random() < 0.93 else chance.choice([0, len(body) // 2, -1, 10**18, "x"])
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n"
        f"Connection: close\r\n\r\n"
    ).encode()
    if chance.random() < 0.05:
        head = bytearray(head)
        for _ in range(chance.randint(1, 5)):
            head[chance.randrange(len(head))] = chance.randrange(256)
    return bytes(head) + bytes(body)


def answer(port: int, data: bytes) -> str:
    """The status, or that the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        got = b""
        head, _, body = data.partition(b"\r\n\r\n")
        try:
            connection.sendall(data)
            if b"\r\nContent-Length: %d\r\n" % len(body) not in head:
                connection.shutdown(socket.SHUT_WR)  # nothing more will come: what waits for more need not
            while part := connection.recv(1 << 16):
                got += part
        except (ConnectionError, BrokenPipeError):
            pass
    status = re.match(rb"HTTP/1\.1 (\d+)", got)
    return status[1].decode() if status else "closed"


def resident(pid: int) -> int:
    """Bytes in memory of a process and of those it started."""
    try:
        own = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) * 1024
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = {child for task in tasks for child in (task / "children").read_text().split()}
    except (OSError, IndexError):
        pytest.skip("needs /proc")
    return own + sum(resident(int(child)) for child in children)


def run(count: int, folder: Path, seed: int = 0) -> tuple[Counter[str], int, str]:
    """What the answers were; the growth of memory from the first fifth to the end; what the server said."""
    model = small(0).save(folder / "small.safetensors")
    live = Live(f"[{str(model)!r}], port=0")
    chance, honest = random.Random(seed), pictures()
    answers: Counter[str] = Counter()
    try:
        with ThreadPoolExecutor(4) as clients:
            for part in (count // 5, count - count // 5):
                before = resident(live.process.pid)
                for start in range(0, part, 200):
                    data = [request(chance, honest) for _ in range(min(200, part - start))]
                    answers.update(clients.map(answer, [live.port] * len(data), data))
        growth = resident(live.process.pid) - before
        assert answer(live.port, b"GET /api/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n") == "200"
    finally:
        live.stop(signal.SIGINT)
    return answers, growth, "".join(live.said)


@pytest.mark.slow  # quick: test_server.py
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_traceback_and_no_growth(count: int, tmp_path: Path) -> None:
    answers, growth, said = run(count, tmp_path)
    print(answers, growth)
    assert answers["200"] > count // 10
    assert answers["422"] > count // 10
    assert not {"500", "502"} & set(answers)
    assert "Traceback" not in said
    assert growth < 100e6


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        answers, growth, said = run(int(sys.argv[1]), Path(place))
    print(f"{dict(answers)}; {growth / 1e6:.1f} MB more at the end than after a fifth; it said {len(said)} characters:")
    print(said[-2000:])
