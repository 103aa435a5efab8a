"""Serves an application on this machine from a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute


class HttpServer:
    """A server at a port of 127.0.0.1, which is bound at once and answers after `start`.

    Attributes:
        url: ``http://127.0.0.1:PORT``.

    Args:
        name: of the thread.
        port: 0 takes a free one.
    """

    def __init__(self, name: str, port: int) -> None:
        self._name = name
        self._socket = socket.create_server(("127.0.0.1", port))
        # Connections inherit it: asyncio sets it only where it made the socket, and answers in two writes take 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self, routes: Sequence[BaseRoute]) -> None:
        """Answer from here on; returns when it listens."""
        self._server = _Listening(
            uvicorn.Config(
                Starlette(routes=routes),
                loop="asyncio",  # uvloop raises where a process has closed its standard input
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name=self._name, daemon=True
        )
        self._thread.start()
        self._server.listens.wait()

    def stop(self) -> None:
        """Stop answering; returns when the port is free."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


class _Listening(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.listens.set()
