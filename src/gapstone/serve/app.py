"""The ASGI application: the page, /api/models and /api/explain.

POST /api/explain   body → picture (a worker process) → each model (one thread) → JSON
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gapstone.images.load import ImageError
from gapstone.serve.client_limits import ClientLimits, RequestRefused, busy
from gapstone.serve.explain_json_api import Explainer, response_document
from gapstone.serve.guard import SCHEMA, Guard
from gapstone.serve.picture_readers import Readers
from gapstone.serve.read_picture import UploadedPicture
from gapstone.serve.upload import Uploads

PAGE = {
    "index.html": "text/html",
    "base.css": "text/css",
    "style.css": "text/css",
    "script.js": "text/javascript",
    "answer.js": "text/javascript",
    "maps.js": "text/javascript",
    "figure.js": "text/javascript",
    "save.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
READERS = 2  # processes: reading a photo takes longer than the network; more would take cores from the network


class Service:
    """The state that the routes share: models, reader processes and the number of waiting pictures."""

    def __init__(self, models: Sequence[Explainer], limits: ClientLimits, ready: Callable[[], None]) -> None:
        self.models = models
        self.limits = limits
        self.uploads = Uploads(limits)
        self.readers = Readers([model.opened.preprocessing for model in models], limits, READERS)
        self._network = ThreadPoolExecutor(1, "gapstone-network")  # one thread: torch uses all cores for one picture
        self._jobs = 0
        self._ready = ready

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Start the readers, and stop them at the end."""
        await asyncio.to_thread(self.readers.start)
        self._ready()
        try:
            yield
        finally:
            self._network.shutdown(cancel_futures=True)
            await asyncio.to_thread(self.readers.stop)

    async def index(self, request: Request) -> Response:
        """Answer GET /api/models."""
        return _json(
            {"schema": SCHEMA, "models": [model.about() for model in self.models], "limits": asdict(self.limits)}
        )

    async def explain(self, request: Request) -> Response:
        """Answer POST /api/explain[?preview=1]."""
        preview = _flag(request, "preview")
        began = time.perf_counter()
        async with self.uploads.picture(request) as data:
            if self._jobs >= self.limits.jobs:
                raise busy(f"{self._jobs} pictures are waiting")
            self._jobs += 1
            try:
                received = time.perf_counter()
                try:
                    picture = await self.readers.read(data, preview)
                except ImageError as error:
                    raise RequestRefused(422, f"This picture cannot be read: {error}.") from None
                read = time.perf_counter()
                loop = asyncio.get_running_loop()
                try:
                    models = await loop.run_in_executor(self._network, self._explain, picture)
                except ValueError as error:
                    raise RequestRefused(500, str(error)) from error
            finally:
                self._jobs -= 1
        seconds = {"upload": received - began, "read": read - received, "network": time.perf_counter() - read}
        return _json(response_document(picture, models, seconds))

    def _explain(self, picture: UploadedPicture) -> list[dict[str, Any]]:
        return [model.document(number, picture) for number, model in enumerate(self.models)]


def application(
    models: Sequence[Explainer], limits: ClientLimits, host: str, ready: Callable[[], None] = lambda: None
) -> ASGIApp:
    """Return the application. `host` determines the Host headers that it accepts; `ready` is called when it answers."""
    service = Service(models, limits, ready)
    page = [
        Route("/" if name == "index.html" else f"/{name}", _static(name, kind), methods=["GET"])
        for name, kind in PAGE.items()
    ]
    app = Starlette(
        routes=[
            *page,
            Route("/api/models", service.index, methods=["GET"]),
            Route("/api/explain", service.explain, methods=["POST"]),
        ],
        exception_handlers={RequestRefused: _refused, HTTPException: _no_route, Exception: _bug},
        lifespan=service.lifespan,
    )
    return Guard(app, host)  # outermost, so that responses to errors have its headers, too


def _static(name: str, kind: str) -> Any:
    folder = files("gapstone.console") / "templates" if name == "base.css" else files("gapstone.serve") / "page"
    content = (folder / name).read_bytes()  # served from memory: a client cannot choose a path

    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "0")
    if value not in ("0", "1"):
        raise RequestRefused(400, f"?{name}={value[:20]}: 0 or 1 is expected.")
    return value == "1"


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return _json({"schema": SCHEMA, "error": str(error)}, error.status, error.headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "There is nothing under this address.", 405: "This address does not take this method."}
    message = messages.get(error.status_code, error.detail)
    return _json({"schema": SCHEMA, "error": message}, error.status_code, dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    message = "The server failed at this picture; the reason is in its terminal."
    return _json({"schema": SCHEMA, "error": message}, 500)


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "backslashreplace"), status, headers, "application/json")
