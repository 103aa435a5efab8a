"""Reading the store for a page: in a worker thread, in time, and saying so if it cannot be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import anyio.to_thread
import sqlalchemy as sa
import structlog

from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.pages import elements
from lz_sync_dagster.portal.pages.elements import Frame

#: How long the store may take to answer before the page says that it does not.
READ_SECONDS = 5.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def from_store(portal: Portal, what: Callable[[sa.Connection, datetime], T]) -> T | None:
    """What a question finds at this moment; ``None`` if the store cannot be read in time."""
    now = portal.clock()

    def ask() -> T:
        with portal.store.read() as connection:
            return what(connection, now)

    try:
        async with asyncio.timeout(READ_SECONDS):
            return await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
    except Exception as error:
        log.warning("page_not_read", error=repr(error))
        return None


async def for_page(portal: Portal, frame: Frame, what: Callable[[sa.Connection, datetime], T]) -> T | None:
    """`from_store`, and the frame says when it was read, or in its banner that it cannot be."""
    now = portal.clock()
    found = await from_store(portal, what)
    if found is None:
        elements.put(frame.updated, "not read")
        frame.warn("The store cannot be read. Check that the database runs, and load the page again.")
        return None
    elements.put(frame.updated, f"Read {elements.instant(now)}")
    return found
