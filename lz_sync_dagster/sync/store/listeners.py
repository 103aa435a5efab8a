"""Which listener processes are alive. A row that is not renewed within `ALIVE_FOR` belongs to a process that died."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import listeners

#: A listener reports every two seconds, or later if a call hangs.
ALIVE_FOR = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener process. ``as_of``: up to when it handled everything that it was sent; ``None`` if never yet."""

    holder: str
    subscription: str
    connected: bool
    started_at: datetime
    seen_at: datetime
    as_of: datetime | None


def beat(connection: sa.Connection, listener: Listener) -> None:
    """Say that a listener is alive. The rows of those that died are removed on the way."""
    connection.execute(
        listeners.delete().where(
            sa.or_(listeners.c.holder == listener.holder, listeners.c.seen_at < listener.seen_at - ALIVE_FOR)
        )
    )
    connection.execute(
        listeners.insert().values(
            holder=listener.holder,
            subscription=listener.subscription,
            connected=listener.connected,
            started_at=listener.started_at,
            seen_at=listener.seen_at,
            as_of=listener.as_of,
        )
    )


def leave(connection: sa.Connection, holder: str) -> None:
    """Say that a listener ends."""
    connection.execute(listeners.delete().where(listeners.c.holder == holder))


def working(connection: sa.Connection, *, now: datetime, subscription: str | None = None) -> Listener | None:
    """The listener that is furthest ahead among those alive and connected (of one subscription), or ``None``."""
    query = sa.select(listeners).where(
        listeners.c.connected, listeners.c.seen_at >= now - ALIVE_FOR, listeners.c.as_of.is_not(None)
    )
    if subscription is not None:
        query = query.where(listeners.c.subscription == subscription)
    row = connection.execute(query.order_by(listeners.c.as_of.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return Listener(row.holder, row.subscription, row.connected, row.started_at, row.seen_at, row.as_of)


def last_sign(connection: sa.Connection) -> datetime | None:
    """When the last listener that did not say that it ends was heard of; ``None`` if there is none."""
    seen_at: datetime | None = connection.scalar(sa.select(sa.func.max(listeners.c.seen_at)))
    return seen_at
