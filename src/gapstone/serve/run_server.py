"""Runs the server: binds the address, loads the models, serves until Ctrl-C."""

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
    import python_multipart  # noqa: F401  starlette imports it only for the first form
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from gapstone.serve.app import application
    from gapstone.serve.explain_json_api import Explainer
    from gapstone.serve.guard import loopback
except ImportError as error:
    raise ImportError(f"gapstone serve needs pip install 'gapstone[serve]' (here: {error})") from error

PORT = 8765
TRIED = 20  # ports that are tried without --port


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

    Models and weights are as `open_model` takes them. Without a port it is 8765, or the next free one.

    Raises:
        ValueError: If there are no or more than two models, or a file is not a model.
        OSError: If the address cannot be bound.
    """
    console = console or Terminal()
    limits = limits or ClientLimits()
    if not 1 <= len(models) <= 2:
        raise ValueError(f"serve takes one model, or two to compare; {len(models)} were given.")
    if weights is not None and sum(map(takes_weights, models)) != 1:
        raise ValueError(f"--weights {weights} goes with exactly one network's name; given: {' and '.join(models)}.")
    listening = _bind(host, port)  # first, so that a used port is reported before loading takes seconds
    with contextlib.closing(listening):
        torch_device = pick_device(device)
        names = _names(models)
        with Bars(Terminal(stderr=True), idle="Starting the server") as bars:
            explainers = [
                _explainer(model, name, weights, torch_device, bars) for model, name in zip(models, names, strict=True)
            ]
        config = uvicorn.Config(
            application(explainers, limits, host, lambda: _announce(host, listening.getsockname()[1], console)),
            http=_protocol_with_timeout(limits.head_seconds),
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        # uvicorn handles signals during the run and raises KeyboardInterrupt again after it has stopped
        with contextlib.suppress(KeyboardInterrupt), stoppable("Stopped."):
            uvicorn.Server(config).run(sockets=[listening])
        console.print("Stopped.")


def _explainer(model: str, name: str, weights: Path | None, device: str, bars: Bars) -> Explainer:
    with bars.during(f"Opening {model}"):
        return Explainer(open_model(model, weights if takes_weights(model) else None, device), name)


def _bind(host: str, port: int | None) -> socket.socket:
    """Return a listening socket. Raise OSError with address, reason and advice if it cannot be bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise OSError(f"--host {host}: no address of that name ({error.strerror}).") from None
    ports = range(PORT, PORT + TRIED) if port is None else [port]
    for number in ports:
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":  # a port that was just closed can be used; on Windows two servers could share it
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address[0], number))
            listening.listen(128)  # two servers can bind, only one can listen
            return listening
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE and number != ports[-1]:
                continue
            reasons = {errno.EADDRINUSE: "taken by another program", errno.EACCES: "not allowed: take 1024 or above"}
            reason = reasons.get(error.errno or 0, error.strerror or str(error))
            tried = f"--port {number}" if port is not None else f"ports {ports[0]} to {ports[-1]}"
            raise OSError(f"{tried} on {host}: {reason}. Choose another --port, or 0 for any free one.") from None
    raise AssertionError("unreachable: the last port returns or raises")


def _names(models: list[str]) -> list[str]:
    """Return the names that clients see, without folders of this machine."""
    short = [model if model.startswith(("timm:", "hf:")) else Path(model).name for model in models]
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
    console.file.flush()  # in a log the address must appear now, not when the server stops


def _url(host: str, port: int) -> str:
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{address}:{port}/"


def _protocol_with_timeout(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a timeout for the rest of a request's head or of a refused body."""

    class TimeoutProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._set_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._set_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._timer:
                self._timer.cancel()

        def _set_timer(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:  # the application has its own limits
                if self._timer:
                    self._timer.cancel()
                    self._timer = None
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)

    return TimeoutProtocol
