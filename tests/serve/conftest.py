"""Models, the application in this process, and the server as a process of its own."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra: pip install 'gapstone[serve]'")

from starlette.testclient import TestClient

from gapstone.maps.open_model import open_model
from gapstone.serve.app import application
from gapstone.serve.client_limits import ClientLimits
from gapstone.serve.explain_json_api import Explainer
from tests.serve.serving import BASE, Client, Live, small


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return small(1).save(folder / "one.safetensors"), small(2, "gmp").save(folder / "two.safetensors")


@pytest.fixture(scope="session")
def explainers(model_files: tuple[Path, Path]) -> tuple[Explainer, Explainer]:
    one, two = (Explainer(open_model(str(path)), path.name) for path in model_files)
    return one, two


@pytest.fixture(scope="session")
def client(explainers: tuple[Explainer, Explainer]) -> Iterator[Client]:
    """`client(models=2, upload=1000)`: the application in this process, with other limits if asked for."""
    made: dict[object, TestClient] = {}

    def make(models: int = 1, host: str = "127.0.0.1", **limits: float) -> TestClient:
        key = (models, host, *sorted(limits.items()))
        if key not in made:
            app = application(explainers[:models], ClientLimits(**limits), host)
            made[key] = TestClient(app, base_url=BASE, raise_server_exceptions=False)
            made[key].__enter__()
        return made[key]

    yield make
    for each in made.values():
        each.__exit__(None, None, None)


@pytest.fixture(scope="session")
def live(model_files: tuple[Path, Path]) -> Iterator[Live]:
    server = Live(
        f"[{str(model_files[0])!r}], port=0, limits=ClientLimits(upload=3_000_000, body_seconds=2, head_seconds=2)"
    )
    yield server
    with socket.create_connection(("127.0.0.1", server.port)):  # an idle connection must not keep it from stopping
        assert server.stop(signal.SIGINT) == 0, "Ctrl-C stops it in order"
    said = "".join(server.said)
    assert said.strip().endswith("Stopped.")
    assert "Traceback" not in said
    assert "Warning" not in said
