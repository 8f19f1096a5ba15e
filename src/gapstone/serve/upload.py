"""The bytes of one picture, from a request's raw body or from its form's field `image`; nothing else of it is used.

The body is counted as it comes (Content-Length is a claim) and is never written to a disk; a file name is not read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from gapstone.serve.client_limits import ClientLimits, RequestRefused, amount, busy

FIELD = "image"
FORM = "multipart/form-data"
PATIENCE = 4  # times the limit is read, and dropped, of a body that was refused


class Uploads:
    """Reads bodies, and counts what all of them take in memory."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[bytes]:
        """`async with uploads.picture(request) as data:` they count as held until the block ends.

        Raises Refused: 400 no picture, 408 too slow, 413 too large, 415 no image by its own account, 503 no room.
        """
        taken = [0]
        try:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    data = await self._read(request, taken)
            except TimeoutError:
                slow = f"The picture did not arrive within {self._limits.body_seconds:g} s."
                raise RequestRefused(408, slow, {"Connection": "close"}) from None
            except ClientDisconnect:
                raise RequestRefused(400, "The client went away while sending.") from None
            if not data:
                raise RequestRefused(400, "No picture came: it is empty.")
            yield data
        finally:
            self._held -= taken[0]

    async def _read(self, request: Request, taken: list[int]) -> bytes:
        body = _Body(request)
        try:
            form = _is_form(request)
            async with aclosing(self._counted(body, taken)) as chunks:
                return await (_from_form(request, chunks, self._limits) if form else _joined(chunks))
        except RequestRefused:
            # most clients listen only when they have sent all: a connection closed before that tells them nothing
            dropped = 0
            async for chunk in body.chunks():
                dropped += len(chunk)
                if dropped > PATIENCE * self._limits.upload:
                    break
            raise

    async def _counted(self, body: "_Body", taken: list[int]) -> AsyncGenerator[bytes, None]:
        async for chunk in body.chunks():
            taken[0] += len(chunk)
            self._held += len(chunk)
            if taken[0] > self._limits.upload:
                raise RequestRefused(413, f"The file is too large: at most {amount(self._limits.upload)} are taken.")
            if self._held > self._limits.held:
                raise busy("many pictures are being sent to it")
            yield chunk


class _Body:
    """A request's body, which can be left and taken up again, and ends only once."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._more = True

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        while self._more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._more = message.get("more_body", False)
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


async def _joined(body: AsyncGenerator[bytes, None]) -> bytes:
    data = bytearray()
    async for chunk in body:
        data += chunk
    return bytes(data)


async def _from_form(request: Request, body: AsyncGenerator[bytes, None], limits: ClientLimits) -> bytes:
    parser = MultiPartParser(request.headers, body, max_files=1, max_fields=8)
    parser.spool_max_size = limits.upload + 1  # above it, parts would go to a temporary file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestRefused(400, f"The form cannot be read: {error.message}") from None
    except (KeyError, ValueError) as error:  # no boundary, an unknown charset
        raise RequestRefused(400, f"The form cannot be read: {error}") from None
    try:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise RequestRefused(400, f"The form has no file in its field {FIELD!r}; a picture is sent there.")
        return await file.read()
    finally:
        await form.close()
