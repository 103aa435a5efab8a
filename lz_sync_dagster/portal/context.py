"""What a request handler needs, and how it gets it: the lifespan puts one `Portal` into the state of every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.timing import Clock

if TYPE_CHECKING:
    from lz_sync_dagster.portal.board import BoardReader
    from lz_sync_dagster.portal.feed import Feed


@dataclass(frozen=True, slots=True)
class Portal:
    """One portal process."""

    app: FastAPI
    settings: Settings
    store: Store
    clock: Clock
    feed: Feed
    board: BoardReader


def portal_of(connection: HTTPConnection) -> Portal:
    """The portal that serves a request or WebSocket."""
    portal: Portal = connection.state.portal
    return portal


#: A parameter of this type receives the portal.
InPortal = Annotated[Portal, Depends(portal_of)]
