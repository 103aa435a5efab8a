"""Runs the portal with uvicorn."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lz_sync_dagster.config import Settings
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.timing import Clock, utcnow

#: How long open requests may take to end when the portal stops.
SHUTDOWN_SECONDS = 3
#: How long the other side may leave sent bytes unconfirmed before the connection is dropped.
STALLED_MS = 60_000


class PortalServer(uvicorn.Server):
    """A uvicorn server that says when it listens, and lets the feed's clients go before it waits for requests."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self._listens = listens

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server in order, so that the caller goes on; the second one at once."""
        if self.should_exit:
            super().handle_exit(sig, frame)
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listens()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            portal: Portal = app.state.portal
            portal.feed.close()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound to ``host`` and ``port`` (0: a free one).

    Raises:
        SyncError: the address cannot be bound.
    """
    with contextlib.suppress(ValueError):
        host = str(ipaddress.ip_address(host.strip("[]")))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise SyncError(
            f"cannot be bound: {error.strerror or error}",
            where=f"{host}:{port}",
            remedy="stop what uses the address, or choose another one (port 0: a free one)",
            reason=Reason.CONFLICT,
            transient=False,
        ) from error
    return bound


def server_for(app: FastAPI, listens: Callable[[], None] = lambda: None) -> PortalServer:
    """The server of an application, for ``run(sockets=[bind(…)])``. ``listens`` is called once it takes connections."""
    return PortalServer(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws_per_message_deflate=False,
            ws_max_size=1024 * 1024,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ),
        listens,
    )


def serve(
    settings: Settings,
    store: Store,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    clock: Clock = utcnow,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    Args:
        port: 0 takes a free one.
        announce: is given the address (``http://host:port``) once the portal listens; by default stdout is.

    Raises:
        SyncError: the address cannot be bound.
    """
    with bind(host, port) as listener:
        bound_host, bound_port = listener.getsockname()[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        address = f"http://{shown}:{bound_port}"
        app = create_app(settings, store, clock=clock)
        server_for(app, lambda: (announce or _write)(address)).run(sockets=[listener])


def _write(address: str) -> None:
    sys.stdout.write(f"portal listens on {address}\n")
    sys.stdout.flush()
