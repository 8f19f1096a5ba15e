"""serve(models, host, port): load, bind, say the address, answer until Ctrl-C."""

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.console.progress import Bars
from gapstone.console.terminal import Terminal
from gapstone.maps.open_model import open_model, takes_weights
from gapstone.runtime.interrupts import stoppable
from gapstone.serve.client_limits import ClientLimits
from gapstone.training.training_data import pick_device

try:
    import python_multipart  # noqa: F401  starlette would miss it only when the first form comes
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from gapstone.serve.app import application
    from gapstone.serve.explain_json_api import Explainer
    from gapstone.serve.guard import loopback
except ImportError as error:
    raise ImportError(f"gapstone serve needs pip install 'gapstone[serve]' (here: {error})") from error

PORT = 8765
TRIED = 20  # ports, where none was asked for and the first is taken


def serve(
    models: list[str],
    host: str = "127.0.0.1",
    port: int | None = None,
    device: str = "auto",
    limits: ClientLimits | None = None,
    console: Console | None = None,
    weights: Path | None = None,
) -> None:
    """Serve the page for one model, or for two side by side, until Ctrl-C.

    >>> serve(["photos.safetensors"], port=8000)
    Open http://127.0.0.1:8000/ (Ctrl-C stops)

    port: None takes 8765 or the next free one. weights: for `timm:NAME`, as `open_model` takes them. Raises ValueError
    for another number of models or a file that is none, OSError where the address cannot be had.
    """
    console = console or Terminal()
    limits = limits or ClientLimits()
    if not 1 <= len(models) <= 2:
        raise ValueError(f"serve takes one model, or two to compare; {len(models)} were given.")
    if weights is not None and sum(map(takes_weights, models)) != 1:
        raise ValueError(f"--weights {weights} goes with exactly one network's name; given: {' and '.join(models)}.")
    listening = _bind(host, port)  # first: a taken port is told before seconds of loading
    with contextlib.closing(listening):
        chosen = pick_device(device)
        names = _names(models)
        with Bars(Terminal(stderr=True), idle="Starting the server") as bars:
            explainers = [
                _explainer(model, name, weights, chosen, bars) for model, name in zip(models, names, strict=True)
            ]
        config = uvicorn.Config(
            application(explainers, limits, host, lambda: _announce(host, listening.getsockname()[1], console)),
            http=_patient(limits.head_seconds),
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        # in a section: a signal during the run goes to uvicorn, and what it raises afterwards ends nothing but this
        with (
            contextlib.suppress(KeyboardInterrupt),
            stoppable("Stopped."),
        ):  # uvicorn has stopped in order, and raises it once more
            uvicorn.Server(config).run(sockets=[listening])
        console.print("Stopped.")


def _explainer(model: str, name: str, weights: Path | None, device: str, bars: Bars) -> Explainer:
    with bars.during(f"Opening {model}"):
        return Explainer(open_model(model, weights if takes_weights(model) else None, device), name)


def _bind(host: str, port: int | None) -> socket.socket:
    """A bound socket. Raises OSError that says which address, why, and what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise OSError(f"--host {host}: no address of that name ({error.strerror}).") from None
    ports = range(PORT, PORT + TRIED) if port is None else [port]
    for number in ports:
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":  # a port just given up is free again; on Windows it would let two servers share one
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address[0], number))
            listening.listen(128)  # two servers may bind, only one may listen
            return listening
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE and number != ports[-1]:
                continue
            why = {errno.EADDRINUSE: "taken by another program", errno.EACCES: "not allowed: take 1024 or above"}
            reason = why.get(error.errno or 0, error.strerror or str(error))
            tried = f"--port {number}" if port is not None else f"ports {ports[0]} to {ports[-1]}"
            raise OSError(f"{tried} on {host}: {reason}. Choose another --port, or 0 for any free one.") from None
    raise AssertionError("unreachable: the last port returns or raises")


def _names(models: list[str]) -> list[str]:
    """What clients see: no folder of this machine, unless the names alone are the same."""
    short = [model if model.startswith("timm:") else Path(model).name for model in models]
    if len(set(short)) == len(short):
        return short
    return [f"{name} ({place})" for name, place in zip(short, ("first", "second"), strict=True)]


def _announce(host: str, port: int, console: Console) -> None:
    if not loopback(host):
        warning = Text("Warning:", "bold").append(
            f" bound to {display(host)}: everyone who can reach this machine can use the page. "
            "There is no password and no encryption.",
            "not bold",
        )
        console.print(warning)
    console.print(f"Open {display(_url(host, port))} (Ctrl-C stops)", highlight=False, markup=False, soft_wrap=True)
    console.file.flush()  # into a log it must come now, not when the server stops


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def _patient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which waits for ever for the rest of a request's head or of a refused body, with an end."""

    class Patient(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._waiting:
                self._waiting.cancel()

        def _watch(self) -> None:
            if (
                self.cycle is not None and not self.cycle.response_complete
            ):  # ours to answer; the body has its own limit
                if self._waiting:
                    self._waiting.cancel()
                    self._waiting = None
            elif self._waiting is None:
                self._waiting = self.loop.call_later(seconds, self.transport.close)

    return Patient
