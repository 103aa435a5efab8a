"""The live feed: the event log, as it grows, over WebSocket and server-sent events.

One task per process tails the log and hands each new event, serialized once, to every client. A client first reads
what it missed from the log, page by page, and joins the tail without an await in between, so nothing is lost or sent
twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated

import orjson
import sqlalchemy as sa
import structlog
from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from lz_sync_dagster.portal.context import InPortal
from lz_sync_dagster.sync.store import Store, event_log
from lz_sync_dagster.sync.timing import Clock, format_ns, to_ns

POLL_SECONDS = 0.05
#: Pause after the store failed to answer.
RETRY_SECONDS = 1.0
PAGE = 500
#: Events that may wait for one client. A client that falls further behind is closed.
MAX_PENDING = 1000
#: How long a burst waits for clients to make room before it makes them slow ones.
GRACE_SECONDS = 0.25
PING_SECONDS = 15.0
#: How long one frame may take to leave before its client counts as slow.
SEND_SECONDS = 20.0
#: How long a slow client has to take its close frame.
CLOSE_SECONDS = 10.0
SLOW_CLIENT = 4408
GOING_AWAY = 1012
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 1011

log = structlog.get_logger(__name__)

SeqQuery = Annotated[
    int | None, Query(ge=0, description="Send what came after this `seq`; without it, only what comes from now on.")
]


@dataclass(frozen=True, slots=True)
class Message:
    """A frame, serialized. ``seq`` is the position it stands for, ``None`` for one that stands for none."""

    seq: int | None
    text: str


class SlowClient(Exception):
    """The client takes its frames slower than they come."""


class FeedClosed(Exception):
    """The portal is stopping."""


class FeedClient:
    """One listener. ``seq`` is the last event it was given."""

    def __init__(self, seq: int, *, max_pending: int) -> None:
        self.seq = seq
        self.slow = False
        self.closed = False
        self._max_pending = max_pending
        self._pending: deque[Message] = deque()
        self._wake = asyncio.Event()

    def offer(self, seq: int, message: Message) -> bool:
        """Queue an event, unless the client has it already. Returns ``False`` if that made the client a slow one."""
        if seq <= self.seq or self.slow:
            return True
        self._wake.set()
        if len(self._pending) >= self._max_pending:
            self._pending.clear()
            self.slow = True
            return False
        self.seq = seq
        self._pending.append(message)
        return True

    def has_room(self, count: int) -> bool:
        """Whether ``count`` more events fit in the queue. A client that was given up on needs none."""
        return self.slow or len(self._pending) + count <= self._max_pending

    def close(self) -> None:
        """Let the next `take` raise `FeedClosed`."""
        self.closed = True
        self._wake.set()

    async def take(self, patience: float) -> list[Message]:
        """What is queued, waiting at most ``patience`` seconds for something; empty if nothing came.

        Raises:
            SlowClient: the queue was full.
            FeedClosed: `close` was called.
        """
        if not self._pending and not self.slow and not self.closed:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._wake.wait()
        if self.closed:
            raise FeedClosed
        if self.slow:
            raise SlowClient
        taken = list(self._pending)
        self._pending.clear()
        return taken


class Feed:
    """Tails the log for every client of this process. Start it with `run` in a task."""

    def __init__(self, store: Store, clock: Clock, *, max_pending: int = MAX_PENDING) -> None:
        self._store = store
        self._clock = clock
        self._max_pending = max_pending
        self._clients: set[FeedClient] = set()
        self._joined = asyncio.Event()
        self._position = 0
        self._stopping = False
        self.slow_clients = 0

    @property
    def clients(self) -> int:
        """How many clients listen now."""
        return len(self._clients)

    def close(self) -> None:
        """Let every client go; new ones are let go at once."""
        self._stopping = True
        for client in self._clients:
            client.close()

    async def run(self) -> None:
        """Tail the log until cancelled. The log is not read while nobody listens."""
        while True:
            if not self._clients:
                self._joined.clear()
                await self._joined.wait()
                self._position = min((client.seq for client in self._clients), default=self._position)
            try:
                messages = await run_in_threadpool(self._read, self._position)
            except Exception as error:
                log.warning("feed_waits", error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            chunk = max(1, self._max_pending // 2)
            for first in range(0, len(messages), chunk):
                await self._broadcast(messages[first : first + chunk])
            if len(messages) < PAGE:
                await asyncio.sleep(POLL_SECONDS)

    async def _broadcast(self, messages: list[tuple[int, Message]]) -> None:
        """Offer messages to every client, once those that are still taking have room for them."""
        deadline = time.monotonic() + GRACE_SECONDS
        while any(not client.has_room(len(messages)) for client in self._clients) and time.monotonic() < deadline:
            await asyncio.sleep(GRACE_SECONDS / 50)
        for seq, message in messages:
            for client in self._clients:
                if not client.offer(seq, message):
                    self.slow_clients += 1
            self._position = seq

    async def listen(self, after: int | None) -> AsyncGenerator[list[Message], None]:
        """All that a client gets, in order: ``hello``, ``reset`` if it must reload, what it missed, then what happens.

        An empty list means that nothing came for a while and the client is due a `ping`.

        Raises:
            SlowClient: the client fell too far behind.
            FeedClosed: the portal is stopping.
        """
        current, oldest = await run_in_threadpool(self._bounds)
        resumes = after is not None and _is_kept(after, current, oldest)
        start = after if after is not None and resumes else current
        client = FeedClient(start, max_pending=self._max_pending)
        yield [self._control("hello", current, oldest, position=None if after is not None else current)]
        if after is not None and not resumes:
            yield [self._control("reset", current, oldest, position=current)]
        while True:
            page = await run_in_threadpool(self._read, client.seq)
            if page and page[0][0] != client.seq + 1:
                current, oldest = await run_in_threadpool(self._bounds)
                client.seq = current
                yield [self._control("reset", current, oldest, position=current)]
            elif page:
                client.seq = page[-1][0]
                yield [message for _, message in page]
            elif client.seq >= self._position:
                break
            else:
                await asyncio.sleep(POLL_SECONDS)
        self._clients.add(client)
        self._joined.set()
        if self._stopping:
            client.close()
        try:
            while True:
                yield await client.take(PING_SECONDS)
        finally:
            self._clients.discard(client)

    def ping(self) -> Message:
        """The frame that says that nothing happened and the feed lives."""
        return Message(None, orjson.dumps({"event_type": "ping", "timestamp": self._now()}).decode())

    def _control(self, event_type: str, current: int, oldest: int | None, *, position: int | None) -> Message:
        frame = {"event_type": event_type, "timestamp": self._now(), "seq": current, "oldest": oldest}
        return Message(position, orjson.dumps(frame).decode())

    def _now(self) -> str:
        return format_ns(to_ns(self._clock()))

    def _bounds(self) -> tuple[int, int | None]:
        with self._store.read() as connection:
            return event_log.last_seq(connection), event_log.oldest_seq(connection)

    def _read(self, after: int) -> list[tuple[int, Message]]:
        with self._store.read() as connection:
            if event_log.last_seq(connection) <= after:
                return []
            frames = event_log.after(connection, after, limit=PAGE)
        return [(frame.seq, Message(frame.seq, frame.model_dump_json())) for frame in frames]


def _is_kept(after: int, current: int, oldest: int | None) -> bool:
    if after == current:
        return True
    return after < current and oldest is not None and after >= oldest - 1


router = APIRouter(prefix="/api/v1/sync", tags=["feed"])


@router.websocket("/events")
async def events(websocket: WebSocket, portal: InPortal, after: SeqQuery = None) -> None:
    """The feed over a WebSocket: one JSON text per frame. A client that is too slow is closed with 4408."""
    await websocket.accept()
    gone = asyncio.create_task(_disconnected(websocket))
    sender = asyncio.create_task(_send_all(websocket, portal.feed, after))
    try:
        await asyncio.wait({gone, sender}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done() and (error := sender.exception()) is not None:
            await _close(websocket, portal.feed, error)
    finally:
        for task in (gone, sender):
            task.cancel()
        await asyncio.gather(gone, sender, return_exceptions=True)


async def _close(websocket: WebSocket, feed: Feed, error: BaseException) -> None:
    match error:
        case WebSocketDisconnect():
            return
        case SlowClient():
            code = SLOW_CLIENT
        case TimeoutError():
            code = SLOW_CLIENT
            feed.slow_clients += 1
        case FeedClosed():
            code = GOING_AWAY
        case sa.exc.SQLAlchemyError():
            code = TRY_AGAIN_LATER
        case _:
            code = INTERNAL_ERROR
            log.error("feed_client_failed", error=repr(error))
    with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(code)


async def _send_all(websocket: WebSocket, feed: Feed, after: int | None) -> None:
    async with aclosing(feed.listen(after)) as listening:
        async for messages in listening:
            for message in messages or [feed.ping()]:
                async with asyncio.timeout(SEND_SECONDS):
                    await websocket.send_text(message.text)


async def _disconnected(websocket: WebSocket) -> None:
    """Return once the client is gone. What it says is read and dropped."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


@router.get(
    "/events/stream",
    summary="The feed as server-sent events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "`data:` is a frame, `id:` its seq."}},
)
async def stream(
    portal: InPortal,
    after: SeqQuery = None,
    last_event_id: Annotated[int | None, Header(ge=0, description="What a browser sends to resume.")] = None,
) -> StreamingResponse:
    """The same frames as the WebSocket. `Last-Event-ID` wins over `after`. A slow client's stream ends; it resumes."""
    start = after if last_event_id is None else last_event_id
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_lines(portal.feed, start), media_type="text/event-stream", headers=headers)


async def _lines(feed: Feed, after: int | None) -> AsyncIterator[str]:
    with suppress(SlowClient, FeedClosed):
        async with aclosing(feed.listen(after)) as listening:
            async for messages in listening:
                for message in messages or [feed.ping()]:
                    identity = "" if message.seq is None else f"id: {message.seq}\n"
                    yield f"{identity}data: {message.text}\n\n"
