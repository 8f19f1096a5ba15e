"""Reads the bytes of a picture from a request's raw body or from the field `image` of its form.

Bytes are counted as they arrive (Content-Length is not trusted) and never written to disk; file names are ignored.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from gapstone.serve.client_limits import ClientLimits, RequestRefused, busy, format_bytes

FIELD = "image"
FORM = "multipart/form-data"
DROP_LIMIT = 4  # times `ClientLimits.upload` are read and dropped of a refused body


class Uploads:
    """Reads bodies, and counts the memory of all of them."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[bytes]:
        """Return the bytes of a picture in an async context; they count as held until it ends.

        Raises:
            RequestRefused: 400 no picture, 408 too slow, 413 too large, 415 other content type, 503 no memory.
        """
        size = [0]
        try:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    data = await self._read(request, size)
            except TimeoutError:
                slow = f"The picture did not arrive within {self._limits.body_seconds:g} s."
                raise RequestRefused(408, slow, {"Connection": "close"}) from None
            except ClientDisconnect:
                raise RequestRefused(400, "The client went away while sending.") from None
            if not data:
                raise RequestRefused(400, "No picture came: it is empty.")
            yield data
        finally:
            self._held -= size[0]

    async def _read(self, request: Request, size: list[int]) -> bytes:
        body = _Body(request)
        try:
            form = _is_form(request)
            async with aclosing(self._counted(body, size)) as chunks:
                return await (_from_form(request, chunks, self._limits) if form else _read_all(chunks))
        except RequestRefused:
            # most clients read the response only after sending everything: receive the rest before closing
            dropped = 0
            async for chunk in body.chunks():
                dropped += len(chunk)
                if dropped > DROP_LIMIT * self._limits.upload:
                    break
            raise

    async def _counted(self, body: "_Body", size: list[int]) -> AsyncGenerator[bytes, None]:
        async for chunk in body.chunks():
            size[0] += len(chunk)
            self._held += len(chunk)
            if size[0] > self._limits.upload:
                raise RequestRefused(
                    413, f"The file is too large: at most {format_bytes(self._limits.upload)} are taken."
                )
            if self._held > self._limits.held:
                raise busy("many pictures are being sent to it")
            yield chunk


class _Body:
    """A request's body, which can be read in several loops."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._has_more = True

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        while self._has_more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._has_more = message.get("more_body", False)
            yield message.get("body", b"")


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM or kind == "application/octet-stream" or kind.startswith("image/"):
        return kind == FORM
    raise RequestRefused(
        415,
        f"Content-Type is {kind or 'missing'}: send a picture's bytes as image/jpeg, image/png, … or "
        f"application/octet-stream, or a form ({FORM}) with the picture in its field {FIELD!r}.",
    )


async def _read_all(body: AsyncGenerator[bytes, None]) -> bytes:
    data = bytearray()
    async for chunk in body:
        data += chunk
    return bytes(data)


async def _from_form(request: Request, body: AsyncGenerator[bytes, None], limits: ClientLimits) -> bytes:
    parser = MultiPartParser(request.headers, body, max_files=1, max_fields=8)
    parser.spool_max_size = limits.upload + 1  # larger parts would be written to a temporary file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestRefused(400, f"The form cannot be read: {error.message}") from None
    except (KeyError, ValueError) as error:  # no boundary, or an unknown charset
        raise RequestRefused(400, f"The form cannot be read: {error}") from None
    try:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise RequestRefused(400, f"The form has no file in its field {FIELD!r}; a picture is sent there.")
        return await file.read()
    finally:
        await form.close()
