"""What every request passes first (body size, the origin of a WebSocket), and the headers that every response carries.

NiceGUI compiles its templates in the browser, so pages need ``'unsafe-eval'`` for scripts, and Quasar sets inline
styles. Inline scripts run only with the nonce of the response.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from lz_sync_dagster.portal.problems import problem

#: Bytes that a request may carry, unless its path has a limit of its own.
MAX_BODY_BYTES = 1024 * 1024

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def page_policy(nonce: str) -> str:
    """The Content-Security-Policy of a page whose inline scripts carry ``nonce``."""
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )


#: Where the pages talk to the server, by WebSocket or, as a fallback, by polling.
_PAGE_SOCKET = "/_nicegui_ws/"


class SecurityMiddleware:
    """See the module. ``body_limits`` maps a path to its own limit in bytes."""

    def __init__(self, app: ASGIApp, *, body_limits: Mapping[str, int]) -> None:
        self.app = app
        self.body_limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_foreign(Headers(scope=scope)):
            websocket = WebSocket(scope, receive, send)
            await receive()
            refusal = problem(websocket, 403, "a WebSocket is open to pages of this host only")
            await websocket.send_denial_response(refusal)
            return
        await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(_PAGE_SOCKET) and is_foreign(Headers(scope=scope)):
            refusal = problem(Request(scope), 403, "the pages' connection is open to pages of this host only")
            await refusal(scope, receive, send)
            return
        limit = self.body_limits.get(scope["path"], MAX_BODY_BYTES)
        respond = _Responder(send)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            await too_large(scope, limit)(scope, receive, respond)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        await self.app(scope, counted, respond)


def is_foreign(headers: Headers) -> bool:
    """Whether a browser says that a page of another host opens this connection. Other clients say nothing."""
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc not in {headers.get("host"), headers.get("x-forwarded-host")}


def too_large(scope: Scope, limit: int) -> ASGIApp:
    """The answer to a body that is announced as larger than ``limit`` bytes."""
    connection: HTTPConnection = Request(scope)
    return problem(connection, 413, _too_large(limit), headers={"Connection": "close"})


def _too_large(limit: int) -> str:
    return f"the body is larger than the {limit} bytes that are taken here"


class _Responder:
    """Adds the headers; holds a page back until it is whole, to put the nonce into its scripts."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._page: Message | None = None
        self._nonce = ""
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if "x-nicegui-content" in headers:
                self._nonce = secrets.token_urlsafe(18)
                headers["Content-Security-Policy"] = page_policy(self._nonce)
                self._page = message
                return
            headers.setdefault("Content-Security-Policy", _DATA_POLICY)
            if not headers.get("cache-control"):
                headers["Cache-Control"] = "no-store"
        elif self._page is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            body = bytes(self._body).replace(b"<script", f'<script nonce="{self._nonce}"'.encode())
            MutableHeaders(scope=self._page)["Content-Length"] = str(len(body))
            await self._send(self._page)
            await self._send({"type": "http.response.body", "body": body})
            return
        await self._send(message)
