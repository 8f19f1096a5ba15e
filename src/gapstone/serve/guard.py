"""Checks Host and Origin of every request, and adds security headers to every response.

Any web page can send requests to 127.0.0.1 from the browser of its visitor. Two checks prevent that: the Host header
must name this server (otherwise a foreign name was rebound to 127.0.0.1), and requests of a page must come from the
server's own page (Origin, Sec-Fetch-Site). No response has a CORS header, so other pages cannot read responses.
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
    """Tell whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware; `host` is the address of the server."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.local = loopback(host)
        self.names = {"localhost"} if self.local else {"localhost", host.lower(), *_machine_names()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal is not None:
            status, reason = refusal
            await JSONResponse({"schema": SCHEMA, "error": reason}, status)(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, method: str) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own_name(hosts[0]):
            names = "127.0.0.1 or localhost" if self.local else "its IP address or this machine's own name"
            return 421, f"This server answers under {names} only."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        # other pages may link here (GET), but only the server's own page may send
        foreign = origin is not None and _network_location(origin) != hosts[0].lower()
        if foreign or (site not in ("none", "same-origin") and method not in ("GET", "HEAD")):
            return 403, "Another web page sent this request: only this server's own page may."
        return None

    def _is_own_name(self, host: str) -> bool:
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
        # names can be rebound, addresses cannot
        return address.is_loopback or not self.local


def _machine_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}


def _network_location(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # "http://["
        return None
