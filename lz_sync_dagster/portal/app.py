"""Puts the portal together: API, webhooks, feed, health, pages. It keeps no state of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from lz_sync_dagster import __version__
from lz_sync_dagster.config import Settings
from lz_sync_dagster.portal import (
    api,
    drift_api,
    feed,
    feed_freshness_api,
    health,
    inventory_api,
    operations_api,
    problems,
    quota_api,
    repository_api,
    webhooks,
)
from lz_sync_dagster.portal.answers import only_known_parameters
from lz_sync_dagster.portal.board import BoardReader
from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.feed import MAX_PENDING, Feed
from lz_sync_dagster.portal.security import SecurityMiddleware
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.timing import Clock, utcnow

_DESCRIPTION = """
What is known of the landing zone, how old it is, and what is missing. Every answer carries `as_of`, `source` and
`coverage`; what is not known is `null` or `unknown`, never 0. Errors are `application/problem+json`. Lists are paged:
pass `next_cursor` as `cursor`.

The live feed is the WebSocket `/api/v1/sync/events?after=SEQ`: one JSON frame per text message,
`{"seq", "event_type", "timestamp", "layer", "resource", "data"}`, without gaps in `seq`. Three control frames have
no `layer`: `hello` comes first (`seq` is the newest event, `oldest` the oldest one that is kept), `reset` says that
events between `after` and now are gone (reload the state and go on from its `seq`), `ping` that the feed lives. A
client that is too slow is closed with 4408 and resumes with `after`. `/api/v1/sync/events/stream` sends the same as
server-sent events, with `Last-Event-ID`.
"""


def create_app(
    settings: Settings,
    store: Store,
    *,
    clock: Clock = utcnow,
    pages: bool = True,
    max_pending: int = MAX_PENDING,
) -> FastAPI:
    """The portal as an ASGI application.

    Args:
        pages: whether the pages are mounted. They belong to the process: one application with pages per process.
        max_pending: events that may wait for one client of the feed.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Portal]]:
        tail = asyncio.create_task(portal.feed.run(), name="feed")
        try:
            yield {"portal": portal}
        finally:
            portal.feed.close()
            tail.cancel()
            with suppress(asyncio.CancelledError):
                await tail

    app = FastAPI(
        title="LZ Sync",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    portal = Portal(
        app=app,
        settings=settings,
        store=store,
        clock=clock,
        feed=Feed(store, clock, max_pending=max_pending),
        board=BoardReader(settings, store, clock),
    )
    app.state.portal = portal
    for part in (
        api,
        quota_api,
        operations_api,
        feed_freshness_api,
        repository_api,
        drift_api,
        inventory_api,
        feed,
        webhooks,
        health,
    ):
        app.include_router(part.router, dependencies=[Depends(only_known_parameters)])
    problems.install(app)
    if pages:
        from lz_sync_dagster.portal.pages import mount

        mount(app)
    app.add_middleware(SecurityMiddleware, body_limits={webhooks.PATH: settings.sync_layers.webhook.max_body_bytes})
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    return app
