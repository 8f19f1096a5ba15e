"""Who may ask, and what every answer says about itself: Host, Origin and strict headers, around the whole application.

A web page that a person visits can send requests to 127.0.0.1 from that person's browser. Two checks stop it: the
Host header must name this server (else a foreign name was rebound to 127.0.0.1), and a request that a page sends must
come from our own page (Origin, Sec-Fetch-Site). No answer carries a CORS header, so no other page can read one.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SCHEMA = 1
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "Cache-Control": "no-store",
}


def loopback(host: str) -> bool:
    """Does this address reach nobody but this machine?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """host: what the server is bound to."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.local = loopback(host)
        self.names = {"localhost"} if self.local else {"localhost", host.lower(), *_own_names()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal is not None:
            status, why = refusal
            await JSONResponse({"schema": SCHEMA, "error": why}, status)(scope, receive, strict)
        else:
            await self.app(scope, receive, strict)

    def _refusal(self, headers: Headers, method: str) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._named(hosts[0]):
            where = "127.0.0.1 or localhost" if self.local else "its IP address or this machine's own name"
            return 421, f"This server answers under {where} only."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        # a page that only links here (GET) is fine; nothing but our own page may send
        foreign = origin is not None and _place(origin) != hosts[0].lower()
        if foreign or (site not in ("none", "same-origin") and method not in ("GET", "HEAD")):
            return 403, "Another web page sent this request: only this server's own page may."
        return None

    def _named(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
        except ValueError:
            return False
        name = parts.hostname or ""
        if parts.netloc != host or "@" in host:
            return False
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # an address cannot be rebound; only names can
        return address.is_loopback or not self.local


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # "http://["
        return None
